"""Promises of `/embed/batch` and of overload: own results in order, a bad crop costs only itself, 429 and 503."""

import asyncio
import base64
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from arcface_api.api.answers import BatchAnswer
from arcface_api.arrays import Crop, Features
from arcface_api.batching import Batcher
from arcface_api.session.onnx_cpu import OnnxCpuSession
from pictures import picture_bytes
from serving import Service, until

PICTURES = [picture_bytes("PNG", (20 + 7 * number, 90)) for number in range(11)]


def batch(service: Service, contents: list[bytes], **options: Any) -> httpx.Response:
    return service.post("/embed/batch", files=[("files", content) for content in contents], **options)


def single(service: Service, content: bytes, **query: Any) -> dict[str, Any]:
    body: dict[str, Any] = service.post("/embed", files={"file": content}, params=query).json()
    return body


def test_results_are_those_of_single_requests_in_their_order(service: Service) -> None:
    answer = batch(service, PICTURES)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["results", "embedding_dim", "model", "input_size"]
    assert [result["embedding"] for result in body["results"]] == [
        single(service, content)["embedding"] for content in PICTURES
    ]
    assert all(list(result) == ["embedding", "norm", "recipe"] for result in body["results"])
    assert answer.headers["x-model-fingerprint"] == service.get("/info").json()["fingerprint"]
    BatchAnswer.model_validate(body, strict=True)


def test_one_bad_crop_costs_only_itself(service: Service) -> None:
    bad = [b"GIF89a", b"", PICTURES[0][:100], b"\0" * 21_000_000]
    mixed = [PICTURES[0], bad[0], PICTURES[1], bad[1], bad[2], bad[3], PICTURES[2]]
    body = batch(service, mixed).json()
    codes = [result.get("problem", {}).get("code") for result in body["results"]]
    assert codes == [
        None,
        "image_format_unsupported",
        None,
        "image_empty",
        "image_damaged",
        "body_too_large",
        None,
    ]
    assert body["results"][6]["embedding"] == single(service, PICTURES[2])["embedding"]
    BatchAnswer.model_validate(body, strict=True)


def test_options_hold_for_every_picture(run_service: Callable[..., Service], tiny_pack: Path) -> None:
    service = run_service(tiny_pack)
    query = {"include_attributes": True, "normalize": True, "encoding": "base64"}
    results = batch(service, PICTURES[:3], params=query).json()["results"]
    for content, result in zip(PICTURES, results, strict=False):
        alone = single(service, content, **query)
        assert (result["embedding"], result["attributes"]) == (alone["embedding"], alone["attributes"])
        vector = np.frombuffer(base64.b64decode(result["embedding"]), "<f4")
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("media_type", ["application/x-npy", "application/octet-stream"])
def test_binary_is_one_matrix_and_says_which_rows_are_valid(service: Service, media_type: str) -> None:
    answer = batch(service, [PICTURES[0], b"no", PICTURES[1]], headers={"Accept": media_type})
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-embedding-valid"] == "101"
    if media_type == "application/x-npy":
        rows = np.load(BytesIO(answer.content), allow_pickle=False)
    else:
        rows = np.frombuffer(answer.content, "<f4").reshape(-1, 512)
    assert rows.shape == (3, 512)
    assert np.array_equal(rows[2], np.array(single(service, PICTURES[1])["embedding"], np.float32))
    assert np.isnan(rows[1]).all(), "a database that is given it by mistake must refuse it"


@pytest.mark.parametrize(
    ("setting", "allowed"), [("max_batch_files", 3), ("max_batch_files", 1), ("queue_capacity", 2)]
)
def test_too_many_pictures_are_refused(
    run_service: Callable[..., Service], tiny_recogniser: Path, setting: str, allowed: int
) -> None:
    """A batch that could never be served gets 413, not 429."""
    service = run_service(tiny_recogniser, **{setting: allowed})
    assert service.get("/info").json()["limits"]["max_batch_files"] == allowed
    assert batch(service, PICTURES[:allowed]).status_code == 200
    answer = batch(service, PICTURES[: allowed + 1])
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_files")
    parts = "1 part" if allowed == 1 else f"{allowed} parts"
    assert f"more than {parts} named files" in answer.json()["detail"]


def test_too_many_bytes_are_refused(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, max_batch_bytes=200_000)
    answer = batch(service, [b"\0" * 150_000] * 4)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "ARCFACE_MAX_BATCH_BYTES" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"files": {"file": PICTURES[0]}}, "file_missing"),
        ({"content": PICTURES[0], "headers": {"Content-Type": "image/png"}}, "content_type_unsupported"),
        ({"files": {"files": PICTURES[0]}, "params": {"include_attributes": "true"}}, "attributes_unavailable"),
    ],
)
def test_requests_that_are_no_batch_are_explained(service: Service, request_: dict[str, Any], code: str) -> None:
    answer = service.post("/embed/batch", **request_)
    assert answer.json()["code"] == code
    assert "files" in answer.json()["detail"] or code == "attributes_unavailable"


def test_vector_is_bit_identical_alone_and_in_any_batch(
    run_service: Callable[..., Service], real_recogniser: Path, face_crops: list[Any]
) -> None:
    """64 real crops, alone, then in random batches formed by concurrent callers and by batch requests."""
    service = run_service(real_recogniser, queue_capacity=1000)
    contents = [face.content for face in face_crops] + [face.content for face in face_crops[:14]]
    alone = [single(service, content)["embedding"] for content in contents]
    order = np.random.default_rng(7).permutation(64)
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda index: single(service, contents[index])["embedding"], order))
    assert together == [alone[index] for index in order]
    results = batch(service, [contents[index] for index in order]).json()["results"]
    assert [result["embedding"] for result in results] == [alone[index] for index in order]


