"""Promises of errors over HTTP: one table, equal to OpenAPI; each refusal real and useful; nobody else is hurt."""

import ctypes
import inspect
import logging
import resource
import socket
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image as Pillow

from arcface_api import errors
from arcface_api.api.app import DirectApp
from arcface_api.api.openapi import BATCH_ERRORS, EMBED_ERRORS
from arcface_api.api.problems import STATUS_BY_ERROR, answer_to
from pictures import picture_bytes, png_announcing
from serving import Service
from tiny_models import linear_model

FORM_START = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
FORM = "multipart/form-data; boundary=b"
JPEG = picture_bytes()

REQUESTS: dict[str, tuple[int, dict[str, Any], str]] = {
    # code: (status, request, part of the sentence)
    "content_type_unsupported": (
        415,
        {"content": JPEG, "headers": {"Content-Type": "text/plain"}},
        "Content-Type is text/plain. Send multipart/form-data",
    ),
    "multipart_malformed": (
        400,
        {"content": FORM_START + JPEG, "headers": {"Content-Type": FORM}},
        "cut short or not built as RFC 7578",
    ),
    "json_malformed": (400, {"json": [1]}, "is a list, not an object"),
    "base64_invalid": (422, {"json": {"image": "face.jpg"}}, "the name of a file"),
    "file_missing": (422, {"files": {"image": JPEG}}, "no part named file"),
    "file_repeated": (422, {"files": [("file", JPEG), ("file", JPEG)]}, "more than one part named file"),
    "parameter_invalid": (
        422,
        {"files": {"file": JPEG}, "params": {"normalise": "1"}},
        "no query parameter normalise",
    ),
    "parameters_conflict": (
        422,
        {"files": {"file": JPEG}, "params": {"encoding": "base64"}, "headers": {"Accept": "application/x-npy"}},
        "encoding needs a JSON answer",
    ),
    "not_acceptable": (406, {"files": {"file": JPEG}, "headers": {"Accept": "text/html"}}, "application/x-npy"),
    "image_empty": (422, {"files": {"file": b""}}, "0 bytes"),
    "image_format_unsupported": (415, {"files": {"file": b"GIF89a"}}, "a GIF image"),
    "image_too_many_pixels": (413, {"files": {"file": png_announcing(50_000, 50_000)}}, "2,500,000,000 pixels"),
    "image_damaged": (422, {"files": {"file": JPEG[: len(JPEG) // 2]}}, "truncated or corrupt"),
    "attributes_unavailable": (422, {"files": {"file": JPEG}, "params": {"include_attributes": "true"}}, "antelopev2"),
    "landmarks_invalid": (
        422,
        {"files": {"file": JPEG}, "params": {"align": "landmarks"}},
        "needs a form with the part",
    ),
    "fingerprint_differs": (409, {"files": {"file": JPEG}, "headers": {"X-Require-Fingerprint": "0"}}, "embed your"),
    "recipe_differs": (409, {"files": {"file": JPEG}, "headers": {"X-Require-Recipe": "0"}}, "none of this service's"),
    "forbidden": (403, {"files": {"file": JPEG}, "headers": {"Origin": "https://a.example"}}, "ARCFACE_CORS_ORIGINS"),
    "host_not_allowed": (421, {"files": {"file": JPEG}, "headers": {"Host": "a.example"}}, "ARCFACE_ALLOWED_HOSTS"),
    "body_too_large": (
        413,
        {"files": {"file": JPEG + b"\0" * 21_000_000}},
        "larger than the 20,971,520 bytes that an image may have",
    ),
}


def assert_problem(answer: httpx.Response, status: int, code: str, sentence: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "code"}
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert sentence in body["detail"]


@pytest.mark.parametrize("code", REQUESTS)
def test_refusal_has_its_status_code_and_sentence_and_hurts_nobody(service: Service, code: str) -> None:
    status, request, sentence = REQUESTS[code]
    assert_problem(service.post("/embed", **request), status, code, sentence)
    assert service.post("/embed", files={"file": JPEG}).status_code == 200


def test_every_request_error_is_met_above() -> None:
    """Slow uploads, what is no request, API keys, TLS, and an unusual pack have tests of their own."""
    by_request = {error.code for error in EMBED_ERRORS if issubclass(error, errors.RequestError)}
    elsewhere = {"upload_stalled", "request_malformed", "request_head_too_large", "alignment_unavailable"}
    elsewhere |= {"unauthenticated", "client_certificate_missing"}  # test_auth.py, test_tls.py
    assert by_request == {*REQUESTS, *elsewhere}


def test_table_holds_every_error_a_request_can_meet() -> None:
    raised = {
        error
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, errors.RequestError) and "code" in vars(error)
    }
    assert raised <= set(STATUS_BY_ERROR)
    assert set(EMBED_ERRORS) | set(BATCH_ERRORS) == set(STATUS_BY_ERROR)


@pytest.mark.parametrize(("path", "raised"), [("/embed", EMBED_ERRORS), ("/embed/batch", BATCH_ERRORS)])
def test_table_equals_openapi(service: Service, path: str, raised: list[type[errors.ArcFaceError]]) -> None:
    responses = service.get("/openapi.json").json()["paths"][path]["post"]["responses"]
    documented = {
        (int(status), code)
        for status, response in responses.items()
        if status != "200"
        for code in response["content"]["application/problem+json"]["examples"]
    }
    table = {(int(STATUS_BY_ERROR[error]), error.code) for error in raised}
    assert documented == table | {(500, "internal_error")}


def test_service_that_closes_says_when_to_come_back_and_late_answers_are_no_error_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closing = answer_to(errors.ServiceClosing("It closes."))
    assert (closing.status_code, closing.headers["Retry-After"]) == (503, "1")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert answer_to(errors.DeadlineExceeded()).status_code == 503
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_codes_are_unique() -> None:
    codes = [vars(error)["code"] for _, error in inspect.getmembers(errors, inspect.isclass) if "code" in vars(error)]
    assert len(codes) == len(set(codes))


# ── requests that break off, lie or overflow ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tenths", range(1, 10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_picture_cut_anywhere_is_damaged(service: Service, kind: str, tenths: int) -> None:
    content = picture_bytes(kind, (300, 400))
    answer = service.post("/embed", files={"file": content[: len(content) * tenths // 10]})
    assert_problem(answer, 422, "image_damaged", "Send the whole file")


def test_limit_counts_while_the_body_arrives(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    """Without a Content-Length the service must stop reading by itself, and must not keep what it read."""
    service = run_service(tiny_recogniser, max_image_bytes=100_000)
    for headers in ({"Content-Type": "image/png"}, {"Content-Type": FORM}):
        chunks = (chunk for chunk in [FORM_START, *[b"\0" * 10_000] * 50])
        assert_problem(service.post("/embed", content=chunks, headers=headers), 413, "body_too_large", "100,000 bytes")
    assert service.post("/embed", files={"file": JPEG}).status_code == 200


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_bad_uploads_leave_no_memory_behind(service: Service) -> None:
    """Everything refused above, ten times over: kept, it would be 210 MB of uploads and 75 GB of pixels."""

    def resident_mb() -> float:
        ctypes.CDLL(None).malloc_trim(0)  # what is free, in the heap of a process that has run many tests, is not kept
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    def send_all() -> None:
        for _, request, _ in REQUESTS.values():
            service.post("/embed", **request)

    send_all()
    before = resident_mb()
    for _ in range(10):
        send_all()
    assert resident_mb() - before < 60
    assert service.post("/embed", files={"file": JPEG}).status_code == 200


def test_limit_itself_is_allowed(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    exact, short = (run_service(tiny_recogniser, max_image_bytes=len(JPEG) - less) for less in (0, 1))
    for request in ({"files": {"file": JPEG}}, {"content": JPEG, "headers": {"Content-Type": "image/jpeg"}}):
        assert exact.post("/embed", **request).status_code == 200
        assert short.post("/embed", **request).status_code == 413


def test_pixel_limit_is_a_setting(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, max_image_pixels=90 * 120 - 1)
    assert_problem(service.post("/embed", files={"file": JPEG}), 413, "image_too_many_pixels", "90x120 = 10,800 pixels")


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"normalize": "maybe"}, "normalize=maybe is not allowed. Allowed are true, false, 1, 0, yes, no, on, off."),
        ({"encoding": "hex"}, "encoding=hex is not allowed. Allowed are float, base64."),
        ({"resize": "stretch"}, "resize=stretch is not allowed. Allowed are auto, exact."),
        ([("normalize", "true"), ("normalize", "false")], "more than once"),
        (
            {"alignment": "auto"},
            "Allowed are include_attributes, include_quality, include_landmarks, include_crop, flip, normalize, align,"
            " fit, encoding, resize.",
        ),
        (
            {"normalise": "true"},
            "parameter normalise. Did you mean normalize? Allowed are include_attributes, include_",
        ),
        ({"align": "yes"}, "align=yes is not allowed. Allowed are none, auto, landmarks."),
    ],
)
def test_wrong_parameters_are_explained(service: Service, params: Any, sentence: str) -> None:
    assert_problem(service.post("/embed", params=params, files={"file": JPEG}), 422, "parameter_invalid", sentence)


@pytest.mark.parametrize("path", ["/embed", "/embed/batch"])
def test_option_in_the_form_is_refused_and_not_ignored(service: Service, path: str) -> None:
    """As curl -F normalize=true would send it: the caller believes to get a unit vector."""
    part = "files" if path.endswith("batch") else "file"
    answer = service.post(path, files={part: picture_bytes()}, data={"normalize": "true"})
    assert (answer.status_code, answer.json()["code"]) == (422, "parameter_invalid")
    assert answer.json()["detail"].endswith(f"It belongs in the query: {path}?normalize=…")


@pytest.mark.parametrize(
    ("path", "parts", "sentence"),
    [
        (
            "/embed",
            {"image": b"x", "n" * 99: b"x"},
            f"has no part named file, only image, {'n' * 40}. Send the image in it",
        ),
        ("/embed", {}, "has no part named file. Send the image in it"),
        ("/embed", {"files": b"x"}, "A form with files belongs to /embed/batch."),
        ("/embed/batch", {"file": b"x"}, "A form with file belongs to /embed."),
    ],
)
def test_form_without_its_file_is_answered_with_what_came(
    service: Service, path: str, parts: dict[str, bytes], sentence: str
) -> None:
    boundary = b"--b\r\n" if parts else b""
    body = b"".join(
        boundary + f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in parts.items()
    )
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = service.post(path, content=body + b"--b--\r\n", headers=form)
    assert (answer.status_code, answer.json()["code"]) == (422, "file_missing")
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize("name", ["Иванов.jpg".encode("cp1251"), "Иванов.jpg".encode(), b'a"b.jpg', b"\xff\xfe"])
def test_file_name_in_any_encoding_has_no_effect(service: Service, name: bytes) -> None:
    head = FORM_START.replace(b'filename="x"', b'filename="' + name.replace(b'"', b'\\"') + b'"')
    answer = service.post("/embed", content=head + JPEG + b"\r\n--b--\r\n", headers={"Content-Type": FORM})
    assert answer.status_code == 200, answer.text


def test_malformed_form_is_not_quoted_back(service: Service) -> None:
    content = b'--b\r\nContent-Disposition: form-data; name="file"; filename="secret"\r\nsecret pixels\r\n\r\n'
    answer = service.post("/embed", content=content, headers={"Content-Type": FORM})
    assert_problem(answer, 400, "multipart_malformed", "RFC 7578")
    assert "secret" not in answer.text


@pytest.mark.parametrize("content_type", ["image/jpeg", FORM])
def test_stalled_upload_is_ended(service: Service, monkeypatch: pytest.MonkeyPatch, content_type: str) -> None:
    monkeypatch.setattr(service.app.uploads.limits, "upload_silence_seconds", 0.05)
    with socket.create_connection((service.base_url.host, service.base_url.port), timeout=100) as caller:
        head = (
            f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: 9999\r\n\r\n"
        )
        caller.sendall(head.encode() + FORM_START)
        received = b"".join(iter(lambda: caller.recv(4096), b""))  # until the service closes the connection
    assert b" 408 " in received.split(b"\r\n", 1)[0]
    assert b"upload_stalled" in received


@pytest.mark.parametrize("in_pieces", [False, True])
def test_offer_to_upgrade_is_declined_and_never_loses_the_body(service: Service, *, in_pieces: bool) -> None:
    """Java's HttpClient offers h2c with its first request."""
    head = (
        f"POST /embed HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: {len(JPEG)}\r\n"
        "Host: localhost\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\nContent-Type: image/jpeg\r\n\r\n"
    ).encode()
    with socket.create_connection((service.base_url.host, service.base_url.port), timeout=100) as caller:
        for _ in range(2):
            if in_pieces:
                caller.sendall(head[:100])
                time.sleep(0.1)
            caller.sendall(head[100:] + JPEG if in_pieces else head + JPEG)
            received = b""
            while b"input_size" not in received:
                chunk = caller.recv(65536)
                assert chunk, received
                received += chunk
            assert received.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("announced", [99_999_999, None])
def test_body_of_a_refused_request_is_never_read_as_a_request(
    run_service: Callable[..., Service], tiny_recogniser: Path, announced: int | None
) -> None:
    """It may hold what looks like one, with an offer to upgrade; behind a proxy another caller would get its answer."""
    service = run_service(tiny_recogniser, keep_alive_seconds=1)
    about = "HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length:"
    body = f"POST /embed {about} {len(JPEG)}\r\nUpgrade: h2c\r\n\r\n".encode() + JPEG
    head = f"POST {'/embed' if announced else '/embed?unknown=1'} {about} {announced or len(body)}\r\n\r\n"
    with socket.create_connection((service.base_url.host, service.base_url.port), timeout=100) as caller:
        caller.sendall(head.encode())
        received = caller.recv(65536)
        assert received.startswith(b"HTTP/1.1 413" if announced else b"HTTP/1.1 422")
        caller.sendall(body)
        received = b"".join(iter(lambda: caller.recv(65536), b""))  # until the service closes the connection
    assert received == b""


UPGRADED = (
    b"POST /embed?x=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
)


@pytest.mark.parametrize("sent", [b"", b"POST /embed HTTP/1.1\r\nHost:", UPGRADED + b"POST /embed HTTP/1.1\r\nHost:"])
def test_connection_that_sends_no_whole_head_is_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(service.app.connections, "head_seconds", 2)
    with socket.create_connection((service.base_url.host, service.base_url.port), timeout=100) as caller:
        caller.sendall(sent)
        answers = b"".join(iter(lambda: caller.recv(4096), b""))  # until the service closes the connection
    assert answers.count(b"HTTP/1.1 ") == sent.count(b"\r\n\r\n")
    assert service.post("/embed", files={"file": JPEG}).status_code == 200


def test_attributes_cannot_vanish_from_a_binary_answer(run_service: Callable[..., Service], tiny_pack: Path) -> None:
    service = run_service(tiny_pack)
    request = {"files": {"file": JPEG}, "params": {"include_attributes": "true"}}
    answer = service.post("/embed", **request, headers={"Accept": "application/x-npy"})  # type: ignore[arg-type]  # httpx
    assert_problem(answer, 422, "parameters_conflict", "include_attributes needs a JSON answer")


def test_announced_length_is_refused_before_anything_is_sent(service: Service) -> None:
    with socket.create_connection((service.base_url.host, service.base_url.port), timeout=100) as caller:
        caller.sendall(
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert b" 413 " in caller.recv(4096)


def test_what_else_a_form_carries_is_bounded(service: Service) -> None:
    def post(other: bytes) -> int:
        return service.post("/embed", files={"other": (None, other), "file": JPEG}).status_code

    assert post(b"x" * 50_000) == 200
    assert post(b"x" * 21_100_000) == 413


def test_form_without_a_boundary_is_explained(service: Service) -> None:
    answer = service.post("/embed", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert_problem(answer, 400, "multipart_malformed", "names no boundary")


@pytest.mark.parametrize("header", ["Content-Type", "Content-Encoding"])
def test_of_a_long_header_an_answer_quotes_the_beginning(service: Service, header: str) -> None:
    headers = {"Content-Type": "image/png", header: "gzip," + "x" * 9000}
    answer = service.post("/embed", content=JPEG, headers=headers)
    assert_problem(answer, 415, "content_type_unsupported", "gzip,xxx")
    assert len(answer.content) < 1000


def test_form_sent_as_urlencoded_is_explained(service: Service) -> None:
    answer = service.post("/embed", content=JPEG, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert_problem(answer, 415, "content_type_unsupported", "curl -F file=@face.jpg")


def test_unknown_paths_and_methods_are_problems_too(service: Service) -> None:
    assert_problem(service.post("/embed/", files={"file": JPEG}), 404, "not_found", "nothing at /embed/")
    assert_problem(service.get("/nothing"), 404, "not_found", "nothing at /nothing")
    answer = service.get("/embed")
    assert_problem(answer, 405, "method_not_allowed", "/embed takes no GET, only POST")
    assert answer.headers["allow"] == "POST"


# ── a model that breaks ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e38])
def test_vector_that_is_not_finite_or_zero_is_never_a_body(
    run_service: Callable[..., Service], tmp_path: Path, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    """This model fails on white pictures only, and so cannot be found out at start."""
    onnx.save(failing_on_white(value), tmp_path / "broken.onnx")
    service, white = run_service(tmp_path / "broken.onnx"), BytesIO()
    Pillow.new("RGB", (112, 112), "white").save(white, "PNG")
    caplog.clear()
    for accept in ("application/json", "application/octet-stream"):
        answer = service.post("/embed", files={"file": white.getvalue()}, headers={"Accept": accept})
        assert_problem(answer, 500, "embedding_invalid", "cannot be compared")
    assert caplog.text.count("embedding_invalid") == 2, "the operator must see it too"
    assert service.post("/embed", files={"file": JPEG}).status_code == 200


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_model_that_fails_on_every_face_is_refused_at_start(
    make_app: Callable[..., DirectApp], tmp_path: Path, value: float
) -> None:
    onnx.save(linear_model(112, 512, gain=0.0, bias=np.full(512, value, np.float32)), tmp_path / "broken.onnx")
    with pytest.raises(errors.ModelFailed, match="not finite, or zero, for a batch of 1"):
        make_app(tmp_path / "broken.onnx")


def failing_on_white(value: float) -> onnx.ModelProto:
    """The tiny recogniser, whose output is all `value` where the picture is white."""
    model = linear_model(112, 512)
    graph = model.graph
    graph.node[-1].output[0] = "embedding"
    graph.initializer.append(helper.make_tensor("nearly_white", TensorProto.FLOAT, [], [0.999]))
    graph.initializer.append(helper.make_tensor("failure", TensorProto.FLOAT, [], [value]))
    graph.node.append(helper.make_node("ReduceMin", ["flat"], ["darkest"], axes=[1], keepdims=1))
    graph.node.append(helper.make_node("Greater", ["darkest", "nearly_white"], ["is_white"]))
    graph.node.append(helper.make_node("Where", ["is_white", "failure", "embedding"], ["output"]))
    onnx.checker.check_model(model)
    return model
