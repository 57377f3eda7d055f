"""Promises of `session/onnx_gpu.py` that hold on any device, tested on the CPU, whose provider replaces CUDA's.

`benchmarks/gpu.sh` checks what only a card can show.
"""

import gc
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from arcface_api.errors import ModelFailed, RuntimeUnfit
from arcface_api.session import ModelContent, onnx_gpu
from arcface_api.session.onnx_cpu import CPU_PROVIDER, OnnxCpuSession, open_onnx, session_options
from arcface_api.session.onnx_gpu import (
    CUDA_PROVIDER,
    TENSORRT_PROVIDER,
    OnnxGpuSession,
    check_provider,
    cuda_options,
    tensorrt_options,
)
from session.conftest import model_content, random_crops
from tiny_models import linear_model

SIZES = (1, 2, 4, 8)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU and its provider, where the session means to use CUDA's."""
    monkeypatch.setattr(onnx_gpu, "_DEVICE", "cpu")
    monkeypatch.setattr(onnx_gpu, "check_provider", lambda _: None)
    monkeypatch.setattr(onnx_gpu, "gpu_session_options", session_options)


def on_stand_in(model: ModelContent, precision: str = "float32") -> OnnxGpuSession:
    return OnnxGpuSession(model, CPU_PROVIDER, precision, 1, SIZES, None)


