"""Which backends can run a model on this machine with this installation, and why better ones cannot."""

from dataclasses import dataclass, replace
from importlib.metadata import distributions

import onnxruntime as ort

from arcface_api.cpus import cpu_flags
from arcface_api.errors import RuntimeUnfit
from arcface_api.session import openvino_cpu
from arcface_api.session.onnx_cpu import CPU_PROVIDER
from arcface_api.session.onnx_gpu import CUDA_PROVIDER, TENSORRT_PROVIDER
from arcface_api.session.openvino_cpu import OPENVINO
from arcface_api.settings import Device, Precision


@dataclass(frozen=True)
class SessionConfig:
    """How a model is to run."""

    device: Device
    precision: Precision
    threads: int
    """Of one inference on the CPU."""
    max_batch: int | None
    """Crops in the largest batch; None: the device's default."""


@dataclass(frozen=True)
class Backend:
    """A provider at a precision: float32, bfloat16 (OpenVINO) or float16 (GPUs)."""

    provider: str
    precision: str
    flushes_denormals: bool = False

    def __str__(self) -> str:
        return f"{self.provider} in {self.precision}"


REFERENCE = Backend(CPU_PROVIDER, "float32")
FLUSHING_REFERENCE = Backend(CPU_PROVIDER, "float32", flushes_denormals=True)


@dataclass(frozen=True)
class Plan:
    """The first `preferred` backend that passes the self-test is used; else the fastest of `timed` that pass."""

    preferred: tuple[Backend, ...]
    timed: tuple[Backend, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why better backends are not among them."""


def check_installation() -> None:
    """Raise RuntimeUnfit if both builds of ONNX Runtime are installed, which leaves CUDA to chance."""
    if all(any(distributions(name=name)) for name in ("onnxruntime", "onnxruntime-gpu")):
        raise RuntimeUnfit(
            "Both onnxruntime and onnxruntime-gpu are installed. They overwrite each other's files, so only one may be"
            " installed. Run `pip uninstall onnxruntime onnxruntime-gpu`, then install arcface-api[cpu] or"
            " arcface-api[cuda]."
        )


def plan_for(device: Device, precision: Precision) -> Plan:
    """The backends for a device and a precision; raises RuntimeUnfit if the machine or installation has none."""
    available = ort.get_available_providers()
    if device in ("cuda", "tensorrt"):
        provider = CUDA_PROVIDER if device == "cuda" else TENSORRT_PROVIDER
        if provider not in available:
            raise RuntimeUnfit(
                f"device={device} was asked for, but this build of ONNX Runtime has only {', '.join(available)}."
                " Install arcface-api[cuda] instead of arcface-api[cpu], or set device to cpu or auto."
            )
        if precision == "bfloat16":
            raise RuntimeUnfit(
                f"precision=bfloat16 is for CPUs. With device={device}, set it to auto, float16 or float32."
            )
        return Plan(_on_gpu(provider, precision))
    if device == "cpu" or CUDA_PROVIDER not in available:
        if precision == "float16":
            raise RuntimeUnfit(
                "precision=float16 is for GPUs; on CPUs it is no faster than float32. Set precision to auto, or device"
                " to cuda."
            )
        cpu = _on_cpu(precision)
        no_cuda = ("this build of ONNX Runtime has no CUDA",) if device == "auto" else ()
        return replace(cpu, reasons=(*no_cuda, *cpu.reasons))
    if precision == "float16":
        return Plan(_on_gpu(CUDA_PROVIDER, precision))
    cpu = _on_cpu(precision)
    if precision == "bfloat16":
        return replace(cpu, reasons=("the GPU is not used: precision=bfloat16 is for CPUs", *cpu.reasons))
    return replace(cpu, preferred=(*_on_gpu(CUDA_PROVIDER, precision), *cpu.preferred))


def _on_gpu(provider: str, precision: Precision) -> tuple[Backend, ...]:
    precisions = ("float16", "float32") if precision == "auto" else (precision,)
    return tuple(Backend(provider, name) for name in precisions)


def _on_cpu(precision: Precision) -> Plan:
    """With AMX, bfloat16 is known to be the fastest; anything else has to be timed."""
    flags, has_openvino, missing = cpu_flags(), openvino_cpu.is_openvino_installed(), ""
    if not has_openvino:
        missing = "the package openvino is not installed (it is part of arcface-api[cpu] on x86-64)"
    elif not flags & {"amx_bf16", "avx512_bf16"}:
        missing = "this CPU has no bfloat16 instructions (amx_bf16 or avx512_bf16)"
    bfloat16 = Backend(OPENVINO, "bfloat16")
    if precision == "bfloat16":
        if missing:
            raise RuntimeUnfit(f"precision=bfloat16 was asked for, but {missing}. Set precision to auto or float32.")
        return Plan((bfloat16,))
    timed = (Backend(OPENVINO, "float32"), REFERENCE) if has_openvino else (REFERENCE,)
    if precision == "float32":
        return Plan((), timed)
    if missing:
        return Plan((), timed, (missing,))
    return Plan((bfloat16,), timed) if "amx_bf16" in flags else Plan((), (bfloat16, *timed))
