"""How much verification error each quality warning flags, and where its limit belongs.

    python -m benchmarks.questions.quality RECOGNISER.onnx [RECOGNISER.onnx …] --lfw FOLDER --output FILE.json
    python -m benchmarks.lib.quality_plot FILE.json PLOT.png

Pictures are spoilt in known ways and to any degree (`spoilt.py`), aligned by the package's landmark regressor as the
service does it, embedded, and compared with the untouched pictures of the same and of other people. Limits are chosen
on the validation people, errors are reported of the test people; the regressor was trained on neither. Only the limits
of the head pose come from the training people, of whom there are most: LFW has few turned heads.

`chosen` in the result is what the rule in `choose` says, `limits` is what the code has: round the one into the other,
and run this again. Takes about 20 minutes on two CPUs, with two recognisers of 10 to 20 ms a face.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import Crop, Image, InputSpec, to_tensor
from arcface_api.face.geometry import align
from arcface_api.face.landmarks import Landmarks, regressor
from arcface_api.face.quality import QualityWarning, face_shape, picture_quality
from arcface_api.image import stretch
from benchmarks.lib import machine, options
from benchmarks.lib import quality_report as report
from benchmarks.lib.quality_errors import Measured
from benchmarks.lib.spoilt import NEVER_ALIGNED, WAYS, spoil
from training.landmarks.check_set import check_set
from training.landmarks.faces import Face, face_size, read_faces
from training.landmarks.finding import Run, find, load

RECOGNISER_INPUT = InputSpec(None, 112, 112, 127.5, 127.5)
PER_PERSON = 8
"""Pictures of a person at most: some have hundreds."""
TURNS = {"validation": 4, "test": 2}
"""How often each picture is spoilt in each way, each time to another degree."""
BATCH = 16
SEED = 7


@dataclass(frozen=True)
class Models:
    """What is run."""

    regressor: Run
    recognisers: dict[str, Run]


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("recognisers", type=Path, nargs="+", metavar="RECOGNISER.onnx")
    parser.add_argument("--lfw", type=Path, required=True, metavar="FOLDER", help="images.tar and labels.csv")
    parser.add_argument("--regressor", type=Path, help="another landmark regressor than the package's")
    parser.add_argument("--turns", type=int, help="spoil each picture so often in each way (default: 4 and 2)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    chosen_regressor = arguments.regressor.read_bytes() if arguments.regressor else regressor()
    models = Models(load(chosen_regressor), {path.stem: load(path) for path in arguments.recognisers})
    parts = {part: few_per_person(read_faces(arguments.lfw, (part,))) for part in ("train", "validation", "test")}
    heads = measure(of_several(parts["train"]), models, ["clean"], 1, "train")
    measured = {
        part: measure(parts[part], models, list(WAYS), arguments.turns or turns, part) for part, turns in TURNS.items()
    }
    non_faces = [image for images in check_set(SEED).values() for image in images]
    progress("")
    result = {
        "benchmark": "quality",
        "recognisers": list(models.recognisers),
        "regressor_sha256": hashlib.sha256(chosen_regressor).hexdigest(),
        "people": {part: len({face.name.split("/")[0] for face in faces}) for part, faces in parts.items()},
        "limits": report.limits(),
        "chosen": report.choose(measured["validation"], heads),
        **report.tables(measured["test"], heads),
        "non_faces": of_non_faces(models.regressor, non_faces),
        "machine": machine.describe(),
    }
    report.print_tables(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def few_per_person(faces: Sequence[Face]) -> list[Face]:
    """At most `PER_PERSON` pictures of each person, drawn once and for all."""
    rng = np.random.default_rng(SEED)
    return [
        pictures[number]
        for pictures in by_person(faces)
        for number in sorted(rng.permutation(len(pictures))[:PER_PERSON])
    ]


def of_several(faces: Sequence[Face]) -> list[Face]:
    """The faces of those people of whom there is more than one."""
    return [face for pictures in by_person(faces) if len(pictures) > 1 for face in pictures]


def by_person(faces: Sequence[Face]) -> list[list[Face]]:
    """Each person's faces."""
    people: dict[str, list[Face]] = defaultdict(list)
    for face in faces:
        people[face.name.split("/")[0]].append(face)
    return list(people.values())


