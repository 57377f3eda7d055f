"""ONNX Runtime's CPU provider in float32: the reference that every other provider is held against.

Left alone, ONNX Runtime sizes its thread pool from the host, so threads are always set. The graph is taken as it came
and pixels are normalised outside, in the reference's order of operations.
"""

from collections.abc import Sequence
from typing import Any

import onnxruntime as ort

from arcface_api.arrays import Crop, Features, to_tensor
from arcface_api.errors import ModelFailed
from arcface_api.session.model import ModelContent, check_features

CPU_PROVIDER = "CPUExecutionProvider"


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
        flushes_denormals: bool = False,
    ) -> None:
        """Load a model; nothing runs yet.

        Args:
            model: What to load.
            threads: Threads of one inference, at least 1.
            batch_sizes: Sizes that batches will have.
            flushes_denormals: Numbers below float32's normal range count as zero. Some trained ArcFace models hold such
                weights, and a CPU computes with them a hundred times slower.

        Raises:
            ModelFailed: ONNX Runtime cannot load the model, or its input or output is not as expected.
        """
        self.threads = threads
        self.batch_sizes = tuple(batch_sizes)
        self._spec, self._dim = model.spec, model.output_dim
        options = session_options(threads)
        if flushes_denormals:
            options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self._ort = open_onnx(model.content, options, [CPU_PROVIDER])
        self._input, self._output = check_signature(self._ort, model)

    def run(self, crops: Sequence[Crop]) -> Features:
        """One inference; see `Session.run`."""
        tensor = to_tensor(crops, self._spec)
        try:
            (features,) = self._ort.run([self._output], {self._input: tensor})
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelFailed(f"ONNX Runtime failed on a batch of {len(tensor)}: {error}") from error
        return check_features(features, len(tensor), self._dim)


def session_options(threads: int) -> ort.SessionOptions:
    """What every session of ONNX Runtime is opened with."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; its warnings speak to ONNX Runtime's developers
    return options


def open_onnx(content: bytes, options: ort.SessionOptions, providers: Sequence[Any]) -> ort.InferenceSession:
    """A session of ONNX Runtime.

    Raises:
        ModelFailed: It cannot load the model.
    """
    try:
        session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise ModelFailed(f"ONNX Runtime cannot load the model: {error}") from error
    session._model_bytes = None  # noqa: SLF001  # kept for falling back to other providers: 260 MB for nothing
    return session


def check_signature(session: ort.InferenceSession, model: ModelContent) -> tuple[str, str]:
    """The names of the model's only input and output.

    Raises:
        ModelFailed: There are others, or they have other names, types or shapes than its manifest states.
    """
    spec, dim = model.spec, model.output_dim
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted = f"one float32 input (n, 3, {spec.height}, {spec.width}) and one output (n, {dim})"
    found = "; ".join(
        [f"input {i.name} {i.type} {i.shape}" for i in inputs]
        + [f"output {o.name} {o.type} {o.shape}" for o in outputs]
    )
    if len(inputs) != 1 or len(outputs) != 1 or (spec.name is not None and inputs[0].name != spec.name):
        raise ModelFailed(f"The model has {found}; needed is {wanted}.")
    (given,), (made,) = inputs, outputs
    # A dimension that the graph leaves open is a name or None: the warm-up run tells.
    fits = given.type == made.type == "tensor(float)" and len(given.shape) == 4 and len(made.shape) == 2
    stated = [*given.shape[1:], *made.shape[1:]] if fits else []
    expected = [3, spec.height, spec.width, dim]
    if not fits or any(isinstance(s, int) and s != e for s, e in zip(stated, expected, strict=True)):
        raise ModelFailed(f"The model has {found}; needed is {wanted}.")
    return given.name, made.name
