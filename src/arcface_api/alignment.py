"""From a crop that is not aligned to one that is: what the landmark regressor sees, what it says, and the warp.

    Image ──whole_view──▶ View ──regressor──▶ (12,) row ──read_landmarks──▶ Landmarks   first pass
    Image ──face_view───▶ View ──regressor──▶ (12,) row ──read_landmarks──▶ Landmarks   second pass, upright
    Image ──align───────▶ Crop

Pure functions on arrays: the regressor itself (`landmarks.onnx`, trained in `training/landmarks`) is run by a session.
Everything is sampled from the picture's own pixels, never from a shrunken copy of them, and the second pass sees the
face as if it had been upright from the start.

"Left" is the left side of the picture. Coordinates are OpenCV's: pixel centres lie at whole numbers.
"""

from dataclasses import dataclass
from importlib import resources
from math import ceil, floor, hypot

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcface_api.arrays import Crop, Features, Image, InputSpec, Points, Transform
from arcface_api.errors import LandmarksInvalid, ModelFailed

LANDMARKS = 5
"""Left eye, right eye, nose tip, left mouth corner, right mouth corner."""

TEMPLATE: Points = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""Where the landmarks of an aligned face lie in a crop of `TEMPLATE_SIDE` pixels: (5, 2).
Source: InsightFace, `utils/face_align.py` (`arcface_dst`)."""
TEMPLATE.flags.writeable = False

TEMPLATE_SIDE = 112
"""Side of the crop that the template is stated for, pixels."""

TEMPLATE_EYE_DISTANCE = float(np.hypot(*(TEMPLATE[1] - TEMPLATE[0])))
"""Of an aligned face, pixels of `TEMPLATE_SIDE`: the unit of uncertainty."""

REGRESSOR_INPUT = InputSpec("input", 64, 64, 127.5, 127.5)
"""What the landmark regressor takes: RGB, -1 to 1."""

REGRESSOR_DIM = 12
"""Length of its output row: x, y of five points in sides of the input; uncertainty; probability that it is a face."""

VIEW_MARGIN = 1.15
"""The second pass sees this many template sides: little more than the aligned crop."""

VIEW_BORDER = 127.0
"""Grey beyond the picture in the regressor's input: nothing, once normalised. Training used the same."""

MAX_UNCERTAINTY = 0.15
"""Landmarks that are expected to be further off, in eye distances, are not to be aligned by. Chosen in training."""

MIN_FACE_PROBABILITY = 0.5
"""What is less probably a face is not to be aligned. Chosen in training."""

MIN_SPREAD = 2.0
"""Landmarks closer together than this (root of the summed squares about their mean, pixels) are one place."""

MIN_THICKNESS = 0.1
"""Narrower in one direction than this part of the other, landmarks are on a line; a full profile still has 0.3."""


@dataclass(frozen=True)
class View:
    """A part of the picture as the regressor sees it."""

    crop: Crop
    """(64, 64, 3) uint8, RGB."""
    transform: Transform
    """(2, 3), from the picture's pixels to the view's."""


@dataclass(frozen=True)
class Landmarks:
    """What the regressor says about one view."""

    points: Points
    """(5, 2) float32, the picture's pixels."""
    uncertainty: float
    """Expected mean distance of the points from the true ones, in eye distances of the aligned face."""
    face_probability: float
    """That the view shows a face; 0 to 1."""

    @property
    def are_sure(self) -> bool:
        """True: align by them. False: the picture better stays as it is."""
        return self.uncertainty <= MAX_UNCERTAINTY and self.face_probability >= MIN_FACE_PROBABILITY


def regressor() -> bytes:
    """The landmark regressor that this package carries, an ONNX file."""
    return resources.files("arcface_api").joinpath("landmarks.onnx").read_bytes()


# ── geometry ───────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── what the regressor sees and says ───────────────────────────────────────────────────────────────────────────────


def whole_view(image: Image) -> View:
    """The whole picture, centred in the regressor's input with its shape kept.

    Args:
        image: (h, w, 3) uint8, RGB, of any shape.
    """
    height, width = image.shape[:2]
    side = REGRESSOR_INPUT.width
    scale = side / max(height, width)
    offset_x, offset_y = (side - 1 - scale * (width - 1)) / 2, (side - 1 - scale * (height - 1)) / 2
    transform = np.array([[scale, 0, offset_x], [0, scale, offset_y]])
    return View(_sample(image, transform, side, VIEW_BORDER), transform)


