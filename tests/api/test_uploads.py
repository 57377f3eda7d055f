"""Promises of uploads: their bytes are counted over all requests and given back, and none takes for ever."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from pictures import picture_bytes
from raw_http import Caller, HeldModel, connections, picture, request, until
from serving import Command, Service

JPEG = picture_bytes()
CAPACITY = 325_000
MOST = 150_000
NEEDED = MOST * 3 // 2 + 64 * 1024 + 1024
"""What one full batch request may bring as JSON, which takes more than a form."""
FORM = "Content-Type: multipart/form-data; boundary=b"


def padded(size: int) -> bytes:
    return JPEG + b"\0" * (size - len(JPEG))


def form(content: bytes, part: str) -> bytes:
    start = f'--b\r\nContent-Disposition: form-data; name="{part}"; filename="x"\r\n\r\n'
    return start.encode() + content + b"\r\n--b--\r\n"


def batch(content: bytes, *headers: str) -> bytes:
    return request("POST /embed/batch", FORM, *headers, body=form(content, "files"))


@pytest.fixture
def run(run_service: Callable[..., Service], tiny_recogniser: Path) -> Callable[..., Service]:
    """A service with little room."""
    limits = {
        "max_image_bytes": MOST,
        "max_batch_bytes": MOST,
        "max_batch_files": 1,
        "max_upload_bytes_inside": CAPACITY,
    }
    return lambda **settings: run_service(tiny_recogniser, **limits | settings)


@pytest.mark.parametrize("is_batch", [False, True], ids=["one", "batch"])
def test_bytes_of_all_uploads_are_counted_as_they_arrive(run: Callable[..., Service], *, is_batch: bool) -> None:
    service = run()
    with Caller(service) as sleeper, Caller(service) as caller:
        sleeper.send(picture(padded(MOST))[:-1])  # announced: one more; there: 149,999
        until(lambda: service.app.uploads.inside_bytes == 149_999)
        for size, status in ((NEEDED - 149_999, 200), (NEEDED - 149_998, 429)):
            if is_batch:
                caller.send(batch(padded(size - len(form(b"", "files")))))
            else:
                caller.send(picture(padded(size)))
            answer = caller.answer()
            assert answer.status == status
        assert answer.headers["retry-after"] == "1"
        assert answer.problem()["code"] == "uploads_full"
        assert f"together they may have {NEEDED:,} bytes" in answer.problem()["detail"]
        sleeper.send(b"\0")
        assert sleeper.answer().status == 200
        caller.send(picture(padded(MOST)))
        assert caller.answer().status == 200, "the connection of a refused upload goes on"


def test_large_uploads_leave_room_for_small_ones(run: Callable[..., Service]) -> None:
    service = run()
    with ExitStack() as callers:
        for size in (MOST, NEEDED - MOST + 2):
            sleeper = callers.enter_context(Caller(service))
            sleeper.send(picture(padded(size))[:-1])
        until(lambda: service.app.uploads.inside_bytes == NEEDED)
        caller = callers.enter_context(Caller(service))
        for size, status in ((CAPACITY - NEEDED, 200), (CAPACITY - NEEDED + 1, 429), (CAPACITY - NEEDED, 200)):
            caller.send(picture(padded(size)))
            assert caller.answer().status == status


def test_room_is_never_too_little_for_one_full_batch(run: Callable[..., Service]) -> None:
    service = run(max_upload_bytes_inside=1)
    with Caller(service) as caller:
        for sent in (batch(padded(MOST)), picture(padded(MOST))):
            caller.send(sent)
            assert caller.answer().status == 200


def _answered(service: Service, sent: bytes, status: int) -> None:
    with Caller(service) as caller:
        caller.send(sent)
        assert caller.answer().status == status


def _left(service: Service, sent: bytes) -> None:
    before = connections(service)
    with Caller(service) as caller:
        caller.send(sent[:-1])
        until(lambda: service.app.uploads.inside_bytes == len(sent[:-1].partition(b"\r\n\r\n")[2]))
    until(lambda: connections(service) <= before)


ENDS: dict[str, Callable[[Service], None]] = {
    "success": lambda service: _answered(service, picture(padded(MOST)), 200),
    "batch": lambda service: _answered(service, batch(padded(MOST)), 200),
    "no picture": lambda service: _answered(service, picture(b"x" * MOST), 415),
    "too large": lambda service: _answered(
        service, request("POST /embed", FORM, body=form(padded(MOST + 1), "file")), 413
    ),
    "no form": lambda service: _answered(service, request("POST /embed", FORM, body=b"x" * MOST), 400),
    "the caller left": lambda service: _left(service, picture(padded(MOST))),
    "the caller of a batch left": lambda service: _left(service, batch(padded(MOST))),
    "stalled": lambda service: _answered(service, picture(padded(MOST))[:-1], 408),
    "deadline": lambda service: _answered(service, picture(padded(MOST), "X-Request-Timeout: 0.2")[:-1], 503),
    "deadline of a batch": lambda service: _answered(service, batch(padded(MOST), "X-Request-Timeout: 0.2")[:-1], 503),
    "broken chunk": lambda service: _answered(
        service,
        request("POST /embed", "Content-Type: image/jpeg", "Transfer-Encoding: chunked")
        + b"%x\r\n%b\r\noops" % (MOST, padded(MOST)),
        400,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_room_is_given_back_however_a_request_ends(
    run: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Kept once, the bytes of one of these would leave no room for the next."""
    service = run()
    for _ in range(3):
        with monkeypatch.context() as patched:
            if end == "stalled":
                patched.setattr(service.app.uploads.limits, "upload_silence_seconds", 0.5)
            ENDS[end](service)
    _answered(service, picture(padded(MOST)), 200)