def shape_reading_model() -> onnx.ModelProto:
    """Flattens by a shape that it computes, as many exporters write it: (n, 3, 112, 112) → (n, 37632)."""
    nodes = [
        helper.make_node("Shape", ["input"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Concat", ["batch", "rest"], ["flat_shape"], axis=0),
        helper.make_node("Reshape", ["input", "flat_shape"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "shapes",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3 * 112 * 112])],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("rest", TensorProto.INT64, [1], [-1]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# ── batches ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_batch_size_gives_the_reference_s_features(recogniser: ModelContent, precision: str) -> None:
    session, crops = on_stand_in(recogniser, precision), random_crops(8)
    expected = np.concatenate([OnnxCpuSession(recogniser, 1).run([crop]) for crop in crops])
    within = 1e-4 if precision == "float32" else 1e-2
    for size in SIZES:
        np.testing.assert_allclose(session.run(crops[:size]), expected[:size], atol=within * np.abs(expected).max())


@pytest.mark.usefixtures("stand_in")
def test_features_outlive_the_next_batch(recogniser: ModelContent) -> None:
    """Buffers are used again and again; answers must not lie in them."""
    session, crops = on_stand_in(recogniser), random_crops(4)
    first = session.run(crops[:2])
    kept = first.copy()
    session.run(crops[2:])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.usefixtures("stand_in")
def test_model_whose_file_says_that_a_batch_is_one_runs_in_all_sizes() -> None:
    """InsightFace's recognisers do: their output is (1, 512) by name."""
    model = linear_model(112, 512)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    session = on_stand_in(model_content(model))
    assert [session.run(random_crops(size)).shape for size in SIZES] == [(size, 512) for size in SIZES]


@pytest.mark.usefixtures("stand_in")
def test_no_shape_is_computed_at_run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime gives such operators to the CPU, and a session that must not use it would be refused."""

    def saving(threads: int) -> ort.SessionOptions:
        options = session_options(threads)
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        return options

    monkeypatch.setattr(onnx_gpu, "gpu_session_options", saving)
    on_stand_in(model_content(shape_reading_model(), dim=3 * 112 * 112))
    left = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "Reshape" in left
    assert not left & {"Shape", "Gather", "Concat"}


# ── threads ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("stand_in")
def test_everything_happens_on_one_thread(recogniser: ModelContent, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs belong to a thread: run on another, each batch size would be recorded again while serving."""
    threads: list[int] = []
    run = onnx_gpu._Bound.run

    def opening(*given: Any) -> ort.InferenceSession:
        threads.append(threading.get_ident())
        return open_onnx(*given)

    def running(bound: onnx_gpu._Bound, crops: Any) -> Any:
        threads.append(threading.get_ident())
        return run(bound, crops)

    monkeypatch.setattr(onnx_gpu, "open_onnx", opening)
    monkeypatch.setattr(onnx_gpu._Bound, "run", running)
    session = on_stand_in(recogniser)
    assert len(threads) == 2 * len(SIZES)  # opened, and run once
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(session.run, [random_crops(size) for size in SIZES * 3]))
    assert len(threads) == 5 * len(SIZES)
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


@pytest.mark.usefixtures("stand_in")
def test_session_that_is_dropped_leaves_no_thread(recogniser: ModelContent) -> None:
    session = on_stand_in(recogniser)
    (thread,) = session._thread._threads
    del session
    gc.collect()
    thread.join(timeout=100)
    assert not thread.is_alive()


# ── recordings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_batch_sizes_that_cannot_be_recorded_run_without(
    recogniser: ModelContent, stand_in: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded: list[bool] = []
    failing = iter([False, False, True])

    def opening(content: bytes, options: Any, providers: list[tuple[str, Mapping[str, object]]]) -> Any:
        is_recorded = "enable_cuda_graph" in providers[0][1]
        if is_recorded and next(failing):
            raise ModelFailed("operation not permitted when stream is capturing")
        recorded.append(is_recorded)
        return open_onnx(content, options, providers)

    monkeypatch.setattr(onnx_gpu, "open_onnx", opening)
    with caplog.at_level(logging.WARNING):
        session = on_stand_in(recogniser)
    assert recorded == [True, True, False, False]
    assert [record.getMessage() for record in caplog.records] == [
        "Batches of 4 and more run without CUDA graphs, so small ones are slower: operation not permitted when stream"
        " is capturing"
    ]
    assert session.run(random_crops(8)).shape == (8, 512)


def test_float16_may_use_tensor_cores_and_float32_is_float32() -> None:
    """ONNX Runtime 1.31 keeps the convolutions of any type off the tensor cores where TF32 is refused."""
    assert "use_tf32" not in cuda_options("float16")
    assert cuda_options("float32")["use_tf32"] is False


def test_tensorrt_records_nothing() -> None:
    """Its provider keeps one recording, and would replay it for every batch size."""
    options = tensorrt_options((112, 112, 3), SIZES, "float16", None)
    assert not [name for name in options if "graph" in name]
    assert options["trt_profile_max_shapes"] == "arcface_pixels:8x112x112x3"


# ── refusals ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def without_preloading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's CUDA, if it has any."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)


@pytest.mark.usefixtures("without_preloading")
@pytest.mark.parametrize(
    ("provider", "needed"),
    [
        (CUDA_PROVIDER, "(arcface-api[cuda] brings them), and"),
        (TENSORRT_PROVIDER, "(arcface-api[cuda] brings them), TensorRT 10 (`pip install 'tensorrt-cu13==10.*'`), and"),
    ],
)
def test_card_that_cannot_be_used_is_no_fault_of_the_model(
    monkeypatch: pytest.MonkeyPatch, provider: str, needed: str
) -> None:
    def failing(*_: object) -> None:
        raise ModelFailed("ONNX Runtime cannot load the model: …") from RuntimeError("CUDA failure 35: driver too old")

    monkeypatch.setattr(onnx_gpu, "open_onnx", failing)
    with pytest.raises(RuntimeUnfit) as refused:
        check_provider(provider)
    assert f"{provider} could not be loaded: CUDA failure 35: driver too old. It needs an NVIDIA GPU" in str(
        refused.value
    )
    assert f"580 or newer (`nvidia-smi` shows it), CUDA 13 and cuDNN 9 {needed} in" in str(refused.value)


@pytest.mark.usefixtures("without_preloading")
def test_provider_that_silently_became_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_gpu, "open_onnx", lambda content, options, _: open_onnx(content, options, [CPU_PROVIDER]))
    with pytest.raises(RuntimeUnfit, match="ONNX Runtime used CPUExecutionProvider instead"):
        check_provider(CUDA_PROVIDER)


@pytest.mark.usefixtures("without_preloading")
def test_tensorrt_is_logged_as_unverified_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per process, although each of a pack's models is opened on it."""
    onnx_gpu._warn_about_tensorrt.cache_clear()
    monkeypatch.setattr(onnx_gpu, "open_onnx", lambda content, options, _: open_onnx(content, options, [CPU_PROVIDER]))
    for provider in (CUDA_PROVIDER, TENSORRT_PROVIDER, TENSORRT_PROVIDER):
        with pytest.raises(RuntimeUnfit):
            check_provider(provider)
    assert [record.getMessage()[:36] for record in caplog.records] == ["TensorRT is not verified on hardware"]
