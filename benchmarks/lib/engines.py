"""One recogniser in every precision that a CPU can be asked for, ready to run; `precision.py` compares them."""

import arcface_api  # noqa: F401 # first: turns ONNX Runtime's reports to its makers off

# isort: split
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from arcface_api.arrays import Features, InputSpec, Tensor
from benchmarks.lib import lfw, quantisation

MIDDLE = 127.5
"""Both stand-ins and InsightFace's recognisers take RGB as (pixel - 127.5) / 127.5."""
SCALED = InputSpec(None, lfw.SIDE, lfw.SIDE, MIDDLE, MIDDLE)
CENTRED = InputSpec(None, lfw.SIDE, lfw.SIDE, MIDDLE, 1.0)
HEAVY_LAYERS = ("Convolution", "FullyConnected", "MatMul")
"""Types of OpenVINO's compiled graph that do nearly all the arithmetic."""


@dataclass(frozen=True)
class Engine:
    """One recogniser in one precision, ready to run.

    Attributes:
        precision: What was asked for.
        runtime: What runs it.
        recipe: How it was made, in a few words.
        spec: What it takes.
        run: (n, 3, 112, 112) float32 → (n, dim) float32.
        arithmetic: How many convolutions and matrix products run in which type, by OpenVINO's own account; empty where
            the runtime gives none.
    """

    precision: str
    runtime: str
    recipe: str
    spec: InputSpec
    run: Callable[[Tensor], Features]
    arithmetic: dict[str, int]


def build(path: Path, calibration: Tensor, threads: int) -> list[Engine]:
    """Every precision of one recogniser, the reference first."""

    def openvino_engine(precision: str, recipe: str, model: Any, hint: str, spec: InputSpec = SCALED) -> Engine:
        progress(f"{path.stem}: {precision}, OpenVINO, {recipe}")
        run, arithmetic = open_openvino(model() if callable(model) else model, hint, threads)
        return Engine(precision, "OpenVINO", recipe, spec, run, arithmetic)

    def ort_engine(precision: str, recipe: str, make: Callable[[], bytes]) -> Engine:
        progress(f"{path.stem}: {precision}, ONNX Runtime, {recipe}")
        return Engine(precision, "ONNX Runtime", recipe, SCALED, open_ort(make(), threads), {})

    return [
        ort_engine("float32", "reference", path.read_bytes),
        openvino_engine("float32", "plain", path, "f32"),
        openvino_engine("bfloat16", "plain", path, "bf16"),
        openvino_engine("bfloat16", "exact pixels", lambda: centred_input(path), "bf16", CENTRED),
        ort_engine("float16", "plain", lambda: to_float16(path)),
        openvino_engine("float16", "plain", path, "f16"),
        openvino_engine("int8", "NNCF, all layers", lambda: quantisation.nncf_basic(path, calibration), "f32"),
        openvino_engine("int8", "NNCF, inner layers", lambda: quantisation.nncf_inner(path, calibration), "f32"),
        ort_engine("int8", "QDQ, convolutions", lambda: quantisation.ort_qdq(path, calibration)),
    ]


def open_ort(content: bytes, threads: int) -> Callable[[Tensor], Features]:
    """An ONNX file on ONNX Runtime's CPU provider."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0]


def open_openvino(model: Any, hint: str, threads: int) -> tuple[Callable[[Tensor], Features], dict[str, int]]:
    """A model, a path or an ONNX file's bytes on OpenVINO's CPU device; and the arithmetic of its heavy layers."""
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    read = model if isinstance(model, openvino.Model) else core.read_model(model)
    compiled = core.compile_model(read, "CPU", options)
    request = compiled.create_infer_request()
    layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    used = Counter(
        layer["runtimePrecision"].astype(str) for layer in layers if layer["layerType"].astype(str) in HEAVY_LAYERS
    )
    return lambda tensor: request.infer([tensor])[0].copy(), dict(sorted(used.items()))


def centred_input(path: Path) -> bytes:
    """The recogniser with its input's scale moved into the first convolution: it then takes pixel - 127.5.

    bfloat16 has 8 significant bits. 2 * (pixel - 127.5) = 2 * pixel - 255 is an integer of at most 8 bits, so bfloat16
    holds pixel - 127.5 exactly, but (pixel - 127.5) / 127.5 only rounded. A convolution's zero padding stays the same.
    """
    model = onnx.load(path)
    (first,) = (node for node in model.graph.node if model.graph.input[0].name in node.input)
    if first.op_type != "Conv":
        raise SystemExit(f"{path} begins with {first.op_type}; only a first convolution can take the scale in.")
    (kernel,) = (weight for weight in model.graph.initializer if weight.name == first.input[1])
    scaled = numpy_helper.to_array(kernel).astype(np.float64) / MIDDLE
    kernel.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), kernel.name))
    return model.SerializeToString()


def to_float16(path: Path) -> bytes:
    """The recogniser with weights and arithmetic in float16; input and output stay float32."""
    return convert_float_to_float16(onnx.load(path), keep_io_types=True).SerializeToString()


def progress(line: str) -> None:
    """Overwrite the line that says what is being done."""
    sys.stderr.write(f"\r\x1b[K{line}")
    sys.stderr.flush()
