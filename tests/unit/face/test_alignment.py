"""Promises of `arcface_api.face`: the reference's aligned crop, landmarks in the right place, and no nonsense."""

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insightface.utils.face_align import arcface_dst
from numpy.typing import NDArray
from skimage.transform import SimilarityTransform

from arcface_api.arrays import TEMPLATE, Crop, Features, Image, Points, to_tensor
from arcface_api.errors import LandmarksInvalid, ModelFailed
from arcface_api.face.geometry import (
    align,
    back,
    check_landmarks,
    lies_aligned,
    moved,
    scale_of,
    scaled_template,
    similarity,
)
from arcface_api.face.landmarks import (
    MAX_UNCERTAINTY,
    MIN_FACE_PROBABILITY,
    REGRESSOR_DIM,
    REGRESSOR_INPUT,
    Landmarks,
    View,
    face_view,
    find_landmarks,
    read_landmarks,
    regressor,
    turned_view,
    view_template,
    whole_view,
)
from conftest import FaceCrop
from pictures import aligned_by_reference, decoded_by_opencv
from training.landmarks.faces import face_size

SWAPPED = [1, 0, 2, 4, 3]
"""Order of the landmarks in a mirrored picture."""


def placed(scale: float, degrees: float, x: float, y: float) -> Points:
    """The template somewhere in a picture."""
    turn = np.radians(degrees)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    around = (TEMPLATE - TEMPLATE.mean(0)) @ rotation.T
    return np.asarray(around + np.array([x, y]), np.float32)


