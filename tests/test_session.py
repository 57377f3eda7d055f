"""Promises of `arcface_api.session`: the provider that was asked for or a refusal, explicit threads, checked shapes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from arcface_api import session as session_module
from arcface_api.arrays import InputSpec
from arcface_api.errors import ModelFailed, RuntimeUnfit
from arcface_api.session import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    ProviderChoice,
    Session,
    check_installation,
    choose_provider,
)
from tiny_models import linear_model

SPEC = InputSpec(None, 112, 112, 127.5, 127.5)
CPU = ProviderChoice(CPU_PROVIDER, may_fall_back=False, reason=None)
RECOGNISER = linear_model(112, 512).SerializeToString()


def available(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers))


def test_cpu_is_used_where_asked_for_even_beside_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    assert choose_provider("cpu") == CPU


def test_auto_prefers_cuda_and_may_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    assert choose_provider("auto") == ProviderChoice(CUDA_PROVIDER, may_fall_back=True, reason=None)


def test_auto_without_cuda_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CPU_PROVIDER)
    choice = choose_provider("auto")
    assert choice.provider == CPU_PROVIDER
    assert choice.reason == "this build of ONNX Runtime has no CUDA"


def test_cuda_without_cuda_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CPU_PROVIDER)
    with pytest.raises(RuntimeUnfit, match=r"has only CPUExecutionProvider. Install arcface-api\[cuda\]"):
        choose_provider("cuda")


@pytest.mark.skipif(CUDA_PROVIDER in ort.get_available_providers(), reason="needs a build of ONNX Runtime without CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available:UserWarning")
def test_silent_fall_back_is_noticed() -> None:
    """Asked for a provider it cannot load, ONNX Runtime takes the CPU and says nothing: exactly what users meet."""
    with pytest.raises(RuntimeUnfit, match="would run on CPUExecutionProvider"):
        Session(RECOGNISER, SPEC, 512, ProviderChoice(CUDA_PROVIDER, may_fall_back=False, reason=None), threads=1)
    fallen = Session(RECOGNISER, SPEC, 512, ProviderChoice(CUDA_PROVIDER, may_fall_back=True, reason=None), threads=1)
    assert fallen.provider == CPU_PROVIDER
    assert fallen.reason is not None
    assert "CUDAExecutionProvider could not be loaded" in fallen.reason


def test_both_builds_of_onnx_runtime_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installation()
    monkeypatch.setattr(session_module, "distribution", lambda _: object())
    with pytest.raises(RuntimeUnfit, match="pip uninstall onnxruntime onnxruntime-gpu"):
        check_installation()


def test_threads_are_set_explicitly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = ort.InferenceSession

    def spying(content: bytes, options: ort.SessionOptions, **rest: object) -> ort.InferenceSession:
        seen.append(options.intra_op_num_threads)
        return real(content, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", spying)
    assert Session(RECOGNISER, SPEC, 512, CPU, threads=3).threads == 3
    assert seen == [3]


def test_features_do_not_depend_on_the_batch() -> None:
    session = Session(RECOGNISER, SPEC, 512, CPU, threads=2)
    tensor = np.random.default_rng(1).normal(0, 1, (5, 3, 112, 112)).astype(np.float32)
    batch = session.run(tensor)
    assert batch.shape == (5, 512)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(
        batch, np.concatenate([session.run(tensor[[i]]) for i in range(5)]), rtol=1e-5, atol=1e-5
    )


def test_files_that_are_no_models_are_refused() -> None:
    for content in (b"", b"not a model", RECOGNISER[: len(RECOGNISER) // 2]):
        with pytest.raises(ModelFailed, match="cannot load the model"):
            Session(content, SPEC, 512, CPU, threads=1)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (linear_model(96, 512), r"\['n', 3, 96, 96\]"),
        (linear_model(112, 128), r"\['n', 128\]"),
    ],
)
def test_other_shapes_are_refused(model: onnx.ModelProto, found: str) -> None:
    with pytest.raises(ModelFailed, match=rf"{found}.*; needed is one float32 input \(n, 3, 112, 112\)"):
        Session(model.SerializeToString(), SPEC, 512, CPU, threads=1)


def test_a_second_output_is_refused() -> None:
    model = linear_model(112, 512)
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 588]))
    with pytest.raises(ModelFailed, match="output flat"):
        Session(model.SerializeToString(), SPEC, 512, CPU, threads=1)


def test_another_input_name_is_refused() -> None:
    named = InputSpec("data", 112, 112, 127.5, 127.5)
    with pytest.raises(ModelFailed, match="input input"):
        Session(RECOGNISER, named, 512, CPU, threads=1)


def test_wrong_number_of_rows_is_an_error_not_a_mix_up() -> None:
    """A graph that announces (n, 512) and returns half the rows."""
    model = linear_model(112, 512)
    graph = model.graph
    graph.node[-1].output[0] = "all_rows"
    graph.initializer.append(helper.make_tensor("first", TensorProto.INT64, [1], [0]))
    graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    graph.node.append(helper.make_node("Slice", ["all_rows", "first", "one", "first"], ["output"]))
    session = Session(model.SerializeToString(), SPEC, 512, CPU, threads=1)
    with pytest.raises(ModelFailed, match=r"shape \(1, 512\) for a batch of 2; \(2, 512\) was expected"):
        session.run(np.zeros((2, 3, 112, 112), np.float32))


def test_model_that_loads_but_cannot_run_is_found_at_once() -> None:
    model = linear_model(112, 512)
    model.graph.initializer.append(helper.make_tensor("seven", TensorProto.INT64, [2], [7, 512]))
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("Reshape", ["rows", "seven"], ["output"]))
    with pytest.raises(ModelFailed, match="failed on a batch of 1"):
        Session(model.SerializeToString(), SPEC, 512, CPU, threads=1)


def test_every_batch_size_is_warmed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr(Session, "run", lambda _, tensor: ran.append(len(tensor)))
    assert Session(RECOGNISER, SPEC, 512, CPU, threads=1, batch_sizes=(1, 2, 4)).batch_sizes == (1, 2, 4)
    assert ran == [1, 2, 4]


def test_failing_inference_says_so() -> None:
    session = Session(RECOGNISER, SPEC, 512, CPU, threads=1)
    with pytest.raises(ModelFailed, match="failed on a batch of 1"):
        session.run(np.zeros((1, 3, 50, 50), np.float32))


def test_onnx_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry writes a device identifier below the cache folder before it sends anything."""
    (tmp_path / "model.onnx").write_bytes(RECOGNISER)
    script = (
        "from arcface_api.arrays import InputSpec\n"
        "from arcface_api.session import Session, ProviderChoice\n"
        "content = open('model.onnx', 'rb').read()\n"
        "spec = InputSpec(None, 112, 112, 127.5, 127.5)\n"
        "Session(content, spec, 512, ProviderChoice('CPUExecutionProvider', False, None), threads=1)\n"
    )
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {key: value for key, value in os.environ.items() if key not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment | home, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
