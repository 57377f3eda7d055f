"""A recogniser that costs nothing: with it, what is left is the road around the model."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIM = 512
POOL = 8


def write(path: Path) -> None:
    """Mean pooling, then one random linear layer: (n, 3, 112, 112) → (n, 512)."""
    cells = 3 * (112 // POOL) ** 2
    weights = np.random.default_rng(0).normal(0, cells**-0.5, (cells, DIM)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[POOL] * 2, strides=[POOL] * 2),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
