"""What an unknown graph is for and how it is fed, judged by its shapes and by what its first nodes compute.

The feed is the one with which the node behind the first ones receives numbers of the usual size. Names mean nothing.
Whatever is a guess comes back as a sentence.
"""

from dataclasses import replace
from math import inf, isfinite
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from arcface_api.arrays import ChannelOrder, InputSpec
from arcface_api.errors import GraphUnfit
from arcface_api.packs.adapt import MIN_EMBEDDING_DIM, USUAL_SIDE, adapt, dimensions, row_length
from arcface_api.packs.first_nodes import FirstNodes, attribute, first_nodes
from arcface_api.packs.manifest import ModelFile, Role
from arcface_api.wording import counted

PIXEL_MEAN, PIXEL_STD = 118.0, 64.0
"""Of a face crop's pixels, all planes together, about."""
FEEDS = ((127.5, 127.5), (0.0, 255.0), (0.0, 1.0))
"""Mean and std with which models are fed: from -1 to 1, from 0 to 1, and the pixels as they are."""
_NAMES = {ChannelOrder.RGB: "red, green, blue", ChannelOrder.BGR: "blue, green, red"}
_STEPS = {ChannelOrder.RGB: 1, ChannelOrder.BGR: -1}
_LEAST_STEP, _MOST_STEP = 2.0, 26.0
"""From the mean of one plane to the next, in pixels: 7 and 13 in ImageNet, 11 and 24 in VGGFace."""
_OTHERS_STD = 128.0
"""InsightFace's std for models that are no recogniser. Source: InsightFace 2.1, model_zoo."""
_LANDMARKS_SIZE = 192, 192
"""InsightFace's packs have a model of 106 landmarks of this size, which returns 212 numbers."""
_MOST_SIDE = 1024
"""Pixels of an input's side. Recognisers take 112 to 256; a mistaken size would be tried with as much memory."""
_KEEP_NUMBERS = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_CLASSIFY = ("LogSoftmax", "Sigmoid", "Softmax")
_NEEDED = (
    "A model must have one image input of three colours, (n, 3, height, width) or (n, height, width, 3), and one"
    f" output (n, dim): of at least {MIN_EMBEDDING_DIM} numbers for a recogniser, 96x96 with 3 for age and gender,"
    " 192x192 with 3309 for 3-D landmarks."
)


def usual_feeds(stated: InputSpec) -> list[InputSpec]:
    """The stated feed, then every usual range of numbers in either order of the colour planes."""
    usual = [
        replace(stated, mean=mean, std=std, channel_order=order)
        for mean, std in [(stated.mean, stated.std), *FEEDS]
        for order in ChannelOrder
    ]
    return list(dict.fromkeys([stated, *usual]))


def refuse_misfit(content: bytes, file: ModelFile, name: str) -> None:
    """Raise `GraphUnfit` for a model with another role, input size or output than its manifest states."""
    found, _ = inspect(content, name)
    if (found.role, found.input.height, found.input.width, found.output_dim) != (
        file.role, file.input.height, file.input.width, file.output_dim
    ):  # fmt: skip
        raise GraphUnfit(
            f"{name} takes {found.input.height}x{found.input.width} pixels and returns rows of {found.output_dim}"
            f" numbers, but {file.name} must take {file.input.height}x{file.input.width} and return {file.output_dim}."
        )


def inspect(content: bytes, name: str) -> tuple[ModelFile, tuple[str, ...]]:
    """What a model is for and how it is fed, and what had to be assumed; `GraphUnfit` if it fits no role.

    Its weights are parsed with it: that takes about twice its size in memory, for a moment.
    """
    try:
        return _inspected(onnx.ModelProto.FromString(content), name)
    except GraphUnfit:
        raise
    except Exception as error:  # onnx and NumPy raise whatever comes, for values that no graph can have
        raise GraphUnfit(
            f"{name} cannot be read as an ONNX model: it is damaged, cut short, or another format."
        ) from error


