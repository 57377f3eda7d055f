"""What a session is, and the reference that all are compared with: ONNX Runtime's CPU provider in float32.

The reference runs graphs unchanged; pixels are normalised outside, in InsightFace's order of operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from arcface_api.arrays import Crop, Features, InputSpec, to_tensor
from arcface_api.errors import ModelFailed

CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class ModelContent:
    """A verified `.onnx` file with its SHA-256 in hex, what goes in, and the length of a row that comes out."""

    content: bytes = field(repr=False)
    sha256: str
    spec: InputSpec
    output_dim: int


class Session(Protocol):
    """A model loaded on one execution provider; safe to call from as many threads at once as it has lanes."""

    provider: str
    """As it really runs, not as it was asked for."""
    precision: str
    """As it really computes: float32, bfloat16 or float16."""
    threads: int
    """On the CPU, of all lanes together."""
    lanes: int
    """Inferences that may run at once, each on its share of the threads."""
    batch_sizes: tuple[int, ...]
    """Sizes that a batch may have, ascending, 1 among them."""

    def run(self, crops: Sequence[Crop]) -> Features:
        """Run one batch: n crops of (height, width, 3) uint8, RGB, n in `batch_sizes`; returns (n, dim) float32.

        Raises:
            ModelFailed: The runtime failed, or returned another shape than the model states.
        """


class OnnxCpuSession:
    """A model on ONNX Runtime's CPU provider; see `Session`. Several threads may run it at once."""

    provider = CPU_PROVIDER
    precision = "float32"

    def __init__(
        self,
        model: ModelContent,
        threads: int,
        batch_sizes: Sequence[int] = (1,),
        *,
        lanes: int = 1,
        flushes_denormals: bool = False,
    ) -> None:
        """Load a model, or raise ModelFailed; nothing runs yet.

        With `flushes_denormals`, numbers below float32's normal range count as zero. Some trained ArcFace models have
        such weights, and a CPU computes with them a hundred times slower.
        """
        self.threads, self.lanes = threads, lanes
        self.batch_sizes = tuple(batch_sizes)
        self._spec, self._dim = model.spec, model.output_dim
        # A run has its caller's thread, and those of a pool that all runs share.
        options = session_options(threads - lanes + 1)
        if flushes_denormals:
            options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self._ort = open_onnx(model.content, options, [CPU_PROVIDER])
        self._input, self._output = _check_signature(self._ort, model)

    def run(self, crops: Sequence[Crop]) -> Features:
        """See `Session.run`."""
        return self.run_fed(crops, self._spec)

    def run_fed(self, crops: Sequence[Crop], spec: InputSpec) -> Features:
        """As `run`, but with pixels fed as `spec` says, which has the same height and width."""
        tensor = to_tensor(crops, spec)
        try:
            (features,) = self._ort.run([self._output], {self._input: tensor})
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelFailed(f"ONNX Runtime failed on a batch of {len(tensor)}: {error}") from error
        return check_features(features, len(tensor), self._dim)


class FedSession:
    """A model that is fed in several ways: its features of all of them, one behind the other, in float32 on the CPU."""

    provider, precision = OnnxCpuSession.provider, OnnxCpuSession.precision

    def __init__(self, session: OnnxCpuSession, specs: Sequence[InputSpec]) -> None:
        """The ways have the session's height and width."""
        self._session, self._specs = session, specs
        self.threads, self.lanes, self.batch_sizes = session.threads, session.lanes, session.batch_sizes

    def run(self, crops: Sequence[Crop]) -> Features:
        """See `Session.run`; (n, ways x dim). Numbers that overflow in some way are 0, as that way is of no use."""
        rows: Features = np.concatenate([self._session.run_fed(crops, spec) for spec in self._specs], axis=1)
        rows[~np.isfinite(rows)] = 0
        return rows


def check_features(features: Any, rows: int, dim: int) -> Features:
    """Return the features, or raise ModelFailed if their shape is not (rows, dim): callers would get others' rows."""
    if features.shape != (rows, dim):
        raise ModelFailed(
            f"The model returned shape {features.shape} for a batch of {rows}; {(rows, dim)} was expected."
        )
    return features  # type: ignore[no-any-return]  # the runtimes carry no types


def session_options(threads: int) -> ort.SessionOptions:
    """Options of every ONNX Runtime session; by default it would size its thread pool from the host."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; its warnings are meant for ONNX Runtime's developers
    return options


def open_onnx(content: bytes, options: ort.SessionOptions, providers: Sequence[Any]) -> ort.InferenceSession:
    """Load a model file into ONNX Runtime; raises ModelFailed if that fails."""
    try:
        session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise ModelFailed(f"ONNX Runtime cannot load the model: {error}") from error
    session._model_bytes = None  # noqa: SLF001  # kept for falling back to other providers: 260 MB for nothing
    return session


def _check_signature(session: ort.InferenceSession, model: ModelContent) -> tuple[str, str]:
    """Return the names of the model's only input and output, or raise ModelFailed if they are not as `model` states."""
    spec, inputs, outputs = model.spec, session.get_inputs(), session.get_outputs()
    if (
        len(inputs) == len(outputs) == 1
        and spec.name in (None, inputs[0].name)
        and inputs[0].type == outputs[0].type == "tensor(float)"
        and _fits(inputs[0].shape, [3, spec.height, spec.width])
        and _fits(outputs[0].shape, [model.output_dim])
    ):
        return inputs[0].name, outputs[0].name
    found = [f"input {value.name} {value.type} {value.shape}" for value in inputs]
    found += [f"output {value.name} {value.type} {value.shape}" for value in outputs]
    raise ModelFailed(
        f"The model has {'; '.join(found)}; needed is one float32 input (n, 3, {spec.height}, {spec.width}) and one"
        f" output (n, {model.output_dim})."
    )


def _fits(shape: list[int | str | None], needed: list[int]) -> bool:
    """Whether a shape without its batch is as needed. A size that the graph leaves open is checked by running it."""
    stated = shape[1:]
    return len(shape) == 1 + len(needed) and all(
        s == n for s, n in zip(stated, needed, strict=True) if isinstance(s, int)
    )
