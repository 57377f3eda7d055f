"""Promises of JSON bodies: the same pictures and limits as in a form, and every mistake gets its sentence."""

import base64
import json
import resource
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from pictures import picture_bytes
from raw_http import Caller, request
from serving import Service

JPEG, PNG = picture_bytes(), picture_bytes("PNG", (61, 47))
JPEG += b"\0" * (len(JPEG) % 3 == 0)  # so that its base64 ends with =
TEXT = base64.b64encode(JPEG).decode()
POINTS = [[30.0, 40.0], [60.0, 40.0], [45.0, 60.0], [33.0, 80.0], [57.0, 80.0]]
IMAGE, IMAGES = '{"image": "<base64>"}', '{"images": ["<base64>", …]}'


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def post(service: Service, body: object, path: str = "/embed", **query: str) -> httpx.Response:
    """`body` as JSON, or as it is if it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.post(path, content=content, headers={"Content-Type": "application/json"}, params=query)


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    problem = answer.json()
    return answer.status_code, problem["code"], problem["detail"]


def wrapped(text: str, ends: str = "\n") -> str:
    return ends.join(text[at : at + 76] for at in range(0, len(text), 76)) + ends


# ── what is read ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        wrapped(TEXT),
        wrapped(TEXT, "\r\n"),
        f"  {TEXT}\n",
        TEXT.replace("+", "-").replace("/", "_"),
        TEXT.replace("+", "-").replace("/", "_").rstrip("="),
        f"data:image/jpeg;base64,{TEXT}",
        f"data:image/jpeg;charset=utf-8;base64,{wrapped(TEXT)}",
        f"DATA:application/octet-stream;BASE64, {TEXT.rstrip('=')}",
    ],
    ids=range(10),
)
def test_base64_of_every_writer_gives_the_bytes_of_the_form(service: Service, text: str) -> None:
    assert {"+", "/", "="} <= set(TEXT), "the picture tests nothing otherwise"
    answer = post(service, {"image": text})
    assert answer.status_code == 200, answer.text
    assert answer.content == service.post("/embed", files={"file": JPEG}).content


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"image": "%b"}' % TEXT.encode(),
        b'{"image": "%b"}' % TEXT.replace("/", "\\/").encode(),  # PHP
        b'{"image": "%b"}' % TEXT.replace("+", "\\u002B").encode(),  # .NET
        b'{"image": "%b", "landmarks": null}' % TEXT.encode(),
    ],
    ids=["byte-order mark", "PHP", ".NET", "null"],
)
def test_json_of_every_writer_is_read(service: Service, body: bytes) -> None:
    answer = post(service, body)
    assert answer.status_code == 200, answer.text
    assert answer.content == service.post("/embed", files={"file": JPEG}).content


def test_content_type_may_have_parameters(service: Service) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert service.post("/embed", json={"image": TEXT}, headers=headers).status_code == 200


def test_options_and_landmarks_are_those_of_the_form(service: Service) -> None:
    query = {"align": "landmarks", "normalize": "true"}
    answer = post(service, {"image": TEXT, "landmarks": POINTS}, **query)
    form = service.post("/embed", files={"file": JPEG}, data={"landmarks": json.dumps(POINTS)}, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.content == form.content
    assert answer.headers["x-embedding-recipe"] == form.headers["x-embedding-recipe"]


def test_batch_is_that_of_the_form(service: Service) -> None:
    query = {"align": "landmarks"}
    points = [POINTS, [[1, 2]], POINTS]
    answer = post(service, {"images": [b64(JPEG), b64(PNG), b64(JPEG)], "landmarks": points}, "/embed/batch", **query)
    files = [("files", content) for content in (JPEG, PNG, JPEG)]
    form = service.post("/embed/batch", files=files, data={"landmarks": json.dumps(points)}, params=query)
    assert answer.json() == form.json()
    assert [result.get("problem", {}).get("code") for result in answer.json()["results"]] == [
        None,
        "landmarks_invalid",
        None,
    ]


def test_one_bad_picture_costs_only_itself(service: Service) -> None:
    images = [TEXT, "https://example.org/face.jpg", b64(b"GIF89a"), 7, "", TEXT]
    answer = post(service, {"images": images}, "/embed/batch")
    results = answer.json()["results"]
    assert [result.get("problem", {}).get("code") for result in results] == [
        None,
        "base64_invalid",
        "image_format_unsupported",
        "base64_invalid",
        "image_empty",
        None,
    ]
    assert "images[1] is not base64: it is a URL, and this service fetches no URLs" in results[1]["problem"]["detail"]
    assert "images[3] is a number, not a string" in results[3]["problem"]["detail"]
    assert results[5]["embedding"] == results[0]["embedding"]
    assert answer.headers["x-embedding-valid"] == "100001"


# ── mistakes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        (b"", 400, "json_malformed", f"The body is empty. Send {IMAGE} in UTF-8."),
        (b"{image: x}", 400, "json_malformed", "not JSON, from character 2 on"),
        (b'{"image": "AAAA', 400, "json_malformed", "not JSON, from character"),
        (b'{"image": "AAAA\n"}', 400, "json_malformed", "not JSON, from character"),
        (b'"%b"' % TEXT.encode(), 400, "json_malformed", "is a string, not an object"),
        ([TEXT], 400, "json_malformed", "is a list, not an object"),
        (json.dumps({"image": TEXT}).encode("utf-16"), 400, "json_malformed", "UTF-16 or UTF-32, but JSON is UTF-8"),
        (json.dumps({"image": TEXT}).encode("utf-16-le"), 400, "json_malformed", "UTF-16 or UTF-32"),
        (json.dumps({"image": TEXT}).encode("utf-32-be"), 400, "json_malformed", "UTF-16 or UTF-32"),
        ('{"image": "ÿØÿà"}'.encode(), 400, "json_malformed", "characters other than ASCII"),
        ('{"image": "ÿØÿà"}'.encode("latin-1"), 400, "json_malformed", "characters other than ASCII"),
        ({"image": list(JPEG)}, 400, "json_malformed", "one string, not a list of numbers"),
        ({"type": "Buffer", "data": list(JPEG)}, 400, "json_malformed", "one string, not a list of numbers"),
        ({}, 422, "file_missing", f"no key image. Send {IMAGE}"),
        ({"file": TEXT, "id": 7}, 422, "file_missing", f"no key image, only file, id. Send {IMAGE}"),
        ({"x" * 1000: TEXT}, 422, "file_missing", f"only {'x' * 40}. Send"),
        ({"images": [TEXT]}, 422, "file_missing", "no key image. JSON with images belongs to /embed/batch."),
        (b'{"image": "%b", "image": "%b"}' % (TEXT.encode(), TEXT.encode()), 422, "file_repeated", "more than one key"),
        ({"image": TEXT, "id": 7}, 422, "parameter_invalid", "no key id. Allowed are image and landmarks"),
        (
            {"image": TEXT, "landmark": []},
            422,
            "parameter_invalid",
            "landmark. Did you mean landmarks? Allowed are",
        ),
        ({"image": TEXT, "align": "auto"}, 422, "parameter_invalid", "belongs in the query: /embed?align=…"),
        ({"image": None}, 422, "base64_invalid", "image is null, not a string"),
        ({"image": 7}, 422, "base64_invalid", "image is a number, not a string"),
        ({"image": True}, 422, "base64_invalid", "image is a truth value, not a string"),
        ({"image": [1, 2]}, 422, "base64_invalid", "image is a list, not a string"),
        ({"image": {"data": TEXT}}, 422, "base64_invalid", "image is an object, not a string"),
        ({"image": "https://a.example/face.jpg"}, 422, "base64_invalid", "this service fetches no URLs"),
        ({"image": "s3://bucket/face"}, 422, "base64_invalid", "this service fetches no URLs"),
        ({"image": "/data/face.jpg"}, 422, "base64_invalid", "name of a file, and this service opens no files"),
        ({"image": "C:\\my faces\\a.PNG"}, 422, "base64_invalid", "name of a file"),
        ({"image": "@face.jpg"}, 422, "base64_invalid", "name of a file"),
        ({"image": f"b'{TEXT}'"}, 422, "base64_invalid", ".decode()"),
        ({"image": TEXT.replace("+", " ")}, 422, "base64_invalid", "has spaces, which a + becomes"),
        ({"image": TEXT.replace("+", "%2B")}, 422, "base64_invalid", f"character {TEXT.index('+') + 1:,} is not in"),
        ({"image": f"{TEXT[:40]}*{TEXT[41:]}"}, 422, "base64_invalid", "character 41 is not in its alphabet"),
        ({"image": TEXT.replace("+", "-")}, 422, "base64_invalid", "mixes both alphabets"),
        ({"image": TEXT[:41]}, 422, "base64_invalid", "cut short"),
        ({"image": TEXT + TEXT}, 422, "base64_invalid", "has = before its end"),
        ({"image": "data:image/jpeg,%FF%D8"}, 422, "base64_invalid", "a data: URL without ;base64,"),
        ({"image": f"data:image/jpeg;base64;{TEXT}"}, 422, "base64_invalid", "a data: URL without ;base64,"),
        ({"image": "\ud83d\ude00"}, 422, "base64_invalid", "character 1 is not in its alphabet"),
        ({"image": TEXT[: len(TEXT) // 8 * 4]}, 422, "image_damaged", "truncated or corrupt"),
        ({"image": ""}, 422, "image_empty", "0 bytes"),
        ({"image": TEXT, "landmarks": POINTS}, 422, "parameters_conflict", "align=landmarks to the query"),
    ],
)
def test_mistake_gets_its_sentence(service: Service, body: object, status: int, code: str, sentence: str) -> None:
    found = refusal(post(service, body))
    assert found[:2] == (status, code), found
    assert sentence in found[2]
    assert TEXT[:30] not in found[2], "a picture must not be quoted"


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        (b"[1", 400, "json_malformed", IMAGES),
        ({"images": TEXT}, 400, "json_malformed", "The key images is a string, not a list"),
        ({"images": []}, 422, "file_missing", f"The list images is empty. Send {IMAGES}"),
        ({"image": TEXT}, 422, "file_missing", "no key images. JSON with image belongs to /embed."),
        ({"images": [TEXT] * 65}, 413, "too_many_files", "more than 64 pictures"),
        ({"images": [TEXT], "flip": True}, 422, "parameter_invalid", "/embed/batch?flip=…"),
    ],
)
def test_mistake_in_a_batch_gets_its_sentence(
    service: Service, body: object, status: int, code: str, sentence: str
) -> None:
    found = refusal(post(service, body, "/embed/batch"))
    assert found[:2] == (status, code), found
    assert sentence in found[2]


@pytest.mark.parametrize(
    ("landmarks", "sentence"),
    [
        ("[[1,2]]", "pairs of numbers"),
        ([[1, 2]], "shape (1, 2)"),
        ({"left_eye": [1, 2]}, "pairs of numbers"),
        (None, "JSON with the key landmarks"),
    ],
)
def test_bad_landmarks_are_refused(service: Service, landmarks: object, sentence: str) -> None:
    found = refusal(post(service, {"image": TEXT, "landmarks": landmarks}, align="landmarks"))
    assert found[:2] == (422, "landmarks_invalid")
    assert sentence in found[2]


def test_batch_needs_landmarks_for_each_picture(service: Service) -> None:
    found = refusal(post(service, {"images": [TEXT] * 2, "landmarks": POINTS}, "/embed/batch", align="landmarks"))
    assert found[:2] == (422, "landmarks_invalid")
    assert "a list of 5, but 2 files" in found[2]


@pytest.mark.parametrize("path", ["/embed", "/embed/batch"])
def test_other_bodies_learn_that_json_is_read(service: Service, path: str) -> None:
    answer = service.post(path, content=TEXT, headers={"Content-Type": "text/plain"})
    assert refusal(answer)[:2] == (415, "content_type_unsupported")
    assert (IMAGE if path == "/embed" else IMAGES) in refusal(answer)[2]


def test_json_without_its_content_type_is_named(service: Service) -> None:
    answer = service.post("/embed", json={"image": TEXT}, headers={"Content-Type": "application/octet-stream"})
    assert refusal(answer)[:2] == (415, "image_format_unsupported")
    assert "application/json" in refusal(answer)[2]


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MOST = 150_000
"""Bytes of a picture, and of the pictures of a batch."""


@pytest.fixture
def small(run_service: Callable[..., Service], tiny_recogniser: Path) -> Service:
    return run_service(tiny_recogniser, max_image_bytes=MOST, max_batch_bytes=MOST, max_upload_bytes_inside=1)


def padded(size: int) -> bytes:
    return JPEG + b"\0" * (size - len(JPEG))


@pytest.mark.parametrize("write", [b64, lambda content: wrapped(b64(content), "\r\n")], ids=["plain", "wrapped"])
def test_limit_of_a_picture_is_that_of_its_bytes(small: Service, write: Callable[[bytes], str]) -> None:
    """Not of its text. Room is never too little for one."""
    assert post(small, {"image": write(padded(MOST))}).status_code == 200
    assert post(small, {"images": [write(padded(MOST))]}, "/embed/batch").status_code == 200
    assert refusal(post(small, {"image": write(padded(MOST + 1))}))[:2] == (413, "body_too_large")


def test_limit_of_a_batch_is_that_of_all_bytes(small: Service) -> None:
    half = MOST // 2
    assert post(small, {"images": [b64(padded(half))] * 2}, "/embed/batch").status_code == 200
    answer = post(small, {"images": [b64(padded(half)), b64(padded(half + 1))]}, "/embed/batch")
    assert refusal(answer)[:2] == (413, "body_too_large")
    assert "ARCFACE_MAX_BATCH_BYTES" in refusal(answer)[2]


def test_picture_of_a_batch_that_is_too_large_costs_only_itself(
    run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    service = run_service(tiny_recogniser, max_image_bytes=len(JPEG))
    results = post(service, {"images": [b64(JPEG + b"\0"), TEXT]}, "/embed/batch").json()["results"]
    assert results[0]["problem"]["code"] == "body_too_large"
    assert "embedding" in results[1]


@pytest.mark.parametrize("path", ["/embed", "/embed/batch"])
def test_more_text_than_any_picture_needs_is_refused_before_it_is_read(small: Service, path: str) -> None:
    with Caller(small) as caller:
        head = request(f"POST {path}", "Content-Type: application/json", "Content-Length: 400000")
        caller.send(head + b'{"image": "')
        answer = caller.answer()
    assert (answer.status, answer.problem()["code"]) == (413, "body_too_large")


def test_text_counts_as_uploaded_bytes(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, max_image_bytes=MOST, max_batch_bytes=MOST, max_upload_bytes_inside=400_000)
    text = b'{"image": "%b"}' % b64(padded(MOST)).encode()
    with Caller(service) as sleeper, Caller(service) as caller:
        sleeper.send(request("POST /embed", "Content-Type: application/json", body=text)[:-1])
        caller.send(request("POST /embed", "Content-Type: application/json", body=text))
        answer = caller.answer()
        assert (answer.status, answer.problem()["code"]) == (429, "uploads_full")
        sleeper.send(b"}")
        assert sleeper.answer().status == 200


@pytest.mark.parametrize("value", [b"[],", b"{},", b"0,", b'{"a":'], ids=["lists", "objects", "numbers", "nested"])
def test_json_that_would_grow_is_refused_before_it_is_parsed(service: Service, value: bytes) -> None:
    """Ten million brackets become half a gigabyte of lists."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = post(service, b'{"image": [' + value * (20_000_000 // len(value)))
    assert refusal(answer)[:2] == (400, "json_malformed")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB; client and service are one
