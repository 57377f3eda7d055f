"""Age and gender of a face that fills the picture: the crop the attribute models want, and what their output means.

    Image ──attribute_crop──▶ Crop + transform ──model──▶ (3,) row ──age_gender──▶ AgeGender

InsightFace runs these models on a detector's box inside a photo. Here the whole picture is the box: no detector is
asked, so a tight crop never loses its attributes. Equal to InsightFace's `Attribute.get` with such a box.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from arcface_api.arrays import Crop, Features, Image, Transform
from arcface_api.errors import ModelFailed

BOX_MARGIN = 1.5
"""The models see a square of 1.5 x the box's longer side. Source: InsightFace, `model_zoo/attribute.py`."""

AGE_BOUND = 2**31
"""No age, negative or positive, reaches it: JSON and databases hold smaller integers only."""


@dataclass(frozen=True)
class AgeGender:
    """What the age and gender model says."""

    age: int
    """Years; what the model says, also where that is below zero."""
    gender: Literal["female", "male"]


def whole_picture_transform(height: int, width: int, size: int) -> Transform:
    """The similarity that puts a whole picture, with the models' margin around it, into a `size` x `size` frame.

    Args:
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        size: Side of the frame, pixels.

    Returns:
        (2, 3) float64: scale `size / (1.5 * max(height, width))`, the picture's centre onto the frame's.
    """
    scale = size / (max(height, width) * BOX_MARGIN)
    return np.array([[scale, 0, size / 2 - scale * width / 2], [0, scale, size / 2 - scale * height / 2]])


def attribute_crop(image: Image, size: int) -> tuple[Crop, Transform]:
    """The square that an attribute or landmark model sees: the whole picture amid a black margin.

    Args:
        image: (h, w, 3) uint8, RGB.
        size: Side of the model's input, pixels.

    Returns:
        (size, size, 3) uint8, RGB; and the transform from the picture's pixels to the crop's.
    """
    height, width = image.shape[:2]
    transform = whole_picture_transform(height, width, size)
    crop = cv2.warpAffine(image, transform, (size, size), borderValue=(0.0, 0.0, 0.0))
    return crop.astype(np.uint8, copy=False), transform


def age_gender(row: Features) -> AgeGender:
    """Read the model's output for one face.

    Args:
        row: (3,) float32: scores for female and male, age in hundreds of years.

    Returns:
        The age, rounded to whole years, and the gender with the higher score. The model is a regression: on what is no
        face its age can fall below zero, and is told as it is, like InsightFace does.

    Raises:
        ModelFailed: A number is NaN or infinite, or the age is beyond `AGE_BOUND`.
    """
    with np.errstate(over="ignore"):
        years = np.round(row[2] * np.float32(100))  # in float32, as the reference: it decides between two years
    if not (np.isfinite(row).all() and abs(years) < AGE_BOUND):
        raise ModelFailed("The age and gender model returned NaN or infinity, or an age out of all bounds.")
    return AgeGender(int(years), "male" if row[1] > row[0] else "female")
