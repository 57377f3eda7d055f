"""What dlib's face network is made of: the words that its reader (`dat.py`) and its converter (`convert.py`) share."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Pair: TypeAlias = tuple[int, int]
"""Rows, columns. (dlib writes y before x; every pair that was seen has two equal numbers, so this is not proved.)"""


@dataclass(frozen=True)
class Convolution:
    """Cross-correlation, as ONNX's Conv; padding is the same on both sides."""

    filters: Array
    """(filters, channels, rows, columns)."""
    biases: Array
    """(filters,)."""
    stride: Pair
    padding: Pair


@dataclass(frozen=True)
class Affine:
    """`gamma * x + beta` for each channel: what batch normalisation is once a network is trained."""

    gamma: Array
    """(channels,)."""
    beta: Array
    """(channels,)."""


@dataclass(frozen=True)
class Pool:
    """Maximum or mean of windows; of the whole map where `window` is (0, 0)."""

    kind: Literal["max", "average"]
    window: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True)
class Relu:
    """Rectifier."""


@dataclass(frozen=True)
class FullyConnected:
    """Matrix product `x @ weights`, without biases."""

    weights: Array
    """(inputs, outputs)."""


@dataclass(frozen=True)
class Tag:
    """A block begins: its input is kept, to be added."""


@dataclass(frozen=True)
class Skip:
    """The block's first branch ends: its output is kept, to be added, and the second starts from the block's input."""


@dataclass(frozen=True)
class Add:
    """The block ends: adds what was kept. The smaller one is filled up with zeros at the end of each dimension."""


Layer: TypeAlias = Convolution | Affine | Pool | Relu | FullyConnected | Tag | Skip | Add


@dataclass(frozen=True)
class Network:
    """A network from its input to its output."""

    means: tuple[float, float, float]
    """Of red, green and blue, subtracted from pixels of 0 to 255. The result is divided by 256, which no file says."""
    rows: int
    columns: int
    layers: tuple[Layer, ...]
    max_distance: float
    """Euclidean: two outputs that are closer show the same face, as it was trained."""
