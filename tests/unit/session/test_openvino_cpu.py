"""Promises of `session/openvino_cpu.py`: the precision asked for, the same vector in every batch, no telemetry."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from arcface_api.arrays import Crop, Features, InputSpec
from arcface_api.errors import ModelFailed
from arcface_api.image import ImageLimits, decode, stretch
from arcface_api.session import Cache, ModelContent, open_reference
from arcface_api.session.openvino_cpu import OpenVinoSession
from conftest import FaceCrop, needs_bfloat16
from session.conftest import model_content, random_crops
from tiny_models import linear_model

pytestmark = pytest.mark.usefixtures("with_openvino")

SIZES = (1, 2, 4, 8)


def faces(face_crops: list[FaceCrop]) -> list[Crop]:
    """64 real crops at the recogniser's size."""
    limits = ImageLimits(max_pixels=10**7)
    crops = [stretch(decode(face.content, limits).image, 112, 112) for face in face_crops]
    return [*crops, *(np.ascontiguousarray(crop[:, ::-1]) for crop in crops)][:64]


def cosines(a: Features, b: Features) -> Features:
    product: Features = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return product


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_vector_of_a_real_crop_is_the_same_bits_in_any_batch(
    real_recogniser: Path, face_crops: list[FaceCrop], cache: Cache, precision: str
) -> None:
    crops = faces(face_crops)
    session = OpenVinoSession(model_content(real_recogniser.read_bytes()), precision, 2, SIZES, cache)
    assert session.precision == precision
    alone = np.concatenate([session.run([crop]) for crop in crops])
    random = np.random.default_rng(0)
    order, at = random.permutation(len(crops)), 0
    while at < len(crops):
        chosen = order[at : at + int(random.choice(SIZES))]
        np.testing.assert_array_equal(session.run([crops[index] for index in chosen]), alone[chosen])
        at += len(chosen)


def test_float32_is_the_reference_s_float32(real_recogniser: Path, face_crops: list[FaceCrop], cache: Cache) -> None:
    model, crops = model_content(real_recogniser.read_bytes()), faces(face_crops)[:8]
    expected = open_reference(model, 2, (8,)).run(crops)
    session = OpenVinoSession(model, "float32", 2, SIZES, cache)
    assert cosines(session.run(crops), expected).min() > 0.999999


@needs_bfloat16
def test_bfloat16_stays_near(mobile_face_net: ModelContent, face_crops: list[FaceCrop], cache: Cache) -> None:
    crops = faces(face_crops)[:8]
    expected = open_reference(mobile_face_net, 2, (8,)).run(crops)
    session = OpenVinoSession(mobile_face_net, "bfloat16", 2, SIZES, cache)
    found = cosines(session.run(crops), expected)
    assert found.min() > 0.999
    assert found.max() < 0.9999999, "it computed in float32"


def test_bgr_models_get_bgr(recogniser: ModelContent, cache: Cache) -> None:
    spec = InputSpec(None, 112, 112, 100.0, 50.0, channel_order=recogniser.spec.channel_order.BGR)
    model, crops = model_content(recogniser.content, spec), random_crops(2)
    expected = open_reference(model, 1, (2,)).run(crops)
    np.testing.assert_allclose(
        OpenVinoSession(model, "float32", 1, (1, 2), cache).run(crops), expected, rtol=1e-4, atol=1e-4
    )


def test_compiled_model_is_kept_and_gives_the_same_bits(recogniser: ModelContent, tmp_path: Path) -> None:
    crops, cache = random_crops(4), Cache(tmp_path)
    session = OpenVinoSession(recogniser, "float32", 1, SIZES, cache)
    expected = session.run(crops)
    session.keep()
    without_graph = ModelContent(b"gone", recogniser.sha256, recogniser.spec, 512)
    np.testing.assert_array_equal(OpenVinoSession(without_graph, "float32", 1, SIZES, cache).run(crops), expected)
    with pytest.raises(ModelFailed):
        OpenVinoSession(without_graph, "float32", 2, SIZES, cache)  # another number of threads is another entry


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "whole but foreign"])
def test_damaged_cache_is_made_again(recogniser: ModelContent, tmp_path: Path, damage: str) -> None:
    crops, cache = random_crops(1), Cache(tmp_path)
    session = OpenVinoSession(recogniser, "float32", 1, SIZES, cache)
    expected = session.run(crops)
    session.keep()
    (entry,) = tmp_path.iterdir()
    content = bytearray(entry.read_bytes())
    if damage == "cut":
        entry.write_bytes(content[: len(content) // 2])
    elif damage == "emptied":
        entry.write_bytes(b"")
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        entry.write_bytes(content)
    else:
        cache.write(b"not what OpenVINO exported", *session._key)
    np.testing.assert_array_equal(OpenVinoSession(recogniser, "float32", 1, SIZES, cache).run(crops), expected)


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """Every write behind this size fails, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@needs_bfloat16
@pytest.mark.parametrize("folder", ["full", "missing"])
def test_vector_does_not_depend_on_a_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    bias = np.random.default_rng(1).normal(0, 1, 512).astype(np.float32)  # float16 does not hold it
    model, crops = model_content(linear_model(112, 512, bias=bias)), random_crops(1)
    expected = OpenVinoSession(model, "bfloat16", 1, (1,), Cache(None)).run(crops)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path if folder == "full" else tmp_path / "missing"))
    with files_limited_to(64 * 1024) if folder == "full" else nullcontext():
        found = OpenVinoSession(model, "bfloat16", 1, (1,), Cache(None)).run(crops)
    np.testing.assert_array_equal(found, expected)


def test_without_small_weights_bfloat16_is_refused(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run, and give another vector than on the next machine."""
    monkeypatch.setitem(sys.modules, "openvino._offline_transformations", None)
    with pytest.raises(ModelFailed, match="_offline_transformations"):
        OpenVinoSession(recogniser, "bfloat16", 1, (1,), cache)


def test_files_that_are_no_models_are_refused(recogniser: ModelContent, cache: Cache) -> None:
    with pytest.raises(ModelFailed, match="OpenVINO cannot compile the model"):
        OpenVinoSession(model_content(recogniser.content[:-1000]), "float32", 1, (1,), cache)


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry is imported, and used, by `import openvino` wherever it is installed."""
    (tmp_path / "openvino_telemetry").mkdir()
    (tmp_path / "openvino_telemetry" / "__init__.py").write_text("raise SystemExit('telemetry was imported')")
    script = "from arcface_api.session.openvino_cpu import _openvino; _openvino().Core()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    done = subprocess.run([sys.executable, "-c", "import openvino"], env=environment, capture_output=True, check=False)
    assert b"telemetry was imported" in done.stderr, "this test would notice nothing"
