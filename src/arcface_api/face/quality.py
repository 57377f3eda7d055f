"""How well a face can be recognised from its picture: numbers, and warnings with stable codes.

Light and sharpness are measured on the middle of the aligned face, so their cost does not depend on the picture's size.
Face size, pose and squeezing follow from the landmarks, if those are sure.

Source of the limits: benchmarks/questions/quality.py; docs/quality.md says how they were chosen and how many errors
each warning flags.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import exp, isfinite, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Crop, Image, Points
from arcface_api.face.geometry import LANDMARKS
from arcface_api.face.landmarks import MAX_UNCERTAINTY, MIN_FACE_PROBABILITY, Landmarks

MIN_FACE_SIZE_PX = 24.0
"""Smaller faces are `upscaled`. Measured on shrunk pictures."""
MIN_PICTURE_ASPECT, MAX_PICTURE_ASPECT = 0.5, 2.2
"""Width by height; pictures outside are `extreme_aspect`. Measured on crops cut long and stretched."""
MIN_FACE_ASPECT, MAX_FACE_ASPECT = 0.65, 1.2
"""`FaceShape.aspect`; faces outside were squeezed and are `extreme_aspect`, too. Measured on pictures squeezed, then
aligned. A head turned by 40 degrees, which is recognised well, looks as narrow as the lower limit."""
MIN_SHARPNESS = 0.08
"""Less is `low_sharpness`. Measured on pictures out of focus, moved and shrunk; ordinary pictures set the limit."""
MIN_BRIGHTNESS = 0.03
"""Less is `underexposed`. Measured on pictures darkened by whole stops."""
MAX_BRIGHTNESS = 0.88
"""More is `overexposed`. Measured on pictures brightened by whole stops until they clip."""
MAX_TURN = 0.36
"""More, to either side, is `extreme_pose`: the most turned 0.25 % of LFW, beyond which nothing was measured."""
MIN_NOD, MAX_NOD = 0.19, 0.79
"""Less (head raised) or more (head lowered) is `extreme_pose`: LFW's outermost 0.25 % at either end."""
MAX_EYES_HIDDEN = MAX_LOWER_FACE_HIDDEN = 0.4
"""Share of a part; more is `eyes_covered` or `lower_face_covered`. Less than one of two eyes, but no less than what few
untouched pictures have."""

_MIDDLE = slice(28, 108), slice(24, 88)
"""Rows and columns of the aligned crop that show the face from brows to chin, and little else."""
_CONTRAST_QUANTILES = 0.05, 0.95
_ANGLES = np.arange(12) * (np.pi / 12)
_DIRECTIONS = np.stack([np.cos(_ANGLES) ** 2, np.sin(_ANGLES) ** 2, np.sin(2 * _ANGLES) / 4], axis=1)
_TEMPLATE_OFFSETS = [complex(x, y) for x, y in (TEMPLATE - TEMPLATE.mean(axis=0, dtype=np.float64)).tolist()]


