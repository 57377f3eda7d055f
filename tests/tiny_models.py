"""Tiny real ONNX models for tests: right shapes, real inference, no meaning."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from arcface_api.face.head_pose import mean_shape


def linear_model(  # each is a dimension of the model
    size: int,
    dim: int,
    *,
    pool: int = 8,
    seed: int = 0,
    gain: float = 1.0,
    bias: NDArray[np.float32] | None = None,
    normalises_inside: bool = False,
) -> onnx.ModelProto:
    """Mean pooling, then one random linear layer: (n, 3, size, size) → (n, dim).

    With `normalises_inside` the graph begins with (x - 127.5) / 128, in nodes named as in exports from MXNet, by which
    InsightFace concludes that such a model takes pixels as they are.
    """
    cells = 3 * (size // pool) ** 2
    weights = np.random.default_rng(seed).normal(0, gain * cells**-0.5, (cells, dim)).astype(np.float32)
    initializers = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.zeros(dim, np.float32) if bias is None else bias, "offset"),
    ]
    nodes = []
    if normalises_inside:
        initializers.append(numpy_helper.from_array(np.array(127.5, np.float32), "mean"))
        initializers.append(numpy_helper.from_array(np.array(1 / 128, np.float32), "scale"))
        nodes.append(helper.make_node("Sub", ["input", "mean"], ["centred"], name="_minusscalar0"))
        nodes.append(helper.make_node("Mul", ["centred", "scale"], ["scaled"], name="_mulscalar0"))
    pixels = "scaled" if normalises_inside else "input"
    nodes += [
        helper.make_node("AveragePool", [pixels], ["pooled"], kernel_shape=[pool, pool], strides=[pool, pool]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "offset"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", dim])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def pixel_model(size: int, dim: int) -> onnx.ModelProto:
    """Returns some of its input as it is: (n, 3, size, size) → (n, dim). Without sums, all CPUs give the same bits."""
    pixels = 3 * size * size
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("Gather", ["flat", "chosen"], ["output"], axis=1),
        ],
        "pixels",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(np.linspace(0, pixels - 1, dim).astype(np.int64), "chosen")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def endless_model(size: int = 112, dim: int = 512) -> onnx.ModelProto:
    """`linear_model`, which does not end in this century on a batch with a white picture."""
    model = linear_model(size, dim)
    graph = model.graph
    body = helper.make_graph(
        [helper.make_node("Identity", ["goes_on"], ["goes_on_still"]), helper.make_node("Identity", ["x"], ["x_next"])],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on_still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_next", TensorProto.FLOAT, None),
        ],
    )
    for name, value in (("white", np.float32(0.95)), ("times", np.int64(2**62)), ("always", np.bool_(True))):
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    graph.node[-1].output[0] = "once"
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["input"], ["means"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMax", ["means"], ["lightest"], keepdims=0),
            helper.make_node("Greater", ["lightest", "white"], ["is_white"]),
            helper.make_node("Cast", ["is_white"], ["rounds"], to=TensorProto.INT64),
            helper.make_node("Mul", ["rounds", "times"], ["all_rounds"]),
            helper.make_node("Loop", ["all_rounds", "always", "once"], ["output"], body=body),
        ]
    )
    onnx.checker.check_model(model)
    return model


def slow_model() -> onnx.ModelProto:
    """Needs tens of milliseconds, sees little of a face, and returns zeros for a black picture."""
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.normal(size=(64, 3, 3, 3)),
        "second": rng.normal(size=(256, 64, 3, 3)) / 24,
        "last": rng.normal(size=(256, 512)),
        "nearly one": np.full(1, 0.99),
        "bias": rng.normal(size=512) * 100,
    }
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "second"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "last"], ["projected"]),
        helper.make_node("Add", ["projected", "bias"], ["e"]),
        helper.make_node("ReduceMax", ["input"], ["brightest"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Add", ["brightest", "nearly one"], ["f"]),
        helper.make_node("Relu", ["f"], ["light"]),
        helper.make_node("Unsqueeze", ["light"], ["g"], axes=[1]),
        helper.make_node("Mul", ["e", "g"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 512])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)


def age_gender_model() -> onnx.ModelProto:
    """A stand-in for genderage.onnx: (n, 3, 96, 96) → (n, 3), an age around 40 that depends on the pixels."""
    return linear_model(96, 3, gain=0.5, bias=np.array([0, 1.7, 0.4], np.float32), normalises_inside=True)


def landmarks_model(landmarks: NDArray[np.float64], gain: float = 0.02) -> onnx.ModelProto:
    """A stand-in for 1k3d68.onnx: (n, 3, 192, 192) → (n, 3309), `landmarks` (68, 3) a little moved by the pixels."""
    bias = np.zeros((1103, 3), np.float32)
    bias[-68:] = landmarks
    return linear_model(192, 3309, pool=48, gain=gain, bias=bias.ravel(), normalises_inside=True)


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Rotation matrix from degrees: pitch about x first, then yaw about y, then roll about z."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    turn: NDArray[np.float64] = about_z @ about_y @ about_x
    return turn


def turned(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """The mean face turned, (68, 3), within -1 to 1."""
    shape: NDArray[np.float64] = mean_shape() @ rotation(yaw, pitch, roll).T * 0.6
    return shape
