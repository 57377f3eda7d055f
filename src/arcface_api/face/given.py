"""Checks the landmarks that a caller sends."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcface_api.arrays import TEMPLATE, Points
from arcface_api.errors import LandmarksInvalid
from arcface_api.face.geometry import LANDMARKS, scale_of, similarity

MIN_SPREAD = 2.0
"""Pixels, root of the summed squares about the mean. Landmarks that spread less are in one place."""
MIN_THICKNESS = 0.1
"""Smallest by largest extent. Landmarks with less are on a line; a full profile still has 0.3."""


def check_landmarks(points: ArrayLike, height: int, width: int) -> Points:
    """A caller's landmarks as (5, 2) float32, if the picture can be aligned by them.

    Args:
        points: Five pairs x, y in pixels of the upright picture: left eye, right eye, nose tip, left and right mouth
            corner, left and right as seen in the picture.
        height: Of the picture, pixels.
        width: Of the picture, pixels.

    Raises:
        LandmarksInvalid: They are not five pairs of finite numbers inside the picture, lie nearly on one line, or
            describe a mirrored face: left and right were swapped.
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
    landmarks = array.astype(np.float32)
    mirrored = TEMPLATE * np.array([-1, 1], np.float32)
    # The similarity with the larger scale is the better fit: its scale is the covariance by a common factor.
    if scale_of(similarity(landmarks, mirrored)) > scale_of(similarity(landmarks, TEMPLATE)):
        raise LandmarksInvalid(
            "The landmarks describe a mirrored face. Send left eye, right eye, nose tip, left and right mouth corner,"
            " where left is the left side of the picture, not of the person."
        )
    return landmarks


def _pairs(points: ArrayLike) -> NDArray[np.float64]:
    try:
        given = np.asarray(points)
        has_booleans = any(isinstance(value, bool) for value in np.asarray(points, object).ravel())  # numbers to NumPy
        array = given.astype(np.float64) if given.dtype.kind in "iuf" and not has_booleans else None
    except (TypeError, ValueError, OverflowError):  # lists of different lengths; integers that are too large
        array = None
    if array is None:
        raise LandmarksInvalid(
            f"The landmarks are not {LANDMARKS} pairs of numbers x, y in pixels. Send left eye, right eye, nose tip,"
            " left and right mouth corner, each as a list of two numbers."
        )
    if array.shape != (LANDMARKS, 2):
        raise LandmarksInvalid(
            f"Landmarks are {LANDMARKS} pairs x, y, so of shape ({LANDMARKS}, 2); these have shape {array.shape}. Send"
            " left eye, right eye, nose tip, left and right mouth corner."
        )
    return array
