"""Points, and the similarities that move them.

Coordinates are OpenCV's: pixel centres lie at whole numbers. "Left" is the left side of the picture.
"""

from math import hypot

import cv2
import numpy as np

from arcface_api.arrays import TEMPLATE, Points, Transform
from arcface_api.errors import LandmarksInvalid

LANDMARKS = 5
"""Left eye, right eye, nose tip, left mouth corner, right mouth corner."""

TEMPLATE_EYE_DISTANCE = float(np.hypot(*(TEMPLATE[1] - TEMPLATE[0])))
"""Of an aligned face, pixels of `TEMPLATE_SIDE`: the unit of uncertainty."""


def similarity(points: Points, template: Points) -> Transform:
    """The rotation, scale and shift that bring `points` closest to `template`, by least squares.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991), in two
    dimensions, where complex numbers give it in closed form. Equal to scikit-image's `SimilarityTransform.estimate`,
    which InsightFace's `norm_crop` uses. It never mirrors.

    Args:
        points: (n, 2), n at least 2, not all in one place.
        template: (n, 2).

    Returns:
        (2, 3) float64, from the frame of `points` to that of `template`.

    Raises:
        LandmarksInvalid: The points are not finite, or so arranged that no similarity can be told.
    """
    source, target = points.astype(np.float64), np.asarray(template, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    with np.errstate(over="ignore", invalid="ignore"):
        (x, y), (u, v) = (source - source_mean).T, (target - target_mean).T
        extent = float(x @ x + y @ y)
        cos, sin = float(x @ u + y @ v), float(x @ v - y @ u)
    if not (np.isfinite((extent, cos, sin)).all() and extent > 0 and hypot(cos, sin) > 0):
        raise LandmarksInvalid("The landmarks are not finite, all in one place, or fit the template in no way.")
    linear = np.array([[cos, -sin], [sin, cos]]) / extent
    return np.column_stack([linear, target_mean - linear @ source_mean])


def scale_of(transform: Transform) -> float:
    """How many pixels of the target one pixel of the source becomes under a similarity."""
    return hypot(transform[0, 0], transform[1, 0])


def moved(points: Points, transform: Transform) -> Points:
    """Points after a transform: (n, 2) float32."""
    return (points @ transform[:, :2].T + transform[:, 2]).astype(np.float32)


def back(points: Points, transform: Transform) -> Points:
    """Points before a transform: (n, 2) float32."""
    return moved(points, cv2.invertAffineTransform(transform).astype(np.float64, copy=False))


def face_size(points: Points) -> float:
    """Eye distance that the face would have if it looked straight ahead, in the pixels of `points`.

    Unlike the distance of the two eyes it does not vanish for a face that looks aside.

    Raises:
        LandmarksInvalid: As `similarity` does.
    """
    return TEMPLATE_EYE_DISTANCE / scale_of(similarity(points, TEMPLATE))
