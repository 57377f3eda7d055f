"""How far a face on a picture can be trusted to be recognised: numbers, and warnings with stable codes.

    picture's shape ─┐
    Finding ─────────┼──picture_quality──▶ Quality
    Crop ────────────┘

Light and sharpness are measured on the middle of the face as it would be aligned, so they cost the same whatever the
picture's size. What only the landmarks can tell (how large the face is, which way it looks, whether it was squeezed) is
told from sure landmarks alone.

Each limit but those of the pose is where, with degraded pictures of people kept for choosing, one in twenty comparisons
with another picture of the same person fails at a false accept rate of 1e-3 (or, where that is more, twice as many as
with ordinary pictures), unless it would then warn of more than about one ordinary picture in a hundred; rounded. The
measurement is `benchmarks/quality.py`; docs/quality.md says how much verification error each warning flags.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import exp, isfinite, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Crop, Image, Points

TOLERABLE_ERROR = 0.15
"""Mean error of the landmarks, in eye distances, up to which `landmark_confidence` counts them as right: beyond it they
are not aligned by."""

MIN_FACE_SIZE_PX = 24.0
"""Smaller faces are `upscaled`. Source: benchmarks/quality.py, pictures shrunk."""

MIN_PICTURE_ASPECT, MAX_PICTURE_ASPECT = 0.5, 2.2
"""Width by height, beyond which a picture is of `extreme_aspect`. Source: benchmarks/quality.py, crops cut long and
stretched."""

MIN_FACE_ASPECT, MAX_FACE_ASPECT = 0.65, 1.2
"""Eye distance by distance of eyes and mouth, beyond which a face was squeezed: also `extreme_aspect`. Source:
benchmarks/quality.py, pictures squeezed, then aligned. A head turned by 40 degrees, which is recognised well, looks as
narrow as the lower limit; so it is not rounded up further."""

MIN_SHARPNESS = 0.08
"""Less is `low_sharpness`. Source: benchmarks/quality.py, pictures out of focus, moved and shrunk; here it is untouched
pictures that forbid more: one in a hundred has less."""

MIN_BRIGHTNESS = 0.03
"""Less is `underexposed`. Source: benchmarks/quality.py, pictures darkened by whole stops."""

MAX_BRIGHTNESS = 0.88
"""More is `overexposed`. Source: benchmarks/quality.py, pictures brightened by whole stops until they clip."""

MIN_FACE_PROBABILITY = 0.5
"""Less is `probably_no_face`. Source: benchmarks/quality.py: it lies between faces and pictures without one."""

MAX_TURN = 0.36
"""More, to either side, is `extreme_pose`. Source: benchmarks/quality.py, the most turned 0.25 % of LFW: beyond them
nothing is proven."""

MIN_NOD, MAX_NOD = 0.19, 0.79
"""Less (head raised) or more (head lowered) is `extreme_pose`. Source: benchmarks/quality.py, LFW's outermost 0.25 % at
either end."""

_MIDDLE = slice(28, 108), slice(24, 88)
"""Rows and columns of the aligned crop that show the face from brows to chin, and little else."""

_SPREAD = 0.05, 0.95
"""Contrast is the distance between these quantiles of brightness: a few highlights do not count."""

_ANGLES = np.arange(12) * (np.pi / 12)
_DIRECTIONS = np.stack([np.ones_like(_ANGLES), np.cos(2 * _ANGLES), np.sin(2 * _ANGLES)], axis=1)


class QualityWarning(StrEnum):
    """Why an embedding may not be worth comparing; each says what it means and what to do."""

    UPSCALED = "upscaled"
    """The face has so few pixels that the crop is mostly interpolation. Send a crop of the original picture."""
    EXTREME_ASPECT = "extreme_aspect"
    """The picture, or the face on it, is far too wide or too narrow. Send the crop as the camera saw it, unsqueezed."""
    LOW_SHARPNESS = "low_sharpness"
    """The face is blurred: out of focus, moved, or enlarged from a few pixels. Take another picture."""
    UNDEREXPOSED = "underexposed"
    """The face is nearly black. Take a picture with more light; brightening this one brings nothing back."""
    OVEREXPOSED = "overexposed"
    """The face is nearly white, its detail clipped. Take a picture with less light."""
    LANDMARKS_UNSURE = "landmarks_unsure"
    """Eyes, nose and mouth were not found reliably, so the picture cannot be aligned by them: the face is covered,
    turned away, cut off, or far from the picture's middle. Send a crop of the face alone, or landmarks of your own."""
    NO_FACE = "probably_no_face"
    """The picture probably shows no face. Do not store its embedding; look at the picture and the detector."""
    EXTREME_POSE = "extreme_pose"
    """The head is turned, raised or lowered further than this was measured for. Prefer a picture from the front."""


