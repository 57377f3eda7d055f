"""Landmarks that a caller gives: five points of one face, or a sentence on what is wrong with them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcface_api.arrays import TEMPLATE, Points
from arcface_api.errors import LandmarksInvalid
from arcface_api.face.geometry import LANDMARKS

MIN_SPREAD = 2.0
"""Landmarks closer together than this (root of the summed squares about their mean, pixels) are one place."""

MIN_THICKNESS = 0.1
"""Narrower in one direction than this part of the other, landmarks are on a line; a full profile still has 0.3."""


def check_landmarks(points: ArrayLike, height: int, width: int) -> Points:
    """A caller's landmarks, as an array that can be aligned by.

    Args:
        points: Five pairs x, y in pixels of the upright picture: left eye, right eye, nose tip, left and right mouth
            corner, left and right as seen in the picture.
        height: Of the picture, pixels.
        width: Of the picture, pixels.

    Returns:
        (5, 2) float32.

    Raises:
        LandmarksInvalid: They are not five pairs of finite numbers inside the picture, lie all but on one line, or the
            face they describe is mirrored: left and right were swapped.
    """
    array = _pairs(points)
    if not np.isfinite(array).all():
        raise LandmarksInvalid("A landmark is NaN or infinite. Each must be a pair of numbers x, y in pixels.")
    outside = (array < -0.5).any(axis=1) | (array[:, 0] > width - 0.5) | (array[:, 1] > height - 0.5)
    if outside.any():
        x, y = array[outside.argmax()]
        raise LandmarksInvalid(
            f"Landmark {outside.argmax() + 1} of {LANDMARKS} is at ({x:g}, {y:g}), outside the picture of {width} x"
            f" {height} pixels. Send pixels of the upright picture, not fractions, and not those of another size."
        )
    spread = np.linalg.svd(array - array.mean(0), compute_uv=False)
    if spread[0] < MIN_SPREAD and (array >= 0).all() and (array <= 1).all():
        raise LandmarksInvalid(
            f"The landmarks look like fractions of the picture. Send pixels: this one has {width} x {height}."
        )
    if spread[0] < MIN_SPREAD or spread[1] < MIN_THICKNESS * spread[0]:
        raise LandmarksInvalid(
            "The landmarks lie in one place or on one line, so they describe no face. Send left eye, right eye, nose"
            " tip, left and right mouth corner."
        )
    if _looks_mirrored(array):
        raise LandmarksInvalid(
            "The landmarks describe a mirrored face. Send left eye, right eye, nose tip, left and right mouth corner,"
            " where left is the left side of the picture, not of the person."
        )
    return array.astype(np.float32)


def _pairs(points: ArrayLike) -> NDArray[np.float64]:
    try:
        given = np.asarray(points)
        has_truths = any(isinstance(value, bool) for value in np.asarray(points, object).ravel())  # 0 and 1 to NumPy
        array = given.astype(np.float64) if given.dtype.kind in "iuf" and not has_truths else None
    except (TypeError, ValueError, OverflowError):  # lists of different lengths; integers beyond all bounds
        array = None
    if array is None:
        raise LandmarksInvalid(
            f"The landmarks are something else than {LANDMARKS} pairs of numbers x, y in pixels. Send left eye, right"
            " eye, nose tip, left and right mouth corner, each as a list of two numbers."
        )
    if array.shape != (LANDMARKS, 2):
        raise LandmarksInvalid(
            f"Landmarks are {LANDMARKS} pairs x, y, so of shape ({LANDMARKS}, 2); these have shape {array.shape}. Send"
            " left eye, right eye, nose tip, left and right mouth corner."
        )
    return array


def _looks_mirrored(array: NDArray[np.float64]) -> bool:
    """True: a mirrored template fits better than the template."""
    return _residual(array, TEMPLATE) > _residual(array, TEMPLATE * np.array([-1, 1], np.float32))


def _residual(array: NDArray[np.float64], template: Points) -> float:
    """Squared distance, relative to the template's extent, that the best similarity leaves."""
    (x, y), (u, v) = (array - array.mean(0)).T, (template - template.mean(0)).T
    return float(1 - ((x @ u + y @ v) ** 2 + (x @ v - y @ u) ** 2) / ((x @ x + y @ y) * (u @ u + v @ v)))