def smooth(height: int, width: int, seed: int = 0) -> Image:
    """A picture without detail finer than some pixels, as cameras make them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def centroid_of_light(image: NDArray[np.uint8]) -> tuple[float, float]:
    weight = image[..., 0].astype(np.float64)
    y, x = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]]
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


# ── geometry ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_template_is_the_reference_s() -> None:
    assert np.array_equal(TEMPLATE, arcface_dst)


def test_template_cannot_be_changed_by_a_caller() -> None:
    with pytest.raises(ValueError, match="read-only"):
        TEMPLATE[0] = 0


@pytest.mark.parametrize("noise", [0.0, 1.0, 15.0])
@pytest.mark.parametrize("degrees", [0, 33, -90, 179])
@pytest.mark.parametrize("scale", [0.2, 1, 31])
def test_similarity_equals_scikit_image(scale: float, degrees: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    points = placed(scale, degrees, 500, -80) + rng.normal(0, noise * scale, (5, 2)).astype(np.float32)
    expected = SimilarityTransform.from_estimate(points.astype(np.float64), TEMPLATE.astype(np.float64))
    np.testing.assert_allclose(similarity(points, TEMPLATE), expected.params[:2], rtol=1e-9, atol=1e-9)


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=5), st.integers(0, 1000))
def test_weighted_similarity_is_that_of_least_squares(weights: list[float], seed: int) -> None:
    points = placed(3, 20, 100, 50) + np.random.default_rng(seed).normal(0, 20, (5, 2)).astype(np.float32)
    # [u, v] = a [x, y] + b [-y, x] + shift is linear in a, b and the shift
    x, y, one, none = *points.T.astype(np.float64), np.ones(5), np.zeros(5)
    system = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
    roots = np.sqrt([*weights, *weights])
    a, b, u, v = np.linalg.lstsq(system * roots[:, None], TEMPLATE.T.ravel() * roots, rcond=None)[0]
    found = similarity(points, TEMPLATE, np.array(weights))
    np.testing.assert_allclose(found, [[a, -b, u], [b, a, v]], rtol=1e-6, atol=1e-6)


def test_similarity_never_mirrors_and_equals_scikit_image_where_mirroring_would_fit_better() -> None:
    points = TEMPLATE * np.array([-1, 1], np.float32)
    found = similarity(points, TEMPLATE)
    expected = SimilarityTransform.from_estimate(points.astype(np.float64), TEMPLATE.astype(np.float64))
    np.testing.assert_allclose(found, expected.params[:2], rtol=1e-9, atol=1e-9)
    assert np.linalg.det(found[:, :2]) > 0


@pytest.mark.parametrize(
    "points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), np.inf), np.full((5, 2), 3e38) * [[1, -1]]]
)
def test_similarity_refuses_what_has_none(points: NDArray[np.float64]) -> None:
    with pytest.raises(LandmarksInvalid, match="not finite, all in one place"):
        similarity(points.astype(np.float32), TEMPLATE)


@given(st.floats(0.05, 50), st.floats(-180, 180), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_points_come_back_from_where_they_were_moved(scale: float, degrees: float, x: float, y: float) -> None:
    points = placed(scale, degrees, x, y)
    transform = similarity(points, TEMPLATE)
    np.testing.assert_allclose(moved(points, transform), TEMPLATE, atol=0.02)
    np.testing.assert_allclose(back(moved(points, transform), transform), points, atol=0.02 * scale + 0.01)
    assert scale_of(transform) == pytest.approx(1 / scale, rel=1e-3)


# ── what the regressor sees ────────────────────────────────────────────────────────────────────────────────────────

SHAPES = [(64, 64), (126, 94), (94, 126), (24, 18), (400, 300), (1000, 130), (3000, 2000), (1, 1), (1, 700), (65, 64)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_whole_view_shows_the_whole_picture_in_its_shape(height: int, width: int) -> None:
    view = whole_view(np.full((height, width, 3), 255, np.uint8))
    assert view.crop.shape == (64, 64, 3)
    assert view.crop.dtype == np.uint8
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]], np.float32)
    low, high = moved(corners, view.transform)
    assert low + high == pytest.approx((63, 63), abs=0.01)  # centred
    assert (high - low).max() == pytest.approx(64, abs=0.01)  # filling
    assert (high - low)[0] / (high - low)[1] == pytest.approx(width / height, rel=1e-3)


def test_whole_view_is_grey_beyond_the_picture() -> None:
    view = whole_view(np.full((64, 32, 3), 255, np.uint8))
    assert (view.crop[:, 17:47] == 255).all()
    assert (view.crop[:, :15] == 127).all()
    assert (view.crop[:, 49:] == 127).all()


@pytest.mark.parametrize("size", [64, 100, 127, 128, 129, 200, 333, 1024, 2500])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.2, 0.7), (0.9, 0.1)])
def test_a_spot_of_light_is_seen_where_the_transform_says(size: int, place: tuple[float, float]) -> None:
    """To a fifth of a pixel, however much the picture shrinks: no half pixel is lost on the way."""
    image = np.zeros((size, size, 3), np.uint8)
    centre = (round(place[0] * (size - 1)), round(place[1] * (size - 1)))
    cv2.circle(image, centre, max(2, size // 30), (255, 255, 255), -1)
    view = whole_view(image)
    expected = moved(np.array([centre], np.float32), view.transform)[0]
    image_of_spot = np.where(view.crop > 0, view.crop, 0).astype(np.uint8)
    assert centroid_of_light(image_of_spot) == pytest.approx(tuple(expected), abs=0.2)


@pytest.mark.parametrize("degrees", [0, 45, 180])
@pytest.mark.parametrize("scale", [0.4, 1, 7])
def test_face_view_brings_the_landmarks_upright(scale: float, degrees: float) -> None:
    image, points = smooth(900, 900), placed(scale, degrees, 450, 400)
    view = face_view(image, points)
    np.testing.assert_allclose(moved(points, view.transform), view_template(), atol=0.01)


def test_view_template_is_centred_like_the_aligned_crop() -> None:
    centre = moved(np.array([[55.5, 55.5]], np.float32), similarity(TEMPLATE, view_template()))
    np.testing.assert_allclose(centre, [[31.5, 31.5]], atol=1e-4)


@pytest.mark.parametrize(("x", "y"), [(-30_000, 500), (30_000, 500), (500, -30_000), (500, 30_000)])
def test_face_view_of_a_face_beyond_the_picture_is_grey(x: float, y: float) -> None:
    view = face_view(smooth(2000, 2000), placed(40, 0, x, y))
    assert (view.crop == 127).all()


# ── what the regressor says ────────────────────────────────────────────────────────────────────────────────────────


def test_row_is_read_in_the_picture_s_pixels() -> None:
    view = whole_view(smooth(300, 200))
    points = placed(1.3, 20, 90, 160)
    numbers = [*[0.02] * 3, 0.3, 0.3, *(0.1, 0.8), 0.132, 0.9]
    landmarks = read_landmarks(np.array([*(moved(points, view.transform) / 64).ravel(), *numbers], np.float32), view)
    np.testing.assert_allclose(landmarks.points, points, atol=1e-3)
    assert landmarks.weights is not None
    assert landmarks.weights[0] / landmarks.weights[4] == pytest.approx((0.3**2 + 0.1**2) / (0.02**2 + 0.1**2))
    assert 0.02 < landmarks.uncertainty < 0.132, "hidden points count less"
    assert (landmarks.eyes_hidden, landmarks.lower_face_hidden) == pytest.approx((0.1, 0.8))
    assert landmarks.face_probability == pytest.approx(0.9)


def test_hidden_mouth_that_was_guessed_wrongly_hardly_moves_the_eyes() -> None:
    points = placed(1.5, 0, 100, 100)
    guessed = points + np.array([[0, 0], [0, 0], [0, 0], [20, 0], [20, 0]], np.float32)
    row = np.array([*(guessed / 64).ravel(), 0.02, 0.02, 0.03, 0.4, 0.4, 0, 0.9, 0.17, 0.9], np.float32)
    weights = read_landmarks(row, whole_view(smooth(64, 64))).weights
    off = {}
    for name, by in (("alike", None), ("weighed", weights)):
        eyes = moved(points[:2], similarity(guessed, TEMPLATE, by)) - moved(points[:2], similarity(points, TEMPLATE))
        off[name] = float(np.linalg.norm(eyes, axis=1).max())
    assert off["weighed"] < 0.35 * off["alike"]


@pytest.mark.parametrize("huge", [-3e38, 3e38])
def test_no_uncertainty_makes_a_weight_vanish(huge: float) -> None:
    landmarks = read_landmarks(row(huge, 0.9), whole_view(smooth(64, 64)))
    assert landmarks.weights is not None
    assert landmarks.weights.min() > 0.9
    assert landmarks.uncertainty == (huge > 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 9, 10, 15, 18])
def test_row_that_is_not_finite_is_refused(place: int, bad: float) -> None:
    row = np.full(REGRESSOR_DIM, 0.5, np.float32)
    row[place] = bad
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        read_landmarks(row, whole_view(smooth(10, 10)))


def test_landmarks_are_sure_only_of_a_face_and_of_their_place() -> None:
    def sure(uncertainty: float, face_probability: float) -> bool:
        return Landmarks(TEMPLATE, uncertainty, face_probability).are_sure

    assert sure(MAX_UNCERTAINTY, MIN_FACE_PROBABILITY)
    assert not sure(MAX_UNCERTAINTY + 0.001, 1)
    assert not sure(0, MIN_FACE_PROBABILITY - 0.001)


# ── the aligned crop ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [112, 224])
@pytest.mark.parametrize("degrees", [0, 17, -80, 180])
@pytest.mark.parametrize("scale", [0.3, 0.9, 1.0, 1.4, 1.8])
def test_align_equals_the_reference_when_not_shrinking_to_half(scale: float, degrees: float, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)  # nothing hides in noise
    points = placed(scale, degrees, 190, 210) + np.random.default_rng(1).normal(0, 3 * scale, (5, 2)).astype(np.float32)
    expected = aligned_by_reference(image, points, size)
    crop = align(image, points, size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    assert np.abs(crop.astype(int) - expected).mean() < 0.1


@pytest.mark.parametrize("scale", [2.1, 3.7, 8, 25])
@pytest.mark.parametrize("degrees", [0, 30])
def test_align_keeps_the_reference_s_place_when_shrinking(scale: float, degrees: float) -> None:
    """A picture without detail gives what the reference gives, to a pixel value or so."""
    side = int(140 * scale)
    image = cv2.resize(smooth(160, 160), (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    points = placed(scale, degrees, side / 2, side / 2)
    difference = align(image, points, 112).astype(int) - aligned_by_reference(image, points, 112)
    assert np.abs(difference[8:-8, 8:-8]).mean() < 1.5


@pytest.mark.parametrize("scale", [2.1, 3.7, 8])
def test_align_averages_detail_that_is_too_fine_for_the_crop(scale: float) -> None:
    """One-pixel chequers are grey from afar; the reference makes moiré of them."""
    side = int(180 * scale)
    y, x = np.mgrid[0:side, 0:side]
    image = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    points = placed(scale, 10, side / 2, side / 2)
    ours, reference = (
        np.abs(make(image, points, 112).astype(int) - 127).mean() for make in (align, aligned_by_reference)
    )
    assert ours < reference / 2


def test_align_averages_detail_away_altogether_where_blocks_are_even() -> None:
    y, x = np.mgrid[0:800, 0:800]
    image = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    crop = align(image, placed(4, 0, 400, 400), 112)
    assert np.abs(crop.astype(int) - 127).max() <= 1


def test_align_leaves_an_aligned_crop_as_it_is() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(align(crop, TEMPLATE, 112), crop)


def test_no_edge_darkens_where_blocks_do_not_fit() -> None:
    view = whole_view(np.full((64 * 7 + 5, 64 * 7 + 5, 3), 255, np.uint8))
    assert (view.crop[1:-1, 1:-1] == 255).all()
    assert view.crop.min() >= 190  # the outermost pixels lie half beyond the picture


def test_align_is_black_beyond_the_picture() -> None:
    crop = align(np.full((50, 50, 3), 255, np.uint8), placed(1, 0, 25, 25), 112)
    assert (crop[0] == 0).all()
    assert (crop[60, 56] == 255).all()


def test_align_leaves_the_picture_as_it_was() -> None:
    image = smooth(600, 500)
    before = image.copy()
    align(image, placed(5, 10, 250, 300), 112)
    assert np.array_equal(image, before)


# ── a caller's landmarks ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -135])
@pytest.mark.parametrize("scale", [0.1, 1, 20])
def test_landmarks_of_a_face_at_any_angle_and_size_are_taken(scale: float, degrees: float) -> None:
    side = int(200 * scale) + 20
    points = placed(scale, degrees, side / 2, side / 2)
    taken = check_landmarks(points.tolist(), side, side)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, points)


def test_landmarks_of_a_profile_are_taken() -> None:
    profile = [[50, 40], [53, 41], [60, 60], [51, 85], [54, 84]]
    check_landmarks(profile, 112, 112)


def test_landmarks_may_lie_anywhere_in_a_picture_that_is_not_square() -> None:
    check_landmarks(placed(1, 0, 300, 60), 120, 400)
    with pytest.raises(LandmarksInvalid, match="outside the picture of 400 x 120 pixels"):
        check_landmarks(placed(1, 0, 60, 300), 120, 400)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([[1, 2]] * 4, r"5 pairs of numbers x, y.*shape \(4, 2\)"),
        ([[1, 2, 3]] * 5, r"shape \(5, 3\)"),
        ([1] * 10, r"shape \(10,\)"),
        ([[1, 2], [3]], "5 pairs of numbers"),
        ("nose", "5 pairs of numbers"),
        ([["a", "b"]] * 5, "5 pairs of numbers"),
        (None, "5 pairs of numbers"),
        ({"left_eye": [1, 2]}, "5 pairs of numbers"),
        ([[38, 51], [73, 51], [56, float("nan")], [41, 92], [70, 92]], "NaN or infinite"),
        ([[38, 51], [73, 51], [56, float("inf")], [41, 92], [70, 92]], "NaN or infinite"),
        ([[38, 51], [73, 51], [56, 71], [41, 92], [170, 92]], r"5 of 5 is at \(170, 92\), outside"),
        ([[38, -4], [73, 51], [56, 71], [41, 92], [70, 92]], r"1 of 5 is at \(38, -4\), outside"),
        ([[0.3, 0.4], [0.6, 0.4], [0.5, 0.6], [0.35, 0.8], [0.6, 0.8]], "look like fractions of the picture"),
        ([[50, 50]] * 5, "in one place"),
        ([[10, 10], [20, 20], [30, 30], [40, 40], [50, 50]], "on one line"),
        ([[10, 10], [20, 20.5], [30, 30], [40, 39.6], [50, 50]], "on one line"),
        (TEMPLATE[SWAPPED].tolist(), "mirrored"),
    ],
)
def test_other_landmarks_are_refused_with_a_sentence(points: object, sentence: str) -> None:
    with pytest.raises(LandmarksInvalid, match=sentence):
        check_landmarks(points, 112, 112)  # type: ignore[arg-type]  # what a caller may send


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2), min_size=5, max_size=5))
def test_what_is_taken_can_be_aligned_by(points: list[list[float]]) -> None:
    try:
        taken = check_landmarks(points, 480, 640)
    except LandmarksInvalid:
        return
    assert np.isfinite(similarity(taken, TEMPLATE)).all()


# ── the regressor in the package ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(regressor(), options, providers=["CPUExecutionProvider"])


def found(session: ort.InferenceSession, image: Image) -> Landmarks:
    """Both passes."""

    def seen(view: View) -> Landmarks:
        (rows,) = session.run(None, {REGRESSOR_INPUT.name: to_tensor([view.crop], REGRESSOR_INPUT)})
        return read_landmarks(rows[0], view)

    first = seen(whole_view(image))
    return seen(face_view(image, first.points, first.weights))


def test_regressor_is_small_and_takes_and_gives_what_is_stated(session: ort.InferenceSession) -> None:
    assert len(regressor()) <= 1_000_000
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == (REGRESSOR_INPUT.name, "tensor(float)", [3, 64, 64])
    assert (made.type, made.shape[1]) == ("tensor(float)", REGRESSOR_DIM)


def test_regressor_gives_each_picture_its_own_row_in_every_batch(session: ort.InferenceSession) -> None:
    crops = [whole_view(smooth(90 + i, 80, i)).crop for i in range(8)]
    (together,) = session.run(None, {"input": to_tensor(crops, REGRESSOR_INPUT)})
    for crop, row in zip(crops, together, strict=True):
        (alone,) = session.run(None, {"input": to_tensor([crop], REGRESSOR_INPUT)})
        np.testing.assert_allclose(alone[0], row, atol=1e-4)


def test_regressor_is_unsure_of_pictures_without_a_face(session: ort.InferenceSession) -> None:
    rng = np.random.default_rng(0)
    pictures: list[Image] = [np.full((90, 70, 3), level, np.uint8) for level in (0, 127, 200, 255)]
    pictures += [rng.integers(0, 256, (100, 80, 3), dtype=np.uint8) for _ in range(4)]
    pictures += [smooth(120, 100, seed) for seed in range(8)]
    assert not any(found(session, picture).are_sure for picture in pictures)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (2, 3), (4000, 16)])
def test_pictures_of_any_shape_can_be_looked_at(session: ort.InferenceSession, shape: tuple[int, int]) -> None:
    assert np.isfinite(found(session, np.full((*shape, 3), 90, np.uint8)).points).all()


def test_regressor_is_sure_of_real_faces(session: ort.InferenceSession, face_crops: list[FaceCrop]) -> None:
    sure = [found(session, decoded_by_opencv(face.content)[..., ::-1]).are_sure for face in face_crops]
    assert np.mean(sure) >= 0.96


def test_mirrored_face_has_mirrored_landmarks(session: ort.InferenceSession, face_crops: list[FaceCrop]) -> None:
    """To 5 % of the eye distance on the mean, 15 % at the worst."""
    apart = []
    for face in face_crops:
        image = np.ascontiguousarray(decoded_by_opencv(face.content)[..., ::-1])
        straight, mirrored = found(session, image), found(session, np.ascontiguousarray(image[:, ::-1]))
        expected = straight.points[SWAPPED] * np.array([-1, 1]) + np.array([image.shape[1] - 1, 0])
        apart.append(np.linalg.norm(mirrored.points - expected, axis=1).mean() / face_size(straight.points))
    assert np.mean(apart) <= 0.05
    assert np.max(apart) <= 0.15


# ── all passes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(64, 64), (90, 40), (31, 100)])
def test_turned_view_is_the_view_of_the_turned_picture(quarter_turns: int, shape: tuple[int, int]) -> None:
    image = smooth(*shape)
    turned = turned_view(whole_view(image), quarter_turns)
    expected = whole_view(np.ascontiguousarray(np.rot90(image, -quarter_turns)))
    assert np.abs(turned.crop.astype(int) - expected.crop).max() <= 1
    top = np.array([[shape[1] / 2 - 0.5, 0]], np.float32)  # the middle of the upper edge turns clockwise
    middle = moved(top, turned.transform)[0] - 31.5
    half = 31.5 * shape[0] / max(shape) - (0.5 if shape[0] < max(shape) else 0)
    towards = [(0, -1), (1, 0), (0, 1), (-1, 0)][quarter_turns]
    assert np.allclose(middle, np.array(towards) * half, atol=1)


def row(uncertainty: float, face_probability: float, points: Points | None = None) -> Features:
    """A regressor's answer: landmarks in pixels of its input, all as uncertain, and nothing hidden."""
    given = view_template() if points is None else points
    return np.array([*(given / 64).ravel(), *[uncertainty] * 5, 0, 0, uncertainty, face_probability], np.float32)


