"""What an ONNX file that nobody has registered says about itself: its role, input and output.

The rule for mean and std is the one InsightFace's library applies when it loads a model, so that a pack that works
there works here with the same numbers. Everything that is a guess comes back as a sentence.
"""

from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from arcface_api.arrays import InputSpec
from arcface_api.errors import GraphUnfit
from arcface_api.packs.manifest import ModelFile, Role

MIN_EMBEDDING_DIM = 64
"""Models that see a whole 112x112 crop and return fewer numbers judge quality, masks or age: they recognise nobody."""

_NEEDED = (
    "Needed is one float32 image input (n, 3, height, width) and one output (n, dim): 112x112 with at least"
    f" {MIN_EMBEDDING_DIM} numbers for a recogniser, 96x96 with 3 for age and gender, 192x192 with 3309 for 3-D"
    " landmarks."
)
# InsightFace 2.1, model_zoo: nodes among the first eight whose names begin so normalise inside the graph
_NODES_LOOKED_AT = 8
_SUBTRACTS = ("Sub", "_minus")
_MULTIPLIES = ("Mul", "_mul")


@dataclass(frozen=True)
class Inspected:
    """What a graph says about itself, and what had to be assumed."""

    role: Role
    input: InputSpec
    output_dim: int
    assumptions: tuple[str, ...]


def inspect_graph(content: bytes, name: str) -> Inspected:
    """Find out what a model is for and how it wants its pixels.

    Args:
        content: The whole `.onnx` file. Its weights are parsed with it (about twice its size in memory, for a moment).
        name: What to call it in messages.

    Raises:
        GraphUnfit: Not readable as ONNX, or none of the three roles fits.
    """
    try:
        graph = onnx.ModelProto.FromString(content).graph
    except DecodeError as error:
        raise GraphUnfit(
            f"{name} cannot be read as an ONNX model: it is damaged, cut short, or another format."
        ) from error
    _refuse_external_weights(graph, name)
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise GraphUnfit(f"{name} has {len(inputs)} inputs and {len(graph.output)} outputs. {_NEEDED}")
    height, width = _image_size(inputs[0], name)
    dim = _row_length(graph.output[0], name)
    role = _role(height, width, dim)
    if role is None:
        raise GraphUnfit(f"{name} takes {height}x{width} pixels and returns rows of {dim} numbers. {_NEEDED}")
    mean, std, why = _normalisation(graph, role)
    return Inspected(
        role=role,
        input=InputSpec(name=inputs[0].name, height=height, width=width, mean=mean, std=std),
        output_dim=dim,
        assumptions=(
            f"{name} is taken for {role.described}, because it takes {height}x{width} pixels and returns rows of {dim}"
            " numbers.",
            f"{name} is fed (pixel - {mean:g}) / {std:g}, because {why}.",
            f"{name} is fed its colour planes in the order red, green, blue, because InsightFace's models are.",
        ),
    )


def refuse_misfit(content: bytes, file: ModelFile, name: str) -> None:
    """Refuse a model whose hash is not known and whose graph is not what its manifest states.

    Raises:
        GraphUnfit: Another role, input size or output.
    """
    found = inspect_graph(content, name)
    if (found.role, found.input.height, found.input.width, found.output_dim) != (
        file.role, file.input.height, file.input.width, file.output_dim
    ):  # fmt: skip
        raise GraphUnfit(
            f"{name} takes {found.input.height}x{found.input.width} pixels and returns rows of {found.output_dim}"
            f" numbers, but {file.name} must take {file.input.height}x{file.input.width} and return {file.output_dim}."
        )


def _refuse_external_weights(graph: onnx.GraphProto, name: str) -> None:
    """Weights in a second file would be covered by no hash."""
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise GraphUnfit(
            f"{name} keeps its weights in a second file. Save it with its weights inside, for example with"
            " `onnx.save(onnx.load(old), new)`."
        )


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """The dimensions of a graph's input or output; None where the graph leaves one free."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _shown(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type.elem_type
    kinds = onnx.TensorProto.DataType
    element = kinds.Name(kind).lower() if kind in kinds.values() else "unknown"
    return f"{element} ({', '.join('n' if dim is None else str(dim) for dim in _shape(value))})"


def _image_size(value: onnx.ValueInfoProto, name: str) -> tuple[int, int]:
    shape = _shape(value)
    is_float32 = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if not is_float32 or len(shape) != 4 or shape[1] != 3 or shape[2] is None or shape[3] is None:
        raise GraphUnfit(f"{name} has the input {value.name!r}, {_shown(value)}. {_NEEDED}")
    if shape[0] is not None:
        raise GraphUnfit(
            f"{name} has the input {value.name!r}, {_shown(value)}: its batch size is fixed. Export it again with a"
            " free batch dimension (`dynamic_axes` or `dynamic_shapes` in PyTorch's ONNX export)."
        )
    return shape[2], shape[3]


def _row_length(value: onnx.ValueInfoProto, name: str) -> int:
    # the batch size of an output is not looked at: InsightFace's own files state 1 there and return n
    shape = _shape(value)
    dim = shape[1] if len(shape) == 2 else None
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or dim is None:
        raise GraphUnfit(f"{name} has the output {value.name!r}, {_shown(value)}. {_NEEDED}")
    return dim


def _role(height: int, width: int, dim: int) -> Role | None:
    match height, width, dim:
        case 96, 96, 3:
            return Role.AGE_GENDER
        case 192, 192, 3309:
            return Role.LANDMARKS_3D
        case 112, 112, _ if dim >= MIN_EMBEDDING_DIM:
            return Role.RECOGNISER
        case _:
            return None


def _normalisation(graph: onnx.GraphProto, role: Role) -> tuple[float, float, str]:
    names = [node.name for node in graph.node[:_NODES_LOOKED_AT]]
    subtracts = any(name.startswith(_SUBTRACTS) for name in names)
    multiplies = any(name.startswith(_MULTIPLIES) for name in names)
    # genderage and 1k3d68 normalise in a batch normalisation of this name
    begins_with_bn = role is not Role.RECOGNISER and "bn_data" in names[:3]
    if (subtracts and multiplies) or begins_with_bn:
        return 0.0, 1.0, "its first nodes normalise the pixels themselves, by the names they have"
    std = 127.5 if role is Role.RECOGNISER else 128.0
    return 127.5, std, "no node that normalises is among its first eight, by the names they have (InsightFace's rule)"
