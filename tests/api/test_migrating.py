"""Promises of `docs/migrating.md`: which vectors stay the same, and that its scripts do what the page says.

`get_feat` of whole crops is compared in test_embed.py, the aligned pixels in test_alignment.py.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from insightface.app.common import Face
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from numpy.typing import NDArray
from PIL import Image as Pillow
from test_align_route import POINTS, loose_portrait, png

from benchmarks.questions import deepface_feed, migrating
from conftest import LFW
from pictures import aligned_by_reference, picture_bytes
from serving import Service
from tiny_models import pixel_model

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text("utf-8")


def block(word: str) -> str:
    """The page's Python that has this word in it."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return next(code for code in blocks if word in code)


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


# ── InsightFace's package ──────────────────────────────────────────────────────────────────────────────────────────


def test_photo_with_landmarks_and_aligned_crop_give_the_vectors_of_face_analysis(
    run_service: Callable[..., Service], real_recogniser: Path
) -> None:
    if not (LFW / "images.tar").is_file():
        pytest.skip(f"needs {LFW}: real faces are not part of this project (set ARCFACE_TEST_LFW)")
    service, reference = run_service(real_recogniser), ArcFaceONNX(str(real_recogniser))
    for photo in migrating.photos(LFW, 20):
        aligned = aligned_by_reference(photo.pixels, photo.landmarks)
        face = Face(embedding=reference.get_feat(aligned)[0])
        form = {"landmarks": json.dumps(photo.landmarks.tolist())}
        for content, data, align in [(migrating.png(aligned), {}, "none"), (photo.content, form, "landmarks")]:
            raw, unit = (
                service.post("/embed", params={"align": align, "normalize": flag}, files={"file": content}, data=data)
                for flag in (False, True)
            )
            assert cosine(np.array(raw.json()["embedding"]), face.embedding) > 0.999999
            np.testing.assert_allclose(unit.json()["embedding"], face.normed_embedding, atol=2e-4)
            assert float(raw.headers["x-embedding-norm"]) == pytest.approx(face.embedding_norm, rel=1e-3)


# ── the script that checks a stored vector ─────────────────────────────────────────────────────────────────────────


def run_check(service: Service, folder: Path, code: str) -> list[str]:
    """What the page's script prints about `face.npy`, the best line first."""
    assert "http://localhost:5555/" in code
    code = code.replace("http://localhost:5555/", f"{service.base_url}/")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines(), key=lambda line: -float(line.split()[0]))


def save(folder: Path, picture: bytes, vector: Any) -> None:
    (folder / "face.jpg").write_bytes(picture)
    np.save(folder / "face.npy", vector)


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("options", [{"align": "none"}, {"fit": "letterbox"}, {"flip": True}, {"align": "auto"}])
def test_script_names_the_way_in_which_a_vector_was_made(
    run_service: Callable[..., Service], tmp_path: Path, options: dict[str, Any], exchanged: bool
) -> None:
    onnx.save(pixel_model(112, 512), tmp_path / "pixels.onnx")  # every way gives other numbers
    service = run_service(tmp_path / "pixels.onnx")
    # A face, so that `auto` differs from `none`. The portrait is grey.
    picture = png((loose_portrait() * np.array([1, 0.7, 0.5])).astype(np.uint8))
    seen = BytesIO()
    colours = Pillow.open(BytesIO(picture)).split()
    Pillow.merge("RGB", colours[::-1] if exchanged else colours).save(seen, "PNG")
    answer = service.post("/embed", params=options, files={"file": seen.getvalue()})
    save(tmp_path, picture, [answer.json()["embedding"]])  # a row, as `get_feat` returns it
    best, second, *_ = run_check(service, tmp_path, block("stored = "))
    assert best.startswith("1.0000")
    assert best.endswith("red and blue exchanged") == exchanged
    assert str({"align": "none"} | options) in best
    assert not second.startswith("1.0000")


def test_script_takes_the_landmarks_of_a_photo(service: Service, tmp_path: Path) -> None:
    picture = picture_bytes("PNG", (90, 120))
    form = {"landmarks": json.dumps(POINTS)}
    answer = service.post("/embed", params={"align": "landmarks"}, files={"file": picture}, data=form)
    save(tmp_path, picture, answer.json()["embedding"])
    code = block("stored = ").replace("landmarks = None", f"landmarks = {POINTS}")
    assert run_check(service, tmp_path, code)[0] == "1.0000 {'align': 'landmarks'}"


def test_script_says_that_a_vector_of_another_length_is_another_model_s(service: Service, tmp_path: Path) -> None:
    save(tmp_path, picture_bytes(), np.ones(128))
    with pytest.raises(AssertionError, match=r"Another model: it returns 512 numbers, and you have 128\."):
        run_check(service, tmp_path, block("stored = "))


# ── CompreFace, deepface ───────────────────────────────────────────────────────────────────────────────────────────


def test_similarity_of_compreface_becomes_the_cosine_that_it_stands_for() -> None:
    """Its issue 1091 has a pair at distance 0.7619 with the similarity 98.838 %, by FaceNet."""
    found: dict[str, Any] = {}
    exec(block("atanh"), found)  # the page's own code
    assert found["cosine"](0.98838, 1.1817961, 5.291995557) == pytest.approx(1 - 0.7619**2 / 2, abs=1e-4)
    constants = [tuple(map(float, pair)) for pair in re.findall(r"cosine\(0\.9, ([\d.]+), ([\d.]+)\)", PAGE)]
    rows = re.findall(r"\| (0\.\d{3}) \| (0\.\d{3}) \| (0\.\d{3}) \| (0\.\d{3}) \|$", PAGE, re.MULTILINE)
    assert len(rows) == len(constants) == 3
    for row, pair in zip(rows, constants, strict=True):
        shown = [f"{found['cosine'](similarity, *pair):.3f}" for similarity in (0.5, 0.9, 0.95, 0.99)]
        assert list(row) == shown


@pytest.mark.parametrize(("height", "width"), [(112, 112), (150, 120), (300, 411), (61, 40), (95, 113)])
def test_crop_is_resized_as_was_compared_with_deepface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    face = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("face.png", face)
    exec(block("cv2.resize").replace("face.jpg", "face.png"), {})  # the page's own code
    crop = cv2.imread("crop.png")
    assert crop is not None
    assert crop.shape == (112, 112, 3)
    assert np.array_equal(crop, deepface_feed.resized(face))
