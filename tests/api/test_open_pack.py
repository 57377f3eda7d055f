"""Promises of the open pack as a service: real embeddings, attributes and poses, at once."""

from collections.abc import Callable

import numpy as np
import pytest
from test_align_route import NO_FACE, embed, png, portrait, problem, vector

from conftest import FaceCrop
from serving import Service


@pytest.fixture
def open_service(run_named: Callable[[str], Service]) -> Service:
    """The service with the pack that the package carries."""
    return run_named("open")


def test_open_pack_says_what_it_is_and_aligns_by_default(open_service: Service) -> None:
    answer = embed(open_service, png(portrait()))
    body = answer.json()
    assert (body["model"], body["embedding_dim"], body["input_size"]) == ("dlib_resnet_v1", 128, "150x150")
    assert list(body) == ["embedding", "embedding_shape", "embedding_dim", "model", "input_size"]
    assert answer.headers["x-alignment"] == "auto"
    info = open_service.get("/info").json()
    assert info["crop"]["align"] == "auto"
    assert [each["far"] for each in info["thresholds"]] == [0.1, 0.01]
    assert {each["basis"] for each in info["thresholds"]} == {"measured"}
    assert info["thresholds"][0]["data_set"].startswith("LFW, 1,484 pairs of different people")
    assert {file["name"] for file in info["files"]} == {
        "dlib_resnet_v1.onnx", "age.onnx", "gender.onnx", "landmarks.onnx"
    }  # fmt: skip


def test_open_pack_recognises_a_man_however_it_lies(open_service: Service) -> None:
    upright = embed(open_service, png(portrait()), include_attributes=True).json()["attributes"]
    turned = np.ascontiguousarray(np.rot90(portrait(), -1))
    lying = embed(open_service, png(turned), include_attributes=True).json()["attributes"]
    assert upright["gender"] == lying["gender"] == "male"
    assert abs(upright["age"] - lying["age"]) <= 5
    assert lying["pose"]["roll"] - upright["pose"]["roll"] == pytest.approx(90, abs=4)
    assert lying["pose"]["yaw"] == pytest.approx(upright["pose"]["yaw"], abs=8)


def test_mirrored_face_looks_the_other_way(open_service: Service) -> None:
    plain, mirrored = (
        embed(open_service, png(image), include_attributes=True).json()["attributes"]["pose"]
        for image in (portrait(), np.ascontiguousarray(portrait()[:, ::-1]))
    )
    assert plain["yaw"] > 10, "he looks towards the picture's right"
    assert mirrored["yaw"] == pytest.approx(-plain["yaw"], abs=8)
    assert mirrored["pitch"] == pytest.approx(plain["pitch"], abs=8)


def test_attributes_of_no_face_are_an_answer_too(open_service: Service) -> None:
    answer = embed(open_service, NO_FACE, include_attributes=True)
    assert answer.headers["x-alignment"] == "unsure"
    plain = embed(open_service, NO_FACE, include_attributes=True, align="none")
    assert plain.headers["x-warnings"] == "landmarks_unsure", "the head pose rests on them"
    assert set(answer.json()["attributes"]["pose"]) == {"yaw", "pitch", "roll"}


def test_attributes_change_no_embedding(open_service: Service) -> None:
    for align in ("none", "auto"):
        asked = embed(open_service, png(portrait()), align=align, include_attributes=True)
        assert vector(asked) == vector(embed(open_service, png(portrait()), align=align))


def test_pictures_of_different_people_are_below_the_threshold(
    open_service: Service, face_crops: list[FaceCrop]
) -> None:
    threshold = open_service.get("/info").json()["thresholds"][-1]["similarity"]
    embeddings = np.array([vector(embed(open_service, face.content, normalize=True)) for face in face_crops[::3][:12]])
    similarities = embeddings @ embeddings.T
    others = similarities[~np.eye(len(embeddings), dtype=bool)]
    assert (others < threshold).mean() > 0.95


def test_embedding_of_another_pack_is_refused(open_service: Service) -> None:
    refused = open_service.post("/embed", files={"file": NO_FACE}, headers={"X-Require-Fingerprint": "0" * 16})
    assert problem(refused) == (409, "fingerprint_differs")