def face_view(image: Image, points: Points) -> View:
    """The face that these landmarks imply, upright and filling the regressor's input.

    Args:
        image: (h, w, 3) uint8, RGB.
        points: (5, 2), the picture's pixels, as the first pass found them.

    Raises:
        LandmarksInvalid: As `similarity` does.
    """
    side = REGRESSOR_INPUT.width
    transform = similarity(points, view_template())
    return View(_sample(image, transform, side, VIEW_BORDER), transform)


def view_template() -> Points:
    """Where the template's landmarks lie in a `face_view`: (5, 2) float32, pixels."""
    side = REGRESSOR_INPUT.width
    centre = (TEMPLATE_SIDE - 1) / 2
    return ((TEMPLATE - centre) * (side / (TEMPLATE_SIDE * VIEW_MARGIN)) + (side - 1) / 2).astype(np.float32)


def read_landmarks(row: Features, view: View) -> Landmarks:
    """Read the regressor's output for one view.

    Args:
        row: (12,) float32, as `REGRESSOR_DIM` says.
        view: What it was shown.

    Raises:
        ModelFailed: A number is NaN or infinite.
    """
    if not np.isfinite(row).all():
        raise ModelFailed("The landmark regressor returned NaN or infinity.")
    points = back(row[: 2 * LANDMARKS].reshape(LANDMARKS, 2) * np.float32(REGRESSOR_INPUT.width), view.transform)
    return Landmarks(points, float(row[-2]), float(row[-1]))


# ── the aligned crop ───────────────────────────────────────────────────────────────────────────────────────────────


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


def align(image: Image, points: Points, size: int) -> Crop:
    """The crop in which the landmarks lie where the template has them, as nearly as a similarity can bring them.

    Equal to InsightFace's `norm_crop`, except where the picture has to shrink to half or less: there the pixels that
    one pixel of the crop covers are averaged first, where `norm_crop` would skip most of them.

    Args:
        image: (h, w, 3) uint8, RGB.
        points: (5, 2), the picture's pixels.
        size: Side of the crop, pixels.

    Returns:
        (size, size, 3) uint8, RGB; black beyond the picture.

    Raises:
        LandmarksInvalid: As `similarity` does.
    """
    template = TEMPLATE.astype(np.float64) * (size / TEMPLATE_SIDE)
    return _sample(image, similarity(points, template.astype(np.float32)), size, 0.0)


def _sample(image: Image, transform: Transform, size: int, border: float) -> Crop:
    """Warp to (size, size, 3), bilinear; where whole blocks of pixels become one, their mean is what is warped."""
    block = floor(1 / scale_of(transform) + 1e-6)
    if block >= 2:
        image, transform = _reduced(image, transform, size, block)
    crop = cv2.warpAffine(image, transform, (size, size), borderValue=(border, border, border))
    return crop.astype(np.uint8, copy=False)


def _reduced(image: Image, transform: Transform, size: int, block: int) -> tuple[Image, Transform]:
    """What the warp will read of the picture, each `block` x `block` pixels as their mean, and its transform."""
    height, width = image.shape[:2]
    corners = back(np.array([[-1, -1], [size, -1], [size, size], [-1, size]], np.float32), transform)
    left, top = (max(0, floor(edge) // block * block) for edge in corners.min(0))
    right, bottom = (
        min(limit, ceil(edge) + block) for edge, limit in zip(corners.max(0), (width, height), strict=True)
    )
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    if part.size == 0:  # the face lies beyond the picture altogether
        return image[:1, :1], transform
    missing_rows, missing_columns = -part.shape[0] % block, -part.shape[1] % block
    whole = cv2.copyMakeBorder(part, 0, missing_rows, 0, missing_columns, cv2.BORDER_REPLICATE)
    reduced = cv2.resize(whole, (whole.shape[1] // block, whole.shape[0] // block), interpolation=cv2.INTER_AREA)
    # a reduced pixel's centre lies in the middle of its block
    middle = (block - 1) / 2
    to_image = np.array([[block, 0, left + middle], [0, block, top + middle], [0, 0, 1]])
    return reduced.astype(np.uint8, copy=False), transform @ to_image


def _pairs(points: ArrayLike) -> NDArray[np.float64]:
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise LandmarksInvalid(f"Landmarks are {LANDMARKS} pairs of numbers x, y in pixels, not {points!r}.") from error
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
