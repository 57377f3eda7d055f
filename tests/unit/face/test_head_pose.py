"""Promises of `arcface_api.face.head_pose`: the right angle in the right field with the right sign."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from insightface.data import get_object
from insightface.model_zoo.landmark import Landmark
from insightface.utils.transform import P2sRt, estimate_affine_matrix_3d23d, matrix2angle
from numpy.typing import NDArray
from test_attributes import SIZES, Face, noisy, photographs

from arcface_api.arrays import TEMPLATE, Image, InputSpec, Points, Transform, to_tensor
from arcface_api.errors import ModelFailed
from arcface_api.face.attributes import attribute_crop, whole_picture
from arcface_api.face.head_pose import FIVE_POINTS, HeadPose, head_pose, landmarks_in_picture, mean_shape, pose_of_five
from pictures import decoded_by_opencv
from tiny_models import landmarks_model, rotation, turned

SPEC = InputSpec(None, 192, 192, 0, 1)
NOSE_TIP, CHIN, FIRST_EYE, LAST_EYE = 30, 8, 36, 45


def row_of(landmarks: NDArray[np.float64]) -> NDArray[np.float32]:
    """A model's output row that holds these landmarks."""
    row = np.random.default_rng(0).normal(0, 1, (1103, 3)).astype(np.float32)
    row[-68:] = landmarks
    return row.ravel()


def transform_to_input(width: int, height: int) -> Transform:
    """From a picture of this size to the model's input."""
    return attribute_crop(np.zeros((height, width, 3), np.uint8), whole_picture(height, width), 192)[1]


def angles(pose: HeadPose) -> tuple[float, float, float]:
    return pose.yaw, pose.pitch, pose.roll


@pytest.mark.parametrize("size", [(112, 112), (90, 131), (400, 250)])
@pytest.mark.parametrize("yaw", [-60, -17, 0, 35])
@pytest.mark.parametrize("pitch", [-40, 0, 22])
@pytest.mark.parametrize("roll", [-75, 0, 11])
def test_known_rotation_comes_back_in_its_fields(size: tuple[int, int], yaw: float, pitch: float, roll: float) -> None:
    width, height = size
    landmarks = landmarks_in_picture(row_of(turned(yaw, pitch, roll)), 192, transform_to_input(width, height))
    assert angles(head_pose(landmarks)) == pytest.approx((yaw, pitch, roll), abs=0.01)


def test_positive_yaw_moves_the_nose_to_the_right() -> None:
    shape = turned(30, 0, 0)
    assert shape[NOSE_TIP, 0] > turned(0, 0, 0)[NOSE_TIP, 0] + 0.1
    assert head_pose(shape.astype(np.float32)).yaw == pytest.approx(30, abs=0.01)


def test_positive_pitch_moves_the_nose_up() -> None:
    shape = turned(0, 30, 0)
    assert shape[NOSE_TIP, 1] < turned(0, 0, 0)[NOSE_TIP, 1] - 0.1
    assert head_pose(shape.astype(np.float32)).pitch == pytest.approx(30, abs=0.01)


def test_positive_roll_tilts_clockwise() -> None:
    shape = turned(0, 0, 30)
    assert shape[LAST_EYE, 1] > shape[FIRST_EYE, 1]  # the eye on the right is lower
    assert shape[CHIN, 0] < turned(0, 0, 0)[CHIN, 0]  # the chin swings left
    assert head_pose(shape.astype(np.float32)).roll == pytest.approx(30, abs=0.01)


@pytest.mark.parametrize("slope", [0.0, 1.0, -0.37])
def test_points_on_one_line_are_refused(slope: float) -> None:
    across = mean_shape()[:, 0]
    landmarks = 100 + 30 * np.column_stack([across, slope * across, mean_shape()[:, 2]])
    with pytest.raises(ModelFailed, match="no head pose can be computed"):
        head_pose(landmarks.astype(np.float32))