def with_guessed_mouth() -> Features:
    """Mouth corners that are off by a quarter of the view, and known to be uncertain."""
    points = view_template() + np.array([[0, 0], [0, 0], [0, 0], [16, 0], [16, 0]], np.float32)
    return np.array([*(points / 64).ravel(), 0.03, 0.03, 0.03, 0.9, 0.9, 0, 0.9, 0.4, 0.99], np.float32)


class Answers:
    """A regressor that gives these rows, one after the other, and keeps what it was shown."""

    def __init__(self, *rows: Features) -> None:
        self.rows = list(rows)
        self.seen: list[Crop] = []

    def __call__(self, crop: Crop) -> Features:
        self.seen.append(crop)
        return self.rows.pop(0)


@pytest.mark.parametrize(
    ("uncertainty", "probability", "moves_percent", "passes"),
    [(0.03, 0.95, 0, 1), (0.03, 0.95, 15, 1), (0.03, 0.95, 17, 2), (0.04, 0.95, 0, 2), (0.03, 0.85, 0, 2)],
)
def test_first_pass_is_enough_if_it_is_certain_and_the_picture_is_cut_closely(
    uncertainty: float, probability: float, moves_percent: int, passes: int
) -> None:
    points = view_template() + np.array([0.64 * moves_percent, 0], np.float32)
    regress = Answers(row(uncertainty, probability, points), row(0.02, 0.99))
    found = find_landmarks(smooth(80, 80), regress)
    assert len(regress.seen) == passes
    assert found.uncertainty == pytest.approx(uncertainty if passes == 1 else 0.02)


