"""Promises of `POST /embed`: the contract's body, the reference's vectors, every representation."""

import base64
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import onnx
import pytest
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from numpy.typing import NDArray
from PIL import Image as Pillow

from arcface_api.api.answers import EmbedAnswer
from arcface_api.arrays import ChannelOrder, Crop, Features, InputSpec
from arcface_api.embedder import Recogniser
from arcface_api.session.onnx_cpu import OnnxCpuSession
from pictures import decoded_by_opencv, picture_bytes
from serving import Service
from tiny_models import linear_model

CONTRACT = {
    "embedding": list,
    "embedding_shape": list,
    "embedding_dim": int,
    "model": str,
    "input_size": str,
}


def embed(service: Service, content: bytes, **query: Any) -> httpx.Response:
    return service.post("/embed", files={"file": ("face.jpg", content)}, params=query)


def test_body_is_exactly_the_contract(service: Service) -> None:
    answer = embed(service, picture_bytes())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert {key: type(value) for key, value in body.items()} == CONTRACT
    assert all(type(number) is float for number in body["embedding"])
    assert np.isfinite(body["embedding"]).all()
    assert (len(body["embedding"]), body["embedding_shape"], body["embedding_dim"]) == (512, [512], 512)
    assert body["input_size"] == "112x112"
    EmbedAnswer.model_validate(body, strict=True)


def test_attributes_are_exactly_the_contract(run_service: Callable[..., Service], tiny_pack: Path) -> None:
    body = embed(run_service(tiny_pack), picture_bytes(), include_attributes=True).json()
    assert list(body) == [*CONTRACT, "attributes"]
    attributes = body["attributes"]
    assert {key: type(value) for key, value in attributes.items()} == {"age": int, "gender": str, "pose": dict}
    assert {key: type(value) for key, value in attributes["pose"].items()} == dict.fromkeys(
        ["yaw", "pitch", "roll"], float
    )
    assert attributes["gender"] in {"female", "male"}
    EmbedAnswer.model_validate(body, strict=True)


def test_pose_arrives_in_its_fields(run_service: Callable[..., Service], tiny_pack: Path) -> None:
    """The pack's landmark model always sees about yaw 20, pitch -10, roll 5."""
    pose = embed(run_service(tiny_pack), picture_bytes(), include_attributes=True).json()["attributes"]["pose"]
    assert (pose["yaw"], pose["pitch"], pose["roll"]) == pytest.approx((20, -10, 5), abs=4)


def test_embedding_equals_the_reference_on_real_crops(
    run_service: Callable[..., Service], real_recogniser: Path, face_crops: list[Any]
) -> None:
    """By default up to a million pixels; beyond, `resize=exact` is needed."""
    service, reference = run_service(real_recogniser), ArcFaceONNX(str(real_recogniser))
    for face in face_crops:
        picture = decoded_by_opencv(face.content)
        query = {} if picture.size <= 3 * 1_000_000 else {"resize": "exact"}
        given = np.array(embed(service, face.content, **query).json()["embedding"])
        wanted = reference.get_feat(picture)[0].astype(float)
        cosine = given @ wanted / np.linalg.norm(given) / np.linalg.norm(wanted)
        assert cosine >= 0.99999, face.name
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-6, err_msg=face.name)


def test_different_people_have_different_vectors(
    run_service: Callable[..., Service], real_recogniser: Path, face_crops: list[Any]
) -> None:
    """The vectors mean something: another copy of a picture is nearer than another person."""
    service = run_service(real_recogniser)
    picture = face_crops[3].content
    again = picture_again(picture)
    vectors = [
        np.array(embed(service, c, normalize=True).json()["embedding"]) for c in (picture, again, face_crops[8].content)
    ]
    assert vectors[0] @ vectors[1] > 0.8
    assert vectors[0] @ vectors[2] < 0.4


def picture_again(content: bytes) -> bytes:
    """The same picture at JPEG quality 60."""
    again = BytesIO()
    Pillow.open(BytesIO(content)).convert("RGB").save(again, "JPEG", quality=60)
    return again.getvalue()


