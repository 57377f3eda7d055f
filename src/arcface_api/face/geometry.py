"""Landmarks, similarities between pixel frames, and the aligned crop. Pixel centres are whole numbers, as in OpenCV.

What takes points raises `LandmarksInvalid` as `similarity` does. `weights` say how much each point counts, (n,) and
positive; None: all alike.
"""

from math import atan2, ceil, floor, hypot, isfinite
from operator import mul

import cv2
import numpy as np
from numpy.typing import ArrayLike

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Box, Crop, Image, InputSpec, Points, Transform, Weights
from arcface_api.errors import LandmarksInvalid

LANDMARKS = 5
"""Left eye, right eye, nose tip, left and right mouth corner; "left" is the left side of the picture."""
TEMPLATE_BOX = (55.4, 65.0, 106.0)
"""Centre x, y and longer side of a face detector's box around an aligned face, pixels of `TEMPLATE_SIDE`.
Source: medians of YuNet's boxes on the regressor's training pictures."""
MAX_DRIFT = 4 / 112
"""In sides of the crop. The landmark regressor would move 95 % of the crops that were aligned by labels by less."""
MIN_SPREAD = 2.0
"""Pixels, root of the summed squares about the mean. Landmarks that spread less are in one place."""
MIN_THICKNESS = 0.1
"""Smallest by largest extent. Landmarks with less are on a line; a full profile still has 0.3."""

_ROW = [0, 0, 1]
"""Third row of a transform, so that it can be multiplied by another."""


def similarity(points: Points, template: Points, weights: Weights | None = None) -> Transform:
    """The rotation, scale and shift that bring `points` closest to `template`, both (n, 2), by weighted least squares.

    It never mirrors. Source: Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns" (1991), here in closed form. With equal weights, equal to scikit-image's `SimilarityTransform.estimate`,
    which InsightFace's `norm_crop` uses. Raises `LandmarksInvalid` if the points are not finite, in one place, or
    unlike the template.
    """
    # Plain floats: for five points NumPy takes four times as long, and each face needs this five times.
    shares: list[float] = [1.0] * len(points) if weights is None else weights.tolist()
    (x_mean, y_mean), offsets = _centred(points, shares)
    (u_mean, v_mean), targets = _centred(template, shares)
    extent = cos = sin = 0.0
    for (x, y), (u, v), share in zip(offsets, targets, shares, strict=True):
        extent += share * (x * x + y * y)
        cos += share * (x * u + y * v)
        sin += share * (x * v - y * u)
    if not (isfinite(extent) and isfinite(cos) and isfinite(sin) and extent > 0 and hypot(cos, sin) > 0):
        raise LandmarksInvalid(
            "The landmarks are not finite, all in one place, or do not fit the template at all. Send left eye, right"
            " eye, nose tip, left and right mouth corner of one face."
        )
    cos, sin = cos / extent, sin / extent
    return np.array(
        [[cos, -sin, u_mean - (cos * x_mean - sin * y_mean)], [sin, cos, v_mean - (sin * x_mean + cos * y_mean)]]
    )


def _centred(points: Points, shares: list[float]) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    """The points' weighted mean, and each point's offset from it."""
    pairs: list[list[float]] = points.tolist()
    x_mean, y_mean = (sum(map(mul, axis, shares)) / sum(shares) for axis in zip(*pairs, strict=True))
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
    (xx, xy, x_shift), (yx, yy, y_shift) = transform.tolist()
    last = size - 1
    return max(
        hypot(xx * x + xy * y + x_shift - x, yx * x + yy * y + y_shift - y) for x in (0, last) for y in (0, last)
    )


def face_box(points: Points, weights: Weights | None = None) -> Box:
    """The box that a face detector would draw around the face with these landmarks, turned as the face is."""
    transform = similarity(points, TEMPLATE, weights)
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


