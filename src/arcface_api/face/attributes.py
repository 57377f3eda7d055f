"""Age and gender of a face: the crop the attribute models want, and what their output means.

    Image, Box ──attribute_crop──▶ Crop + transform ──model──▶ (3,) row ──age_gender──▶ AgeGender

InsightFace runs these models on a detector's box inside a photo. Here no detector is asked, so a tight crop never loses
its attributes: the whole picture is the box, or, where its landmarks are known, the box that they imply. Equal to
InsightFace's `Attribute.get` with such a box.
"""

from dataclasses import dataclass
from math import cos, sin
from typing import Literal

import cv2
import numpy as np

from arcface_api.arrays import Box, Crop, Features, Image, Transform
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


def whole_picture(height: int, width: int) -> Box:
    """The box of a face that fills a picture of this size, in pixels."""
    return Box(width / 2, height / 2, max(height, width))


def box_transform(box: Box, size: int) -> Transform:
    """The similarity that puts a box, with the models' margin around it, upright into a `size` x `size` frame.

    Returns:
        (2, 3) float64: scale `size / (1.5 * box.side)`, the box's centre onto the frame's.
    """
    scale = size / (box.side * BOX_MARGIN)
    along, across = scale * cos(box.angle), scale * sin(box.angle)
    return np.array(
        [
            [along, across, size / 2 - (along * box.x + across * box.y)],
            [-across, along, size / 2 - (along * box.y - across * box.x)],
        ]
    )


def attribute_crop(image: Image, box: Box, size: int) -> tuple[Crop, Transform]:
    """The square that an attribute or landmark model sees: the box amid its margin, black beyond the picture.

    Args:
        image: (h, w, 3) uint8, RGB.
        box: The face's, in the picture's pixels.
        size: Side of the model's input, pixels.

    Returns:
        (size, size, 3) uint8, RGB; and the transform from the picture's pixels to the crop's.
    """
    transform = box_transform(box, size)
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


def age_gender_of_two(age_row: Features, gender_row: Features) -> AgeGender:
    """Read the outputs of two models, one for each, for one face.

    Args:
        age_row: (1,) float32: the expected age in years.
        gender_row: (2,) float32: probabilities of female and male.

    Raises:
        ModelFailed: A number is NaN or infinite, or the age is beyond `AGE_BOUND`.
    """
    if not (np.isfinite(age_row).all() and np.isfinite(gender_row).all() and abs(age_row[0]) < AGE_BOUND):
        raise ModelFailed("The models of age and gender returned NaN or infinity, or an age out of all bounds.")
    return AgeGender(round(float(age_row[0])), "male" if gender_row[1] > gender_row[0] else "female")