def test_raw_body_gives_the_same_vector_as_the_form(service: Service) -> None:
    content = picture_bytes("PNG")
    raw = service.post("/embed", content=content, headers={"Content-Type": "image/png"})
    assert raw.status_code == 200
    assert raw.json() == embed(service, content).json()


@pytest.mark.parametrize("declared", ["image/jpeg", "image/webp", "image/png; charset=x"])
def test_content_decides_not_the_header(service: Service, declared: str) -> None:
    assert service.post("/embed", content=picture_bytes("PNG"), headers={"Content-Type": declared}).status_code == 200


def test_body_in_chunks_without_a_length(service: Service) -> None:
    content = picture_bytes("PNG")
    chunks = (content[i : i + 1000] for i in range(0, len(content), 1000))
    answer = service.post("/embed", content=chunks, headers={"Content-Type": "image/png"})
    assert answer.json() == embed(service, content).json()


def test_other_form_fields_are_ignored(service: Service) -> None:
    files = {"comment": (None, b"hello"), "file": ("x", picture_bytes()), "thumbnail": ("y", b"123")}
    assert service.post("/embed", files=files).status_code == 200


def test_normalize_divides_by_the_norm(service: Service) -> None:
    raw, unit = (embed(service, picture_bytes(), normalize=flag) for flag in (False, True))
    raw_vector, unit_vector = (np.array(answer.json()["embedding"]) for answer in (raw, unit))
    norm = np.linalg.norm(raw_vector)
    assert np.linalg.norm(unit_vector) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(unit_vector, raw_vector / norm, rtol=1e-6)
    for answer in (raw, unit):
        assert float(answer.headers["x-embedding-norm"]) == pytest.approx(norm, rel=1e-6)


def vector_of(answer: httpx.Response) -> NDArray[np.float32]:
    return np.array(answer.json()["embedding"], np.float32)


def test_every_representation_carries_the_same_numbers(service: Service) -> None:
    content = picture_bytes()
    wanted = vector_of(embed(service, content))
    coded = embed(service, content, encoding="base64").json()
    assert list(coded) == list(CONTRACT)
    assert np.array_equal(np.frombuffer(base64.b64decode(coded["embedding"]), "<f4"), wanted)
    files = {"file": content}
    npy = service.post("/embed", files=files, headers={"Accept": "application/x-npy"})
    assert npy.headers["content-type"] == "application/x-npy"
    assert np.array_equal(np.load(BytesIO(npy.content), allow_pickle=False), wanted)
    raw = service.post("/embed", files=files, headers={"Accept": "application/octet-stream"})
    assert raw.headers["content-type"] == "application/octet-stream"
    assert np.array_equal(np.frombuffer(raw.content, "<f4"), wanted)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("application/json;q=0.5, application/x-npy", "application/x-npy"),
        ("application/json;q=0, */*", "application/x-npy"),
        ("APPLICATION/OCTET-STREAM", "application/octet-stream"),
    ],
)
def test_accept_chooses_the_representation(service: Service, accept: str, media_type: str) -> None:
    answer = service.post("/embed", files={"file": picture_bytes()}, headers={"Accept": accept})
    assert answer.headers["content-type"] == media_type


