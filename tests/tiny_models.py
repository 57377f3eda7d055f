"""Tiny real ONNX models for tests: right shapes, real inference, no meaning."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def linear_model(size: int, dim: int, *, seed: int = 0, bias: NDArray[np.float32] | None = None) -> onnx.ModelProto:
    """8x8 mean pooling, then one random linear layer: (n, 3, size, size) → (n, dim)."""
    cells = 3 * (size // 8) ** 2
    weights = np.random.default_rng(seed).normal(0, cells**-0.5, (cells, dim)).astype(np.float32)
    offset = np.zeros(dim, np.float32) if bias is None else bias
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "offset"], ["output"]),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(offset, "offset")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
