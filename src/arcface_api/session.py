"""One model on ONNX Runtime: the execution provider it really runs on, its threads, and its tensors' shapes.

    content ──▶ Session(provider, precision, reason) ──run──▶ tensor (n, 3, h, w) ──▶ features (n, dim)

Left alone, ONNX Runtime sizes its thread pool from the host, and falls back to the CPU in silence when CUDA cannot be
loaded. Both are settled here.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import onnxruntime as ort

from arcface_api.arrays import Features, InputSpec, Tensor
from arcface_api.errors import ModelFailed, RuntimeUnfit
from arcface_api.settings import Device

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProviderChoice:
    """Where a model shall run."""

    provider: str
    """ONNX Runtime's name of the execution provider."""
    may_fall_back: bool
    """True: the CPU will do where the provider turns out not to work. Only for `device=auto`."""
    reason: str | None
    """Why this is not the fastest that `auto` would have taken; None where there is nothing to explain."""


def check_installation() -> None:
    """Refuse an environment that holds both builds of ONNX Runtime.

    They install into the same folder: whichever came last wins, file by file, and CUDA is then found or not by chance.

    Raises:
        RuntimeUnfit: Both distributions are installed.
    """
    if all(map(_is_installed, ("onnxruntime", "onnxruntime-gpu"))):
        raise RuntimeUnfit(
            "Both onnxruntime and onnxruntime-gpu are installed; they overwrite each other's files, so only one may"
            " be. Run `pip uninstall onnxruntime onnxruntime-gpu`, then install arcface-api[cpu] or"
            " arcface-api[cuda]."
        )


def choose_provider(device: Device) -> ProviderChoice:
    """Which execution provider serves a device, as far as this build of ONNX Runtime has it.

    Raises:
        RuntimeUnfit: `cuda` was asked for and this build of ONNX Runtime lacks it.
    """
    available = ort.get_available_providers()
    if device == "cpu":
        return ProviderChoice(CPU_PROVIDER, may_fall_back=False, reason=None)
    if CUDA_PROVIDER in available:
        return ProviderChoice(CUDA_PROVIDER, may_fall_back=device == "auto", reason=None)
    if device == "auto":
        return ProviderChoice(CPU_PROVIDER, may_fall_back=False, reason="this build of ONNX Runtime has no CUDA")
    raise RuntimeUnfit(
        f"device=cuda was asked for, but this build of ONNX Runtime has only {', '.join(available)}. Install"
        " arcface-api[cuda] instead of arcface-api[cpu], or set device to cpu or auto."
    )


class Session:
    """One loaded model on one execution provider; safe to call from one thread at a time.

    Attributes:
        provider: ONNX Runtime's name of the provider that the model really runs on.
        precision: Arithmetic the provider uses.
        reason: Why the provider is not the one that was preferred; None where it is.
        threads: Threads of one inference on the CPU.
        batch_sizes: Sizes that it was warmed for.
    """

    def __init__(
        self,
        content: bytes,
        spec: InputSpec,
        output_dim: int,
        choice: ProviderChoice,
        threads: int,
        batch_sizes: Sequence[int] = (1,),
    ) -> None:
        """Load a model and run it once in every batch size.

        So a broken provider is found now, and the first batch of a size waits for nothing.

        Args:
            content: The `.onnx` file's bytes.
            spec: What the model is expected to take; its mean, std and channel order are the caller's business.
            output_dim: Expected length of one output row.
            choice: Where to run.
            threads: Threads of one inference on the CPU, at least 1.
            batch_sizes: Sizes that batches will have.

        Raises:
            ModelFailed: ONNX Runtime cannot load or run the model, or its input or output is not as expected.
            RuntimeUnfit: The provider was asked for and is not really used.
        """
        self.threads = threads
        self.batch_sizes = tuple(batch_sizes)
        self.precision = "float32"
        self._shape = (3, spec.height, spec.width)
        self._dim = output_dim
        self._ort = _open(content, choice.provider, threads)
        used = self._ort.get_providers()[0]
        self.reason = choice.reason
        if used != choice.provider:
            self.reason = f"{choice.provider} could not be loaded (ONNX Runtime's log above names the missing library)"
            if not choice.may_fall_back:
                raise RuntimeUnfit(
                    f"{self.reason}, so the model would run on {used}. Check the GPU driver and that the container was"
                    " started with access to the GPU (compose.cuda.yaml), or set device to cpu or auto."
                )
            _log.warning("%s; using %s.", self.reason, used)
        self.provider: str = used
        self._input, self._output = self._check_signature(spec.name)
        for size in self.batch_sizes:
            self.run(np.zeros((size, *self._shape), np.float32))

    def run(self, tensor: Tensor) -> Features:
        """One inference.

        Args:
            tensor: (n, 3, height, width) float32, n at least 1.

        Returns:
            (n, dim) float32.

        Raises:
            ModelFailed: ONNX Runtime raised, or returned another shape than the model announces.
        """
        try:
            (features,) = self._ort.run([self._output], {self._input: tensor})
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelFailed(f"ONNX Runtime failed on a batch of {len(tensor)}: {error}") from error
        if features.shape != (len(tensor), self._dim):
            raise ModelFailed(
                f"The model returned shape {features.shape} for a batch of {len(tensor)}; {(len(tensor), self._dim)}"
                " was expected."
            )
        return features  # type: ignore[no-any-return]  # onnxruntime carries no types

    def _check_signature(self, input_name: str | None) -> tuple[str, str]:
        inputs, outputs = self._ort.get_inputs(), self._ort.get_outputs()
        channels, height, width = self._shape
        wanted = f"one float32 input (n, {channels}, {height}, {width}) and one output (n, {self._dim})"
        found = "; ".join(
            [f"input {i.name} {i.type} {i.shape}" for i in inputs]
            + [f"output {o.name} {o.type} {o.shape}" for o in outputs]
        )
        if len(inputs) != 1 or len(outputs) != 1 or (input_name is not None and inputs[0].name != input_name):
            raise ModelFailed(f"The model has {found}; needed is {wanted}.")
        (given,), (made,) = inputs, outputs
        # A dimension that the graph leaves open is a name or None: the warm-up run tells.
        fits = given.type == made.type == "tensor(float)" and len(given.shape) == 4 and len(made.shape) == 2
        stated = [*given.shape[1:], *made.shape[1:]] if fits else []
        expected = [*self._shape, self._dim]
        if not fits or any(isinstance(s, int) and s != e for s, e in zip(stated, expected, strict=True)):
            raise ModelFailed(f"The model has {found}; needed is {wanted}.")
        return given.name, made.name


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _open(content: bytes, provider: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; its warnings speak to ONNX Runtime's developers
    if provider == CUDA_PROVIDER:
        ort.preload_dlls()  # finds CUDA and cuDNN where pip's wheels put them
    try:
        return ort.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise ModelFailed(f"ONNX Runtime cannot load the model: {error}") from error
