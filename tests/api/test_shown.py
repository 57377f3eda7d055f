"""Promises of `include_landmarks` and `include_crop`: what an answer shows is what the recogniser really got."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from test_align_route import NO_FACE, POINTS, batch, embed, found_on, loose_portrait, png, problem, vector

from arcface_api.api.answers import BatchAnswer, EmbedAnswer
from conftest import FaceCrop
from pictures import decoded_by_opencv, picture_bytes
from serving import Service


@pytest.mark.parametrize(
    "query",
    [{"align": "none"}, {"align": "none", "fit": "letterbox"}, {"align": "auto"}, {"align": "auto", "flip": True}],
)
def test_crop_sent_again_has_the_same_embedding_to_the_bit(service: Service, query: dict[str, Any]) -> None:
    for content in (png(loose_portrait()), NO_FACE, picture_bytes("JPEG", (1500, 1200))):
        answer = embed(service, content, include_crop=True, **query)
        crop = base64.b64decode(answer.json()["crop"])
        assert decoded_by_opencv(crop).shape == (112, 112, 3)
        again = embed(service, crop, align="none", flip=query.get("flip", False))
        assert vector(again) == vector(answer)


def test_crop_has_the_size_of_the_recogniser_s_input(run_named: Callable[[str], Service]) -> None:
    answer = embed(run_named("open"), png(loose_portrait()), include_crop=True)
    assert decoded_by_opencv(base64.b64decode(answer.json()["crop"])).shape == (150, 150, 3)


def test_landmarks_are_those_that_were_found_whatever_align_is(service: Service) -> None:
    expected = found_on(loose_portrait())
    for align in ("none", "auto"):
        body = embed(service, png(loose_portrait()), align=align, include_landmarks=True).json()
        assert np.allclose(body["landmarks"], expected, atol=0.02)
        assert body["warnings"] == []
    assert embed(service, NO_FACE, align="none", include_landmarks=True).json()["warnings"] == ["landmarks_unsure"]


def test_landmarks_sent_back_align_as_before(service: Service, face_crops: list[FaceCrop]) -> None:
    for crop in face_crops[:10]:
        found = embed(service, crop.content, align="auto", include_landmarks=True, normalize=True)
        sent = embed(service, crop.content, found.json()["landmarks"], align="landmarks", normalize=True)
        assert float(np.dot(vector(found), vector(sent))) > 0.999, crop.name


def test_landmarks_of_the_caller_are_returned(service: Service) -> None:
    assert embed(service, NO_FACE, POINTS, align="landmarks", include_landmarks=True).json()["landmarks"] == POINTS


def test_landmarks_are_in_pixels_of_the_upright_file(service: Service) -> None:
    """Also where a large JPEG is decoded at half its size, and lies on its side."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    upright = Pillow.fromarray(cv2.resize(loose_portrait(), (1600, 1500)))
    lying = picture_file(upright.transpose(Pillow.Transpose.ROTATE_90), exif=exif)
    expected = (found_on(loose_portrait()) + 0.5) * 10 - 0.5
    for content in (picture_file(upright), lying):
        body = embed(service, content, align="none", include_landmarks=True).json()
        assert np.allclose(body["landmarks"], expected, atol=12), "a pixel of the small picture has ten of these"


def picture_file(picture: Pillow.Image, **save: Any) -> bytes:
    content = BytesIO()
    picture.save(content, "JPEG", quality=95, **save)
    return content.getvalue()


def test_nothing_else_changes(service: Service) -> None:
    for content in (png(loose_portrait()), NO_FACE):
        for align in ("none", "auto"):
            answer = embed(service, content, align=align, include_landmarks=True, include_crop=True)
            assert vector(answer) == vector(embed(service, content, align=align))
            plain = embed(service, content).json()
            assert list(answer.json()) == [*plain, "landmarks", "crop", "warnings"]
            EmbedAnswer.model_validate_json(answer.content, strict=True)


def test_each_picture_of_a_batch_shows_its_own(service: Service) -> None:
    contents = [png(loose_portrait()), NO_FACE, b"no picture"]
    answer = batch(service, contents, align="auto", include_landmarks=True, include_crop=True)
    BatchAnswer.model_validate_json(answer.content, strict=True)
    results = answer.json()["results"]
    for content, result in zip(contents[:2], results, strict=False):
        alone = embed(service, content, align="auto", include_landmarks=True, include_crop=True).json()
        assert (result["landmarks"], result["crop"]) == (alone["landmarks"], alone["crop"])
    assert "crop" not in results[2]


@pytest.mark.parametrize("option", ["include_landmarks", "include_crop"])
def test_they_need_json(service: Service, option: str) -> None:
    headers = {"Accept": "application/octet-stream"}
    answer = service.post("/embed", files={"file": NO_FACE}, params={option: True}, headers=headers)
    assert problem(answer) == (422, "parameters_conflict")
