"""What the landmark regressor sees of a picture, and what its output means.

    Image ──whole_view──▶ View ──regressor──▶ (12,) row ──read_landmarks──▶ Landmarks   first pass
    Image ──face_view───▶ View ──regressor──▶ (12,) row ──read_landmarks──▶ Landmarks   second pass, upright

`find_landmarks` does all of it, and again where it has to.

The regressor (`landmarks.onnx`, made in `training/landmarks`, which has its model card) is run by a session. Training
makes its samples with the functions here.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Crop, Features, Image, InputSpec, Points, Transform
from arcface_api.errors import LandmarksInvalid, ModelFailed
from arcface_api.face.geometry import LANDMARKS, back, corner_drift, moved, similarity
from arcface_api.face.warp import sample

REGRESSOR_INPUT = InputSpec("input", 64, 64, 127.5, 127.5)
"""What the landmark regressor takes: RGB, -1 to 1."""

REGRESSOR_DIM = 12
"""Length of its output row: x, y of five points in sides of the input; uncertainty; probability that it is a face."""

REGRESSOR_PROVENANCE = (
    "A part of Labeled Faces in the Wild, with landmarks of Intel's landmarks-regression-retail-0009."
)
"""What it was trained on; training/landmarks/MODEL_CARD.md says more."""

VIEW_MARGIN = 1.15
"""The second pass sees this many template sides: little more than the aligned crop."""

VIEW_BORDER = 127.0
"""Grey beyond the picture in the regressor's input: nothing, once normalised. Training used the same."""

REFINABLE_UNCERTAINTY = 0.06
"""Above it, in eye distances, another pass is worth its time. Chosen on pictures kept for choosing."""

REFINABLE_DRIFT = 0.05
"""Above it, in sides of the view, the second pass did not see the face upright enough. Chosen on the same pictures: at
90 degrees a third pass brings the errors' 99th percentile from 6.6 to 5.7 % of the eye distance (tried by hand), and
upright crops hardly ever need it."""

MAX_UNCERTAINTY = 0.15
"""Landmarks that are expected to be further off, in eye distances, are not to be aligned by. Chosen in training."""

MIN_FACE_PROBABILITY = 0.5
"""What is less probably a face is not to be aligned. Chosen in training."""


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


def find_landmarks(image: Image, run: Callable[[Crop], Features]) -> Landmarks:
    """All passes: where the landmarks of the one face on this picture are, and how sure that is.

    Two passes; a third one where the second is not yet certain enough, or shows that the first had not brought the face
    upright; and where that leads nowhere although the first saw a face, all of it again on the picture turned by half
    and by quarter turns: faces that lie upside down are sometimes taken for others.

    Args:
        image: (h, w, 3) uint8, RGB, of any shape, with or without a face.
        run: The regressor: one (64, 64, 3) crop in, its (12,) row out.

    Raises:
        ModelFailed: As `read_landmarks` does, or what `run` raises.
    """
    (found,) = find_landmarks_of_many([image], lambda crops: np.stack([run(crop) for crop in crops]))
    if isinstance(found, Exception):
        raise found
    return found


def find_landmarks_of_many(
    images: Sequence[Image], run: Callable[[Sequence[Crop]], Features]
) -> list[Landmarks | Exception]:
    """What `find_landmarks` finds on each picture, with the same pass of all of them in one batch.

    Args:
        images: n pictures.
        run: The regressor: m crops of (64, 64, 3) in, (m, 12) out, for each m from 1 to n.

    Returns:
        Of each picture its landmarks, or what was raised on its account only.

    Raises:
        ModelFailed, ...: What `run` raises.
    """
    searches = [_search(image) for image in images]
    found: dict[int, Landmarks | Exception] = {}
    rows: dict[int, Features | None] = dict.fromkeys(range(len(images)))
    while rows:
        crops: dict[int, Crop] = {}
        for index, row in rows.items():
            try:
                crops[index] = searches[index].send(row)
            except StopIteration as end:
                found[index] = end.value
            except Exception as error:  # noqa: BLE001  # whatever it was, it is this picture's own answer
                found[index] = error
        rows = dict(zip(crops, run(list(crops.values())), strict=True)) if crops else {}
    return [found[index] for index in range(len(images))]


_Search = Generator[Crop, Features | None, Landmarks]
"""Yields what the regressor is to see next, is sent its row (at first None), and returns what was found."""


def _search(image: Image) -> _Search:
    view = whole_view(image)
    first = yield from _look(view)
    found = yield from _refined(image, first)
    if not found.are_sure and first.face_probability >= MIN_FACE_PROBABILITY:
        for quarter_turns in (2, 1, 3):
            turned = yield from _look(turned_view(view, quarter_turns))
            again = yield from _refined(image, turned)
            found = min(found, again, key=_doubt)
            if found.are_sure:
                break
    return found


def _refined(image: Image, first: Landmarks) -> _Search:
    """The second pass, and a third where it may help."""
    try:
        view = face_view(image, first.points)
        found = yield from _look(view)
        if found.uncertainty > REFINABLE_UNCERTAINTY or _drift_in(view, found.points) > REFINABLE_DRIFT:
            again = yield from _look(face_view(image, found.points))
            found = min(found, again, key=_doubt)
        similarity(found.points, TEMPLATE)  # it can be aligned by
    except LandmarksInvalid:
        return Landmarks(first.points, uncertainty=1.0, face_probability=0.0)
    return found


def _look(view: View) -> _Search:
    row = yield view.crop
    assert row is not None  # noqa: S101  # only the first thing that a search is sent is None
    return read_landmarks(row, view)


def _drift_in(view: View, points: Points) -> float:
    """How far a view's furthest corner is from where it should be, if these are the landmarks; in sides of the view."""
    side = REGRESSOR_INPUT.width
    return corner_drift(similarity(moved(points, view.transform), view_template()), side) / side


def _doubt(landmarks: Landmarks) -> tuple[bool, float]:
    """Least for the landmarks to be kept."""
    return not landmarks.are_sure, landmarks.uncertainty


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
    return View(sample(image, transform, side, VIEW_BORDER), transform)


def turned_view(view: View, quarter_turns: int) -> View:
    """A view turned clockwise by quarter turns; no pixel changes."""
    last = REGRESSOR_INPUT.width - 1
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter_turns % 4]
    about_middle = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float64)
    about_middle[:2, 2] = [last / 2, last / 2] - about_middle[:2, :2] @ [last / 2, last / 2]
    turned = np.ascontiguousarray(np.rot90(view.crop, -quarter_turns))
    return View(turned, about_middle[:2] @ np.vstack([view.transform, [0, 0, 1]]))


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
    return View(sample(image, transform, side, VIEW_BORDER), transform)


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