class QualityWarning(StrEnum):
    """Why an embedding may not be worth comparing; each says what it means and what to do."""

    UPSCALED = "upscaled"
    """The face has so few pixels that the crop is mostly interpolation. Send a crop of the original picture."""
    EXTREME_ASPECT = "extreme_aspect"
    """The picture, or the face in it, is far too wide or too narrow. Send the crop as the camera saw it, unsqueezed."""
    LOW_SHARPNESS = "low_sharpness"
    """The face is blurred: out of focus, moved, or enlarged from a few pixels. Take another picture."""
    UNDEREXPOSED = "underexposed"
    """The face is nearly black. Take a picture with more light; brightening this one does not restore detail."""
    OVEREXPOSED = "overexposed"
    """The face is nearly white, its detail clipped. Take a picture with less light."""
    LANDMARKS_UNSURE = "landmarks_unsure"
    """Eyes, nose and mouth were not found reliably, so the picture cannot be aligned by them: the face is covered,
    turned away, cut off, or far from the picture's centre. Send a crop of the face alone, or your own landmarks."""
    NO_FACE = "probably_no_face"
    """The picture probably shows no face. Do not store its embedding; check the picture and the detector."""
    EXTREME_POSE = "extreme_pose"
    """The head is turned, raised or lowered further than was measured. Prefer a picture from the front."""
    EYES_COVERED = "eyes_covered"
    """Dark glasses, hair or a hand hide an eye or both. Fewer pictures of the same person will match. Prefer a picture
    without."""
    LOWER_FACE_COVERED = "lower_face_covered"
    """A mask, a scarf or a hand hides mouth and chin. Fewer pictures of the same person will match, and other people
    with a mask match more easily. Prefer a picture without, or use a threshold measured on masked faces."""
    TRUNCATED = "truncated"
    """The JPEG was cut short: the part that is missing is grey, or lacks detail. Do not store its embedding; send the
    whole file."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What is known of a face's picture before it is compared. No number is ever NaN or infinite."""

    landmark_confidence: float
    """0 to 1: the probability that this is a face and that its landmarks are off by at most `MAX_UNCERTAINTY` on
    average, in which uncertain points count less: face_probability * (1 - exp(-MAX_UNCERTAINTY / uncertainty)). The
    regressor learned its uncertainty as the mean of an exponential distribution; this is that distribution's share
    below the tolerance."""
    face_size_px: float
    """Side, in the file's pixels, of about the square that the aligned crop of 112x112 covers: below 112 the face is
    enlarged. If the landmarks are unsure, the picture's shorter side: the whole picture is the crop then."""
    sharpness: float
    """0 to about 0.6, in photographs about 0.13: the finest detail in the direction that has least of it, relative to
    the spread of brightness."""
    brightness: float
    """0 to 1: mean of the face's grey values."""
    contrast: float
    """0 to 1: between the 5th and the 95th percentile of the face's grey values."""
    warnings: tuple[QualityWarning, ...]
    """In the order of `QualityWarning`, and never `truncated`, which decoding finds."""


@dataclass(frozen=True)
class FaceShape:
    """What five landmarks say of a face, at any rotation in the picture."""

    size_px: float
    """As `Quality.face_size_px`."""
    aspect: float
    """Eye distance by the distance between the middles of eyes and mouth; the template has 0.87."""
    turn: float
    """Distance of the nose from the line between these middles, in lengths of it; positive to the picture's right.
    0 from the front; on the mean face of `head_pose`, 0.35 is 50 degrees."""
    nod: float
    """Place of the nose along that line, 0 at the eyes and 1 at the mouth; the template has 0.49. Less with the head
    raised, more with the head lowered: on the mean face of `head_pose`, 0.19 and 0.79 are 30 degrees from there."""


