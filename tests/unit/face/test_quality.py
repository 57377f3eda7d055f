"""Promises of `face.quality`: each warning where it belongs and nowhere else, numbers that follow a picture."""

import csv
import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import cos, isfinite, radians, sin

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcface_api.arrays import TEMPLATE, Image, Points, to_tensor
from arcface_api.face.geometry import align, scale_of, similarity
from arcface_api.face.head_pose import mean_shape
from arcface_api.face.landmarks import (
    MAX_UNCERTAINTY,
    REGRESSOR_INPUT,
    Landmarks,
    face_view,
    read_landmarks,
    regressor,
    whole_view,
)
from arcface_api.face.quality import Quality, QualityWarning, face_shape, landmark_confidence, picture_quality
from arcface_api.image import stretch
from conftest import LFW
from pictures import decoded_by_opencv

SURE = Landmarks(TEMPLATE, 0.04, 0.99)


def turned_head(yaw: float = 0, pitch: float = 0, scale: float = 1) -> Points:
    """Five landmarks of the mean face, turned by so many degrees to the picture's right, and up."""
    shape = mean_shape().astype(np.float64)
    five = np.stack([shape[36:42].mean(0), shape[42:48].mean(0), shape[30], shape[48], shape[54]])
    yaw, pitch = radians(yaw), radians(-pitch)
    about_y = np.array([[cos(yaw), 0, sin(yaw)], [0, 1, 0], [-sin(yaw), 0, cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, cos(pitch), sin(pitch)], [0, -sin(pitch), cos(pitch)]])
    return np.asarray((five @ (about_y @ about_x).T)[:, :2] * 66 * scale + 56, np.float32)


def scaled(across: float, down: float | None = None) -> Points:
    """The template, larger or smaller."""
    return np.asarray(TEMPLATE * np.array([across, across if down is None else down]), np.float32)