def test_points_that_differ_by_rounding_only_are_refused() -> None:
    landmarks = 500.3 + np.random.default_rng(0).normal(0, 2e-5, (68, 3))
    with pytest.raises(ModelFailed, match="no head pose can be computed"):
        head_pose(landmarks.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_row_that_is_not_finite_or_overflows_is_refused(bad: float) -> None:
    landmarks = landmarks_in_picture(row_of(np.full((68, 3), bad)), 192, transform_to_input(60, 90))
    with pytest.raises(ModelFailed, match="no head pose can be computed"):
        head_pose(landmarks)


@pytest.mark.parametrize(("scale", "place"), [(1e-2, 0.02), (20, 1000), (1e4, 0), (1e4, 40_000)])
def test_size_and_place_of_the_face_do_not_matter(scale: float, place: float) -> None:
    landmarks = scale * turned(20, -10, 5) + place
    assert angles(head_pose(landmarks.astype(np.float32))) == pytest.approx((20, -10, 5), abs=0.01)


def test_row_is_left_as_it_was() -> None:
    row = row_of(turned(20, -10, 5))
    before = row.copy()
    landmarks_in_picture(row, 192, transform_to_input(60, 90))
    assert np.array_equal(row, before)


def test_straight_aside_is_still_a_yaw_of_90_degrees() -> None:
    assert head_pose(turned(90, 0, 0).astype(np.float32)).yaw == pytest.approx(90, abs=0.1)


def test_mean_shape_is_the_reference_s() -> None:
    expected = get_object("meanshape_68.pkl")
    assert mean_shape().dtype == expected.dtype
    assert np.array_equal(mean_shape(), expected)


def test_mean_shape_cannot_be_changed_by_a_caller() -> None:
    with pytest.raises(ValueError, match="read-only"):
        mean_shape()[0] = 0


@pytest.mark.parametrize(
    "landmarks", [np.zeros((68, 3)), np.ones((68, 3)), np.full((68, 3), np.nan), np.full((68, 3), np.inf)]
)
def test_points_without_a_pose_are_refused(landmarks: NDArray[np.float64]) -> None:
    with pytest.raises(ModelFailed, match="no head pose can be computed"):
        head_pose(landmarks.astype(np.float32))


# ── the reference ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "1k3d68.onnx"
    onnx.save(landmarks_model(turned(20, -10, 5)), path)
    return path


def assert_equal_to_reference(reference: Landmark, session: ort.InferenceSession, image: Image) -> None:
    face = Face(image)
    points = reference.get(image[..., ::-1], face)
    crop, transform = attribute_crop(image, whole_picture(*image.shape[:2]), 192)
    (rows,) = session.run(None, {"input": to_tensor([crop], SPEC)})
    landmarks = landmarks_in_picture(rows[0], 192, transform)
    np.testing.assert_allclose(landmarks, points, rtol=1e-6, atol=1e-6)  # a few roundings of float32
    pitch, yaw, roll = face["pose"]
    assert angles(head_pose(landmarks)) == pytest.approx((yaw, pitch, roll), abs=1e-4)


def angles_by_reference(landmarks: NDArray[np.float32]) -> tuple[float, float, float]:
    _, turn, _ = P2sRt(estimate_affine_matrix_3d23d(get_object("meanshape_68.pkl"), landmarks))
    pitch, yaw, roll = matrix2angle(turn)
    return yaw, pitch, roll


@pytest.mark.parametrize("yaw", [-90, -89.99999, -45, 0, 30, 89.9, 90, 120])
@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (25, 40), (-70, 170)])
def test_angles_equal_the_reference_for_every_turn(yaw: float, pitch: float, roll: float) -> None:
    """Straight aside too, where pitch and roll cannot be distinguished."""
    for noise in (0.0, 0.02):
        moved = turned(yaw, pitch, roll) + np.random.default_rng(0).normal(0, noise, (68, 3))
        landmarks = moved.astype(np.float32)
        assert angles(head_pose(landmarks)) == pytest.approx(angles_by_reference(landmarks), abs=1e-9)


def test_landmarks_and_pose_equal_the_reference_on_photographs(model_file: Path) -> None:
    reference, session = Landmark(str(model_file)), ort.InferenceSession(model_file)
    for image in photographs():
        assert_equal_to_reference(reference, session, image)


def test_substitute_model_distinguishes_pictures(model_file: Path) -> None:
    """Else the tests here would prove nothing."""
    session = ort.InferenceSession(model_file)
    poses = []
    for image in photographs():
        crop, transform = attribute_crop(image, whole_picture(*image.shape[:2]), 192)
        (rows,) = session.run(None, {"input": to_tensor([crop], SPEC)})
        poses.append(head_pose(landmarks_in_picture(rows[0], 192, transform)))
    assert np.ptp([angles(pose) for pose in poses], axis=0).min() > 0.1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_landmarks_and_pose_equal_the_reference(model_file: Path, size: tuple[int, int], seed: int) -> None:
    reference, session = Landmark(str(model_file)), ort.InferenceSession(model_file)
    assert_equal_to_reference(reference, session, noisy(size, seed))


def test_landmarks_and_pose_equal_the_reference_on_real_faces(model_file: Path, face_crops: list[Any]) -> None:
    reference, session = Landmark(str(model_file)), ort.InferenceSession(model_file)
    for face in face_crops:
        assert_equal_to_reference(reference, session, decoded_by_opencv(face.content)[..., ::-1])


# ── from five landmarks ────────────────────────────────────────────────────────────────────────────────────────────


def five(yaw: float, pitch: float, roll: float, *, scale: float = 2.0) -> Points:
    """The five points of a turned head as a camera far away sees them."""
    return np.asarray((FIVE_POINTS @ rotation(yaw, pitch, roll).T)[:, :2] * scale + [300, 40], np.float32)


@pytest.mark.parametrize("yaw", [-50, -17, 0, 35])
@pytest.mark.parametrize("pitch", [-30, 0, 22])
@pytest.mark.parametrize("roll", [-170, -75, 0, 11, 120])
def test_known_rotation_of_five_points_comes_back_in_its_fields(yaw: float, pitch: float, roll: float) -> None:
    assert angles(pose_of_five(five(yaw, pitch, roll))) == pytest.approx((yaw, pitch, roll), abs=0.01)


def test_mirrored_landmarks_have_the_mirrored_pose() -> None:
    points = five(25, -12, 31)
    mirrored = (points * [-1, 1] + [640, 0])[[1, 0, 2, 4, 3]].astype(np.float32)
    given, mirror = angles(pose_of_five(points)), angles(pose_of_five(mirrored))
    assert mirror == pytest.approx((-given[0], given[1], -given[2]), abs=1)  # the template is not quite symmetric


def test_nose_beside_the_middle_is_a_turned_head() -> None:
    points = TEMPLATE.copy()
    points[2, 0] += 8
    assert pose_of_five(points).yaw > 10
    points = TEMPLATE.copy()
    points[2, 1] -= 8
    assert pose_of_five(points).pitch > 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1e30])
def test_five_points_without_a_pose_are_an_error(bad: float) -> None:
    with pytest.raises(ModelFailed, match="No head pose"):
        pose_of_five(np.full((5, 2), bad, np.float32))


def test_five_points_on_one_line_are_an_error() -> None:
    with pytest.raises(ModelFailed, match="No head pose"):
        pose_of_five(np.array([[x, 2 * x] for x in range(5)], np.float32))
