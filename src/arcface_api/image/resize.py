"""From a picture of any size to the crop that a model wants."""

from enum import StrEnum

import cv2
import numpy as np

from arcface_api.arrays import Crop, Image

OVERSAMPLING = 2
"""A reduced picture keeps at least so many pixels, along each side, for one of the crop."""


class Resize(StrEnum):
    """What may happen to a large picture before it is stretched."""

    AUTO = "auto"
    """A large JPEG may be decoded at a fraction of its size."""
    EXACT = "exact"
    """Every picture is decoded at its full size."""


def stretch(image: Image, height: int, width: int) -> Crop:
    """Stretch to `height` x `width`, whatever the picture's shape.

    Plain bilinear without anti-aliasing: so `cv2.dnn.blobFromImages` does it, through which InsightFace's `get_feat`
    sees a crop, and so stored vectors were made. Equal pixels, bit for bit.

    Args:
        image: (h, w, 3) uint8.
        height: Pixels.
        width: Pixels.

    Returns:
        (height, width, 3) uint8; the image itself where it already has that size.
    """
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]  # stub says Any dtype


def letterbox(image: Image, height: int, width: int) -> Crop:
    """Fit into `height` x `width` with the picture's shape kept: centred, black beyond it.

    Shrinking averages the pixels that become one.

    Args:
        image: (h, w, 3) uint8.
        height: Pixels.
        width: Pixels.

    Returns:
        (height, width, 3) uint8; the image itself where it already has that size.
    """
    if image.shape[:2] == (height, width):
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_height = max(1, round(image.shape[0] * scale))
    inner_width = max(1, round(image.shape[1] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    inner = cv2.resize(image, (inner_width, inner_height), interpolation=how)
    crop[top : top + inner_height, left : left + inner_width] = inner
    return crop
