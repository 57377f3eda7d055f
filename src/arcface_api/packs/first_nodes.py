"""What the first nodes of a graph make of a picture: they are run on one.

    picture ─Cast, Transpose, Gather, Split, Sub, Div, BatchNormalization, 1x1 Conv …─▶ numbers ─▶ the first other node

They are run because there are too many ways to write a subtraction to read all of them.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

Numbers = NDArray[np.float64]
"""What reaches the first other node: (3, n) where it comes in three planes, else (1, n)."""
_OPERATORS = re.compile(
    "Abs|Add|BatchNormalization|Cast|Clip|Concat|DequantizeLinear|Div|Expand|Gather|Identity|InstanceNormalization|Max"
    "|Min|Mul|Neg|Pad|Pow|QuantizeLinear|Reciprocal|Reshape|Shape|Slice|Split|Sqrt|Squeeze|Sub|Sum|Transpose|Unsqueeze"
)
"""They change a picture's numbers one by one, or move them: what they make is still that picture."""
_MAKE_CONSTANTS = re.compile("Constant|ConstantOfShape")
_MOST_NUMBERS = 16_000_000
"""That all nodes of a part make together: ten times a picture of 700x700 pixels. An Expand, a Pad or a circle of
Concats can ask for terabytes."""
_MOST_NODES = 50
"""Behind the input, that are looked at. Graphs have fewer than ten."""


@dataclass(frozen=True)
class FirstNodes:
    """The first nodes of a graph."""

    parts: tuple[onnx.ModelProto, ...]
    """Graphs of all of them, then of fewer and fewer, for where an operation cannot be run here."""

    def __call__(self, planes: NDArray[Any]) -> Numbers:
        """What they make of three planes, (3, h, w); the planes themselves if none of them can be run."""
        picture = planes[np.newaxis].astype(np.float32)
        for part in self.parts:
            with suppress(Exception), np.errstate(all="ignore"):  # each operation fails in its own way
                outputs: Any = ReferenceEvaluator(part).run(None, {part.graph.input[0].name: picture})
                made = np.asarray(outputs[0])
                if made.size * 4 >= picture.size:  # and not its shape, for example
                    return _by_plane(made)
        return _by_plane(picture)


def first_nodes(model: onnx.ModelProto, input_name: str, height: int, width: int) -> FirstNodes:
    """Those between the input (n, 3, h, w) and the first node that makes something else of the picture.

    Parts of other operators, or that make more numbers than a picture needs, are left out: they are not run.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    pictures = [input_name]
    for node in model.graph.node:  # each stands behind those that it needs
        taken = [name for name in node.input if name in pictures]
        if not taken:
            continue
        if len(pictures) > _MOST_NODES:
            break
        if not (_OPERATORS.fullmatch(node.op_type) or _mixes_colours(node, constants)):
            pictures = pictures[: pictures.index(taken[0]) + 1]
            break
        pictures += node.output
    parts = (_part(model, input_name, made, constants, makers) for made in reversed(pictures[1:]))
    return FirstNodes(tuple(part for part in parts if _is_small(part, height, width)))


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """A node's attribute, or the default."""
    return next((onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _mixes_colours(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether it makes three numbers of each pixel's three, as a convolution or a product."""
    weights = constants.get(node.input[1]) if node.op_type in ("Conv", "MatMul") else None
    return weights is not None and list(weights.dims) in ([3, 3, 1, 1], [3, 3])


def _part(
    model: onnx.ModelProto,
    input_name: str,
    made: str,
    constants: Mapping[str, onnx.TensorProto],
    makers: Mapping[str, onnx.NodeProto],
) -> onnx.ModelProto:
    """The part of a graph that makes one tensor."""
    needed, waiting = set[str](), [made]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += makers[name].input if name in makers else ()
    graph = onnx.helper.make_graph(
        [node for node in model.graph.node if not needed.isdisjoint(node.output)],
        "first_nodes",
        [onnx.helper.make_tensor_value_info(input_name, onnx.TensorProto.FLOAT, None)],
        [onnx.ValueInfoProto(name=made)],
        [constants[name] for name in needed if name in constants],
    )
    return onnx.helper.make_model(graph, opset_imports=model.opset_import)


def _is_small(part: onnx.ModelProto, height: int, width: int) -> bool:
    """Whether nothing in a part repeats, and all its nodes together make at most `_MOST_NUMBERS`."""
    graph = part.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if not (
            _OPERATORS.fullmatch(node.op_type)
            or _MAKE_CONSTANTS.fullmatch(node.op_type)
            or _mixes_colours(node, constants)
        ):
            return False
    sized = onnx.ModelProto()
    sized.CopyFrom(part)
    (given,) = sized.graph.input
    given.CopyFrom(onnx.helper.make_tensor_value_info(given.name, onnx.TensorProto.FLOAT, [1, 3, height, width]))
    sized.graph.output[0].type.Clear()
    with suppress(Exception):  # of any kind, where a graph confuses it
        inferred = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph
        sizes = {value.name: _size(value) for value in (*inferred.value_info, *inferred.output)}
        made = [sizes.get(name, inf) for node in graph.node for name in node.output if name]
        return sum(made) <= _MOST_NUMBERS
    return False


def _size(value: onnx.ValueInfoProto) -> float:
    """How many numbers a tensor has; infinity if that is not known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return inf
    return float(prod(dim.dim_value for dim in kind.shape.dim))


def _by_plane(made: NDArray[Any]) -> Numbers:
    axis = next((axis for axis in (1, 3) if made.ndim == 4 and made.shape[axis] == 3), None)
    planes = made.reshape(1, -1) if axis is None else np.moveaxis(made, axis, 0).reshape(3, -1)
    return planes.astype(np.float64)
