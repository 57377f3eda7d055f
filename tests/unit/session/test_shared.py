"""Promises of `session/shared.py`: bfloat16 only where it is allowed, possible and proven; each thread its own row."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from insightface.data import get_image

from arcface_api.arrays import Crop, Features, to_tensor
from arcface_api.cpus import cpu_flags
from arcface_api.face.landmarks import REGRESSOR_INPUT
from arcface_api.loading import REGRESSOR_MAX_ERROR, open_regressor, regressor_content
from arcface_api.session import ModelContent, SessionConfig, open_shared
from arcface_api.session.graphs import sum_last_product_in_float32
from arcface_api.session.onnx_cpu import CPU_PROVIDER
from arcface_api.session.self_test import probe_crops
from arcface_api.session.shared import MAX_COPIES
from session.conftest import model_content, random_crops
from session.test_graphs import convolution_model

AUTO = SessionConfig("auto", "auto", 2, None)

needs_bfloat16 = pytest.mark.skipif(
    not cpu_flags() & {"amx_bf16", "avx512_bf16"}, reason="needs a CPU with bfloat16 instructions"
)


@pytest.fixture
def model() -> ModelContent:
    return regressor_content()


def faces() -> list[Crop]:
    """A real face at four places, at the regressor's input size, and the probe faces."""
    face = np.ascontiguousarray(get_image("Tom_Hanks_54745")[..., ::-1])
    cut = [np.ascontiguousarray(face[top : top + 64, left : left + 64]) for top in (20, 40) for left in (20, 30)]
    return [*cut, *probe_crops(64, 64)]


def in_float32(crops: list[Crop]) -> Features:
    session = ort.InferenceSession(regressor_content().content, providers=[CPU_PROVIDER])
    rows: Features = session.run(None, {"input": to_tensor(crops, REGRESSOR_INPUT)})[0]
    return rows


@needs_bfloat16
@pytest.mark.usefixtures("with_openvino")
def test_bfloat16_finds_the_same_landmarks_as_float32(model: ModelContent) -> None:
    """An eighth of what the self-test allows. With the last product in bfloat16, it would be twice that."""
    session, reason = open_shared(model, AUTO, 2, REGRESSOR_MAX_ERROR)
    assert (session.precision, reason) == ("bfloat16", None)
    crops = faces()
    found = np.concatenate([session.run([crop]) for crop in crops])
    points = np.abs(found - in_float32(crops))[:, :10]
    assert points.max() < 0.001
    assert points.mean() < REGRESSOR_MAX_ERROR / 8


@needs_bfloat16
@pytest.mark.usefixtures("with_openvino")
def test_each_of_many_threads_gets_its_own_row(model: ModelContent) -> None:
    """Also if more threads call than there are copies, and whichever copy answers."""
    session, _ = open_shared(model, AUTO, 3 * MAX_COPIES, REGRESSOR_MAX_ERROR)
    crops = [*faces(), *random_crops(20, 64)]
    alone = [session.run([crop]) for crop in crops]
    with ThreadPoolExecutor(3 * MAX_COPIES) as threads:
        for _ in range(20):
            together = list(threads.map(lambda crop: session.run([crop]), crops))
            assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
    assert len({row.tobytes() for row in alone}) == len(crops)


@needs_bfloat16
@pytest.mark.usefixtures("with_openvino")
def test_model_that_errs_more_than_allowed_runs_in_float32(model: ModelContent) -> None:
    session, reason = open_shared(model, AUTO, 1, 1e-6)
    assert session.precision == "float32"
    assert reason is not None
    assert "where 1e-06 is allowed" in reason


@needs_bfloat16
@pytest.mark.usefixtures("with_openvino")
def test_model_that_cannot_be_rewritten_runs_in_float32() -> None:
    """Here because it has no matrix product."""
    session, reason = open_shared(model_content(convolution_model(), dim=8), AUTO, 1, 1.0)
    assert session.precision == "float32"
    assert reason is not None
    assert reason.startswith("bfloat16 failed")


@pytest.mark.usefixtures("with_openvino")
def test_float32_that_is_asked_for_is_used(model: ModelContent) -> None:
    session, reason = open_shared(model, SessionConfig("cpu", "float32", 2, None), 2, REGRESSOR_MAX_ERROR)
    assert (session.provider, session.precision, reason) == (CPU_PROVIDER, "float32", None)


def test_without_openvino_float32_is_used(model: ModelContent) -> None:
    session, reason = open_shared(model, AUTO, 2, REGRESSOR_MAX_ERROR)
    assert (session.provider, session.precision, reason) == (CPU_PROVIDER, "float32", None)


@needs_bfloat16
@pytest.mark.usefixtures("with_openvino")
def test_log_says_why_the_regressor_is_slow(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert open_regressor(AUTO, 1).precision == "bfloat16"
    assert not caplog.records
    monkeypatch.setattr("arcface_api.loading.REGRESSOR_MAX_ERROR", 1e-6)
    assert open_regressor(AUTO, 1).precision == "float32"
    assert "The landmark regressor runs in float32, so align=auto takes longer: bfloat16 is off by" in caplog.text


def test_last_product_written_as_a_sum_says_the_same(model: ModelContent) -> None:
    changed = sum_last_product_in_float32(onnx.load_from_string(model.content))
    onnx.checker.check_model(changed, full_check=True)
    assert [node.op_type for node in changed.graph.node].count("Gemm") == 1
    crops = faces()
    found = ort.InferenceSession(changed.SerializeToString(), providers=[CPU_PROVIDER])
    rows = found.run(None, {"input": to_tensor(crops, REGRESSOR_INPUT)})[0]
    np.testing.assert_allclose(rows, in_float32(crops), atol=1e-5)