def test_second_pass_sees_the_face_where_the_certain_points_put_it() -> None:
    image, regress = smooth(80, 80), Answers(with_guessed_mouth(), row(0.02, 0.99))
    find_landmarks(image, regress)
    first = read_landmarks(with_guessed_mouth(), whole_view(image))
    assert np.array_equal(regress.seen[1], face_view(image, first.points, first.weights).crop)
    assert not np.array_equal(regress.seen[1], face_view(image, first.points).crop)


def test_uncertain_points_make_no_face_look_turned_and_no_crop_unaligned() -> None:
    regress = Answers(row(0.3, 0.9), with_guessed_mouth())
    find_landmarks(smooth(80, 80), regress)
    assert len(regress.seen) == 2, "a third pass looked again"
    guessed = TEMPLATE + np.array([[0, 0], [0, 0], [0, 0], [9, 0], [9, 0]], np.float32)
    certain_eyes = np.array([100, 100, 100, 1, 1.0])
    assert not lies_aligned(guessed, TEMPLATE, 112, 112, 112)
    assert lies_aligned(guessed, TEMPLATE, 112, 112, 112, weights=certain_eyes)


def test_first_pass_is_not_enough_on_an_enlarged_view() -> None:
    regress = Answers(row(0.03, 0.95), row(0.02, 0.99))
    find_landmarks(smooth(48, 60), regress)
    assert len(regress.seen) == 2


