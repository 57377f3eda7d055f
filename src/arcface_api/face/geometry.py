"""Points, and the similarities that move them.

Coordinates are OpenCV's: pixel centres lie at whole numbers. "Left" is the left side of the picture.
"""

from math import atan2, hypot, isfinite
from typing import NamedTuple

import cv2
import numpy as np

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Box, InputSpec, Points, Transform
from arcface_api.errors import LandmarksInvalid

LANDMARKS = 5
"""Left eye, right eye, nose tip, left mouth corner, right mouth corner."""

TEMPLATE_EYE_DISTANCE = float(np.hypot(*(TEMPLATE[1] - TEMPLATE[0])))
"""Of an aligned face, pixels of `TEMPLATE_SIDE`: the unit of uncertainty."""


TEMPLATE_BOX = (55.4, 65.0, 106.0)
"""Centre x, y and side of the box that a face detector draws around an aligned face, pixels of `TEMPLATE_SIDE`.
Source: the median over YuNet's boxes of the pictures that the landmark regressor was trained on; the side is the box's
longer one."""


MAX_DRIFT = 4 / 112
"""In sides of the crop. Of crops aligned by the labels, the landmark regressor would move 95 in 100 by less."""


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
    # In plain floats: for five points NumPy's calls would take four times as long, five times for each face.
    source, target = _centred(points), _centred(template)
    extent = cos = sin = 0.0
    for (x, y), (u, v) in zip(source.offsets, target.offsets, strict=True):
        extent += x * x + y * y
        cos += x * u + y * v
        sin += x * v - y * u
    if not (isfinite(extent) and isfinite(cos) and isfinite(sin) and extent > 0 and hypot(cos, sin) > 0):
        raise LandmarksInvalid(
            "The landmarks are not finite, all in one place, or fit the template in no way. Send left eye, right eye,"
            " nose tip, left and right mouth corner of one face."
        )
    cos, sin = cos / extent, sin / extent
    x, y = source.mean
    u, v = target.mean
    return np.array([[cos, -sin, u - (cos * x - sin * y)], [sin, cos, v - (sin * x + cos * y)]])


class _Centred(NamedTuple):
    """Points as their mean and how far each lies from it."""

    mean: tuple[float, float]
    offsets: list[tuple[float, float]]


def _centred(points: Points) -> _Centred:
    pairs: list[list[float]] = points.tolist()
    x_mean, y_mean = (sum(axis) / len(pairs) for axis in zip(*pairs, strict=True))
    return _Centred((x_mean, y_mean), [(x - x_mean, y - y_mean) for x, y in pairs])


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


def face_box(points: Points) -> Box:
    """The box around the face that has these landmarks, as a face detector would draw it, turned as the face is.

    Args:
        points: (5, 2), pixels.

    Returns:
        The box, in the pixels of `points`.

    Raises:
        LandmarksInvalid: As `similarity` does.
    """
    transform = similarity(points, TEMPLATE)
    x, y, side = TEMPLATE_BOX
    ((centre_x, centre_y),) = back(np.array([[x, y]], np.float32), transform)
    angle = atan2(-transform[1, 0], transform[0, 0])
    return Box(float(centre_x), float(centre_y), side / scale_of(transform), angle)


def input_template(spec: InputSpec) -> Points:
    """Where a model's input, which is square, has the landmarks of an aligned face: (5, 2) float32, its pixels."""
    if spec.template is not None:
        return np.array(spec.template, np.float32)
    return (TEMPLATE.astype(np.float64) * (spec.width / TEMPLATE_SIDE)).astype(np.float32)


def lies_aligned(points: Points, template: Points, size: int, height: int, width: int) -> bool:
    """Whether a picture with these landmarks, stretched to a crop, is an aligned crop as it is.

    True where aligning would move no corner of the crop by more than `MAX_DRIFT`: by no more than landmarks are
    uncertain, so that it would gain nothing, and would cost a crop that was aligned before its exact pixels.

    Args:
        points: (5, 2), the picture's pixels.
        template: (5, 2), the crop's pixels, as `input_template` gives it.
        size: Side of the crop, pixels.
        height: Of the picture, pixels.
        width: Of the picture, pixels.

    Raises:
        LandmarksInvalid: As `similarity` does.
    """
    stretched = np.array([[width / size, 0, (width / size - 1) / 2], [0, height / size, (height / size - 1) / 2]])
    return corner_drift(similarity(points, template) @ np.vstack([stretched, [0, 0, 1]]), size) <= MAX_DRIFT * size


def corner_drift(transform: Transform, size: int) -> float:
    """How far a transform moves that corner of a square of so many pixels which it moves furthest, in pixels."""
    corners = np.array([[0, 0], [size - 1, 0], [0, size - 1], [size - 1, size - 1]], np.float64)
    drift = corners @ transform[:, :2].T + transform[:, 2] - corners
    return float(np.hypot(*drift.T).max())
