"""Landmarks, similarities between pixel frames, and the aligned crop. Pixel centres are whole numbers, as in OpenCV."""

from math import atan2, ceil, floor, hypot, isfinite

import cv2
import numpy as np

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Box, Crop, Image, InputSpec, Points, Transform
from arcface_api.errors import LandmarksInvalid

LANDMARKS = 5
"""Left eye, right eye, nose tip, left and right mouth corner; "left" is the left side of the picture."""
TEMPLATE_BOX = (55.4, 65.0, 106.0)
"""Centre x, y and longer side of a face detector's box around an aligned face, pixels of `TEMPLATE_SIDE`.
Source: medians of YuNet's boxes on the regressor's training pictures."""
MAX_DRIFT = 4 / 112
"""In sides of the crop. The landmark regressor would move 95 % of the crops that were aligned by labels by less."""


def similarity(points: Points, template: Points) -> Transform:
    """The rotation, scale and shift that bring `points` closest to `template`, by least squares. It never mirrors.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991), here in
    closed form. Equal to scikit-image's `SimilarityTransform.estimate`, which InsightFace's `norm_crop` uses.

    Returns:
        (2, 3) float64, from the frame of `points`, (n, 2), to that of `template`, (n, 2).

    Raises:
        LandmarksInvalid: The points are not finite, all in one place, or not at all like the template.
    """
    # Plain floats: for five points NumPy takes four times as long, and each face needs this five times.
    (x_mean, y_mean), offsets = _centred(points)
    (u_mean, v_mean), targets = _centred(template)
    extent = cos = sin = 0.0
    for (x, y), (u, v) in zip(offsets, targets, strict=True):
        extent += x * x + y * y
        cos += x * u + y * v
        sin += x * v - y * u
    if not (isfinite(extent) and isfinite(cos) and isfinite(sin) and extent > 0 and hypot(cos, sin) > 0):
        raise LandmarksInvalid(
            "The landmarks are not finite, all in one place, or do not fit the template at all. Send left eye, right"
            " eye, nose tip, left and right mouth corner of one face."
        )
    cos, sin = cos / extent, sin / extent
    return np.array(
        [[cos, -sin, u_mean - (cos * x_mean - sin * y_mean)], [sin, cos, v_mean - (sin * x_mean + cos * y_mean)]]
    )


def _centred(points: Points) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    """The points' mean, and each point's distance from it."""
    pairs: list[list[float]] = points.tolist()
    x_mean, y_mean = (sum(axis) / len(pairs) for axis in zip(*pairs, strict=True))
    return (x_mean, y_mean), [(x - x_mean, y - y_mean) for x, y in pairs]


def scale_of(transform: Transform) -> float:
    """Pixels of the target per pixel of the source."""
    return hypot(transform[0, 0], transform[1, 0])


def moved(points: Points, transform: Transform) -> Points:
    """Points after a transform: (n, 2) float32."""
    return (points @ transform[:, :2].T + transform[:, 2]).astype(np.float32)


def back(points: Points, transform: Transform) -> Points:
    """Points before a transform: (n, 2) float32."""
    return moved(points, cv2.invertAffineTransform(transform).astype(np.float64, copy=False))


def corner_drift(transform: Transform, size: int) -> float:
    """The furthest that a transform moves any corner of a square of side `size`; pixels."""
    corners = np.array([[0, 0], [size - 1, 0], [0, size - 1], [size - 1, size - 1]], np.float64)
    drift = corners @ transform[:, :2].T + transform[:, 2] - corners
    return float(np.hypot(*drift.T).max())


def face_box(points: Points) -> Box:
    """The box that a face detector would draw around the face with these landmarks, turned as the face is.

    Raises:
        LandmarksInvalid: As `similarity`.
    """
    transform = similarity(points, TEMPLATE)
    x, y, side = TEMPLATE_BOX
    ((centre_x, centre_y),) = back(np.array([[x, y]], np.float32), transform)
    angle = atan2(-transform[1, 0], transform[0, 0])
    return Box(float(centre_x), float(centre_y), side / scale_of(transform), angle)


