"""Small ONNX networks with random weights: real shapes, real inference, no meaning."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SEED = 0


def linear(  # noqa: PLR0913  # each is a property of the network
    height: int,
    width: int,
    dim: int,
    *,
    pool: int = 8,
    gain: float = 1.0,
    bias: NDArray[np.floating] | None = None,
    normalises_inside: bool = False,
    fails_on_black: bool = False,
) -> onnx.ModelProto:
    """Mean pooling, then one random linear layer: (n, 3, height, width) → (n, dim).

    Args:
        height: Of the input, in pixels.
        width: Of the input, in pixels.
        dim: Length of an output row.
        pool: Side of the pooled squares, in pixels.
        gain: Factor of the weights.
        bias: (dim,) added to each row; None adds nothing.
        normalises_inside: The graph begins with (x - 127.5) / 128, in nodes named as in exports from MXNet; by those
            names InsightFace recognises a network that takes pixels as they are.
        fails_on_black: Where every input number is -1, as of a black crop that was normalised, the row is NaN.
    """
    cells = 3 * (height // pool) * (width // pool)
    weights = np.random.default_rng(SEED).normal(0, gain * cells**-0.5, (cells, dim)).astype(np.float32)
    offset = np.zeros(dim, np.float32) if bias is None else bias.astype(np.float32)
    constants = {"weights": weights, "offset": offset, "mean": np.float32(127.5), "scale": np.float32(1 / 128)}
    nodes = [
        helper.make_node("Sub", ["input", "mean"], ["centred"], name="_minusscalar0"),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"], name="_mulscalar0"),
    ] * normalises_inside + [
        helper.make_node(
            "AveragePool",
            ["scaled" if normalises_inside else "input"],
            ["pooled"],
            kernel_shape=[pool, pool],
            strides=[pool, pool],
        ),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "offset"], ["row" if fails_on_black else "output"]),
    ]
    if fails_on_black:
        constants["one"] = np.float32(1)
        nodes += [
            helper.make_node("ReduceMax", ["flat"], ["lightest"], axes=[1]),
            helper.make_node("Add", ["lightest", "one"], ["above_black"]),
            helper.make_node("Div", ["above_black", "above_black"], ["one_or_nan"]),
            helper.make_node("Mul", ["row", "one_or_nan"], ["output"]),
        ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, height, width])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def write_attribute_networks(folder: Path, landmarks: NDArray[np.floating]) -> None:
    """The two networks of a pack's attributes: an age around 40 that depends on the pixels, and a moved face.

    Args:
        folder: Of the pack.
        landmarks: (68, 3) around which the 3-D landmarks lie; all zero, and no head pose can be computed.
    """
    age = linear(96, 96, 3, gain=0.5, bias=np.array([0, 1.7, 0.4]), normalises_inside=True)
    bias = np.zeros((1103, 3))
    bias[-68:] = landmarks
    gain = 0.02 if landmarks.any() else 0.0
    pose = linear(192, 192, 3309, pool=48, gain=gain, bias=bias.ravel(), normalises_inside=True)
    onnx.save(age, folder / "genderage.onnx")
    onnx.save(pose, folder / "1k3d68.onnx")
