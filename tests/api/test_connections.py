"""Promises of one connection: heads are bounded, each request has its turn, nothing is read as what it is not."""

import re
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from arcface_api.api import upload
from arcface_api.api.connections import LATE_SECONDS, Connections, GentleTransport
from arcface_api.api.heads import HeadLimits
from arcface_api.api.protocol import HttpProtocol
from arcface_api.api.published import Proxies
from arcface_api.embedder import Picture
from pictures import picture_bytes
from raw_http import Caller, HeldModel, chunked, connections, picture, request, splits, until
from serving import Service

JPEG = picture_bytes()
NOISE = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8))[1].tobytes()
"""Its crop takes 50 kB of an answer."""
OFFER = ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAAB", "Upgrade: h2c")
CHUNKED = ("Content-Type: image/jpeg", "Transfer-Encoding: chunked")
LIVEZ = request("GET /livez")


@pytest.fixture
def uploaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every picture that came, as it came."""
    seen = []
    real = upload.read_image

    async def read_image(*given: Any) -> Picture:
        found = await real(*given)
        seen.append(found.content)
        return found

    monkeypatch.setattr(upload, "read_image", read_image)
    return seen


# ── heads ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def line_of(size: int) -> bytes:
    return request(f"GET /livez?{'q' * (size - len('GET /livez? HTTP/1.1'))}")


def header_of(size: int) -> bytes:
    return request("GET /livez", f"X: {'v' * (size - 3)}")


def head_of(size: int) -> bytes:
    rest = size - len(request("GET /livez", *["X: "] * 5))
    return request("GET /livez", *[f"X: {'v' * (rest // 5)}"] * 4, f"X: {'v' * (rest - rest // 5 * 4)}")


def headers_of(number: int) -> bytes:
    return request("GET /livez", *["X: v"] * (number - 1))


HEADS: dict[str, tuple[Callable[[int], bytes], int, str]] = {
    "line": (line_of, 16_384, "The request line (method, path, query) has more than 16,384 bytes."),
    "header": (header_of, 16_384, "One of the headers has more than 16,384 bytes."),
    "head": (head_of, 65_536, "The request line and headers have more than 65,536 bytes together."),
    "headers": (headers_of, 100, "The request has more than 100 headers."),
}


@pytest.mark.parametrize("is_in_pieces", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_head_at_its_limit_is_read_and_one_beyond_is_refused(
    service: Service, kind: str, *, is_in_pieces: bool
) -> None:
    head_with, limit, sentence = HEADS[kind]
    for size, status in ((limit, 200), (limit + 1, 431)):
        head = head_with(size)
        pieces = [head[at : at + 1000] for at in range(0, len(head), 1000)] if is_in_pieces else [head]
        with Caller(service) as caller:
            caller.send(*pieces)
            answer = caller.answer()
            assert answer.status == status
            if status == 431:
                problem = answer.problem()
                assert (problem["code"], answer.headers["connection"]) == ("request_head_too_large", "close")
                assert problem["detail"].startswith(sentence)
                assert caller.rest() == b""


def test_endless_head_is_answered_at_once_and_its_caller_reads_why(service: Service) -> None:
    """10 MB of `Accept` took the event loop 5 seconds and 0.7 GB. Sent to its end, it is no reset connection."""
    with Caller(service) as caller:
        caller.send(b"GET /livez HTTP/1.1\r\nAccept: ", b"a" * 10_000_000, b"\r\n\r\n")
        assert caller.answer().problem()["code"] == "request_head_too_large"
        assert caller.rest() == b""
    assert service.get("/livez").status_code == 200


def test_head_that_never_ends_is_not_waited_for(service: Service) -> None:
    with Caller(service) as caller:
        caller.send(b"GET /livez HTTP/1.1\r\nAccept: " + b"a" * 16_400)
        assert caller.answer().problem()["code"] == "request_head_too_large"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"HELLO world\r\n",
        b"get / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n",
        b"GET / HTTP/1.1\r\nHost: localhost\n",
        b"GET / HTTP/1.1\r\nHost: localhost\rY: z",
        b"GET / HTTP/3.7\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade : h2c\r\n\r\n",
        b"GET /\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\nY: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\nAccept: */*\r\nhost: localhost\r\n\r\n",
    ],
)
def test_what_cannot_be_a_request_is_a_problem_at_once(service: Service, sent: bytes) -> None:
    """Nothing more is sent, and nothing is closed by the caller: a head that may still come has 30 seconds."""
    with Caller(service) as caller:
        caller.socket.settimeout(100)
        caller.send(sent)
        answer = caller.answer()
        assert (answer.status, answer.problem()["code"]) == (400, "request_malformed")
        assert caller.rest() == b""


@pytest.mark.parametrize("offer", [(), OFFER], ids=["plain", "upgrade"])
@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5, 5",),
        ("Content-Length: +5",),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked, gzip",),
    ],
)
def test_length_that_can_be_read_in_two_ways_is_refused(
    service: Service, headers: tuple[str, ...], offer: tuple[str, ...]
) -> None:
    """By one rule, with an offer to upgrade and without; and what follows is never a request."""
    with Caller(service) as caller:
        caller.send(request("POST /embed", *headers, *offer) + b"0\r\n\r\n" + LIVEZ)
        assert caller.answer().problem()["code"] == "request_malformed"
        assert caller.rest() == b""


# ── offers to upgrade ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["Upgrade", "uPGRADE"])
def test_offer_in_pieces_is_declined_wherever_it_is_cut(service: Service, name: str) -> None:
    head = request("GET /livez", OFFER[0], OFFER[1], f"{name}: h2c")
    with Caller(service) as caller:
        for pieces in splits(head):
            caller.send(*pieces)
            assert caller.answer().status == 200


def test_offers_in_a_pipeline_are_declined_and_bodies_keep_every_byte(service: Service, uploaded: list[Any]) -> None:
    inner = request("POST /embed", *OFFER, body=b"") * 3
    bodies = [JPEG + inner, JPEG, JPEG + b"\r\nUpgrade: h2c\r\n\r\n"]
    with Caller(service) as caller:
        caller.send(b"".join(picture(body, *OFFER) for body in bodies) + request("GET /livez", *OFFER))
        assert [caller.answer().status for _ in range(4)] == [200, 200, 200, 200]
    assert uploaded == bodies


def test_body_in_chunks_ends_where_the_parser_says_and_nowhere_else(service: Service, uploaded: list[Any]) -> None:
    """Its end is an empty line; its content may be made of empty lines and requests."""
    content = JPEG + b"\r\n\r\n" * 5 + LIVEZ + b"0\r\n\r\n" + b"\r\n\r"
    body = chunked(content[:50], content[50:], trailers=b"Content-Type: text/plain\r\nX-Checksum: 1\r\n")
    whole = request("POST /embed", *CHUNKED) + body + request("GET /nothing")
    with Caller(service) as caller:
        for pieces in ([whole], *([whole[:-at], whole[-at:]] for at in range(30, 50)), [bytes([b]) for b in whole]):
            caller.send(*pieces, pause_seconds=0.001)
            assert [caller.answer().status, caller.answer().status] == [200, 404]
    assert uploaded == [content] * 22


@pytest.mark.parametrize(
    "filler", [b"0\r\n" + b"X: " + b"v" * 400_000, b"0\r\n" + b"X: v\r\n" * 80_000, b"1;" + b"e" * 400_000]
)
def test_what_stands_behind_a_body_is_bounded(service: Service, filler: bytes) -> None:
    with Caller(service) as caller:
        caller.send(request("POST /embed", *CHUNKED) + b"1\r\nx\r\n" + filler)
        assert caller.answer().problem()["code"] == "request_head_too_large"
        assert caller.rest() == b""


def test_broken_chunk_ends_its_own_request(service: Service) -> None:
    with Caller(service) as caller:
        caller.send(request("POST /embed", *CHUNKED) + b"3\r\nabc\r\n", b"oops\r\n" + LIVEZ)
        assert caller.answer().problem()["code"] == "request_malformed"
        assert caller.rest() == b""


def test_broken_rest_of_a_refused_body_gets_no_second_answer(service: Service) -> None:
    with Caller(service) as caller:
        caller.send(request("POST /embed?unknown=1", *CHUNKED) + b"3\r\nabc\r\n")
        assert caller.answer().status == 422
        caller.send(b"oops\r\n" + LIVEZ)
        assert caller.rest() == b""


# ── turns ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    paths = ["/livez", "/nothing", "/info"] * 100
    with Caller(service) as caller:
        caller.send(b"\r\n".join(request(f"GET {path}") for path in paths))
        assert [caller.answer().status for _ in paths] == [200, 404, 200] * 100


def test_pipelined_request_is_not_parsed_before_its_turn(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no request: parsed at once, it would take the answer's place."""
    held = HeldModel(monkeypatch)
    with Caller(service) as caller:
        caller.send(picture(JPEG) + b"NOT a request\r\n\r\n")
        assert held.entered.wait(100)
        time.sleep(0.2)
        held.go_on.set()
        assert [caller.answer().status, caller.answer().status] == [200, 400]