def _inspected(model: onnx.ModelProto, name: str) -> tuple[ModelFile, tuple[str, ...]]:
    graph = model.graph
    # weights in a second file would be covered by no hash
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise GraphUnfit(
            f"{name} keeps its weights in a second file. Save it with its weights inside, for example with"
            " `onnx.save(onnx.load(old), new)`."
        )
    if any(_trains(node, graph) for node in graph.node):
        raise GraphUnfit(
            f"{name} was exported in training mode: a picture's embedding would depend on the others of its batch."
            " Export it again after `model.eval()`."
        )
    adaptations = adapt(model)
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise GraphUnfit(
            f"{name} has {counted(len(inputs), 'input')} and {counted(len(graph.output), 'output')}. {_NEEDED}"
        )
    height, width = _image_size(inputs[0], name)
    if height is None or width is None:
        height, width = height or width or USUAL_SIDE, width or height or USUAL_SIDE
        adaptations.append(f"leaves the size of its input free: {width}x{height} pixels are assumed")
    # the batch size of an output is not looked at: InsightFace's own files state 1 there and return n
    (output,) = graph.output
    dim = row_length(output)
    if output.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or dim is None:
        raise GraphUnfit(f"{name} has the output {_shown(output)}. {_NEEDED}")
    match height, width, dim:
        case 96, 96, 3:
            role = Role.AGE_GENDER
        case 192, 192, 3309:
            role = Role.LANDMARKS_3D
        case _ if dim >= MIN_EMBEDDING_DIM and (height, width) != _LANDMARKS_SIZE:
            role = Role.RECOGNISER
            if (last := _last_operator(graph, output.name)) in _CLASSIFY:
                raise GraphUnfit(
                    f"{name} ends with {last}: it classifies, and returns {dim} probabilities in place of an embedding."
                    " Export it without its last layers."
                )
        case _:
            raise GraphUnfit(f"{name} takes {height}x{width} pixels and returns rows of {dim} numbers. {_NEEDED}")
    first = first_nodes(model, inputs[0].name, height, width)
    mean, std, why_values = _feed(first, role, height, width)
    spec = InputSpec(inputs[0].name, height, width, mean, std)
    order, why_order = _channel_order(first, spec)
    spec = replace(spec, channel_order=order)
    return ModelFile(name, role, spec, dim), (
        f"{name} is taken for {role.described}, because it takes {height}x{width} pixels and returns rows of {dim}"
        " numbers.",
        f"{name} is fed (pixel - {mean:g}) / {std:g}, because {why_values}.",
        f"{name} is fed its colour planes in the order {_NAMES[order]}, because {why_order}.",
        *(f"{name} {adaptation}." for adaptation in adaptations),
    )


def _shown(value: onnx.ValueInfoProto) -> str:
    kind, kinds = value.type.tensor_type.elem_type, onnx.TensorProto.DataType
    element = kinds.Name(kind).lower() if kind in kinds.values() else "unknown"
    shape = ", ".join("n" if dim is None else str(dim) for dim in dimensions(value))
    return f"{value.name!r}, {element} {f'({shape})' if shape else 'of no stated shape'}"


