"""Age and gender of a face: the crop that the models take, and what their output means.

InsightFace takes the box from a detector. Here the box is the whole picture or, where landmarks are known, the one that
they imply, so that a tight crop has attributes too. Equal to InsightFace's `Attribute.get` for the same box.
"""

from dataclasses import dataclass
from math import cos, sin
from typing import Literal

import cv2
import numpy as np

from arcface_api.arrays import Box, Crop, Features, Image, Transform
from arcface_api.errors import ModelFailed

BOX_MARGIN = 1.5
"""Side of the square that the models see, by the box's longer side. Source: InsightFace, `model_zoo/attribute.py`."""
AGE_BOUND = 2**31
"""Ages stay below it, negative ones above its negative: JSON readers and databases hold no larger integers."""


@dataclass(frozen=True)
class AgeGender:
    """Predicted age in years, negative if the model says so, and gender."""

    age: int
    gender: Literal["female", "male"]


def whole_picture(height: int, width: int) -> Box:
    """The box of a face that fills a picture of this size, in pixels."""
    return Box(width / 2, height / 2, max(height, width))


def attribute_crop(image: Image, box: Box, size: int) -> tuple[Crop, Transform]:
    """The square that an attribute or landmark model sees: the box upright, amid its margin.

    Returns (size, size, 3) uint8, RGB, black beyond the picture, and the similarity from the picture's pixels to it.
    """
    scale = size / (box.side * BOX_MARGIN)
    along, across = scale * cos(box.angle), scale * sin(box.angle)
    transform = np.array(
        [
            [along, across, size / 2 - (along * box.x + across * box.y)],
            [-across, along, size / 2 - (along * box.y - across * box.x)],
        ]
    )
    crop = cv2.warpAffine(image, transform, (size, size), borderValue=(0.0, 0.0, 0.0))
    return crop.astype(np.uint8, copy=False), transform


def age_gender(row: Features) -> AgeGender:
    """The output of InsightFace's model for one face: (3,) float32, scores for female and male, age in centuries.

    The age is a regression: where there is no face it can be negative, and is returned so, as InsightFace does.
    Raises `ModelFailed` if a number is NaN or infinite, or the age is beyond `AGE_BOUND`.
    """
    with np.errstate(over="ignore"):
        years = np.round(row[2] * np.float32(100))  # in float32 like the reference: float64 may round to another year
    if not (np.isfinite(row).all() and abs(years) < AGE_BOUND):
        raise ModelFailed("The age and gender model returned NaN or infinity, or an age out of all bounds.")
    return AgeGender(int(years), "male" if row[1] > row[0] else "female")


def age_gender_of_two(age_row: Features, gender_row: Features) -> AgeGender:
    """The outputs of an age model, (1,) in years, and a gender model, (2,) probabilities of female and male.

    Raises `ModelFailed` as `age_gender`.
    """
    if not (np.isfinite(age_row).all() and np.isfinite(gender_row).all() and abs(age_row[0]) < AGE_BOUND):
        raise ModelFailed("The age model or the gender model returned NaN or infinity, or an age out of all bounds.")
    return AgeGender(round(float(age_row[0])), "male" if gender_row[1] > gender_row[0] else "female")
