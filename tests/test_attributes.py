"""Promises of `arcface_api.attributes`: age and gender equal InsightFace's on the same crop."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from insightface.model_zoo.attribute import Attribute

from arcface_api.arrays import Image, InputSpec, to_tensor
from arcface_api.attributes import age_gender, attribute_crop, whole_picture_transform
from arcface_api.errors import ModelFailed
from pictures import decoded_by_opencv, smooth_picture
from tiny_models import age_gender_model

SIZES = [(112, 112), (90, 131), (400, 250), (30, 24), (1, 1), (3, 2), (1200, 900)]
"""(width, height): square, tall, wide, tiny and large."""
SPEC = InputSpec(None, 96, 96, 0, 1)


class Face(dict[str, Any]):
    """What InsightFace passes around: a dict whose `bbox` is also an attribute."""

    def __init__(self, image: Image) -> None:
        super().__init__()
        self.bbox = np.array([0, 0, image.shape[1], image.shape[0]], np.float32)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "genderage.onnx"
    onnx.save(age_gender_model(), path)
    return path


def noisy(size: tuple[int, int], seed: int) -> Image:
    noise = np.random.default_rng(seed).integers(0, 128, (*size[::-1], 3), np.uint8)
    picture: Image = np.asarray(smooth_picture(*size)) // np.uint8(2) + noise
    return picture


def ours(model_file: Path, image: Image) -> SimpleNamespace:
    crop, _ = attribute_crop(image, 96)
    (rows,) = ort.InferenceSession(model_file).run(None, {"input": to_tensor([crop], SPEC)})
    told = age_gender(rows[0])
    return SimpleNamespace(age=told.age, gender=told.gender)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_age_and_gender_equal_the_reference(model_file: Path, size: tuple[int, int], seed: int) -> None:
    image = noisy(size, seed)
    gender, age = Attribute(str(model_file)).get(image[..., ::-1], Face(image))
    told = ours(model_file, image)
    assert told.age == max(age, 0)
    assert told.gender == ("female", "male")[gender]


def test_age_and_gender_equal_the_reference_on_real_faces(model_file: Path, face_crops: list[Any]) -> None:
    reference = Attribute(str(model_file))
    for face in face_crops:
        picture = decoded_by_opencv(face.content)
        gender, age = reference.get(picture, Face(picture))
        told = ours(model_file, picture[..., ::-1])
        assert (told.age, told.gender) == (max(age, 0), ("female", "male")[gender]), face.name


@pytest.mark.parametrize("size", SIZES)
def test_whole_picture_is_the_box(size: tuple[int, int]) -> None:
    """The picture's longer side takes two thirds of the model's input, its centre is the input's centre."""
    width, height = size
    transform = whole_picture_transform(height, width, 96)
    corners = np.array([[0, 0, 1], [width, height, 1]]) @ transform.T
    assert np.allclose(corners.mean(axis=0), 48)
    assert np.isclose(np.ptp(corners, axis=0).max(), 64)


def test_margin_is_black_and_colours_keep_their_order() -> None:
    image = np.full((60, 40, 3), (200, 100, 50), np.uint8)
    crop, _ = attribute_crop(image, 96)
    assert crop[48, 48].tolist() == [200, 100, 50]
    assert not crop[:8].any()
    assert not crop[:, :20].any()


def test_transform_maps_the_picture_onto_the_crop() -> None:
    image = np.asarray(smooth_picture(80, 60))
    crop, transform = attribute_crop(image, 192)
    assert np.array_equal(crop, cv2.warpAffine(image, transform, (192, 192)))


@pytest.mark.parametrize(
    ("row", "age", "gender"),
    [
        ([2, 1, 0.284], 28, "female"),
        ([1, 2, 0.286], 29, "male"),
        ([0, 1, -0.2], 0, "male"),
        ([1, 1, 1.03], 103, "female"),
    ],
)
def test_row_is_read(row: list[float], age: int, gender: str) -> None:
    told = age_gender(np.array(row, np.float32))
    assert (told.age, told.gender) == (age, gender)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_row_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        age_gender(np.array([0, 1, bad], np.float32))