def _trains(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Whether a node does what it does in training."""
    if node.op_type == "BatchNormalization":
        return bool(attribute(node, "training_mode", 0)) or any(node.output[1:])  # before opset 14: the statistics
    if node.op_type != "Dropout" or len(node.input) < 3:
        return False
    given = [tensor for tensor in graph.initializer if tensor.name == node.input[2]]
    given += [attribute(each, "value", None) for each in graph.node if node.input[2] in each.output]
    return any(isinstance(each, onnx.TensorProto) and bool(numpy_helper.to_array(each).any()) for each in given)


def _last_operator(graph: onnx.GraphProto, name: str) -> str:
    """The operator that makes the numbers of an output, whatever shape they get."""
    makers = {output: node for node in graph.node for output in node.output}
    while (maker := makers.pop(name, None)) is not None:  # once each: a damaged graph may go in a circle
        if maker.op_type not in _KEEP_NUMBERS or not maker.input:
            return str(maker.op_type)
        name = maker.input[0]
    return ""


def _image_size(value: onnx.ValueInfoProto, name: str) -> tuple[int | None, int | None]:
    shape = dimensions(value)
    is_float32 = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if not is_float32 or len(shape) != 4 or shape[1] != 3:
        raise GraphUnfit(f"{name} has the input {_shown(value)}. {_NEEDED}")
    if max(shape[2] or 0, shape[3] or 0) > _MOST_SIDE:
        raise GraphUnfit(
            f"{name} takes {shape[2]}x{shape[3]} pixels, but a face crop has at most {_MOST_SIDE} on a side. Export it"
            " with the size that it was trained with."
        )
    return shape[2], shape[3]


def _feed(first: FirstNodes, role: Role, height: int, width: int) -> tuple[float, float, str]:
    """Mean, std, and why: those with which the node behind the first ones receives numbers of the usual size."""
    shaded = _shaded(height, width)
    made = {feed: first((shaded - feed[0]) / feed[1]) for feed in FEEDS}

    def distance(feed: tuple[float, float]) -> float:
        """From numbers with a mean of 0 and a standard deviation of 1; how far the mean is off, in deviations."""
        means, deviations = made[feed].mean(axis=1), np.maximum(made[feed].std(axis=1), 1e-9)
        found = float(np.mean(np.abs(means) / deviations + np.abs(np.log(deviations))))
        return found if isfinite(found) else inf

    chosen = mean, std = min(FEEDS, key=distance)
    numbers = made[chosen]
    given = (shaded - mean) / std
    if numbers.size == given.size and np.allclose(np.sort(numbers, axis=None), np.sort(given, axis=None)):
        why = "its first nodes leave the values as they are, and most models are fed so"
    else:
        why = f"its first nodes make numbers between {numbers.min():.3g} and {numbers.max():.3g} of that"
    return mean, _OTHERS_STD if role is not Role.RECOGNISER and chosen == FEEDS[0] else std, why


def _channel_order(first: FirstNodes, spec: InputSpec) -> tuple[ChannelOrder, str]:
    """The order in which a graph takes its planes, and why."""

    def made(planes: NDArray[Any]) -> NDArray[Any]:
        return first((planes - spec.mean) / spec.std)

    shaded = _shaded(spec.height, spec.width)
    grey = np.full_like(shaded, PIXEL_MEAN)
    moved = []
    for plane in range(3):
        picture = grey.copy()
        picture[plane] = shaded[plane]
        moved.append(int(made(picture).std(axis=1).argmax()))
    reverses = moved == [2, 1, 0]
    with np.errstate(all="ignore"):  # where it makes no three planes of numbers
        middle = made(grey).mean(axis=1)
        zeros = PIXEL_MEAN - middle / (made(grey + 1).mean(axis=1) - middle)
    # faces are redder than they are blue, and so are the pictures that a model was trained on
    inside = next((order for order in ChannelOrder if _descends(zeros[:: _STEPS[order]])), None)
    if inside is None:
        if reverses:
            return ChannelOrder.BGR, "its first nodes reverse them: such a graph is made for pictures from OpenCV"
        return ChannelOrder.RGB, "most models are"
    order = next(order for order in ChannelOrder if (order is inside) != reverses)
    return order, f"its first nodes {'reverse them and ' if reverses else ''}subtract the means of {_NAMES[inside]}"


def _descends(means: NDArray[Any]) -> bool:
    """Whether three planes' means, in pixels, are those of red, green and blue."""
    return len(means) == 3 and all(_LEAST_STEP <= step <= _MOST_STEP for step in -np.diff(means))


def _shaded(height: int, width: int) -> NDArray[np.float64]:
    """A grey picture with the mean and deviation of a face crop's, in whole numbers: (3, height, width)."""
    half = PIXEL_STD * 3**0.5  # of a row of evenly spaced numbers
    row = np.rint(np.linspace(PIXEL_MEAN - half, PIXEL_MEAN + half, width))
    return np.broadcast_to(row, (3, height, width)).copy()
