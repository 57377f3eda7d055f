"""Small networks as dlib writes them, and what they compute in plain NumPy: a second opinion on the conversion."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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

Values = NDArray[np.float64]

# ── writing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def integer(value: int) -> bytes:
    magnitude = abs(value).to_bytes(max(1, math.ceil(abs(value).bit_length() / 8)), "little")
    return bytes([len(magnitude) | (0x80 if value < 0 else 0)]) + magnitude


def real(value: float) -> bytes:
    fraction, exponent = math.frexp(value)
    mantissa, exponent = int(fraction * 2**53), exponent - 53
    while mantissa and mantissa % 256 == 0:
        mantissa, exponent = mantissa // 256, exponent + 8
    return integer(mantissa) + integer(exponent)


def text(value: str) -> bytes:
    return integer(len(value)) + value.encode()


def integers(*values: int) -> bytes:
    return b"".join(map(integer, values))


def tensor(*parts: NDArray[np.float32]) -> bytes:
    """The parts one after the other as one tensor of (size, 1, 1, 1)."""
    values = np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0, np.float32)
    shape = (values.size, 1, 1, 1) if parts else (0, 0, 0, 0)
    return integers(2, *shape) + values.astype("<f4").tobytes()


def alias(*shape: int) -> bytes:
    return integers(1, *shape)


def serialised(network: Network) -> bytes:
    """The file of a network."""
    computing = [layer for layer in network.layers if not isinstance(layer, Tag | Skip)]
    versions = [_versions(layer, is_innermost=layer is computing[0]) for layer in network.layers]
    content = integer(1) + text("loss_metric_2") + real(0.04) + real(network.max_distance)
    content += b"".join(reversed(versions))
    content += text("input_rgb_image_sized") + b"".join(map(real, network.means))
    content += integers(network.rows, network.columns)
    for layer in computing:
        content += _details(layer) + b"100" + tensor() + tensor() + tensor()
        if layer is computing[0]:
            content += integer(1)
    return content


def _versions(layer: Layer, *, is_innermost: bool) -> bytes:
    if isinstance(layer, Tag):
        return integers(1)
    if isinstance(layer, Skip):
        return integers(1, 1)
    return integers(3 if is_innermost else 2)


def _details(layer: Layer) -> bytes:
    rates = real(1) + real(1) + real(1) + real(0)
    match layer:
        case Convolution(filters, biases, stride, padding):
            count, _, rows, columns = filters.shape
            numbers = integers(count, rows, columns, *stride, *padding)
            shapes = alias(*filters.shape) + alias(1, count, 1, 1)
            return text("con_4") + tensor(filters, biases) + numbers + shapes + rates
        case Affine(gamma, beta):
            shape = alias(1, gamma.size, 1, 1)
            return text("affine_") + tensor(gamma, beta) + shape + shape + integer(0)
        case Pool(kind, window, stride, padding):
            name = {"max": "max_pool_2", "average": "avg_pool_2"}[kind]
            return text(name) + integers(*window, *stride, *padding)
        case Relu():
            return text("relu_")
        case Add():
            return text("add_prev_")
        case FullyConnected(weights):
            inputs, outputs = weights.shape
            shapes = alias(inputs, outputs, 1, 1) + alias(0, 0, 0, 0)
            return text("fc_2") + integers(outputs, inputs) + tensor(weights) + shapes + integer(1) + rates
        case _:
            raise AssertionError(layer)


# ── computing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluated(network: Network, pixels: NDArray[np.uint8]) -> Values:
    """What the network makes of one picture: (3, rows, columns) → (outputs,)."""
    flow: Values = (pixels - np.array(network.means).reshape(3, 1, 1)) / 256
    block_input = kept = flow
    for layer in network.layers:
        match layer:
            case Tag():
                block_input = kept = flow
            case Skip():
                kept, flow = flow, block_input
            case Add():
                first, second = _same_shape(flow, kept)
                flow = first + second
            case Convolution(filters, biases, stride, (y, x)):
                windows = _windows(np.pad(flow, [(0, 0), (y, y), (x, x)]), filters.shape[2:], stride)
                flow = np.einsum("crsyx,fcyx->frs", windows, filters) + biases.reshape(-1, 1, 1)
            case Affine(gamma, beta):
                flow = flow * gamma.reshape(-1, 1, 1) + beta.reshape(-1, 1, 1)
            case Pool(kind, window, stride, _):
                windows = _windows(flow, window, stride) if any(window) else flow[:, None, None]
                flow = windows.max((3, 4)) if kind == "max" else windows.mean((3, 4))
            case Relu():
                flow = np.maximum(flow, 0)
            case FullyConnected(weights):
                flow = flow.ravel() @ weights
    return flow


def _windows(values: Values, window: Sequence[int], stride: Pair) -> Values:
    """(channels, rows, columns) → (channels, windows down, windows across, window rows, window columns)."""
    every = np.lib.stride_tricks.sliding_window_view(values, tuple(window), (1, 2))
    return every[:, :: stride[0], :: stride[1]]


def _same_shape(*parts: Values) -> Values:
    """Filled up with zeros at the end of each dimension, and stacked."""
    filled = np.zeros((len(parts), *np.max([part.shape for part in parts], axis=0)))
    for place, part in zip(filled, parts, strict=True):
        place[tuple(map(slice, part.shape))] = part
    return filled


# ── a network ──────────────────────────────────────────────────────────────────────────────────────────────────────


def small_network(seed: int = 0) -> Network:
    """The face network's kinds of layers and blocks, small: random weights, 39x35 pixels to 5 numbers.

    Its two down blocks add unequal shapes: 4 and 6 channels of 4x4 and 4x3; then 1x1 and 2x2.
    """
    rng = np.random.default_rng(seed)

    def convolution(channels: int, filters: int, *, stride: int = 1, padding: int = 1) -> tuple[Layer, Layer]:
        weights = rng.normal(0, 0.5, (filters, channels, 3, 3)).astype(np.float32)
        biases, gamma, beta = rng.normal(0, 1, (3, filters)).astype(np.float32)
        return Convolution(weights, biases, (stride, stride), (padding, padding)), Affine(gamma, beta)

    def plain(channels: int) -> tuple[Layer, ...]:
        inner = (*convolution(channels, channels), Relu(), *convolution(channels, channels))
        return Tag(), *inner, Add(), Relu()

    def down(channels: int, filters: int) -> tuple[Layer, ...]:
        inner = (*convolution(channels, filters, stride=2, padding=0), Relu(), *convolution(filters, filters))
        return Tag(), *inner, Skip(), Pool("average", (2, 2), (2, 2), (0, 0)), Add(), Relu()

    stem = (*convolution(3, 4, stride=2, padding=0), Relu(), Pool("max", (3, 3), (2, 2), (0, 0)))
    blocks = (*plain(4), *down(4, 6), *plain(6), *down(6, 6))
    weights = rng.normal(0, 1, (6, 5)).astype(np.float32)
    head = (Pool("average", (0, 0), (1, 1), (0, 0)), FullyConnected(weights))
    return Network((122.5, 117.25, 104.0), 39, 35, (*stem, *blocks, *head), 0.5)
