"""Promises of `session/plan.py`: a named device or precision is used or refused; reasons for second best."""

from typing import Any

import onnxruntime as ort
import pytest

from arcface_api.errors import RuntimeUnfit
from arcface_api.session import openvino_cpu, plan
from arcface_api.session.onnx_cpu import CPU_PROVIDER
from arcface_api.session.onnx_gpu import CUDA_PROVIDER, TENSORRT_PROVIDER
from arcface_api.session.openvino_cpu import OPENVINO
from arcface_api.session.plan import REFERENCE, Backend, Plan, check_installation, plan_for

BFLOAT16 = Backend(OPENVINO, "bfloat16")
OPENVINO_FLOAT32 = Backend(OPENVINO, "float32")
CUDA_FLOAT16, CUDA_FLOAT32 = Backend(CUDA_PROVIDER, "float16"), Backend(CUDA_PROVIDER, "float32")


def available(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers))


def flags(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(plan, "cpu_flags", lambda: frozenset(names))


def test_cpu_is_used_where_asked_for_even_beside_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    planned = plan_for("cpu", "auto")
    assert (planned.preferred, planned.timed) == ((), (REFERENCE,))


def test_auto_prefers_cuda_in_float16_and_may_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    planned = plan_for("auto", "auto")
    assert planned.preferred == (CUDA_FLOAT16, CUDA_FLOAT32)
    assert planned.timed == (REFERENCE,)


def test_auto_without_cuda_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CPU_PROVIDER)
    assert "this build of ONNX Runtime has no CUDA" in plan_for("auto", "auto").reasons
    assert plan_for("cpu", "float32").reasons == ()


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_gpu_without_its_provider_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    available(monkeypatch, CPU_PROVIDER)
    with pytest.raises(RuntimeUnfit, match=r"has only CPUExecutionProvider. Install arcface-api\[cuda\]"):
        plan_for(device, "auto")


@pytest.mark.parametrize(("device", "provider"), [("cuda", CUDA_PROVIDER), ("tensorrt", TENSORRT_PROVIDER)])
def test_gpu_asked_for_by_name_never_ends_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, device: Any, provider: str
) -> None:
    available(monkeypatch, TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER)
    assert plan_for(device, "auto") == Plan((Backend(provider, "float16"), Backend(provider, "float32")))
    assert plan_for(device, "float32") == Plan((Backend(provider, "float32"),))


@pytest.mark.usefixtures("with_openvino")
def test_amx_makes_bfloat16_the_choice_and_other_bfloat16_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, "avx512f", "amx_bf16")
    assert plan_for("cpu", "auto") == Plan((BFLOAT16,), (OPENVINO_FLOAT32, REFERENCE))
    flags(monkeypatch, "avx512f", "avx512_bf16")
    assert plan_for("cpu", "auto") == Plan((), (BFLOAT16, OPENVINO_FLOAT32, REFERENCE))
    assert plan_for("cpu", "bfloat16") == Plan((BFLOAT16,))
    assert plan_for("cpu", "float32") == Plan((), (OPENVINO_FLOAT32, REFERENCE))


@pytest.mark.usefixtures("with_openvino")
def test_without_bfloat16_instructions_the_reason_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, "avx2")
    assert "no bfloat16 instructions (amx_bf16 or avx512_bf16)" in plan_for("cpu", "auto").reasons[0]
    with pytest.raises(RuntimeUnfit, match="precision=bfloat16 was asked for, but this CPU has no bfloat16"):
        plan_for("cpu", "bfloat16")


def test_without_openvino_the_reason_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, "amx_bf16")
    assert "openvino is not installed" in plan_for("cpu", "auto").reasons[0]
    with pytest.raises(RuntimeUnfit, match="precision=bfloat16 was asked for, but the package openvino"):
        plan_for("cpu", "bfloat16")


def test_precision_that_a_device_does_not_offer_is_refused_with_the_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeUnfit, match=r"float16 is for GPUs.*Set precision to auto"):
        plan_for("cpu", "float16")
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    with pytest.raises(RuntimeUnfit, match=r"bfloat16 is for CPUs.*auto, float16 or float32"):
        plan_for("cuda", "bfloat16")
    assert plan_for("auto", "float16") == Plan((CUDA_FLOAT16,))


def test_both_builds_of_onnx_runtime_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installation()
    monkeypatch.setattr(plan, "distributions", lambda name: [name])
    with pytest.raises(RuntimeUnfit, match="pip uninstall onnxruntime onnxruntime-gpu"):
        check_installation()


def test_bfloat16_beside_a_gpu_says_why_the_gpu_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    monkeypatch.setattr(openvino_cpu, "is_openvino_installed", lambda: True)
    flags(monkeypatch, "amx_bf16")
    assert plan_for("auto", "bfloat16") == Plan(
        (BFLOAT16,), reasons=("the GPU is not used: precision=bfloat16 is for CPUs",)
    )