def scaled_template(size: int) -> Points:
    """`TEMPLATE` in a crop of `size` x `size` pixels: (5, 2) float32."""
    return (TEMPLATE.astype(np.float64) * (size / TEMPLATE_SIDE)).astype(np.float32)


def input_template(spec: InputSpec) -> Points:
    """Where a model with a square input expects the landmarks of an aligned face: (5, 2) float32, pixels."""
    return scaled_template(spec.width) if spec.template is None else np.array(spec.template, np.float32)


def lies_aligned(points: Points, template: Points, size: int, height: int, width: int) -> bool:
    """True if a picture of `height` x `width` with these landmarks, stretched to the crop, is an aligned crop already.

    That is: aligning would move no corner by more than `MAX_DRIFT`. Landmarks are no more certain than that, so
    aligning would gain nothing, and would resample a crop that was aligned before.

    Raises:
        LandmarksInvalid: As `similarity`.
    """
    stretched = np.array([[width / size, 0, (width / size - 1) / 2], [0, height / size, (height / size - 1) / 2]])
    return corner_drift(similarity(points, template) @ np.vstack([stretched, [0, 0, 1]]), size) <= MAX_DRIFT * size


def align(image: Image, points: Points, size: int, template: Points | None = None) -> Crop:
    """The crop whose landmarks lie as close to the template as a similarity can bring them.

    Equal to InsightFace's `norm_crop`, unless the picture shrinks to half or less (see `sample`).

    Args:
        image: (h, w, 3) uint8, RGB.
        points: (5, 2), the picture's pixels.
        size: Side of the crop, pixels; beyond the picture it is black.
        template: (5, 2), the crop's pixels; None: `TEMPLATE`, scaled to the crop.

    Raises:
        LandmarksInvalid: As `similarity`.
    """
    return sample(image, similarity(points, scaled_template(size) if template is None else template), size, 0.0)


def sample(image: Image, transform: Transform, size: int, border: float) -> Crop:
    """Warp a picture to (size, size, 3), bilinear.

    OpenCV's warp reads four pixels for each that it writes. If the picture shrinks to half or less, blocks of pixels
    are averaged first, so that all of them count.
    """
    block = floor(1 / scale_of(transform) + 1e-6)
    if block >= 2:
        image, transform = _averaged(image, transform, size, block)
    crop = cv2.warpAffine(image, transform, (size, size), borderValue=(border, border, border))
    return crop.astype(np.uint8, copy=False)


def _averaged(image: Image, transform: Transform, size: int, block: int) -> tuple[Image, Transform]:
    """The part of the picture that the warp reads, each `block` x `block` pixels averaged, and its transform."""
    height, width = image.shape[:2]
    corners = back(np.array([[-1, -1], [size, -1], [size, size], [-1, size]], np.float32), transform)
    left, top = (max(0, floor(edge) // block * block) for edge in corners.min(0))
    right, bottom = (
        min(limit, ceil(edge) + block) for edge, limit in zip(corners.max(0), (width, height), strict=True)
    )
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    if part.size == 0:  # the face lies outside the picture
        return image[:1, :1], transform
    # In a picture narrower than a block, blocks are as narrow: padding a line to squares could take gigabytes.
    rows, columns = (min(block, side) for side in part.shape[:2])
    missing_rows, missing_columns = -part.shape[0] % rows, -part.shape[1] % columns
    whole = cv2.copyMakeBorder(part, 0, missing_rows, 0, missing_columns, cv2.BORDER_REPLICATE)
    reduced = cv2.resize(whole, (whole.shape[1] // columns, whole.shape[0] // rows), interpolation=cv2.INTER_AREA)
    # The centre of a reduced pixel is the centre of its block.
    to_image = np.array([[columns, 0, left + (columns - 1) / 2], [0, rows, top + (rows - 1) / 2], [0, 0, 1]])
    return reduced.astype(np.uint8, copy=False), transform @ to_image
