"""What the pack's three files have in common: pixels in, weights stored in float16, always the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT, BATCH = "pixels", "n"

OPSET, IR_VERSION = 18, 8
"""Of December 2022: every onnxruntime and OpenVINO that the service allows reads them."""

SMALLEST_HALVED = 256
"""Numbers of a weight that is worth storing in float16. Vectors (biases) stay in float32 whatever their length."""


@dataclass
class Graph:
    """Nodes and constants, in the order in which they come."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant; returns its name."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node, named after its only output; returns this name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def normalised(self, pixels: str, means: Sequence[float]) -> str:
        """Add dlib's normalisation of pixels, with a mean for each channel: (x - mean) / 256."""
        per_channel = self.constant("means", np.array(means, np.float32).reshape(1, -1, 1, 1))
        centred = self.node("Sub", [pixels, per_channel], "centred")
        return self.node("Mul", [centred, self.constant("one_256th", np.array(1 / 256, np.float32))], "normalised")

    def finished(self, name: str, given: Sequence[int], made: tuple[str, Sequence[int]]) -> onnx.GraphProto:
        """The graph.

        Args:
            name: Of the graph.
            given: Shape of its input `INPUT`, without the batch.
            made: Name and shape, without the batch, of its output.
        """
        pixels = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, *given])
        output = helper.make_tensor_value_info(made[0], TensorProto.FLOAT, [BATCH, *made[1]])
        return helper.make_graph(self.nodes, name, [pixels], [output], self.constants)


def to_bytes(graph: onnx.GraphProto, source: str, *, are_weights_halved: bool = True) -> bytes:
    """The file of a graph.

    Args:
        graph: In float32. It is left as it is.
        source: What it was made from, for the file's metadata.
        are_weights_halved: Weights are stored in float16 and cast back when the file is loaded: half the size, computed
            in float32.

    Returns:
        The same bytes for the same graph, with any version of onnx.
    """
    model = onnx.ModelProto()
    model.ir_version = IR_VERSION
    model.producer_name = "arcface-api"
    model.opset_import.append(helper.make_opsetid("", OPSET))
    for key, value in (("licence", "CC0-1.0"), ("source", source)):
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
    model.graph.CopyFrom(graph)
    if are_weights_halved:
        _halve(model.graph)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _halve(graph: onnx.GraphProto) -> None:
    casts = []
    for number, weight in enumerate(graph.initializer):
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2 or np.prod(weight.dims) < SMALLEST_HALVED:
            continue
        halved = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{weight.name}_float16")
        casts.append(
            helper.make_node("Cast", [halved.name], [weight.name], f"{weight.name}_cast", to=TensorProto.FLOAT)
        )
        graph.initializer[number].CopyFrom(halved)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
