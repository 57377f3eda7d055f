"""From a picture of any size to the crop that a model takes: (height, width, 3) uint8.

A picture that already has that size is returned itself.
"""

from enum import StrEnum

import cv2
import numpy as np

from arcface_api.arrays import Crop, Image

OVERSAMPLING = 2
"""Least pixels of a reduced picture for one of the crop, along each side."""


class Resize(StrEnum):
    """Whether a large JPEG may be decoded at a fraction of its size (`auto`), or never (`exact`)."""

    AUTO = "auto"
    EXACT = "exact"


def stretch(image: Image, height: int, width: int) -> Crop:
    """Stretch a (h, w, 3) image to `height` x `width` pixels, whatever its shape.

    Bilinear without anti-aliasing, bit for bit as `cv2.dnn.blobFromImages`, through which InsightFace's `get_feat` sees
    a crop: stored vectors were made from these pixels.
    """
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]  # stub says Any dtype


def letterbox(image: Image, height: int, width: int) -> Crop:
    """Fit a (h, w, 3) image into `height` x `width` pixels and keep its shape: centred, black around it.

    Shrinking averages the pixels that become one.
    """
    if image.shape[:2] == (height, width):
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_height = max(1, round(image.shape[0] * scale))
    inner_width = max(1, round(image.shape[1] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    inner = cv2.resize(image, (inner_width, inner_height), interpolation=interpolation)
    crop[top : top + inner_height, left : left + inner_width] = inner
    return crop
