"""Promises of `arcface_api.face.attributes`: age and gender equal InsightFace's on the same crop."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from insightface.data import get_image
from insightface.model_zoo.attribute import Attribute
from insightface.utils import face_align

from arcface_api.arrays import Box, Image, InputSpec, to_tensor
from arcface_api.errors import ModelFailed
from arcface_api.face.attributes import age_gender, attribute_crop, whole_picture
from pictures import decoded_by_opencv, smooth_picture
from tiny_models import linear_model

SIZES = [(112, 112), (90, 131), (400, 250), (30, 24), (1, 1), (3, 2), (2, 3), (1, 300), (1200, 900)]
"""(width, height): square, tall, wide, tiny and large."""
SPEC = InputSpec(None, 96, 96, 0, 1)


class Face(dict[str, Any]):
    """What InsightFace passes around: a dict whose `bbox` is also an attribute. The box is the whole picture."""

    def __init__(self, image: Image, box_type: type[np.floating] = np.float64) -> None:
        super().__init__()
        self.bbox = np.array([0, 0, image.shape[1], image.shape[0]], box_type)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "genderage.onnx"
    bias = np.array([0, 1.7, 0.4], np.float32)  # so that these weights find about as many men as women
    onnx.save(linear_model(96, 3, gain=0.5, bias=bias, normalises_inside=True), path)
    return path


def noisy(size: tuple[int, int], seed: int) -> Image:
    noise = np.random.default_rng(seed).integers(0, 128, (*size[::-1], 3), np.uint8)
    picture: Image = np.asarray(smooth_picture(*size)) // np.uint8(2) + noise
    return picture


def photographs() -> list[Image]:
    """Real photographs, RGB, that InsightFace's wheel carries; whole, and a tall and a wide part."""
    portrait, group = (get_image(name)[..., ::-1] for name in ("Tom_Hanks_54745", "t1"))
    return [portrait, group, portrait[:, 40:75], group[100:190, 50:900]]


def ours(model_file: Path, image: Image) -> SimpleNamespace:
    crop, _ = attribute_crop(image, whole_picture(*image.shape[:2]), 96)
    (rows,) = ort.InferenceSession(model_file).run(None, {"input": to_tensor([crop], SPEC)})
    found = age_gender(rows[0])
    return SimpleNamespace(age=found.age, gender=found.gender)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_age_and_gender_equal_the_reference(model_file: Path, size: tuple[int, int], seed: int) -> None:
    image = noisy(size, seed)
    gender, age = Attribute(str(model_file)).get(image[..., ::-1], Face(image))
    found = ours(model_file, image)
    assert found.age == age
    assert found.gender == ("female", "male")[gender]


def test_age_and_gender_equal_the_reference_on_photographs(model_file: Path) -> None:
    for image in photographs():
        gender, age = Attribute(str(model_file)).get(image[..., ::-1], Face(image))
        found = ours(model_file, image)
        assert (found.age, found.gender) == (age, ("female", "male")[gender])


def test_substitute_model_distinguishes_pictures(model_file: Path) -> None:
    """Else the tests above would prove nothing."""
    found = [ours(model_file, noisy(size, seed)) for size in SIZES for seed in range(3)]
    assert {each.gender for each in found} == {"female", "male"}
    assert len({each.age for each in found}) > 5


def test_age_and_gender_equal_the_reference_on_real_faces(model_file: Path, face_crops: list[Any]) -> None:
    reference = Attribute(str(model_file))
    for face in face_crops:
        picture = decoded_by_opencv(face.content)
        gender, age = reference.get(picture, Face(picture))
        found = ours(model_file, picture[..., ::-1])
        assert (found.age, found.gender) == (age, ("female", "male")[gender]), face.name


@pytest.mark.parametrize("side", [96, 192])
def test_crop_equals_the_reference_s_bit_for_bit(side: int) -> None:
    for image in [noisy(size, 0) for size in SIZES] + photographs():
        height, width = image.shape[:2]
        centre, scale = (width / 2, height / 2), side / (max(width, height) * 1.5)
        bgr = np.ascontiguousarray(image[..., ::-1])
        expected, expected_transform = face_align.transform(bgr, centre, side, scale, 0)
        crop, transform = attribute_crop(image, whole_picture(*image.shape[:2]), side)
        assert np.array_equal(crop, expected[..., ::-1])
        assert np.array_equal(transform, expected_transform)


