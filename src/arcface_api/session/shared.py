"""A small model that several threads run at once, one crop each: in bfloat16 where the CPU has it and it proves itself.

    ModelContent ─▶ OnnxCpuSession, float32 ─┐
                 └▶ SharedBfloat16Session ───┴─ compared on the probe faces ─▶ Session

Unlike `OpenVinoSession`, it compiles at every start, and takes one crop at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from queue import LifoQueue
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from arcface_api.arrays import Crop, Features
from arcface_api.errors import ModelFailed, RuntimeUnfit
from arcface_api.session.choose import open_reference
from arcface_api.session.graphs import round_to_bfloat16, sum_last_product_in_float32, take_pixels
from arcface_api.session.onnx_cpu import ModelContent, Session, check_features
from arcface_api.session.openvino_cpu import OPENVINO, _openvino
from arcface_api.session.plan import Backend, SessionConfig, plan_for
from arcface_api.session.self_test import probe_crops, reference_features

MAX_COPIES = 4
"""Each runs a few thousand crops a second; it takes 5 MB, and a tenth of a second to compile."""

_BFLOAT16 = "bf16"


def open_shared(
    model: ModelContent, config: SessionConfig, callers: int, max_error: float
) -> tuple[Session, str | None]:
    """Open a model that `callers` threads run at once, each on one thread; and why not in bfloat16, if it failed.

    It is in bfloat16 if `config` allows that, the CPU has it, and no number in a probe face's row differs from float32
    by more than `max_error`. Raises `ModelFailed` if the float32 model cannot be loaded or run.
    """
    reference = open_reference(model, threads=1, batch_sizes=(1,))
    if not _may_be_bfloat16(config):
        return reference, None
    probes = probe_crops(model.spec.height, model.spec.width)
    try:
        session = SharedBfloat16Session(model, callers)
        error = float(np.abs(reference_features(session, probes) - reference_features(reference, probes)).max())
    except ModelFailed as failure:
        return reference, f"bfloat16 failed: {failure}"
    if not error <= max_error:  # also if it is NaN
        return reference, f"bfloat16 is off by {error:.2g}, where {max_error:g} is allowed"
    return session, None


def _may_be_bfloat16(config: SessionConfig) -> bool:
    try:
        plan = plan_for(config.device, config.precision)
    except RuntimeUnfit:
        return False
    return Backend(OPENVINO, "bfloat16") in (*plan.preferred, *plan.timed)


@dataclass(frozen=True)
class _Copy:
    """A compiled model's request, the pixels that it reads, and the row that it writes, in place."""

    request: Any
    pixels: NDArray[np.uint8]
    row: Features


class SharedBfloat16Session:
    """A model on OpenVINO's CPU device in bfloat16; see `Session`, but several threads may run it at once.

    Each call takes one of a few copies, the last used first, because its weights are still in a cache. A copy of one
    stream runs on the thread that calls it. One model of several streams has threads of its own: handing over to them
    took more CPU time than bfloat16 saved.
    """

    provider, precision, threads = OPENVINO, "bfloat16", 1
    batch_sizes: tuple[int, ...] = (1,)

    def __init__(self, model: ModelContent, callers: int) -> None:
        """Compile a model for so many threads, or raise ModelFailed; nothing runs yet."""
        self._dim = model.output_dim
        self.lanes = min(callers, MAX_COPIES)
        self._free: LifoQueue[_Copy] = LifoQueue()
        shape = 1, model.spec.height, model.spec.width, 3
        config = {
            "INFERENCE_PRECISION_HINT": _BFLOAT16,
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            parsed = take_pixels(onnx.load_from_string(model.content), model.spec)
            parsed = round_to_bfloat16(sum_last_product_in_float32(parsed))
            openvino = _openvino()
            core = openvino.Core()
            graph = core.read_model(parsed.SerializeToString())
            graph.reshape(list(shape))  # 10 % faster than with a free batch
            for _ in range(self.lanes):
                compiled = core.compile_model(graph, "CPU", config)
                used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
                request, pixels = compiled.create_infer_request(), np.zeros(shape, np.uint8)
                request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))
                request.infer(share_outputs=True)  # warmed up
                self._free.put(_Copy(request, pixels, request.get_output_tensor().data))
        except Exception as error:  # RuntimeError for any failure in OpenVINO, ImportError where a library is missing
            raise ModelFailed(f"OpenVINO cannot compile the model: {error}") from error
        if used != _BFLOAT16:
            raise ModelFailed(f"OpenVINO computes in {used} where {_BFLOAT16} was asked for.")

    def run(self, crops: Sequence[Crop]) -> Features:
        """See `Session.run`."""
        (crop,) = crops
        own = self._free.get()
        try:
            own.pixels[0] = crop
            own.request.infer(share_outputs=True)  # with the pixels as an argument, it takes half as long again
            features = own.row.copy()
        except Exception as error:  # OpenVINO raises RuntimeError for any failure
            raise ModelFailed(f"OpenVINO failed on a crop: {error}") from error
        finally:
            self._free.put(own)
        return check_features(features, 1, self._dim)