def test_headers_of_every_embedding(service: Service) -> None:
    answer = embed(service, picture_bytes())
    assert answer.headers["x-model-fingerprint"] == service.get("/info").json()["fingerprint"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["vary"] == "Accept"
    stages = dict(stage.split(";dur=") for stage in answer.headers["server-timing"].split(", "))
    assert list(stages) == ["receive", "decode", "crop", "queue", "inference", "total"]
    assert all(float(ms) >= 0 for ms in stages.values())
    assert float(stages["total"]) >= float(stages["inference"])


def test_fingerprint_differs_between_models(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path
) -> None:
    onnx.save(linear_model(112, 512, seed=1), tmp_path / "other.onnx")
    prints = {
        run_service(pack).get("/info").json()["fingerprint"] for pack in (tiny_recogniser, tmp_path / "other.onnx")
    }
    assert len(prints) == 2


def test_fingerprint_covers_every_step_before_the_model() -> None:
    def fingerprint(**changed: Any) -> str:
        spec = InputSpec(**{"name": None, "height": 112, "width": 112, "mean": 127.5, "std": 127.5} | changed)
        about = {"name": "model", "dim": 512, "sha256": "ab" * 32, "self_test_cosine": 1.0, "reason": None}
        return Recogniser(cast("OnnxCpuSession", None), spec, **cast("Any", about)).fingerprint

    steps: list[dict[str, Any]] = [
        {},
        {"mean": 0.0},
        {"std": 128.0},
        {"channel_order": ChannelOrder.BGR},
        {"height": 128},
        {"width": 96},
        {"template": ((1.0, 2.0),) * 5},
    ]
    assert len({fingerprint(**changed) for changed in steps}) == len(steps)
    assert fingerprint(name="input.1") == fingerprint()


def test_as_many_inferences_at_a_time_as_lanes(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: Any
) -> None:
    service, running, most, real = run_service(tiny_recogniser), list[int](), list[int](), OnnxCpuSession.run

    def counted(session: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        running.append(1)
        most.append(len(running))
        time.sleep(0.005)
        running.pop()
        return real(session, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", counted)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: embed(service, picture_bytes()).status_code, range(36)))
    assert set(answers) == {200}
    assert max(most) <= service.get("/health").json()["lanes"]


def test_the_file_s_name_never_reaches_the_log(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(0):
        service.post("/embed", files={"file": ("secret_name.jpg", picture_bytes())})
        service.post("/embed", files={"file": ("secret_name.jpg", b"not a picture")})
    assert "secret_name" not in caplog.text


def test_numbers_are_json_numbers(service: Service) -> None:
    json.loads(embed(service, picture_bytes()).content, parse_constant=pytest.fail)


# ── flip ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flip_adds_the_embedding_of_the_mirror_image(service: Service) -> None:
    content = picture_bytes("PNG")
    mirrored = BytesIO()
    Pillow.open(BytesIO(content)).transpose(Pillow.Transpose.FLIP_LEFT_RIGHT).save(mirrored, "PNG")
    own, other = (np.array(embed(service, each).json()["embedding"]) for each in (content, mirrored.getvalue()))
    answer = embed(service, content, flip=True)
    both = np.array(answer.json()["embedding"], np.float32)
    assert np.allclose(both, own + other, atol=1e-5)
    assert float(answer.headers["x-embedding-norm"]) == pytest.approx(np.linalg.norm(both), rel=1e-6)
    assert np.allclose(embed(service, content, flip=True, normalize=True).json()["embedding"], both / norm_of(both))
    assert np.allclose(both, embed(service, mirrored.getvalue(), flip=True).json()["embedding"], atol=1e-5)
    assert list(answer.json()) == list(CONTRACT)


def test_flip_takes_no_more_room_than_other_requests(
    run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    """As many pictures as may be inside can all be flipped."""
    service = run_service(tiny_recogniser, queue_capacity=4, max_batch_files=4)
    files = [("files", picture_bytes("PNG"))] * 4
    results = service.post("/embed/batch", files=files, params={"flip": True}).json()["results"]
    single = embed(service, picture_bytes("PNG"), flip=True).json()["embedding"]
    assert [result["embedding"] for result in results] == [single] * 4


def norm_of(embedding: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(embedding.astype(np.float64)))


# ── the fingerprint that a caller requires ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/embed", "/embed/batch"])
def test_other_fingerprint_than_required_is_refused_also_after_a_restart_with_another_pack(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path, path: str
) -> None:
    onnx.save(linear_model(112, 512, seed=1), tmp_path / "other.onnx")
    files = {"file" if path == "/embed" else "files": picture_bytes()}
    service = run_service(tiny_recogniser)
    fingerprint = service.post(path, files=files).headers["x-model-fingerprint"]
    required = {"X-Require-Fingerprint": fingerprint}
    assert service.post(path, files=files, headers=required).status_code == 200
    service.stop()
    service = run_service(tmp_path / "other.onnx")
    refused = service.post(path, files=files, headers=required)
    assert (refused.status_code, refused.json()["code"]) == (409, "fingerprint_differs")
    assert fingerprint in refused.json()["detail"]
    assert service.get("/info").json()["fingerprint"] in refused.json()["detail"]
    assert service.post(path, files=files).status_code == 200
