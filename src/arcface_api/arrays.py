"""The arrays that travel through the service: NumPy's types carry no shape, so these names do (docs/glossary.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""A decoded, upright picture: (h, w, 3) uint8, RGB."""
Crop: TypeAlias = NDArray[np.uint8]
"""One face at a model's input size: (size, size, 3) uint8, RGB."""
Tensor: TypeAlias = NDArray[np.float32]
"""A batch as a model takes it: (n, 3, height, width) float32."""
Features: TypeAlias = NDArray[np.float32]
"""What a model returns for a batch: (n, dim) float32."""
Embedding: TypeAlias = NDArray[np.float32]
"""A recogniser's output row for one crop, not normalised: (dim,) float32."""
Points: TypeAlias = NDArray[np.float32]
"""Landmarks: (n, 2) or (n, 3) float32, pixels x, y (and z, in the same unit)."""
Weights: TypeAlias = NDArray[np.floating]
"""How much each of n points counts: (n,) float32 or float64, positive."""
Transform: TypeAlias = NDArray[np.float64]
"""Similarity from one frame's pixels x, y to another's: (2, 3) float64."""

TEMPLATE: Points = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""Where the landmarks of an aligned face lie in a crop of `TEMPLATE_SIDE` pixels: (5, 2).
Source: InsightFace, `utils/face_align.py` (`arcface_dst`)."""
TEMPLATE.flags.writeable = False
TEMPLATE_SIDE = 112


@dataclass(frozen=True)
class Box:
    """The square around a face: its centre and side in pixels."""

    x: float
    y: float
    side: float
    angle: float = 0.0
    """Radians, clockwise as seen: 0 if the face is upright, pi / 2 if its top points to the right."""


class ChannelOrder(StrEnum):
    """Order of the three colour planes in a tensor."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True)
class InputSpec:
    """How a model takes its pixels: `(pixel - mean) / std` on `height` x `width` planes in `channel_order`."""

    name: str | None
    """Of the graph's input; None: its only one."""
    height: int
    width: int
    mean: float
    std: float
    channel_order: ChannelOrder = ChannelOrder.RGB
    template: tuple[tuple[float, float], ...] | None = None
    """Where the five landmarks of an aligned face lie in the input, pixels x, y; None: `TEMPLATE`, scaled to it."""

    @property
    def feed(self) -> str:
        """How pixels become numbers, in words."""
        return f"(pixel - {self.mean:g}) / {self.std:g}, {self.channel_order.upper()}"


def to_tensor(crops: Sequence[Crop], spec: InputSpec) -> Tensor:
    """One batch of n crops, (spec.height, spec.width, 3) uint8 RGB: (n, 3, spec.height, spec.width) float32."""
    planes = np.stack(crops).transpose(0, 3, 1, 2)
    if spec.channel_order is ChannelOrder.BGR:
        planes = planes[:, ::-1]
    tensor = planes.astype(np.float32, order="C")
    tensor -= spec.mean
    tensor *= 1 / spec.std
    return tensor
