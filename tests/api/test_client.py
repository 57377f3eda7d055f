"""Promises of the client against the real service: exact vectors, typed facts, nothing lost; its documentation runs."""

import asyncio
import base64
import doctest
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_align_route import NO_FACE, POINTS, loose_portrait, png

from arcface_api import client as client_package
from arcface_api import errors, wire
from arcface_api.api.options import OPTION_NAMES
from arcface_api.client import (
    ArcFaceError,
    AsyncClient,
    Client,
    Embedding,
    FingerprintDiffers,
    ImageUnreadable,
    Options,
    Picture,
    RecipeDiffers,
    ThresholdUnknown,
    similarity,
)
from pictures import picture_bytes
from serving import Service

ROOT = Path(__file__).parents[2]
RunService = Callable[..., Service]


def url(service: Service) -> str:
    return str(service.base_url)


def by_http(service: Service, content: bytes, **query: Any) -> Any:
    answer = service.post("/embed", files={"file": content}, params=query)
    assert answer.status_code == 200, answer.text
    return answer


def by_both(service: Service, image: Any, **options: Any) -> list[Embedding]:
    """The same from each client."""

    async def run() -> Embedding:
        async with AsyncClient(url(service)) as client:
            return await client.embed(image, **options)

    with Client(url(service)) as client:
        return [client.embed(image, **options), asyncio.run(run())]


def given_by_both(service: Service, images: Iterable[Any], **options: Any) -> list[list[Embedding | ArcFaceError]]:
    images = [*images]

    async def run() -> list[Embedding | ArcFaceError]:
        async def asynchronous() -> Any:
            for image in images:
                yield image

        async with AsyncClient(url(service)) as client:
            return [each async for each in client.embed_many(asynchronous(), **options)]

    with Client(url(service)) as client:
        return [[*client.embed_many(images, **options)], asyncio.run(run())]


def test_embedding_has_the_bits_and_the_facts_of_the_answer(run_service: RunService, tiny_pack: Path) -> None:
    service, content = run_service(tiny_pack), png(loose_portrait())
    asked: dict[str, Any] = dict.fromkeys((name for name in OPTION_NAMES if name.startswith("include")), True)
    asked |= {"align": "auto", "normalize": True}
    answer = by_http(service, content, **asked)
    body, headers = answer.json(), answer.headers
    for embedding in by_both(service, content, **asked):
        assert embedding.vector.dtype == np.float32
        assert embedding.vector.tolist() == np.array(body["embedding"], np.float32).tolist()
        assert embedding.model == body["model"]
        assert embedding.fingerprint == headers["x-model-fingerprint"]
        assert (embedding.recipe, embedding.alignment) == (headers["x-embedding-recipe"], "auto")
        assert embedding.norm == pytest.approx(float(headers["x-embedding-norm"]))
        assert embedding.attributes is not None
        assert embedding.quality is not None
        assert embedding.landmarks is not None
        assert vars(embedding.attributes) | {"pose": vars(embedding.attributes.pose)} == body["attributes"]
        assert vars(embedding.quality) == body["quality"]
        assert list(embedding.warnings) == body["warnings"]
        assert embedding.landmarks.tolist() == np.array(body["landmarks"], np.float32).tolist()
        assert embedding.crop == base64.b64decode(body["crop"])


def test_embed_many_gives_what_embed_gives(service: Service, tmp_path: Path) -> None:
    contents = [picture_bytes("PNG", (112 + number, 112)) for number in range(40)]
    with Client(url(service)) as client:
        all_alone = [client.embed(content, include_quality=True, align="auto") for content in contents]
    for results in given_by_both(service, contents, include_quality=True, align="auto"):
        for alone, result in zip(all_alone, results, strict=True):
            assert isinstance(result, Embedding)
            assert {**vars(result), "vector": result.vector.tolist(), "norm": 0} == {
                **vars(alone),
                "vector": alone.vector.tolist(),
                "norm": 0,
            }