@pytest.mark.parametrize("size", SIZES)
def test_crop_for_a_float32_box_differs_by_one_level_at_most(size: tuple[int, int]) -> None:
    """InsightFace's detector gives float32 boxes, so its scale is rounded there; ours is not."""
    image = noisy(size, 0)
    x, y, right, bottom = Face(image, np.float32).bbox
    scale = 96 / (max(right - x, bottom - y) * 1.5)
    rounded, _ = face_align.transform(image, ((x + right) / 2, (y + bottom) / 2), 96, scale, 0)
    assert np.abs(attribute_crop(image, whole_picture(*image.shape[:2]), 96)[0].astype(int) - rounded).max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_whole_picture_is_the_box(size: tuple[int, int]) -> None:
    """The picture's longer side takes two thirds of the model's input, its centre is the input's centre."""
    width, height = size
    _, transform = attribute_crop(noisy(size, 0), whole_picture(height, width), 96)
    corners = np.array([[0, 0, 1], [width, height, 1]]) @ transform.T
    assert np.allclose(corners.mean(axis=0), 48)
    assert np.isclose(np.ptp(corners, axis=0).max(), 64)


def test_margin_is_black_and_colours_keep_their_order() -> None:
    image = np.full((60, 40, 3), (200, 100, 50), np.uint8)
    crop, _ = attribute_crop(image, whole_picture(*image.shape[:2]), 96)
    assert crop[48, 48].tolist() == [200, 100, 50]
    assert not crop[:8].any()
    assert not crop[:, :20].any()


def test_transform_maps_the_picture_onto_the_crop() -> None:
    image = np.asarray(smooth_picture(80, 60))
    crop, transform = attribute_crop(image, whole_picture(*image.shape[:2]), 192)
    assert np.array_equal(crop, cv2.warpAffine(image, transform, (192, 192)))


@pytest.mark.parametrize(
    ("row", "age", "gender"),
    [
        ([2, 1, 0.284], 28, "female"),
        ([1, 2, 0.286], 29, "male"),
        ([0, 1, -0.2], -20, "male"),
        ([1, 1, 1.03], 103, "female"),
    ],
)
def test_row_is_read(row: list[float], age: int, gender: str) -> None:
    found = age_gender(np.array(row, np.float32))
    assert (found.age, found.gender) == (age, gender)


def test_age_is_rounded_in_float32_as_the_reference_does() -> None:
    """For every age with a half, and the numbers next to it, where float64 would sometimes give another year."""
    halves = (np.arange(0, 120, dtype=np.float32) + np.float32(0.5)) / np.float32(100)
    for third in [*halves, *np.nextafter(halves, np.float32(0)), *np.nextafter(halves, np.float32(2))]:
        row = np.array([0, 1, third], np.float32)
        assert age_gender(row).age == int(np.round(row[2] * 100))


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_row_that_is_not_finite_is_refused(place: int, bad: float) -> None:
    row = np.array([0, 1, 0.3], np.float32)
    row[place] = bad
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        age_gender(row)


@pytest.mark.parametrize("third", [3e38, 1e30, -1e30])
def test_age_that_no_integer_column_holds_is_refused(third: float) -> None:
    with pytest.raises(ModelFailed, match="age out of all bounds"):
        age_gender(np.array([0, 1, third], np.float32))


@pytest.mark.parametrize("angle", [-2.0, -0.3, 0.0, 0.7, 1.5708, 3.1])
def test_turned_box_is_seen_upright(angle: float) -> None:
    """The box's centre is the crop's; what lies above it, as the face sees it, lies above it in the crop."""
    box = Box(70, 50, 40, angle)
    up = np.array([70 + 10 * np.sin(angle), 50 - 10 * np.cos(angle)])
    _, transform = attribute_crop(noisy((112, 112), 0), box, 96)
    centre, above = (transform @ [*point, 1] for point in ((70, 50), up))
    assert np.allclose(centre, 48)
    assert np.allclose(above, (48, 48 - 10 * 96 / (40 * 1.5)))
