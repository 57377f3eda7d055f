"""Finds the five landmarks of a face: what the landmark regressor sees of a picture, and what its output means.

    Image ──whole_view (second pass: face_view)──▶ View ──regressor──▶ (19,) row ──read_landmarks──▶ Landmarks

Views are sampled from the picture's own pixels, never from a smaller copy. The regressor is `landmarks.onnx`;
`training/landmarks` trains it on views from these functions, and has its model card.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeAlias

import numpy as np

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Crop, Features, Image, InputSpec, Points, Transform, Weights
from arcface_api.errors import LandmarksInvalid, ModelFailed
from arcface_api.face.geometry import (
    LANDMARKS,
    MAX_DRIFT,
    back,
    corner_drift,
    moved,
    sample,
    scaled_template,
    similarity,
)

REGRESSOR_INPUT = InputSpec("input", 64, 64, 127.5, 127.5)
"""RGB, -1 to 1."""
REGRESSOR_DIM = 19
"""Length of an output row: x, y of five points in sides of the input; the uncertainty of each, in eye distances; how
much of the eyes and of the lower face is hidden, 0 to 1; the mean uncertainty; the probability of a face."""
TEMPLATE_SPREAD = 0.1
"""Eye distances. How far true landmarks lie from the template after alignment, because faces differ. Source: labels of
validation pictures (root mean square 0.097)."""
UNCERTAINTY_OF_NO_FACE = 1.0
"""Eye distances: what training teaches where there is no face. No point counts as less certain."""
REGRESSOR_PROVENANCE = (
    "A part of Labeled Faces in the Wild, with landmarks of Intel's landmarks-regression-retail-0009."
)
"""What it was trained on; training/landmarks/MODEL_CARD.md says more."""
VIEW_MARGIN = 1.15
"""Side of what the second pass sees, in template sides: little more than the aligned crop."""
VIEW_BORDER = 127.0
"""Grey beyond the picture: zero once normalised, as in training."""
REFINABLE_UNCERTAINTY = 0.06
"""Eye distances. Above it, another pass is worth its time. Source: validation pictures."""
ENOUGH_PROBABILITY, ENOUGH_UNCERTAINTY, ENOUGH_DRIFT = 0.9, 0.035, 0.16
"""The first pass is the only one if it is so certain (eye distances) of a face on a view so close (sides of the view)
to what the second pass would see. Source: verification of people on whom it was not trained (docs/adr/0010)."""
DECISIVE_DRIFT = 2 * MAX_DRIFT
"""Sides of the crop. With less, a few pixels decide whether the picture counts as aligned, so a second pass looks."""
REFINABLE_DRIFT = 0.05
"""Sides of the view. Above it, the second pass did not see the face upright enough. Source: validation pictures turned
by 90 degrees: a third pass lowers the 99th percentile of errors from 6.6 to 5.7 % of the eye distance (measured once,
not recorded). Upright crops hardly ever need it."""
MAX_UNCERTAINTY = 0.12
"""Eye distances. Landmarks with more are not used to align. Source: validation pictures (docs/adr/0010)."""
MIN_FACE_PROBABILITY = 0.5
"""A picture with less probably shows no face and is not aligned. Source: training and
benchmarks/questions/quality.py: it lies between faces and pictures without one."""


Regress: TypeAlias = Callable[[Crop], Features]
"""The regressor: a view's pixels, (64, 64, 3) uint8, to its row, (19,) float32."""


@dataclass(frozen=True)
class View:
    """A part of the picture as the regressor sees it, (64, 64, 3), and the way from the picture's pixels to it."""

    crop: Crop
    transform: Transform


@dataclass(frozen=True)
class Landmarks:
    """What the regressor found: five points, how certain they are, what is hidden, and whether there is a face."""

    points: Points
    """(5, 2) float32, the picture's pixels: left eye, right eye, nose tip, left and right mouth corner."""
    uncertainty: float
    """Weighted mean of the points' expected errors, in eye distances of the aligned face."""
    face_probability: float
    weights: Weights | None = None
    """How much each point counts: (5,). None: all alike."""
    eyes_hidden: float = 0.0
    """How much of the eyes something covers: 0 to 1."""
    lower_face_hidden: float = 0.0
    """How much of the face below the nose something covers: 0 to 1."""

    @property
    def are_sure(self) -> bool:
        """True if the points are good enough to align by. If not, nothing else is derived from them either."""
        return self.uncertainty <= MAX_UNCERTAINTY and self.face_probability >= MIN_FACE_PROBABILITY


def regressor() -> bytes:
    """The landmark regressor's ONNX file, from this package."""
    return resources.files("arcface_api").joinpath("landmarks.onnx").read_bytes()


def find_landmarks(image: Image, regress: Regress) -> Landmarks:
    """The landmarks of the one face on a picture.

    One pass if it is certain and the picture is cut nearly as the second would see it, else two; a third if the second
    is not certain enough or shows that the face was not yet upright. If the result is unsure although the first pass
    saw a face, all of it is repeated on the picture turned by 180, 90 and 270 degrees.

    Raises `ModelFailed` if the regressor returns NaN or infinity, and whatever `regress` raises.
    """
    view = whole_view(image)
    first = _look(view, regress)
    found = _refined(image, view, first, regress)
    if not found.are_sure and first.face_probability >= MIN_FACE_PROBABILITY:
        for quarter_turns in (2, 1, 3):
            turned = turned_view(view, quarter_turns)
            again = _refined(image, turned, _look(turned, regress), regress)
            found = min(found, again, key=_doubt)
            if found.are_sure:
                break
    return found