def test_what_waits_behind_a_request_is_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exceeds the kernel's buffers and ours stays with the caller."""
    held = HeldModel(monkeypatch)
    with Caller(service) as caller:
        caller.send(picture(JPEG))
        assert held.entered.wait(100)
        caller.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            caller.send(LIVEZ * 2_000_000)
        (connection,) = service._server.server_state.connections
        assert isinstance(connection, HttpProtocol)
        until(lambda: len(connection._unread) > 64 * 1024)
        assert len(connection._unread) < 600_000
        held.go_on.set()
        caller.socket.settimeout(100)
        assert [caller.answer().status, caller.answer().status] == [200, 200]


def test_caller_that_left_behind_a_pipelined_request_costs_the_model_nothing(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run_service(tiny_recogniser, queue_capacity=2, max_batch_files=1)
    held = HeldModel(monkeypatch)

    def is_full() -> bool:
        return service.post("/embed", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 429

    with Caller(service) as first:
        first.send(picture(JPEG))
        assert held.entered.wait(100)
        with Caller(service) as second:
            second.send(picture(JPEG) + LIVEZ)
            until(is_full)
        until(lambda: not is_full())
        held.go_on.set()
        assert first.answer().status == 200


def test_expected_body_is_asked_for_or_its_connection_ends(service: Service) -> None:
    """Refused, a caller may send the body all the same, or its next request: nobody can know which."""
    with Caller(service) as caller:
        head = request(
            "POST /embed", "Content-Type: image/jpeg", "Expect: 100-continue", f"Content-Length: {len(JPEG)}"
        )
        caller.send(head)
        assert caller.answer().status == 100
        caller.send(JPEG)
        assert caller.answer().status == 200
        caller.send(head.replace(b"/embed", b"/embed?unknown=1"))
        refused = caller.answer()
        assert (refused.status, refused.headers["connection"]) == (422, "close")
        assert "keep-alive" not in refused.headers
        caller.send(LIVEZ)
        assert caller.rest() == b""


def test_old_version_and_head_are_answered_as_they_ask(service: Service) -> None:
    with Caller(service) as caller:
        caller.send(request("HEAD /livez") + LIVEZ + b"GET /livez HTTP/1.0\r\n\r\n" + LIVEZ)
        assert caller.answer(has_body=False).status == 200
        assert [caller.answer().body for _ in range(2)] == [b'{"status":"alive","reason":null}'] * 2
        assert caller.rest() == b""


# ── answers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_answer_to_a_picture_is_written_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real = GentleTransport._flush

    def flush(transport: GentleTransport) -> None:
        written.append(b"".join(transport._unsent))
        real(transport)

    monkeypatch.setattr(GentleTransport, "_flush", flush)
    with Caller(service) as caller:
        caller.send(picture(JPEG))
        body = caller.answer().body
    assert len(written) == 1
    assert written[0].endswith(body)


@pytest.mark.parametrize(
    "sent", [picture(JPEG, "Connection: close"), picture(JPEG).replace(b"HTTP/1.1", b"HTTP/1.0", 1)]
)
def test_answer_to_a_picture_ends_the_connection_of_a_caller_that_asks_for_it(service: Service, sent: bytes) -> None:
    with Caller(service) as caller:
        caller.send(sent + LIVEZ)
        answer = caller.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert caller.rest() == b""


def test_answer_to_a_picture_waits_for_a_caller_that_does_not_read(service: Service) -> None:
    with Caller(service) as caller:
        caller.send(LIVEZ)
        assert caller.answer().status == 200
        (connection,) = service._server.server_state.connections
        assert isinstance(connection, HttpProtocol)
        connection.loop.call_soon_threadsafe(connection.pause_writing)
        caller.send(picture(JPEG))
        caller.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            caller.socket.recv(1)
        caller.socket.settimeout(100)
        connection.loop.call_soon_threadsafe(connection.resume_writing)
        assert caller.socket.recv(15) == b"HTTP/1.1 200 OK"


# ── many, and slow ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_connection_too_many_is_refused_and_room_is_given_back(
    run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    service = run_service(tiny_recogniser, max_connections=3)
    with ExitStack() as open_ones:
        callers = [open_ones.enter_context(Caller(service)) for _ in range(3)]
        for _ in range(5):
            with Caller(service) as one_more:
                one_more.send(picture(JPEG + b"\0" * 1_000_000))
                answer = one_more.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert answer.problem()["code"] == "too_many_connections"
                assert "has 3 connections" in answer.problem()["detail"]
                assert one_more.rest() == b""
        for caller in callers:
            caller.send(LIVEZ)
            assert caller.answer().status == 200
    until(lambda: connections(service) == 0)
    assert service.get("/livez").status_code == 200


def test_answer_that_nobody_reads_ends_its_connection(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arcface_api.api.connections.WRITE_SECONDS", 0.3)
    with Caller(service, receive_buffer=4096) as caller:
        caller.send(LIVEZ)
        assert caller.answer().status == 200
        caller.send(request("GET /openapi.json") * 500)
        until(lambda: connections(service) == 0)
    assert service.get("/livez").status_code == 200


def test_answer_that_is_read_slowly_but_steadily_is_sent(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arcface_api.api.connections.WRITE_SECONDS", 5)
    size = len(service.get("/openapi.json").content)
    with Caller(service, receive_buffer=4096) as caller:
        caller.send(request("GET /openapi.json") * 300)
        for _ in range(300):
            assert len(caller.answer().body) == size
            time.sleep(0.03)  # 9 s in all


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_connection_between_requests_is_closed_when_nothing_comes(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("arcface_api.api.protocol.LATE_SECONDS", -0.9)
    with Caller(run_service(tiny_recogniser, keep_alive_seconds=1)) as caller:
        caller.send(LIVEZ)
        assert caller.answer().status == 200
        with suppress(ConnectionError):
            caller.send(sent)
            assert caller.rest() == b""


@pytest.mark.parametrize("settings", [{}, {"keep_alive_seconds": 120}], ids=["default", "set"])
def test_answers_announce_how_long_the_connection_stays_open(
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, int],
) -> None:
    """Longer than the 60 seconds for which most clients and proxies keep one."""
    service = run_service(tiny_recogniser, **settings)
    seconds = settings.get("keep_alive_seconds", 75)
    stays: list[float] = []
    real = HttpProtocol.on_response_complete

    def answered(connection: HttpProtocol) -> None:
        before = connection.loop.time()
        real(connection)
        assert connection.timeout_keep_alive_task is not None
        stays.append(connection.timeout_keep_alive_task.when() - before)

    monkeypatch.setattr(HttpProtocol, "on_response_complete", answered)
    with Caller(service) as caller:
        for sent in (picture(JPEG), LIVEZ, request("GET /nothing"), request("POST /embed?unknown=1", body=b"")):
            caller.send(sent)
            headers = caller.answer().headers
            assert (headers["connection"], headers["keep-alive"]) == ("keep-alive", f"timeout={seconds}")
    assert len(stays) == 4
    assert all(round(each, 3) >= seconds + LATE_SECONDS for each in stays), "a little longer than announced"
    assert min(stays) < seconds + LATE_SECONDS + 1


@pytest.mark.parametrize(
    "sent",
    [
        request("GET /livez", "Connection: close"),
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"NOT a request\r\n\r\n",
    ],
)
def test_answer_that_ends_the_connection_announces_nothing(service: Service, sent: bytes) -> None:
    with Caller(service) as caller:
        caller.send(sent)
        headers = caller.answer().headers
        assert headers["connection"] == "close"
        assert "keep-alive" not in headers
        assert caller.rest() == b""


def test_connection_that_was_idle_longest_makes_room_for_a_new_one(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that has yet to send its first request, nor one whose request is served or has begun."""
    monkeypatch.setattr("arcface_api.api.connections.IDLE_SECONDS", 0)
    service = run_service(tiny_recogniser, max_connections=4)
    idle = service._server.config.app.connections.idle  # type: ignore[union-attr]  # it is a `DirectApp`
    with ExitStack() as open_ones:
        new, first, second, begun = (open_ones.enter_context(Caller(service)) for _ in range(4))
        for caller in (begun, first, second):
            caller.send(LIVEZ)
            assert caller.answer().status == 200
        begun.send(LIVEZ[:9])
        first.send(LIVEZ)  # now `second` has been idle longer
        assert first.answer().status == 200
        until(lambda: len(idle) == 2)
        for closed, still in ((second, 1), (first, 0)):
            one_more = open_ones.enter_context(Caller(service))
            one_more.send(picture(JPEG))
            assert one_more.answer().status == 200
            assert closed.rest() == b""
            assert connections(service) <= 4
            one_more.send(LIVEZ[:9])
            until(lambda still=still: len(idle) == still)  # type: ignore[misc]  # bound now
        refused = open_ones.enter_context(Caller(service))
        refused.send(LIVEZ)
        assert refused.answer().status == 503
        for caller, rest in ((new, LIVEZ), (begun, LIVEZ[9:])):
            caller.send(rest)
            assert caller.answer().status == 200


def test_connection_that_has_just_answered_makes_no_room(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next request may be on its way, and would be lost."""
    monkeypatch.setattr("arcface_api.api.connections.IDLE_SECONDS", 60)
    service = run_service(tiny_recogniser, max_connections=1)
    with Caller(service) as busy:
        for _ in range(3):
            busy.send(LIVEZ)
            assert busy.answer().status == 200
            with Caller(service) as refused:
                refused.send(LIVEZ)
                assert refused.answer().problem()["code"] == "too_many_connections"


def test_callers_who_still_send_do_not_keep_the_service_from_ending(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcface_api.api.connections.LINGER_SECONDS", 600)
    service = run_service(tiny_recogniser)
    with Caller(service) as refused, Caller(service) as rest:
        refused.send(b"NOT a request\r\n\r\n")
        assert refused.answer().status == 400
        rest.send(request("POST /embed?unknown=1", "Content-Length: 999999"))
        assert rest.answer().status == 422
        started = time.monotonic()
        service.stop()
        assert time.monotonic() - started < 60


@pytest.mark.parametrize("is_steady", [False, True], ids=["slow", "long"])
def test_rest_of_a_refused_body_is_not_thrown_away_for_ever(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch, *, is_steady: bool
) -> None:
    # where this test itself pauses, its steady body is slow: that may take 3 s
    monkeypatch.setattr("arcface_api.api.protocol.REST_SECONDS", 3 if is_steady else 0.2)
    service = run_service(tiny_recogniser, upload_timeout_seconds=1)
    started = time.monotonic()
    with Caller(service) as caller:
        caller.send(request("POST /embed?unknown=1", "Content-Length: 999999999"))
        assert caller.answer().status == 422
        with suppress(ConnectionError):
            while time.monotonic() < started + 100:
                caller.send(b"x" * (5000 if is_steady else 5))
                time.sleep(0.02)
    assert (0.9 if is_steady else 0.1) < time.monotonic() - started < 100


# ── work without end ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("before", [b"", LIVEZ], ids=["first", "behind a request"])
def test_empty_lines_without_end_are_no_request(service: Service, before: bytes) -> None:
    """Two connections of them kept the event loop from everybody else."""
    with Caller(service) as caller:
        caller.send(before + b"\r\n" * 3 + LIVEZ)
        for _ in range(2 if before else 1):
            assert caller.answer().status == 200
        with suppress(ConnectionError):
            caller.send(*[b"\r\n" * 100] * 3)
        assert caller.answer().problem()["code"] == "request_malformed"


@pytest.mark.parametrize("path", ["POST /embed", "POST /nope"])
def test_chunks_of_nothing_but_empty_lines_are_refused(service: Service, path: str) -> None:
    with Caller(service) as caller:
        with suppress(ConnectionError):
            caller.send(request(path, *CHUNKED) + b"40000\r\n", *[b"\r\n" * 20_000] * 6)
        first = caller.answer()
        assert first.status in (400, 404)
        assert len(caller.rest()) < 1000, "and nothing more is read on this connection"


# ── one address, and what nobody reads ─────────────────────────────────────────────────────────────────────────────


def test_an_address_has_its_own_limit_which_trusted_proxies_have_not(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcface_api.api.connections.IDLE_SECONDS", 60)
    settings = {"max_connections_per_address": 3, "max_connections": 100}
    limited = run_service(tiny_recogniser, trusted_proxies=frozenset({"10.0.0.1"}), **settings)
    with ExitStack() as open_ones:
        callers = [open_ones.enter_context(Caller(limited)) for _ in range(3)]
        until(lambda: connections(limited) == 3)
        for _ in range(5):
            with Caller(limited) as one_more:
                one_more.send(picture(JPEG))
                answer = one_more.answer()
                assert (answer.status, answer.headers["retry-after"]) == (429, "1")
                assert answer.problem()["code"] == "too_many_connections_from_address"
                assert "has 3 connections" in answer.problem()["detail"]
                assert one_more.rest() == b""
        for caller in callers:
            caller.send(LIVEZ)
            assert caller.answer().status == 200
        until(lambda: len(limited.app.connections.idle) == 3)
        monkeypatch.setattr("arcface_api.api.connections.IDLE_SECONDS", 0)  # from then on an idle one makes room
        with Caller(limited) as one_more:
            one_more.send(LIVEZ)
            assert one_more.answer().status == 200
            assert callers[0].rest() == b""
    until(lambda: not limited.app.connections.by_address)
    exempt = run_service(tiny_recogniser, trusted_proxies=frozenset({"127.0.0.1"}), **settings)
    with ExitStack() as open_ones:
        for caller in [open_ones.enter_context(Caller(exempt)) for _ in range(10)]:
            caller.send(LIVEZ)
            assert caller.answer().status == 200


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 3), "fe80::/64"),
        (("10.0.0.1", 1), ""),
        (None, ""),
        ("", ""),
    ],
)
def test_one_address_is_what_one_caller_has_to_itself(peer: object, address: str) -> None:
    unlimited = Connections(9, 9, 9, 9, HeadLimits(9, 9, 9), 9, 9, is_exempt=Proxies({"10.0.0.0/8"}).trusts_address)
    assert unlimited.address_of(peer) == "", "without the setting nothing is counted"
    assert replace(unlimited, most_per_address=3).address_of(peer) == address


def test_answers_that_nobody_reads_are_bounded_and_the_slowest_readers_are_cut_off(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcface_api.api.connections.WRITE_SECONDS", 3600)  # slow readers have another limit, in time
    service = run_service(
        tiny_recogniser, max_unread_answer_bytes=12_000_000, max_batch_files=200, request_timeout_seconds=600
    )
    shared = service.app.connections
    parts = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="f"\r\n\r\n%b\r\n' % NOISE for _ in range(200)
    )
    big = request(  # is answered with about 10 MB
        "POST /embed/batch?include_crop=true",
        "Content-Type: multipart/form-data; boundary=x",
        body=parts + b"--x--\r\n",
    )
    with ExitStack() as open_ones:
        silent = []
        for number in range(4):
            silent.append(open_ones.enter_context(Caller(service, receive_buffer=4096)))
            silent[-1].send(big)
            until(lambda number=number: shared.cut_off + len(shared.unread) == number + 1)  # type: ignore[misc]  # bound now
            assert sum(each.unread_bytes() for each in shared.unread) <= 12_000_000
        assert shared.cut_off >= 1
        until(lambda: connections(service) == 4 - shared.cut_off)
        size = int(silent[-1].answer(has_body=False).headers["content-length"])
        assert len(silent[-1]._file.read(size)) == size, "the newest is read to its end"
        until(lambda: len(shared.unread) == 3 - shared.cut_off)
    until(lambda: not shared.unread)
    cut_off = re.findall(r"(?m)^arcface_answers_cut_off_total (\S+)$", service.get("/metrics").text)
    assert cut_off == [f"{shared.cut_off}.0"]


def test_limits_of_heads_are_settings(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    settings = {"max_head_bytes": 4_000, "max_header_bytes": 1_000, "max_headers": 20}
    service = run_service(tiny_recogniser, **settings)
    limits = service.get("/info").json()["limits"]
    assert {name: limits[name] for name in settings} == settings
    for make, limit in ((line_of, 1_000), (header_of, 1_000), (head_of, 4_000), (headers_of, 20)):
        for size, status in ((limit, 200), (limit + 1, 431)):
            with Caller(service) as caller:
                caller.send(make(size))
                assert caller.answer().status == status, (make, size)
