"""dlib's face network as an ONNX graph: pixels in, as they are; 128 numbers out, not normalised.

    pixels (n, 3, rows, columns) ─▶ - whole means ─▶ / 256 ─▶ convolutions … ─▶ embedding (n, 128)

**Normalisation** is in the graph, because three channels have three means, which the service's `InputSpec` cannot say.
It is written so that nothing is rounded before the first convolution, whatever precision a provider computes in: a
whole number between -255 and 255, and its 256th part, are held exactly by bfloat16 and float16; a pixel minus 122.782
is not. What is left of each mean (below one half) goes into the first convolution's biases, which is exact because that
convolution has no padding, so each of its windows is full of pixels. A manifest states mean 0 and std 1, and all that
`arcface_api.session.graphs` puts before this graph are a Cast and a Transpose. Tried on paper and left: means wholly in
the biases (the rounding of weights would then count for the brightness of everything), the division in the weights (the
smallest would fall below what float16 holds in full).

**Affine layers** are folded into the convolution before them. **Add layers** of unequal shapes fill the smaller one up
with zeros at the end of channels, rows and columns, as dlib does; for this each layer's size is followed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from training.open_pack.layers import (
    Add,
    Affine,
    Convolution,
    FullyConnected,
    Layer,
    Network,
    Pair,
    Pool,
    Relu,
    Skip,
    Tag,
)
from training.open_pack.onnx_file import INPUT, Graph

OUTPUT = "embedding"


@dataclass(frozen=True)
class Flow:
    """What flows from one layer to the next."""

    name: str
    """In the graph."""
    shape: tuple[int, ...]
    """Without the batch: channels, rows, columns; or numbers."""


def to_onnx(network: Network) -> onnx.GraphProto:
    """A network as a graph in float32.

    Returns:
        Input `pixels` (n, 3, rows, columns) float32, RGB, 0 to 255; output `embedding` (n, numbers) float32.

    Raises:
        ValueError: The layers follow each other in a way that is not known here.
    """
    graph = Graph()
    pixels = Flow(INPUT, (3, network.rows, network.columns))
    whole = [float(round(mean)) for mean in network.means]
    rest = [mean - taken for mean, taken in zip(network.means, whole, strict=True)]
    first, *others = _without_affines(network.layers)
    flow = Flow(graph.normalised(INPUT, whole), pixels.shape)
    block_input = kept = flow
    layers = [_minus(first, [mean / 256 for mean in rest]), *others]
    for number, layer in enumerate(layers):
        name = OUTPUT if number == len(layers) - 1 else f"layer_{number}"
        match layer:
            case Tag():
                block_input = kept = flow
            case Skip():
                kept, flow = flow, block_input
            case Add():
                flow = _add(graph, flow, kept, name)
            case Convolution():
                flow = _convolution(graph, layer, flow, name)
            case Pool():
                flow = _pool(graph, layer, flow, name)
            case Relu():
                flow = Flow(graph.node("Relu", [flow.name], name), flow.shape)
            case FullyConnected():
                flow = _fully_connected(graph, layer, flow, name)
            case _:
                raise ValueError(f"{layer!r} is in a place where it cannot be converted.")
    return graph.finished("dlib_resnet_v1", pixels.shape, (flow.name, flow.shape))


def _without_affines(layers: Sequence[Layer]) -> list[Layer]:
    """Each affine layer folded into the convolution before it, in float64, rounded once."""
    folded: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Affine) and folded and isinstance(before := folded[-1], Convolution):
            gamma, beta = layer.gamma.astype(np.float64), layer.beta.astype(np.float64)
            filters, biases = before.filters * gamma.reshape(-1, 1, 1, 1), before.biases * gamma + beta
            folded[-1] = replace(before, filters=filters.astype(np.float32), biases=biases.astype(np.float32))
        else:
            folded.append(layer)
    return folded


def _minus(first: Layer, means: Sequence[float]) -> Convolution:
    """The first convolution, as if `means` were subtracted from its input's channels before."""
    if not isinstance(first, Convolution) or first.padding != (0, 0):
        raise ValueError("The network does not begin with a convolution without padding, which could take the means.")
    # fsum: the sum rounded once, so that the bytes are the same whichever way a processor would add.
    taken = [math.fsum((each * np.reshape(means, (3, 1, 1))).ravel()) for each in first.filters.astype(np.float64)]
    return replace(first, biases=(first.biases - np.array(taken)).astype(np.float32))


def _convolution(graph: Graph, layer: Convolution, flow: Flow, name: str) -> Flow:
    filters, _, *window = layer.filters.shape
    inputs = [flow.name, graph.constant(f"{name}_filters", layer.filters)]
    inputs.append(graph.constant(f"{name}_biases", layer.biases))
    graph.node("Conv", inputs, name, kernel_shape=window, strides=layer.stride, pads=layer.padding * 2)
    return Flow(name, (filters, *_windows(flow, (window[0], window[1]), layer.stride, layer.padding)))


def _pool(graph: Graph, layer: Pool, flow: Flow, name: str) -> Flow:
    if layer.padding != (0, 0):
        raise ValueError("A pool has padding; what dlib does there has not been seen.")
    if layer.window == (0, 0):
        graph.node({"max": "GlobalMaxPool", "average": "GlobalAveragePool"}[layer.kind], [flow.name], name)
        return Flow(name, (flow.shape[0], 1, 1))
    operator = {"max": "MaxPool", "average": "AveragePool"}[layer.kind]
    graph.node(operator, [flow.name], name, kernel_shape=layer.window, strides=layer.stride)
    return Flow(name, (flow.shape[0], *_windows(flow, layer.window, layer.stride, layer.padding)))


def _add(graph: Graph, flow: Flow, kept: Flow, name: str) -> Flow:
    rows = zip(flow.shape, kept.shape, strict=True)
    shape = tuple(max(sizes) for sizes in rows)
    filled = [_filled(graph, each, shape, f"{name}_{which}") for each, which in ((flow, "flow"), (kept, "kept"))]
    return Flow(graph.node("Add", filled, name), shape)


def _filled(graph: Graph, flow: Flow, shape: Sequence[int], name: str) -> str:
    """`flow` with zeros at the end of each dimension in which it is smaller than `shape`."""
    missing = [size - has for size, has in zip(shape, flow.shape, strict=True)]
    if not any(missing):
        return flow.name
    pads = np.array([0] * (len(shape) + 1) + [0, *missing], np.int64)  # begins of all dimensions, then their ends
    return graph.node("Pad", [flow.name, graph.constant(f"{name}_zeros", pads)], name)


def _fully_connected(graph: Graph, layer: FullyConnected, flow: Flow, name: str) -> Flow:
    flat = graph.node("Flatten", [flow.name], f"{name}_flat")
    graph.node("MatMul", [flat, graph.constant(f"{name}_weights", layer.weights)], name)
    return Flow(name, layer.weights.shape[1:])


def _windows(flow: Flow, window: Pair, stride: Pair, padding: Pair) -> list[int]:
    """How many windows fit into each column and row, in dlib as in ONNX."""
    return [
        (size + 2 * around - wide) // step + 1
        for size, wide, step, around in zip(flow.shape[1:], window, stride, padding, strict=True)
    ]