# ── overload ───────────────────────────────────────────────────────────────────────────────────────────────────────


class HeldSession:
    """While held, every inference stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        real = OnnxCpuSession.run

        def held(session: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
            self.entered.set()
            assert self.go.wait(100)
            return real(session, crops)

        monkeypatch.setattr(OnnxCpuSession, "run", held)


def test_full_service_refuses_at_once_and_says_when_to_come_back(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run_service(tiny_recogniser, queue_capacity=4)
    held = HeldSession(monkeypatch)
    with ThreadPoolExecutor(7) as pool:
        posts = [pool.submit(service.post, "/embed", files={"file": content}) for content in PICTURES[:7]]
        refused = [post.result() for _, post in zip(range(3), as_completed(posts), strict=False)]
        for answer in (*refused, batch(service, PICTURES[:1])):
            assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
            assert int(answer.headers["retry-after"]) >= 1
        assert service.get("/livez").status_code == 200
        assert sum(post.done() for post in posts) == 3, "what was accepted still waits"
        held.go.set()
        assert sorted(post.result().status_code for post in posts) == [200] * 4 + [429] * 3
    assert "embedding" in single(service, PICTURES[5])


def test_batch_larger_than_the_capacity_left_is_refused_whole(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run_service(tiny_recogniser, queue_capacity=4)
    held = HeldSession(monkeypatch)
    with ThreadPoolExecutor() as pool:
        inside = pool.submit(single, service, PICTURES[0])
        assert held.entered.wait(100)
        refused = batch(service, PICTURES[:4])
        held.go.set()
        assert "embedding" in inside.result()
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert "holds 4 pictures at once; with 1 inside there is no room for 4 more" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert batch(service, PICTURES[:4]).status_code == 200


def test_caller_s_deadline_is_kept(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits behind a standing inference is dropped as soon as its time is over; the others are served."""
    service = run_service(tiny_recogniser)
    held = HeldSession(monkeypatch)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(single, service, PICTURES[0])
        assert held.entered.wait(100)
        hasty = pool.submit(service.post, "/embed", files={"file": PICTURES[1]}, headers={"X-Request-Timeout": "1"})
        until(lambda: service.app.embedder.inside == 2 or hasty.done())
        patient = pool.submit(single, service, PICTURES[2])
        assert (hasty.result().status_code, hasty.result().json()["code"]) == (503, "deadline_exceeded")
        until(lambda: service.app.embedder.inside == 2)
        held.go.set()
        assert "embedding" in first.result()
        assert "embedding" in patient.result()


def test_service_s_own_deadline_is_kept(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, request_timeout_seconds=1e-9)
    for headers in ({}, {"X-Request-Timeout": "60"}):
        answer = service.post("/embed", files={"file": PICTURES[0]}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", ""])
def test_wrong_timeout_is_explained(service: Service, seconds: str) -> None:
    answer = service.post("/embed", files={"file": PICTURES[0]}, headers={"X-Request-Timeout": seconds})
    assert (answer.status_code, answer.json()["code"]) == (422, "parameter_invalid")
    assert "positive number of seconds" in answer.json()["detail"]


def test_closing_under_load_answers_everything_accepted(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run_service(tiny_recogniser, request_timeout_seconds=3600)  # a held inference counts as a slow one
    held = HeldSession(monkeypatch)
    with ThreadPoolExecutor(len(PICTURES) + 1) as pool:
        accepted = [pool.submit(single, service, content) for content in PICTURES]
        assert held.entered.wait(100)
        until(lambda: service.app.embedder.inside == len(PICTURES))
        stopping = pool.submit(service.stop)
        threading.Event().wait(0.2)
        held.go.set()
        assert [task.result() for task in accepted if "embedding" not in task.result()] == []
        stopping.result()


def test_bulk_gives_way_to_single_pictures(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single picture that comes behind a full batch request is in the very next inference."""
    service = run_service(tiny_recogniser, max_batch=4)
    held = HeldSession(monkeypatch)
    queue, take, singles = service.app.embedder.recognition, Batcher._take_batch, list[tuple[int, int]]()

    def noticed(self: Batcher[Any, Any]) -> Any:
        before, taken = len(self._single), take(self)
        if self is queue:
            singles.append((before, len(self._single)))
        return taken

    monkeypatch.setattr(Batcher, "_take_batch", noticed)
    with ThreadPoolExecutor() as pool:
        many = pool.submit(batch, service, PICTURES * 5)
        assert held.entered.wait(100)
        until(lambda: queue.queued >= 40)
        one = pool.submit(single, service, PICTURES[0])
        until(lambda: len(queue._single) == 1)
        held.go.set()
        assert len(many.result().json()["results"]) == 55
        assert "embedding" in one.result()
    assert [(before, left) for before, left in singles if before] == [(1, 0)]


def test_nothing_is_left_behind(service: Service) -> None:
    """After any mix of answers the service is empty again: its whole capacity can be used."""
    for contents in ([b"GIF"], PICTURES[:2], [b""]):
        batch(service, contents)
        service.post("/embed", files={"file": contents[0]})

    async def all_at_once() -> list[int]:
        async with httpx.AsyncClient(base_url=str(service.base_url), timeout=100) as client:
            posts = [client.post("/embed", files={"file": PICTURES[0]}) for _ in range(100)]
            return [answer.status_code for answer in await asyncio.gather(*posts)]

    assert set(asyncio.run(all_at_once())) == {200}