def test_room_is_given_back_when_a_caller_leaves_an_inference_and_by_those_refused(
    run: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run()
    held = HeldModel(monkeypatch)
    with ExitStack() as callers:
        for _ in range(2):  # the second one does not fit
            caller = callers.enter_context(Caller(service))
            caller.send(picture(padded(MOST)))
        assert held.entered.wait(100)
        assert caller.answer().status == 429
    held.go_on.set()
    until(lambda: connections(service) == 0)
    _answered(service, picture(padded(MOST)), 200)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is returned where the C library is glibc")
def test_memory_of_uploads_that_grew_side_by_side_is_given_back(tiny_recogniser: Path) -> None:
    """glibc keeps what lies between them: without being asked, nearly all of it."""
    command = Command("--pack", tiny_recogniser, "--max-upload-bytes-inside", "300000000")  # with a heap of its own
    with ExitStack() as callers:
        callers.callback(command.stop)
        service = callers.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{command.port}", timeout=100))
        process = psutil.Process(command.process.pid)
        service.post("/embed", content=bytes(19_000_000), headers={"Content-Type": "image/jpeg"})  # glibc's limit grows
        before = process.memory_info().rss
        with ExitStack() as uploads:
            sleepers = [uploads.enter_context(Caller(service)) for _ in range(100)]
            for sleeper in sleepers:
                sleeper.send(request("POST /embed", "Content-Type: image/jpeg", "Content-Length: 2000000"))
            for _ in range(18):
                for sleeper in sleepers:
                    sleeper.send(b"x" * 100_000)
            until(lambda: process.memory_info().rss - before > 150e6)
        until(lambda: process.memory_info().rss - before < 40e6)


# ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def answer_to_dribble(service: Service, sent: bytes) -> tuple[float, str]:
    """Send a byte of the body each 20 ms until there is an answer. How many seconds that took, and the answer."""
    head, end, body = sent.partition(b"\r\n\r\n")
    with Caller(service) as caller:
        started = time.monotonic()
        caller.send(head + end)
        caller.socket.settimeout(0.02)
        for byte in body:
            assert time.monotonic() < started + 100, "no answer"
            caller.send(bytes([byte]))
            with suppress(TimeoutError):
                return time.monotonic() - started, caller.socket.recv(65536).decode()
    raise AssertionError("no answer")


@pytest.mark.parametrize("is_batch", [False, True], ids=["one", "batch"])
@pytest.mark.parametrize(
    ("settings", "header", "status", "sentence", "least"),
    [
        ({}, "A: b", 408, "The upload is slower than 1,024 bytes a second", 0.5),
        ({"upload_timeout_seconds": 0.4}, "A: b", 408, "took longer than the 0.4 s allowed", 0.4),
        ({}, "X-Request-Timeout: 0.4", 503, "within the time allowed", 0.4),
        ({"request_timeout_seconds": 0.4}, "A: b", 503, "within the time allowed", 0.4),
    ],
)
def test_upload_that_comes_byte_by_byte_is_ended(  # each is a fact of the case
    run: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, float],
    header: str,
    status: int,
    sentence: str,
    least: float,
    *,
    is_batch: bool,
) -> None:
    """It is never silent for long."""
    monkeypatch.setattr("arcface_api.api.upload.SLOW_START_SECONDS", 0.5)
    service = run(**settings)
    sent = batch(padded(MOST), header) if is_batch else picture(padded(MOST), header)
    took, answer = answer_to_dribble(service, sent)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert sentence in answer
    assert took > least - 0.1


def test_steady_upload_may_take_longer_than_the_slow_start(
    run: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcface_api.api.upload.SLOW_START_SECONDS", 0.1)
    service = run(upload_min_bytes_per_second=1000)  # so a pause of this test's own does no harm
    sent = picture(padded(MOST))
    with Caller(service) as caller:
        for at in range(0, len(sent), 3000):
            caller.send(sent[at : at + 3000])
            time.sleep(0.02)
        assert caller.answer().status == 200
