"""Gives models of unusual shapes the usual one: one float32 input (n, 3, height, width), one output (n, dim).

    (1, 112, 112, 3) uint8 ─▶ model ─▶ (1, 512, 1, 1) float16   becomes   (n, 3, 112, 112) ─▶ model ─▶ (n, 512)

Only what surrounds the model changes: nodes are added at both ends, a stated batch size is forgotten, and outputs that
are no embedding are left out. A model that does not compute more than one row is found when it runs. What is compiled
from a model is cached by its file's hash: a change here needs a higher `session.graphs.REWRITING_VERSION`.
"""

from contextlib import suppress

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT, ROWS = "arcface_input", "arcface_output", "arcface_rows"
"""Names of a new input, output and shape."""
MIN_EMBEDDING_DIM = 64
"""Models that see a whole 112x112 crop and return fewer numbers judge quality, masks or age: they recognise nobody."""
USUAL_SIDE = 112
"""Of an input whose size the graph leaves free."""
_FRACTIONS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_TAKEN = (*_FRACTIONS, *(getattr(TensorProto, kind) for kind in ("UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64")))
"""Kinds of numbers that an input may have in place of float32."""


def adapted(content: bytes) -> bytes:
    """A model file of the usual shape; the same bytes if it has that already. The file has passed `graph.inspect`."""
    model = onnx.ModelProto.FromString(content)
    return model.SerializeToString() if adapt(model) else content


def adapt(model: onnx.ModelProto) -> list[str]:  # noqa: PLR0912  # a step for each kind of shape
    """Change a model in place; returns what was done, each as the end of a sentence about the model.

    A model with several inputs or embeddings, or of other shapes, stays as it is.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(dimensions(inputs[0])) != 4:
        return []
    (given,) = inputs
    done = []
    shape = dimensions(given)
    if shape[1] is None and shape[3] != 3:
        done.append("leaves the number of its colour planes free: 3 are assumed, and first")
        given.type.tensor_type.shape.dim[1].dim_value = shape[1] = 3
    if any(_is_free(value) for value in graph.output):
        _infer_outputs(model, given)
    embeddings = [value for value in graph.output if (row_length(value) or 0) >= MIN_EMBEDDING_DIM]
    if len(graph.output) > 1 and len(embeddings) == 1:
        left_out = [value for value in graph.output if value.name != embeddings[0].name]
        done.append(f"has {len(left_out) + 1} outputs: only {embeddings[0].name!r} is an embedding")
        for value in left_out:
            graph.output.remove(value)
    if len(graph.output) != 1:
        return done
    (returned,) = graph.output
    batch, row, kind = given.type.tensor_type.shape.dim[0], row_length(returned), given.type.tensor_type.elem_type
    if batch.HasField("dim_value"):
        if batch.dim_value >= 0:  # some exporters write -1 for any
            done.append(f"states a batch of {batch.dim_value}: it is run with others, too")
        batch.dim_param = "n"
        if len(dimensions(returned)) == 2:
            returned.type.tensor_type.shape.dim[0].dim_param = "n"
        del graph.value_info[:]  # shapes of what is inside, for that batch
    is_last = shape[1] != 3 and shape[3] == 3
    steps: list[onnx.NodeProto] = []
    if is_last:
        done.append("takes its colour planes last: they are moved there")
        steps.append(helper.make_node("Transpose", [""], [""], "arcface_planes_last", perm=[0, 2, 3, 1]))
    if kind in _TAKEN:
        done.append(f"takes {_name(kind)}: it is given float32 rounded to that")
        steps.append(helper.make_node("Cast", [""], [""], f"arcface_to_{_name(kind)}", to=kind))
    if steps:
        _put_before(graph, given, steps, [shape[1], shape[2]] if is_last else [shape[2], shape[3]])
    after: list[onnx.NodeProto] = []
    if row is not None and len(dimensions(returned)) != 2:
        done.append(f"returns rows of the shape {_shown(returned)}: they are made flat")
        graph.initializer.append(numpy_helper.from_array(np.array([-1, row]), ROWS))
        after.append(helper.make_node("Reshape", ["", ROWS], [""], "arcface_flat"))
    if returned.type.tensor_type.elem_type in _FRACTIONS:
        kind = returned.type.tensor_type.elem_type
        done.append(f"returns {_name(kind)}: it is made float32")
        after.append(helper.make_node("Cast", [""], [""], "arcface_to_float32", to=TensorProto.FLOAT))
    if after:
        _put_after(graph, returned, after, row)
    return done


def row_length(value: onnx.ValueInfoProto) -> int | None:
    """How many numbers an output has for each picture; None if it leaves that free, or has them in several rows."""
    shape = dimensions(value)
    if len(shape) == 2:
        return shape[1]
    longer = [dim for dim in shape if dim != 1]
    return longer[-1] if len(longer) == 1 or (len(longer) == 2 and longer[0] in (None, shape[0])) else None


def dimensions(value: onnx.ValueInfoProto) -> list[int | None]:
    """The dimensions of an input or output; None where the graph leaves one free."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _is_free(value: onnx.ValueInfoProto) -> bool:
    """Whether an output leaves its shape free, or a dimension behind the first."""
    return not dimensions(value) or None in dimensions(value)[1:]


def _infer_outputs(model: onnx.ModelProto, given: onnx.ValueInfoProto) -> None:
    """State the shapes that a graph leaves free in its outputs, where they follow from the input's size."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    taken = next(value for value in sized.graph.input if value.name == given.name)
    for number, dim in enumerate(taken.type.tensor_type.shape.dim):
        if number and dim.dim_value <= 0:
            dim.dim_value = USUAL_SIDE
    free = [number for number, value in enumerate(sized.graph.output) if _is_free(value)]
    for number in free:
        if sized.graph.output[number].type.HasField("tensor_type"):  # and not a sequence
            sized.graph.output[number].type.tensor_type.ClearField("shape")
    with suppress(Exception):  # of any kind, where a graph confuses it: then they stay free
        inferred = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph.output
        for number in free:
            if inferred[number].type.tensor_type.HasField("shape"):
                model.graph.output[number].type.tensor_type.shape.CopyFrom(inferred[number].type.tensor_type.shape)


def _name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _shown(value: onnx.ValueInfoProto) -> str:
    return "x".join("n" if dim is None else str(dim) for dim in dimensions(value))


def _put_before(
    graph: onnx.GraphProto, given: onnx.ValueInfoProto, steps: list[onnx.NodeProto], size: list[int | None]
) -> None:
    """A new input whose values reach the given one through these nodes."""
    last = INPUT
    for number, node in enumerate(steps):
        node.input[0] = last
        last = node.output[0] = given.name if number == len(steps) - 1 else f"{INPUT}_{number}"
        graph.node.insert(number, node)
    graph.input.remove(given)
    shape = ["n", 3, *(side or f"side_{number}" for number, side in enumerate(size))]
    graph.input.insert(0, helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape))


def _put_after(
    graph: onnx.GraphProto, returned: onnx.ValueInfoProto, steps: list[onnx.NodeProto], dim: int | None
) -> None:
    """A new output, which the returned one's values reach through these nodes."""
    last = returned.name
    for number, node in enumerate(steps):
        node.input[0] = last
        last = node.output[0] = OUTPUT if number == len(steps) - 1 else f"{OUTPUT}_{number}"
        graph.node.append(node)
    graph.output.remove(returned)
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", dim or "dim"]))