def _refined(image: Image, view: View, first: Landmarks, regress: Regress) -> Landmarks:
    """What the first pass found on `view`, and a second and a third pass if they may help."""
    try:
        is_enlarged = max(image.shape[:2]) < REGRESSOR_INPUT.width
        if (
            first.face_probability >= ENOUGH_PROBABILITY
            and not is_enlarged
            and _is_enough(view, first, ENOUGH_UNCERTAINTY, ENOUGH_DRIFT)
            and _drift(view, first, scaled_template(REGRESSOR_INPUT.width)) > DECISIVE_DRIFT
        ):
            return first
        view = face_view(image, first.points, first.weights)
        found = _look(view, regress)
        if not _is_enough(view, found, REFINABLE_UNCERTAINTY, REFINABLE_DRIFT):
            again = _look(face_view(image, found.points, found.weights), regress)
            found = min(found, again, key=_doubt)
        similarity(found.points, TEMPLATE, found.weights)  # raises if they cannot be aligned by
    except LandmarksInvalid:
        return Landmarks(first.points, uncertainty=1.0, face_probability=0.0)
    return found


def _look(view: View, regress: Regress) -> Landmarks:
    return read_landmarks(regress(view.crop), view)


def _is_enough(view: View, found: Landmarks, max_uncertainty: float, max_drift: float) -> bool:
    """True if a pass was certain, and no corner of its view is further from where these landmarks would put it."""
    return found.uncertainty <= max_uncertainty and _drift(view, found, view_template()) <= max_drift


def _drift(view: View, found: Landmarks, template: Points) -> float:
    """How far a view's corners are at most from where a template in its pixels would put them; sides of the view."""
    side = REGRESSOR_INPUT.width
    return corner_drift(similarity(moved(found.points, view.transform), template, found.weights), side) / side


def _doubt(landmarks: Landmarks) -> tuple[bool, float]:
    """Sort key: the smaller, the better."""
    return not landmarks.are_sure, landmarks.uncertainty


def whole_view(image: Image) -> View:
    """The whole picture, (h, w, 3) of any shape, centred in the regressor's input without distortion."""
    height, width = image.shape[:2]
    side = REGRESSOR_INPUT.width
    scale = side / max(height, width)
    offset_x, offset_y = (side - 1 - scale * (width - 1)) / 2, (side - 1 - scale * (height - 1)) / 2
    transform = np.array([[scale, 0, offset_x], [0, scale, offset_y]])
    return View(sample(image, transform, side, VIEW_BORDER), transform)


def turned_view(view: View, quarter_turns: int) -> View:
    """A view turned clockwise by quarter turns; no pixel changes."""
    last = REGRESSOR_INPUT.width - 1
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter_turns % 4]
    about_middle = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float64)
    about_middle[:2, 2] = [last / 2, last / 2] - about_middle[:2, :2] @ [last / 2, last / 2]
    turned = np.ascontiguousarray(np.rot90(view.crop, -quarter_turns))
    return View(turned, about_middle[:2] @ np.vstack([view.transform, [0, 0, 1]]))


def face_view(image: Image, points: Points, weights: Weights | None = None) -> View:
    """The face with these landmarks, upright and filling the regressor's input; raises as `similarity`."""
    transform = similarity(points, view_template(), weights)
    return View(sample(image, transform, REGRESSOR_INPUT.width, VIEW_BORDER), transform)


@cache
def view_template() -> Points:
    """Where the template's landmarks lie in a `face_view`: (5, 2) float32, pixels."""
    side = REGRESSOR_INPUT.width
    centre = (TEMPLATE_SIDE - 1) / 2
    points = ((TEMPLATE - centre) * (side / (TEMPLATE_SIDE * VIEW_MARGIN)) + (side - 1) / 2).astype(np.float32)
    points.flags.writeable = False
    return points


def read_landmarks(row: Features, view: View) -> Landmarks:
    """The regressor's row for one view, (19,) float32; raises `ModelFailed` if a number is NaN or infinite."""
    if not np.isfinite(row).all():
        raise ModelFailed("The landmark regressor returned NaN or infinity.")
    coordinates, uncertainties = row[:10], np.clip(row[10:15], 0, UNCERTAINTY_OF_NO_FACE)
    eyes_hidden, lower_face_hidden, _, face_probability = row[15:].tolist()
    points = back(coordinates.reshape(LANDMARKS, 2) * np.float32(REGRESSOR_INPUT.width), view.transform)
    # Least squares weigh each point by its variance: how far off it may be, and how far this face is from the template.
    weights = 1 / (uncertainties**2 + TEMPLATE_SPREAD**2)
    uncertainty = float(weights @ uncertainties / weights.sum())
    return Landmarks(points, uncertainty, face_probability, weights, eyes_hidden, lower_face_hidden)
