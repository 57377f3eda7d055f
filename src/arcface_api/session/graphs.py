"""Rewrites graphs for accelerated providers: pixels in, with the normalisation inside.

    input (n, 3, h, w) float ─▶ model          becomes          pixels (n, h, w, 3) uint8 ─▶ normalise ─▶ model

A quarter of the bytes travel to the device, and the host computes nothing. The reference runs graphs unchanged.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from arcface_api.arrays import ChannelOrder, InputSpec
from arcface_api.errors import ModelFailed

PIXELS = "arcface_pixels"
"""Name of the new input."""
PIXELS_BATCH = "arcface_n"
"""Name of its first dimension. No exporter uses it, so that setting a session's batch size by it sets nothing else."""
REWRITING_VERSION = 5
"""Part of the key of everything compiled from a rewritten graph; raised with every change here."""


def take_pixels(model: onnx.ModelProto, spec: InputSpec) -> onnx.ModelProto:
    """Make a model with one input (n, 3, height, width) take (n, height, width, 3) uint8 pixels, RGB, as `PIXELS`.

    Changes the model in place and returns it. The first convolution takes over the division by `std` where it can:
    bfloat16 and float16 hold a pixel minus 127.5 exactly (an odd number of at most 8 bits, halved), but not divided.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    (given,) = [value for value in graph.input if value.name not in weights]
    kind = given.type.tensor_type.elem_type
    scale = 1 / spec.std
    if scale != 1 and _fold_into_convolution(graph, given.name, weights, scale):
        scale = 1.0
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": kind})]
    if spec.channel_order is ChannelOrder.BGR:
        graph.initializer.append(helper.make_tensor("arcface_bgr", TensorProto.INT64, [3], [2, 1, 0]))
        steps.append(("Gather", ["arcface_bgr"], {"axis": 3}))
    steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    for operator, name, value, neutral in (("Sub", "arcface_mean", spec.mean, 0), ("Mul", "arcface_scale", scale, 1)):
        if value != neutral:
            graph.initializer.append(helper.make_tensor(name, kind, [], [value]))
            steps.append((operator, [name], {}))
    last = PIXELS
    for position, (operator, constants, attributes) in enumerate(steps):
        output = given.name if position == len(steps) - 1 else f"arcface_step_{position}"
        node = helper.make_node(operator, [last, *constants], [output], f"arcface_{operator}", **attributes)
        graph.node.insert(position, node)
        last = output
    graph.input.remove(given)
    shape: list[str | int | None] = [PIXELS_BATCH, spec.height, spec.width, 3]
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, shape))
    return model


def round_to_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round the weights of convolutions and matrix products to the nearest bfloat16, ties to even, in place.

    So rounded, they can be stored in float16, which holds each of them exactly. Rounded to float16 first and to
    bfloat16 later, a MobileFaceNet erred twice as much.
    """
    graph = model.graph
    weights = {node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
    for tensor in graph.initializer:
        if tensor.name in weights and tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            bits = np.ascontiguousarray(values).view(np.uint32)
            rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
            tensor.CopyFrom(numpy_helper.from_array(rounded.view(np.float32).reshape(values.shape), tensor.name))
    return model


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model to float16 except where it cannot hold the values; the output stays float32. Or ModelFailed."""
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415  # only GPUs need it

    outputs = [value.name for value in model.graph.output]
    try:
        # Shape inference, which the conversion does not need, fails on graphs with unusual shapes.
        half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=outputs, disable_shape_infer=True)
    except Exception as error:  # the converter has no exceptions of its own
        raise ModelFailed(f"The model cannot be converted to float16: {error}") from error
    return half


def _fold_into_convolution(
    graph: onnx.GraphProto, input_name: str, weights: dict[str, TensorProto], scale: float
) -> bool:
    """Scale the weights of the convolution that alone takes the input; False if there is none."""
    takers = [node for node in graph.node if input_name in node.input]
    if len(takers) != 1 or takers[0].op_type != "Conv" or takers[0].input[1] not in weights:
        return False
    name = takers[0].input[1]
    if sum(name in node.input for node in graph.node) > 1:
        return False
    values = numpy_helper.to_array(weights[name])
    scaled = (values.astype("float64") * scale).astype(values.dtype)
    weights[name].CopyFrom(numpy_helper.from_array(scaled, name))
    return True