@dataclass(frozen=True)
class Finding:
    """What a landmark regressor said of a picture, in plain numbers."""

    points: Points
    """(5, 2) float32, the picture's pixels: left eye, right eye, nose tip, left and right mouth corner."""
    uncertainty: float
    """Expected mean distance of the points from the true ones, in eye distances of the aligned face."""
    face_probability: float
    """0 to 1."""
    are_sure: bool
    """Whether the points are good enough to align by. Where not, nothing here is told from them."""


@dataclass(frozen=True)
class Quality:
    """What can be told of a face's picture before it is compared. No number is ever NaN or infinite."""

    landmark_confidence: float
    """0 to 1: the probability that this is a face and that its landmarks are off by no more than `TOLERABLE_ERROR` on
    the mean: face_probability * (1 - exp(-TOLERABLE_ERROR / uncertainty)). The regressor learned its uncertainty as the
    mean of an exponential distribution; this is that distribution's share below the tolerance."""
    face_size_px: float
    """Side, in the file's pixels, of the square that the aligned crop of 112x112 covers: below 112 the face is
    enlarged. Where the landmarks are unsure, the picture's shorter side: the whole picture is the crop then."""
    sharpness: float
    """0 to about 0.6, in photographs about 0.13: the finest detail in the direction that has least of it, relative to
    the spread of brightness."""
    brightness: float
    """0 to 1: mean of the face's grey values."""
    contrast: float
    """0 to 1: between the 5th and the 95th percentile of the face's grey values."""
    warnings: tuple[QualityWarning, ...]
    """In the order of `QualityWarning`."""


@dataclass(frozen=True)
class FaceShape:
    """What five landmarks say of a face, whichever way up it lies on the picture."""

    size_px: float
    """As `Quality.face_size_px`."""
    aspect: float
    """Eye distance by the distance from the eyes' middle to the mouth's; the template has 0.87."""
    turn: float
    """How far the nose lies beside the line from the eyes' middle to the mouth's, in lengths of that line; positive
    towards the picture's right. 0 from the front; on the mean face of `head_pose`, 0.35 is 50 degrees."""
    nod: float
    """How far down that line the nose lies, 0 at the eyes and 1 at the mouth; the template has 0.49. Less with the head
    raised, more with the head lowered: on the mean face of `head_pose`, 0.19 and 0.79 are 30 degrees from there."""


def picture_quality(image: Image, face: Crop, finding: Finding, *, reduction: float = 1.0) -> Quality:
    """Measure a face, and warn of what makes it hard to recognise.

    Args:
        image: The decoded, upright picture: (h, w, 3) uint8, RGB, of any size; only its shape is looked at.
        face: (112, 112, 3) uint8, RGB: aligned by sure landmarks, or the stretched picture.
        finding: What the landmark regressor said of `image`.
        reduction: How many of the file's pixels one of the image's is wide: it was decoded at a fraction of its size.
    """
    height, width = image.shape[:2]
    shape = face_shape(finding.points) if finding.are_sure else None
    grey = cv2.cvtColor(np.ascontiguousarray(face[_MIDDLE]), cv2.COLOR_RGB2GRAY)
    brightness, contrast = _tones(grey)  # type: ignore[arg-type]  # stub says Any dtype
    sharpness = _sharpness(grey)  # type: ignore[arg-type]
    face_size = reduction * (shape.size_px if shape else min(height, width))
    has_extreme_pose = shape is not None and not (abs(shape.turn) <= MAX_TURN and MIN_NOD <= shape.nod <= MAX_NOD)
    # a face that is turned away looks narrow, too
    is_squeezed = shape is not None and not (has_extreme_pose or MIN_FACE_ASPECT <= shape.aspect <= MAX_FACE_ASPECT)
    holds = {
        QualityWarning.UPSCALED: face_size < MIN_FACE_SIZE_PX,
        QualityWarning.EXTREME_ASPECT: is_squeezed or not MIN_PICTURE_ASPECT <= width / height <= MAX_PICTURE_ASPECT,
        QualityWarning.LOW_SHARPNESS: sharpness < MIN_SHARPNESS,
        QualityWarning.UNDEREXPOSED: brightness < MIN_BRIGHTNESS,
        QualityWarning.OVEREXPOSED: brightness > MAX_BRIGHTNESS,
        QualityWarning.LANDMARKS_UNSURE: not finding.are_sure,
        QualityWarning.NO_FACE: finding.face_probability < MIN_FACE_PROBABILITY,
        QualityWarning.EXTREME_POSE: has_extreme_pose,
    }
    warnings = tuple(warning for warning in QualityWarning if holds[warning])
    return Quality(landmark_confidence(finding), face_size, sharpness, brightness, contrast, warnings)