@pytest.mark.parametrize("moved_by", [0.0, 0.04])
def test_second_pass_decides_whether_a_picture_is_aligned_already(moved_by: float) -> None:
    """`moved_by` is in sides of the picture, from where an aligned face's landmarks lie."""
    points = scaled_template(64) + np.array([64 * moved_by, 0], np.float32)
    regress = Answers(row(0.03, 0.95, points), row(0.02, 0.99))
    find_landmarks(smooth(112, 112), regress)
    assert len(regress.seen) == 2


def test_two_passes_are_enough_where_the_second_is_certain() -> None:
    regress = Answers(row(0.3, 0.9), row(0.03, 0.99))
    assert find_landmarks(smooth(80, 80), regress).uncertainty == pytest.approx(0.03)
    assert not regress.rows


def test_third_pass_counts_only_where_it_is_more_certain() -> None:
    for third, kept in ((0.05, 0.05), (0.2, 0.1)):
        regress = Answers(row(0.3, 0.9), row(0.1, 0.99), row(third, 0.99))
        assert find_landmarks(smooth(80, 80), regress).uncertainty == pytest.approx(kept)
        assert not regress.rows


def test_third_pass_looks_again_at_a_face_that_the_first_left_turned() -> None:
    """Though the second pass is certain already."""
    turn = cv2.getRotationMatrix2D((31.5, 31.5), 6, 1).astype(np.float64, copy=False)
    for points, passes in ((view_template(), 2), (moved(view_template(), turn), 3)):
        regress = Answers(row(0.3, 0.9), row(0.03, 0.99, points), row(0.02, 0.99))
        found = find_landmarks(smooth(80, 80), regress)
        assert len(regress.seen) == passes
        assert found.uncertainty == pytest.approx(0.03 if passes == 2 else 0.02)