def measure(faces: Sequence[Face], models: Models, ways: Sequence[str], turns: int, label: str) -> Measured:
    """Every face as it is, and the faces of people with several pictures spoilt in every way, `turns` times each."""
    parts = []
    for way in ways:
        for turn in range(1 if way == "clean" else turns):
            progress(f"{label}: {way}, {turn + 1} of {turns}")
            parts.append(measure_way(faces if way == "clean" else of_several(faces), models, way, turn))
    return Measured(**{key.name: _joined([getattr(part, key.name) for part in parts]) for key in fields(Measured)})


def measure_way(faces: Sequence[Face], models: Models, way: str, turn: int) -> Measured:
    """One crop of each face."""
    made = [spoil(face, way, turn) for face in faces]
    found = [second for _, second in find(models.regressor, [spoilt.image for spoilt in made])]
    crops, rows = [], []
    for spoilt, landmarks in zip(made, found, strict=True):
        is_aligned = landmarks.are_sure and way not in NEVER_ALIGNED
        image, points, weights = spoilt.image, landmarks.points, landmarks.weights
        crops.append(align(image, points, 112, weights=weights) if is_aligned else stretch(image, 112, 112))
        error = np.average(np.linalg.norm(points - spoilt.points, axis=1), weights=weights) / face_size(spoilt.points)
        rows.append(_row(image, crops[-1], landmarks) | {"is_aligned": is_aligned, "landmark_error": error})
    features = {name: embed(run, crops) for name, run in models.recognisers.items()}
    norms = {name: np.linalg.norm(found, axis=1) for name, found in features.items()}
    return Measured(
        way=np.full(len(faces), way),
        name=np.array([face.name for face in faces]),
        person=np.array([face.name.split("/")[0] for face in faces]),
        values={key: np.array([row[key] for row in rows]) for key in rows[0]},
        embeddings={name: found / norms[name][:, None] for name, found in features.items()},
        norms=norms,
    )


def _row(image: Image, crop: Crop, landmarks: Landmarks) -> dict[str, float | bool]:
    """All numbers of one picture, by name; the warnings by their codes."""
    quality = picture_quality(image, crop, landmarks)
    shape = face_shape(landmarks.points)
    assert shape is not None
    return {
        "face_size_px": quality.face_size_px,
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "contrast": quality.contrast,
        "landmark_confidence": quality.landmark_confidence,
        "picture_aspect": image.shape[1] / image.shape[0],
        "face_aspect": shape.aspect,
        "turn": shape.turn,
        "nod": shape.nod,
        "eyes_hidden": landmarks.eyes_hidden,
        "lower_face_hidden": landmarks.lower_face_hidden,
        **{str(warning): warning in quality.warnings for warning in QualityWarning},
    }


def embed(run: Run, crops: Sequence[Crop]) -> NDArray[np.float32]:
    """Raw embeddings, (n, dim)."""
    starts = range(0, len(crops), BATCH)
    return np.concatenate([run(to_tensor(crops[start : start + BATCH], RECOGNISER_INPUT)) for start in starts])


def of_non_faces(run: Run, images: Sequence[Image]) -> dict[str, Any]:
    """How many pictures without a face are classified as such."""
    found = [landmarks for _, landmarks in find(run, images)]
    warnings = [
        picture_quality(image, stretch(image, 112, 112), landmarks).warnings
        for image, landmarks in zip(images, found, strict=True)
    ]
    counted = (QualityWarning.NO_FACE, QualityWarning.LANDMARKS_UNSURE)
    return {"pictures": len(images)} | {
        f"{code}_percent": round(100 * float(np.mean([code in figures for figures in warnings])), 2) for code in counted
    }


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)


def progress(line: str) -> None:
    """Overwrite the line that says what is being done."""
    sys.stderr.write(f"\r\x1b[K{line}")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