def textured(seed: int = 0) -> Image:
    """An aligned crop as sharp and as bright as faces are: coarse shapes with fine ones over them."""
    rng = np.random.default_rng(seed)
    layers = [
        share * cv2.resize(rng.normal(0, 1, (side, side)).astype(np.float32), (112, 112), interpolation=cv2.INTER_CUBIC)
        for side, share in ((6, 30.0), (12, 15.0), (40, 10.0))
    ]
    grey = np.clip(120 + np.sum(layers, axis=0), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def blurred(image: Image, pixels: float) -> Image:
    return cv2.GaussianBlur(image, (0, 0), pixels).astype(np.uint8)


def moved(image: Image, pixels: int, degrees: float) -> Image:
    line = np.zeros((pixels, pixels), np.float32)
    line[pixels // 2] = 1
    around = (pixels // 2, pixels // 2)
    kernel = cv2.warpAffine(line, cv2.getRotationMatrix2D(around, degrees, 1), (pixels, pixels))
    return cv2.filter2D(image, -1, kernel / kernel.sum()).astype(np.uint8)


def exposed(image: Image, stops: float) -> Image:
    """So many stops more light, clipped; with a gamma of 2.2."""
    return np.clip(255 * ((image / 255) ** 2.2 * 2**stops) ** (1 / 2.2), 0, 255).round().astype(np.uint8)


def measured(face: Image, landmarks: Landmarks = SURE, picture: Image | None = None) -> Quality:
    return picture_quality(face if picture is None else picture, face, landmarks)


def numbers(quality: Quality) -> list[float]:
    return [
        quality.landmark_confidence,
        quality.face_size_px,
        quality.sharpness,
        quality.brightness,
        quality.contrast,
    ]


# ── warnings, one at a time ────────────────────────────────────────────────────────────────────────────────────────


def test_codes_never_change() -> None:
    assert [str(warning) for warning in QualityWarning] == [
        "upscaled",
        "extreme_aspect",
        "low_sharpness",
        "underexposed",
        "overexposed",
        "landmarks_unsure",
        "probably_no_face",
        "extreme_pose",
        "eyes_covered",
        "lower_face_covered",
        "truncated",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_good_crop_has_no_warning(seed: int) -> None:
    assert measured(textured(seed)).warnings == ()


UNSURE = replace(SURE, uncertainty=0.3)
BLANK_WIDE, BLANK_TALL = np.zeros((100, 260, 3), np.uint8), np.zeros((260, 100, 3), np.uint8)


@pytest.mark.parametrize(
    ("warning", "quality"),
    [
        (QualityWarning.UPSCALED, lambda: measured(textured(), replace(SURE, points=scaled(1 / 6)))),
        (QualityWarning.UPSCALED, lambda: measured(textured(), UNSURE, np.zeros((30, 15, 3), np.uint8))),
        (QualityWarning.EXTREME_ASPECT, lambda: measured(textured(), picture=BLANK_WIDE)),
        (QualityWarning.EXTREME_ASPECT, lambda: measured(textured(), picture=BLANK_TALL)),
        (QualityWarning.EXTREME_ASPECT, lambda: measured(textured(), replace(SURE, points=scaled(2, 1)))),
        (QualityWarning.EXTREME_ASPECT, lambda: measured(textured(), replace(SURE, points=scaled(1, 2)))),
        (QualityWarning.LOW_SHARPNESS, lambda: measured(blurred(textured(), 5))),
        (QualityWarning.LOW_SHARPNESS, lambda: measured(moved(textured(), 25, 0))),
        (QualityWarning.LOW_SHARPNESS, lambda: measured(moved(textured(), 25, 60))),
        (QualityWarning.UNDEREXPOSED, lambda: measured(exposed(textured(), -9))),
        (QualityWarning.OVEREXPOSED, lambda: measured(exposed(textured(), 3))),
        (QualityWarning.LANDMARKS_UNSURE, lambda: measured(textured(), UNSURE)),
        (QualityWarning.NO_FACE, lambda: measured(textured(), replace(UNSURE, face_probability=0.2))),
        (QualityWarning.EXTREME_POSE, lambda: measured(textured(), replace(SURE, points=turned_head(yaw=65)))),
        (QualityWarning.EXTREME_POSE, lambda: measured(textured(), replace(SURE, points=turned_head(yaw=-65)))),
        (QualityWarning.EXTREME_POSE, lambda: measured(textured(), replace(SURE, points=turned_head(pitch=35)))),
        (QualityWarning.EXTREME_POSE, lambda: measured(textured(), replace(SURE, points=turned_head(pitch=-60)))),
        (QualityWarning.EYES_COVERED, lambda: measured(textured(), replace(SURE, eyes_hidden=0.41))),
        (QualityWarning.LOWER_FACE_COVERED, lambda: measured(textured(), replace(SURE, lower_face_hidden=0.41))),
    ],
)
def test_each_warning_has_its_cause(warning: QualityWarning, quality: Callable[[], Quality]) -> None:
    assert warning in quality().warnings


@pytest.mark.parametrize("yaw", [-30, 0, 30])
@pytest.mark.parametrize("degrees", [0, 45, 180])
def test_head_that_looks_about_ahead_has_no_warning_at_any_angle_and_size(yaw: float, degrees: float) -> None:
    turn = np.array([[cos(radians(degrees)), -sin(radians(degrees))], [sin(radians(degrees)), cos(radians(degrees))]])
    points = np.asarray(turned_head(yaw, pitch=-10, scale=3) @ turn.T + 900, np.float32)
    assert measured(textured(), replace(SURE, points=points)).warnings == ()


@pytest.mark.parametrize("shape", [(100, 210), (190, 100), (100, 100)])
def test_picture_may_be_nearly_twice_as_long_as_wide_or_high(shape: tuple[int, int]) -> None:
    assert measured(textured(), picture=np.zeros((*shape, 3), np.uint8)).warnings == ()


def test_profile_is_no_squeezed_face() -> None:
    """It looks narrow, but nobody squeezed it."""
    warnings = measured(textured(), replace(SURE, points=turned_head(yaw=65))).warnings
    assert warnings == (QualityWarning.EXTREME_POSE,)


def test_size_and_pose_follow_from_sure_landmarks_only() -> None:
    landmarks = replace(UNSURE, points=turned_head(yaw=80, scale=0.05))
    quality = measured(textured(), landmarks, np.zeros((300, 200, 3), np.uint8))
    assert quality.face_size_px == 200
    assert quality.warnings == (QualityWarning.LANDMARKS_UNSURE,)


def test_what_shows_no_face_has_nothing_covered() -> None:
    landmarks = replace(UNSURE, face_probability=0.2, eyes_hidden=1.0, lower_face_hidden=1.0)
    assert measured(textured(), landmarks).warnings == (QualityWarning.LANDMARKS_UNSURE, QualityWarning.NO_FACE)
    assert QualityWarning.EYES_COVERED in measured(textured(), replace(landmarks, face_probability=0.6)).warnings


def test_warnings_come_in_their_order() -> None:
    everything = replace(SURE, points=turned_head(yaw=65), eyes_hidden=1.0, lower_face_hidden=1.0)
    assert measured(textured(), everything).warnings == (
        QualityWarning.EXTREME_POSE,
        QualityWarning.EYES_COVERED,
        QualityWarning.LOWER_FACE_COVERED,
    )
    landmarks = replace(SURE, points=scaled(0.1), uncertainty=0.9, face_probability=0.01)
    warnings = measured(np.zeros((112, 112, 3), np.uint8), landmarks, np.zeros((5, 400, 3), np.uint8)).warnings
    assert warnings == (
        QualityWarning.UPSCALED,
        QualityWarning.EXTREME_ASPECT,
        QualityWarning.LOW_SHARPNESS,
        QualityWarning.UNDEREXPOSED,
        QualityWarning.LANDMARKS_UNSURE,
        QualityWarning.NO_FACE,
    )


# ── numbers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def falls(values: list[float]) -> bool:
    return all(later < earlier for earlier, later in pairwise(values))


def test_sharpness_falls_with_blur() -> None:
    assert falls([measured(blurred(textured(), pixels)).sharpness for pixels in (0.3, 1, 1.5, 2, 3, 5, 8)])


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 135])
def test_sharpness_falls_with_movement_in_any_direction(degrees: float) -> None:
    assert falls([measured(moved(textured(), pixels, degrees)).sharpness for pixels in (1, 7, 15, 31)])


def test_no_direction_of_movement_hides_the_blur() -> None:
    sharp = measured(textured()).sharpness
    for degrees in range(0, 180, 15):
        assert measured(moved(textured(), 21, degrees)).sharpness < 0.45 * sharp


@pytest.mark.parametrize("stops", [-2, -1, 0.5])
def test_sharpness_hardly_depends_on_light(stops: float) -> None:
    assert measured(exposed(textured(), stops)).sharpness == pytest.approx(measured(textured()).sharpness, rel=0.15)


def test_brightness_falls_with_light() -> None:
    assert falls([measured(exposed(textured(), stops)).brightness for stops in (4, 2, 1, 0, -1, -3, -6)])


def test_brightness_and_contrast_are_shares_of_the_full_range() -> None:
    halves = np.zeros((112, 112, 3), np.uint8)
    halves[::2] = 255
    assert measured(halves).brightness == pytest.approx(0.5)
    assert measured(halves).contrast == 1
    ramp = np.repeat(np.linspace(0, 255, 80).astype(np.uint8), 64).reshape(80, 64, 1)
    middle = np.zeros((112, 112, 3), np.uint8)
    middle[28:108, 24:88] = ramp
    assert measured(middle).contrast == pytest.approx(0.9, abs=0.02)
    flat = measured(np.full((112, 112, 3), 51, np.uint8))
    assert flat.brightness == pytest.approx(0.2)
    assert (flat.contrast, flat.sharpness) == (0, 0)


def test_what_surrounds_the_face_does_not_count() -> None:
    framed = textured()
    framed[:20] = framed[:, :20] = framed[:, -20:] = 0
    assert numbers(measured(framed)) == numbers(measured(textured()))


@pytest.mark.parametrize("scale", [0.2, 1, 7.5])
def test_face_size_is_what_the_aligned_crop_covers(scale: float) -> None:
    points = np.asarray(turned_head(yaw=20) * scale + 30, np.float32)
    expected = 112 / scale_of(similarity(points, TEMPLATE))
    assert measured(textured(), replace(SURE, points=points)).face_size_px == pytest.approx(expected, rel=1e-5)


def test_turn_and_nod_say_which_way() -> None:
    yaws = [face_shape(turned_head(yaw=yaw)) for yaw in (60, 40, 20, 0, -20, -40, -60)]
    pitches = [face_shape(turned_head(pitch=pitch)) for pitch in (-40, -20, 0, 20, 40)]
    assert falls([shape.turn for shape in yaws if shape])
    assert falls([shape.nod for shape in pitches if shape])
    ahead = face_shape(TEMPLATE)
    assert ahead is not None
    assert ahead.turn == pytest.approx(0, abs=1e-4)
    assert ahead.size_px == pytest.approx(112)


def test_confidence_falls_with_uncertainty_and_rises_with_the_face_s_probability() -> None:
    assert falls([landmark_confidence(replace(SURE, uncertainty=value)) for value in (0.01, 0.05, 0.1, 0.3, 1)])
    assert falls([landmark_confidence(replace(SURE, face_probability=value)) for value in (1, 0.9, 0.5, 0.1, 0)])
    assert landmark_confidence(replace(SURE, uncertainty=0, face_probability=1)) == 1
    limit = replace(SURE, uncertainty=MAX_UNCERTAINTY, face_probability=1)
    assert landmark_confidence(limit) == pytest.approx(1 - 1 / np.e)


# ── whatever comes ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("landmarks", [SURE, UNSURE], ids=["sure", "unsure"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (2, 3), (300, 200)])
@pytest.mark.parametrize("filling", ["noise", 0, 127, 255])
def test_no_picture_gives_nan(shape: tuple[int, int], filling: str | int, landmarks: Landmarks) -> None:
    rng = np.random.default_rng(0)
    picture = (
        rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        if filling == "noise"
        else np.full((*shape, 3), filling, np.uint8)
    )
    quality = measured(stretch(picture, 112, 112), landmarks, picture)
    assert all(isfinite(number) for number in numbers(quality))


@given(
    st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=5, max_size=5),
    st.floats(0, MAX_UNCERTAINTY) | st.floats(0, 1e30),
    st.floats(0.5, 2) | st.floats(-1, 2),
)
def test_no_landmarks_give_nan(points: list[list[float]], uncertainty: float, probability: float) -> None:
    quality = measured(textured(), Landmarks(np.array(points, np.float32), uncertainty, probability))
    assert all(isfinite(number) for number in numbers(quality))
    assert 0 <= quality.landmark_confidence <= 1


@pytest.mark.parametrize(
    "points", [np.zeros((5, 2)), np.full((5, 2), np.nan), [[0, 0], [2, 0], [1, 1], [0, 0], [2, 0]]]
)
def test_landmarks_that_are_no_face_have_no_shape(points: Points) -> None:
    assert face_shape(np.asarray(points, np.float32)) is None


# ── real faces, as the service sees them ───────────────────────────────────────────────────────────────────────────


IN_SUNGLASSES = {"Carina_Lau_Ka-ling", "Ringo_Starr", "Steve-O"}
"""Of `faces`; only one pair is opaque."""


@pytest.fixture(scope="module")
def faces() -> dict[str, Image]:
    """60 detector-like crops (box x1.2) of 60 people, at their full size, by name."""
    if not (LFW / "images.tar").is_file():
        pytest.skip(f"needs {LFW}: real faces are not part of this project (set ARCFACE_TEST_LFW)")
    with (LFW / "labels.csv").open() as labels:
        people = {row["image"].split("/")[0]: row for row in csv.DictReader(labels)}
    rows = sorted(people.values(), key=lambda row: row["image"])[:: len(people) // 60][:60]
    crops = {}
    with tarfile.open(LFW / "images.tar") as images:
        for row in rows:
            file = images.extractfile(row["image"])
            assert file is not None
            x, y, w, h = (float(row[key]) for key in ("box_x", "box_y", "box_w", "box_h"))
            picture = decoded_by_opencv(file.read())[..., ::-1]
            top, left = max(0, round(y - 0.1 * h)), max(0, round(x - 0.1 * w))
            person = row["image"].split("/")[0]
            crops[person] = np.ascontiguousarray(picture[top : round(y + 1.1 * h), left : round(x + 1.1 * w)])
    return crops


@pytest.fixture(scope="module")
def look() -> Callable[[Image], Quality]:
    """Both passes of the regressor, alignment where it is sure, and the quality of what would be embedded."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(regressor(), options, providers=["CPUExecutionProvider"])

    def landmarks_of(image: Image) -> Landmarks:
        landmarks = Landmarks(TEMPLATE, 0, 0)
        for number in range(2):
            view = face_view(image, landmarks.points, landmarks.weights) if number else whole_view(image)
            (rows,) = session.run(None, {REGRESSOR_INPUT.name: to_tensor([view.crop], REGRESSOR_INPUT)})
            landmarks = read_landmarks(rows[0], view)
        return landmarks

    def quality(image: Image) -> Quality:
        found = landmarks_of(image)
        face = align(image, found.points, 112, weights=found.weights) if found.are_sure else stretch(image, 112, 112)
        return picture_quality(image, face, found)

    return quality


def test_hardly_any_real_face_is_warned_of(look: Callable[[Image], Quality], faces: dict[str, Image]) -> None:
    """But of sunglasses that some wear."""
    warnings = [set(look(face).warnings) - {QualityWarning.EYES_COVERED} for face in faces.values()]
    assert np.mean([bool(each) for each in warnings]) <= 0.05


def test_real_sunglasses_are_seen(look: Callable[[Image], Quality], faces: dict[str, Image]) -> None:
    seen = {name for name, face in faces.items() if QualityWarning.EYES_COVERED in look(face).warnings}
    assert "Steve-O" in seen
    assert seen <= IN_SUNGLASSES


def resized(image: Image, across: float, down: float) -> Image:
    size = max(4, round(across * image.shape[1])), max(4, round(down * image.shape[0]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def covered(image: Image) -> Image:
    """All but a narrow rim of it."""
    image = image.copy()
    height, width = image.shape[:2]
    image[height // 10 :, width // 20 : -width // 20] = (90, 140, 60)
    return image


def painted(image: Image, rows: tuple[float, float], colour: tuple[int, int, int]) -> Image:
    """With a bar across the face: over the eyes, or from the nose down."""
    image = image.copy()
    height, width = image.shape[:2]
    image[round(rows[0] * height) : round(rows[1] * height), width // 8 : -width // 8] = colour
    return image


@pytest.mark.parametrize(
    ("warning", "spoil"),
    [
        (QualityWarning.UPSCALED, lambda face: resized(face, 0.12, 0.12)),
        (QualityWarning.EXTREME_ASPECT, lambda face: resized(face, 1, 0.3)),
        (QualityWarning.EXTREME_ASPECT, lambda face: resized(face, 0.3, 1)),
        (QualityWarning.LOW_SHARPNESS, lambda face: blurred(face, 6)),
        (QualityWarning.LOW_SHARPNESS, lambda face: moved(face, 31, 20)),
        (QualityWarning.UNDEREXPOSED, lambda face: exposed(face, -11)),
        (QualityWarning.OVEREXPOSED, lambda face: exposed(face, 4.5)),
        (QualityWarning.LANDMARKS_UNSURE, covered),
        (QualityWarning.NO_FACE, covered),
        (QualityWarning.EYES_COVERED, lambda face: painted(face, (0.28, 0.5), (30, 30, 35))),
        (QualityWarning.LOWER_FACE_COVERED, lambda face: painted(face, (0.58, 1), (170, 190, 205))),
    ],
)
def test_spoilt_real_faces_get_their_warning(
    look: Callable[[Image], Quality], faces: dict[str, Image], warning: QualityWarning, spoil: Callable[[Image], Image]
) -> None:
    """On nearly all of them, and not before they were spoilt."""
    assert np.mean([warning in look(spoil(face)).warnings for face in faces.values()]) >= 0.8
    assert np.mean([warning in look(face).warnings for face in faces.values()]) <= 0.04


def test_numbers_follow_a_real_face_down(look: Callable[[Image], Quality], faces: dict[str, Image]) -> None:
    """On the mean of all faces."""

    def means(spoil: Callable[[Image, float], Image], degrees: tuple[float, ...], number: str) -> list[float]:
        some = [*faces.values()][:20]
        return [float(np.mean([getattr(look(spoil(face, d)), number) for face in some])) for d in degrees]

    assert falls(means(blurred, (0.1, 1, 2, 4, 7), "sharpness"))
    assert falls(means(lambda face, share: resized(face, share, share), (1, 0.5, 0.25, 0.15), "face_size_px"))
    assert falls(means(exposed, (3, 1, 0, -2, -5), "brightness"))
    assert falls(means(exposed, (0, -2, -4, -6), "contrast"))