def test_sure_landmarks_are_kept_though_unsure_ones_look_more_certain() -> None:
    regress = Answers(row(0.3, 0.9), row(0.1, 0.45), row(0.12, 0.95))
    found = find_landmarks(smooth(80, 80), regress)
    assert found.are_sure
    assert not regress.rows


def test_face_that_leads_nowhere_is_looked_for_on_the_turned_picture() -> None:
    """Here it is found on the picture turned by a quarter; the half turn came first."""
    lost = [row(1.0, 0.1), row(1.0, 0.1)]
    regress = Answers(row(0.3, 0.9), *lost, row(0.3, 0.9), *lost, row(0.3, 0.9), row(0.02, 0.99))
    image = smooth(80, 80)
    found = find_landmarks(image, regress)
    assert found.are_sure
    assert not regress.rows
    assert np.array_equal(regress.seen[3], regress.seen[0][::-1, ::-1])
    assert np.array_equal(regress.seen[6], np.rot90(regress.seen[0], -1))


def test_picture_without_a_face_is_not_looked_at_again() -> None:
    regress = Answers(row(0.9, 0.2), row(1.0, 0.1), row(1.0, 0.1))
    assert not find_landmarks(smooth(80, 80), regress).are_sure
    assert not regress.rows


def test_row_that_is_not_finite_is_the_models_failure() -> None:
    for rows in ([row(np.nan, 0.99)], [row(0.3, 0.9), row(np.inf, 0.99)]):
        with pytest.raises(ModelFailed):
            find_landmarks(smooth(80, 80), Answers(*rows))


def test_landmarks_in_one_place_are_unsure_and_no_error() -> None:
    regress = Answers(row(0.02, 0.4, np.full((5, 2), 20, np.float32)))
    found = find_landmarks(smooth(80, 80), regress)
    assert (found.are_sure, found.face_probability) == (False, 0)
    assert not regress.rows