def landmark_confidence(finding: Finding) -> float:
    """As `Quality.landmark_confidence` says; 0 to 1."""
    uncertainty = max(finding.uncertainty, 1e-9)
    return min(max(finding.face_probability, 0.0), 1.0) * (1 - exp(-TOLERABLE_ERROR / uncertainty))


def face_shape(points: Points) -> FaceShape | None:
    """What the landmarks say of the face.

    Args:
        points: (5, 2), the picture's pixels.

    Returns:
        None where they describe no face: not finite, or so arranged that no size can be told.
    """
    # As complex numbers, a similarity is z -> a z + b: quotients of differences are the same in every frame.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found, template = (array.astype(np.float64) @ np.array([1, 1j]) for array in (points, TEMPLATE))
        centred = found - found.mean()
        scale = abs(np.vdot(centred, template - template.mean())) / np.vdot(centred, centred).real
        eyes, mouth = found[:2].mean(), found[3:].mean()
        nose = (found[2] - eyes) / (mouth - eyes)
        size, aspect = TEMPLATE_SIDE / scale, abs(found[1] - found[0]) / abs(mouth - eyes)
    shape = FaceShape(float(size), float(aspect), float(-nose.imag), float(nose.real))
    return shape if all(isfinite(value) for value in (size, aspect, nose.imag, nose.real)) else None


def _tones(grey: NDArray[np.uint8]) -> tuple[float, float]:
    """Brightness and contrast of (h, w) grey values, each 0 to 1."""
    counts = np.bincount(grey.ravel(), minlength=256)
    darkest, brightest = np.searchsorted(np.cumsum(counts), np.multiply(_SPREAD, grey.size))
    return float(counts @ np.arange(256)) / grey.size / 255, float(brightest - darkest) / 255


def _sharpness(grey: NDArray[np.uint8]) -> float:
    """Root mean square of the second derivative in the direction where it is least, by the spread of grey values.

    Least of all directions, because a moved picture is sharp across its movement. On half the size and smoothed: there
    blur that costs recognition differs from noise, from compression and from sharpness that does not matter.
    """
    half = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA).astype(np.float32)
    soft = cv2.GaussianBlur(half, (0, 0), 1.0)
    middle = 2 * soft[1:-1, 1:-1]
    xx, yy = soft[1:-1, 2:] - middle + soft[1:-1, :-2], soft[2:, 1:-1] - middle + soft[:-2, 1:-1]
    xy = (soft[2:, 2:] - soft[2:, :-2] - soft[:-2, 2:] + soft[:-2, :-2]) / 4
    # along the angle a it is (xx + yy) / 2 + cos 2a (xx - yy) / 2 + sin 2a xy
    parts = np.stack([(xx + yy) / 2, (xx - yy) / 2, xy]).reshape(3, -1)
    moments = parts @ parts.T / parts.shape[1]
    least = float(((_DIRECTIONS @ moments) * _DIRECTIONS).sum(axis=1).min())
    return sqrt(max(least, 0.0)) / (float(half.std()) + 1)