def test_bad_picture_is_an_error_in_its_place(service: Service, tmp_path: Path) -> None:
    """Also one that cannot be read, and was never sent."""
    good = picture_bytes("PNG")
    cut = base64.b64decode(base64.b64encode(picture_bytes("JPEG", (300, 300)))[:4000])
    images = [good, b"no picture", tmp_path / "missing.jpg", good, b"", np.zeros(3), cut]
    expected = [Embedding, errors.ImageFormatUnsupported, ImageUnreadable, Embedding, errors.ImageEmpty]
    for results in given_by_both(service, images):
        assert [type(each) for each in results] == [*expected, ImageUnreadable, errors.ImageDamaged]
    with Client(url(service)) as client, pytest.raises(errors.ImageFormatUnsupported, match="JPEG, PNG and WebP"):
        client.embed(b"no picture")


def test_warnings_of_a_batch_go_to_their_pictures(service: Service) -> None:
    cut = picture_bytes("JPEG", (300, 300))
    cut = cut[: len(cut) // 2] + b"\xff\xd9"
    for results in given_by_both(service, [picture_bytes(), cut, b"no picture", cut]):
        warnings = [each.warnings if isinstance(each, Embedding) else None for each in results]
        assert warnings == [(), ("truncated",), None, ("truncated",)]


def test_landmarks_are_sent_with_their_picture(service: Service) -> None:
    expected = service.post(
        "/embed", params={"align": "landmarks"}, files={"file": NO_FACE}, data={"landmarks": json.dumps(POINTS)}
    ).json()["embedding"]
    for embedding in by_both(service, Picture(NO_FACE, POINTS), align="landmarks"):
        assert embedding.vector.tolist() == np.array(expected, np.float32).tolist()
    for results in given_by_both(service, [Picture(NO_FACE, POINTS), NO_FACE], align="landmarks"):
        assert isinstance(results[0], Embedding)
        assert results[0].vector.tolist() == np.array(expected, np.float32).tolist()
        assert isinstance(results[1], errors.LandmarksInvalid)


def test_what_concerns_all_pictures_is_raised(service: Service) -> None:
    for images in ([picture_bytes()], [picture_bytes()] * 3):
        with Client(url(service)) as client, pytest.raises(errors.AttributesUnavailable):
            list(client.embed_many(images, include_attributes=True))
        with Client(url(service), fingerprint="0" * 16) as client, pytest.raises(FingerprintDiffers):
            list(client.embed_many(images))
        with Client(url(service), recipe="0" * 16) as client, pytest.raises(RecipeDiffers):
            list(client.embed_many(images))


def test_info_health_and_thresholds(run_named: Callable[[str], Service]) -> None:
    service = run_named("open")
    with Client(url(service)) as client:
        info, health = client.info(), client.health()
        assert info.facts == service.get("/info").json()
        assert health.facts == service.get("/health").json()
        assert health.is_ok
        assert [vars(each) for each in info.thresholds] == [
            {name: each[name] for name in ("far", "similarity", "basis")} for each in info.facts["thresholds"]
        ]
        known = {each.far: each.similarity for each in info.thresholds}
        strictest = min(known)
        assert client.threshold(0.01) == known[0.01]
        assert client.threshold(0.5) <= client.threshold(0.01) <= client.threshold(strictest)
        with pytest.raises(ThresholdUnknown, match="arcface-api evaluate"):
            client.threshold(strictest / 10)


def test_similarity_of_pictures_and_embeddings(service: Service, run_named: Callable[[str], Service]) -> None:
    one, other = picture_bytes("PNG", (112, 112)), picture_bytes("PNG", (112, 150))
    unit = [np.array(by_http(service, each, normalize=True).json()["embedding"]) for each in (one, other)]
    with Client(url(service)) as client:
        assert client.similarity(one, other) == pytest.approx(float(unit[0] @ unit[1]), abs=1e-5)
        assert client.similarity(client.embed(one), other, normalize=True) == pytest.approx(
            client.similarity(one, other)
        )
        assert similarity(client.embed(one), client.embed(one)) == pytest.approx(1)
        with Client(url(run_named("open"))) as elsewhere, pytest.raises(FingerprintDiffers, match="different models"):
            client.similarity(one, elsewhere.embed(one))


def test_similarity_refuses_what_was_made_in_another_way(service: Service) -> None:
    """As where an option of the stored embedding is left out."""
    face = png(loose_portrait())
    with Client(url(service)) as client:
        plain, aligned, unsure = (
            client.embed(face),
            client.embed(face, align="auto"),
            client.embed(NO_FACE, align="auto"),
        )
        assert [each.alignment for each in (plain, aligned, unsure)] == ["none", "auto", "unsure"]
        for stored, options in ((aligned, {}), (plain, {"align": "auto"}), (plain, {"flip": True}), (unsure, {})):
            with pytest.raises(RecipeDiffers, match="same options"):
                client.similarity(stored, NO_FACE, **options)
        assert -1 <= client.similarity(aligned, NO_FACE, align="auto") <= 1


def test_client_and_service_use_the_same_words() -> None:
    """The client has its own copies, because it imports nothing of the service."""
    assert set(Options.__annotations__) | {"encoding"} == OPTION_NAMES
    sources = "".join(path.read_text() for path in Path(client_package.__file__).parent.glob("*.py"))
    names = set(re.findall(r'"(x-[\w-]+)"', sources, re.IGNORECASE))
    assert {name.lower() for name in names} <= {
        value.lower() for name, value in vars(wire).items() if name.endswith("_HEADER")
    }
    assert len(names) >= 7


# ── the naive job ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shares_one_client", [True, False])
def test_eight_threads_of_64_pictures_lose_none(service: Service, shares_one_client: bool) -> None:
    """Together they send twice what the service holds. Before there was a client, nine in ten requests were refused."""

    def job(thread: int) -> list[tuple[int, bytes]]:
        found = []
        with nullcontext(shared) if shares_one_client else Client(url(service)) as client:
            for batch in range(3):
                sizes = [112 + (thread * 3 + batch) * 64 + number for number in range(64)]
                for size, result in zip(sizes, client.embed_many(png_of(size) for size in sizes), strict=True):
                    assert isinstance(result, Embedding), result
                    found.append((size, result.vector.tobytes()))
        return found

    with Client(url(service)) as shared:
        with ThreadPoolExecutor(8) as threads:
            found = [each for share in threads.map(job, range(8)) for each in share]
        assert [size for size, _ in found] == list(range(112, 112 + 8 * 3 * 64))
        for size, vector in found[::97]:
            assert shared.embed(png_of(size)).vector.tobytes() == vector


def png_of(width: int) -> bytes:
    return picture_bytes("PNG", (width, 20))


# ── the documentation ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pictures that the documentation names."""
    for name, size in (("face.jpg", 112), ("a.jpg", 112), ("b.jpg", 150)):
        (tmp_path / name).write_bytes(picture_bytes("JPEG", (size, size)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_examples_in_the_docstrings_run(service: Service, faces: Path, kind: type) -> None:
    with Client(url(service)) as client:
        run_examples(kind, url(service), client)


def run_examples(kind: type, address: str, client: Client) -> None:
    names = {"client": client, **vars(client_package)}
    runner, tests = doctest.DocTestRunner(), doctest.DocTestFinder().find(kind, globs=names)
    assert sum(len(test.examples) for test in tests) >= 4
    shared: dict[str, Any] = dict(names)
    for test in sorted(tests, key=lambda each: each.name):
        for example in test.examples:
            example.source = example.source.replace("http://localhost:5555", address)
        test.globs = shared
        runner.run(test, clear_globs=False)
        shared = test.globs | {"client": names["client"]}
    assert runner.summarize().failed == 0