def picture_quality(image: Image, face: Crop, landmarks: Landmarks, *, reduction: float = 1.0) -> Quality:
    """Measures a face, and warns of what makes it hard to recognise.

    Of `image`, only the shape is used. `face` is (112, 112, 3): aligned by sure landmarks, or the stretched picture.
    `reduction` is the width of an image's pixel in pixels of the file, which may have been decoded at a smaller size.
    """
    height, width = image.shape[:2]
    are_sure, is_face = landmarks.are_sure, landmarks.face_probability >= MIN_FACE_PROBABILITY
    shape = face_shape(landmarks.points) if are_sure else None
    grey = cv2.cvtColor(np.ascontiguousarray(face[_MIDDLE]), cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    brightness, contrast = _tones(grey)
    sharpness = _sharpness(grey)
    face_size = reduction * (shape.size_px if shape else min(height, width))
    has_extreme_pose = shape is not None and not (abs(shape.turn) <= MAX_TURN and MIN_NOD <= shape.nod <= MAX_NOD)
    # A face that is turned away looks narrow, too.
    is_squeezed = shape is not None and not (has_extreme_pose or MIN_FACE_ASPECT <= shape.aspect <= MAX_FACE_ASPECT)
    holds = (
        (QualityWarning.UPSCALED, face_size < MIN_FACE_SIZE_PX),
        (
            QualityWarning.EXTREME_ASPECT,
            is_squeezed or not MIN_PICTURE_ASPECT <= width / height <= MAX_PICTURE_ASPECT,
        ),
        (QualityWarning.LOW_SHARPNESS, sharpness < MIN_SHARPNESS),
        (QualityWarning.UNDEREXPOSED, brightness < MIN_BRIGHTNESS),
        (QualityWarning.OVEREXPOSED, brightness > MAX_BRIGHTNESS),
        (QualityWarning.LANDMARKS_UNSURE, not are_sure),
        (QualityWarning.NO_FACE, not is_face),
        (QualityWarning.EXTREME_POSE, has_extreme_pose),
        (QualityWarning.EYES_COVERED, is_face and landmarks.eyes_hidden > MAX_EYES_HIDDEN),
        (QualityWarning.LOWER_FACE_COVERED, is_face and landmarks.lower_face_hidden > MAX_LOWER_FACE_HIDDEN),
    )
    return Quality(
        landmark_confidence=landmark_confidence(landmarks),
        face_size_px=face_size,
        sharpness=sharpness,
        brightness=brightness,
        contrast=contrast,
        warnings=tuple(warning for warning, is_so in holds if is_so),
    )


def landmark_confidence(landmarks: Landmarks) -> float:
    """See `Quality.landmark_confidence`."""
    uncertainty = max(landmarks.uncertainty, 1e-9)
    return min(max(landmarks.face_probability, 0.0), 1.0) * (1 - exp(-MAX_UNCERTAINTY / uncertainty))


def face_shape(points: Points) -> FaceShape | None:
    """The shape of the face with these landmarks, (5, 2); None if they are not finite or describe no face."""
    # As complex numbers, a similarity is z -> a z + b: quotients of differences are the same in every frame.
    left_eye, right_eye, nose, *mouth_corners = (complex(x, y) for x, y in points.tolist())
    eyes, mouth = (left_eye + right_eye) / 2, sum(mouth_corners) / 2
    centre = (left_eye + right_eye + nose + sum(mouth_corners)) / LANDMARKS
    try:
        offsets = [complex(x, y) - centre for x, y in points.tolist()]
        fit = sum(offset.conjugate() * target for offset, target in zip(offsets, _TEMPLATE_OFFSETS, strict=True))
        scale = abs(fit) / sum(abs(offset) ** 2 for offset in offsets)
        place = (nose - eyes) / (mouth - eyes)
        shape = FaceShape(
            size_px=TEMPLATE_SIDE / scale,
            aspect=abs(right_eye - left_eye) / abs(mouth - eyes),
            turn=-place.imag,
            nod=place.real,
        )
    except (ZeroDivisionError, OverflowError):
        return None
    return shape if all(map(isfinite, (shape.size_px, shape.aspect, shape.turn, shape.nod))) else None


def _tones(grey: NDArray[np.uint8]) -> tuple[float, float]:
    """Brightness and contrast of (h, w) grey values, each 0 to 1."""
    up_to = np.cumsum(cv2.calcHist([grey], [0], None, [256], [0, 256]))
    darkest, brightest = np.searchsorted(up_to, np.multiply(_CONTRAST_QUANTILES, grey.size)).tolist()
    return cv2.mean(grey)[0] / 255, (brightest - darkest) / 255


def _sharpness(grey: NDArray[np.uint8]) -> float:
    """Root mean square of the second derivative in the direction where it is least, by the spread of grey values.

    The least of all directions, because a moved picture is sharp across its movement. At half the size and smoothed:
    there, blur that costs recognition stands out from noise, compression and detail that does not matter.
    """
    half = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA).astype(np.float32)
    soft = cv2.GaussianBlur(half, (0, 0), 1.0)
    # xx, yy and 4 xy, without the outermost pixels; along the angle a it is xx cos^2 a + yy sin^2 a + 2 xy sin a cos a.
    orders = (2, 0), (0, 2), (1, 1)
    parts = np.array([cv2.Sobel(soft, cv2.CV_32F, *order, ksize=1)[1:-1, 1:-1].ravel() for order in orders])
    moments = parts @ parts.T
    least = float(((_DIRECTIONS @ moments) * _DIRECTIONS).sum(axis=1).min()) / parts.shape[1]
    return sqrt(max(least, 0.0)) / (float(cv2.meanStdDev(half)[1].item()) + 1)