def lies_aligned(
    points: Points, template: Points, size: int, height: int, width: int, *, weights: Weights | None = None
) -> bool:
    """True if a picture of `height` x `width` with these landmarks, stretched to the crop, is an aligned crop already.

    That is: aligning would move no corner by more than `MAX_DRIFT`. Landmarks are no more certain than that, so
    aligning would gain nothing, and would resample a crop that was aligned before.
    """
    stretched = np.array([[width / size, 0, (width / size - 1) / 2], [0, height / size, (height / size - 1) / 2], _ROW])
    return corner_drift(similarity(points, template, weights) @ stretched, size) <= MAX_DRIFT * size


def align(
    image: Image, points: Points, size: int, template: Points | None = None, *, weights: Weights | None = None
) -> Crop:
    """The crop whose landmarks lie as close to the template as a similarity can bring them.

    Equal to InsightFace's `norm_crop`, unless the picture shrinks to half or less (see `sample`). The crop has `size`
    pixels a side, black beyond the picture; without `template`, (5, 2) in its pixels, `TEMPLATE` is scaled to it.
    """
    template = scaled_template(size) if template is None else template
    return sample(image, similarity(points, template, weights), size, 0.0)


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
    (xx, xy, x_shift), (yx, yy, y_shift) = cv2.invertAffineTransform(transform).tolist()
    xs = [xx * x + xy * y + x_shift for x in (-1, size) for y in (-1, size)]
    ys = [yx * x + yy * y + y_shift for x in (-1, size) for y in (-1, size)]
    left, top = (max(0, floor(min(edges)) // block * block) for edges in (xs, ys))
    right, bottom = min(width, ceil(max(xs)) + block), min(height, ceil(max(ys)) + block)
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    if part.size == 0:  # the face lies outside the picture
        return image[:1, :1], transform
    # In a picture narrower than a block, blocks are as narrow: padding a line to squares could take gigabytes.
    rows, columns = (min(block, side) for side in part.shape[:2])
    missing_rows, missing_columns = -part.shape[0] % rows, -part.shape[1] % columns
    if missing_rows or missing_columns:
        padded = cv2.copyMakeBorder(part, 0, missing_rows, 0, missing_columns, cv2.BORDER_REPLICATE)
        part = padded.astype(np.uint8, copy=False)
    reduced = cv2.resize(part, (part.shape[1] // columns, part.shape[0] // rows), interpolation=cv2.INTER_AREA)
    # The centre of a reduced pixel is the centre of its block.
    to_image = np.array([[columns, 0, left + (columns - 1) / 2], [0, rows, top + (rows - 1) / 2], _ROW])
    return reduced.astype(np.uint8, copy=False), transform @ to_image


def check_landmarks(points: ArrayLike, height: int, width: int) -> Points:
    """A caller's landmarks as (5, 2) float32, if an upright picture of `height` x `width` can be aligned by them.

    Raises:
        LandmarksInvalid: They are not five pairs x, y of finite numbers inside the picture, lie nearly on one line, or
            describe a mirrored face: left and right were swapped.
    """
    order = "Send left eye, right eye, nose tip, left and right mouth corner"
    try:
        given = np.asarray(points)
        has_booleans = any(isinstance(value, bool) for value in np.asarray(points, object).ravel())  # numbers to NumPy
        array = given.astype(np.float64) if given.dtype.kind in "iuf" and not has_booleans else None
    except (TypeError, ValueError, OverflowError):  # lists of different lengths; integers that are too large
        array = None
    if array is None or array.shape != (LANDMARKS, 2):
        found = "" if array is None else f", not shape {array.shape}"
        raise LandmarksInvalid(
            f"Landmarks must be {LANDMARKS} pairs of numbers x, y in pixels: shape ({LANDMARKS}, 2){found}. {order},"
            " each as a list of two numbers."
        )
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
        raise LandmarksInvalid(f"The landmarks lie in one place or on one line, so they describe no face. {order}.")
    landmarks = array.astype(np.float32)
    mirrored = TEMPLATE * np.array([-1, 1], np.float32)
    # The similarity with the larger scale is the better fit: its scale is the covariance by a common factor.
    if scale_of(similarity(landmarks, mirrored)) > scale_of(similarity(landmarks, TEMPLATE)):
        raise LandmarksInvalid(
            f"The landmarks describe a mirrored face. {order}, where left is the left side of the picture, not of the"
            " person."
        )
    return landmarks
