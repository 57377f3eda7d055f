"""Targets: the HTTP protocol with its heads and bodies, and the reader of uploads. Both get their bytes in pieces.

An input's first line says how it is cut, each byte a piece's length. How it is cut must not change the answers.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

import uvicorn
import uvloop
from fastapi import Request
from uvicorn.server import ServerState

from arcface_api.api.answers import LimitsInfo
from arcface_api.api.connections import Connections
from arcface_api.api.heads import HeadLimits
from arcface_api.api.problems import STATUS_BY_ERROR
from arcface_api.api.protocol import HttpProtocol
from arcface_api.api.upload import Uploads, read_image, read_images
from arcface_api.embedder import Picture
from arcface_api.errors import ArcFaceError
from arcface_api.wire import Align
from fuzz.target import Target

T = TypeVar("T")
_LIMITS = LimitsInfo(
    max_image_bytes=8000,
    max_image_pixels=1_000_000,
    max_batch_files=4,
    max_batch_bytes=20_000,
    max_upload_bytes_inside=60_000,
    upload_timeout_seconds=600,
    upload_silence_seconds=600,
    upload_min_bytes_per_second=1,
    decode_timeout_seconds=600,
    max_head_bytes=64 * 1024,
    max_header_bytes=16 * 1024,
    max_headers=100,
    head_timeout_seconds=600,
    keep_alive_seconds=60,
    max_connections=10,
    max_connections_per_address=None,
    max_unread_answer_bytes=1_000_000,
    queue_capacity=10,
    request_timeout_seconds=600,
    rate_limit=None,
    hang_seconds=600,
)
_PATIENCE = 200
"""Turns of the event loop for what needs a few."""
_loop: asyncio.AbstractEventLoop | None = None


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on one loop, which outlives the input: a new one takes longer than the work."""
    global _loop  # noqa: PLW0603  # made where it is needed first
    if _loop is None:
        _loop = uvloop.new_event_loop()
    return _loop.run_until_complete(work)


def _cut(content: bytes, lengths: bytes) -> list[bytes]:
    pieces = []
    for length in lengths:
        piece, content = content[: 1 + length], content[1 + length :]
        pieces.append(piece)
    return [piece for piece in (*pieces, content) if piece]


# ── uploads ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_upload(content: bytes) -> str:
    """`upload.read_image` and `read_images`: the multipart form, JSON or picture of a request.

    Its first line is `o` (one picture) or `m` (many), the place of `align`, and how the body is cut. Its headers
    follow, then an empty line, then its body.

    Raises:
        AssertionError: It depends on how the body is cut, bytes stay counted, or an error is not a declared one.
    """
    head, _, body = content.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines[:9])]
    align = list(Align)[sum(first[1:2]) % len(Align)]
    outcome, *others = _run(_read_both(headers, body, first[2:], is_batch=first[:1] == b"m", align=align))
    # the form's parser passes over some junk around parts, or refuses it, as it comes in pieces
    agreed = [each for each in (outcome, *others) if each[0] != "MultipartMalformed"]
    assert all(each == agreed[0] for each in agreed), (outcome, others)
    return outcome[0] if isinstance(outcome, tuple) else f"{len(outcome)} pictures"


async def _read_both(headers: list[tuple[bytes, bytes]], body: bytes, lengths: bytes, **options: Any) -> list[Any]:
    pieces = _cut(body, lengths)
    return [await _read(headers, each, **options) for each in ([pieces, [body]] if len(pieces) > 1 else [pieces])]


async def _read(
    headers: list[tuple[bytes, bytes]], pieces: list[bytes], *, is_batch: bool, align: Align
) -> list[Any] | tuple[str, str]:
    waiting = [*pieces, b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    uploads = Uploads(_LIMITS)
    path = "/embed/batch" if is_batch else "/embed"
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    try:
        with uploads.body(Request(scope, receive), asyncio.get_running_loop().time() + 600) as body:
            if is_batch:
                read = await read_images(body.request, body, align)
            else:
                read = [await read_image(body.request, body, align)]
    except ArcFaceError as error:
        assert type(error) in STATUS_BY_ERROR, error
        assert str(error)
        assert len(str(error)) < 2000, error
        return type(error).__name__, str(error)
    finally:
        assert uploads.inside_bytes == 0
    return [(each.content, each.landmarks) if isinstance(each, Picture) else repr(each) for each in read]


def upload_seeds() -> Iterator[bytes]:
    """Forms, JSON and pictures, of one and of many, and what clients send with them."""
    part = (
        b'--B\r\nContent-Disposition: form-data; name="%b"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n%b\r\n'
    )
    points = b"[[38,52],[74,52],[56,72],[42,92],[71,92]]"
    landmarks = b'--B\r\nContent-Disposition: form-data; name="landmarks"\r\n\r\n%b\r\n'
    form, json, cuts = (
        b"Content-Type: multipart/form-data; boundary=B",
        b"Content-Type: application/json",
        b"\x05\x40\x01",
    )
    one = part % (b"file", b"\xff\xd8pixels") + b"--B--\r\n"
    many = part % (b"files", b"one") + part % (b"files", b"two") + b"--B--"
    yield b"o\0" + cuts + b"\n" + form + b"\n\n" + one
    yield b"m\0" + cuts + b"\n" + form + b"\nContent-Length: 500\n\n" + many
    yield b"o\2\n" + form + b"\n\n" + landmarks % points + one
    yield b"m\2\n" + form + b"\n\n" + landmarks % (b"[" + points + b"," + points + b"]") + many
    yield b"o\0\n" + form + b"\n\n" + part % (b"align", b"auto") + part % (b"other", b"text") + b"--B--"
    yield b"o\0\n" + b'Content-Type: multipart/form-data; charset=x; boundary="a b=c"\n\n--a b=c\r\n\r\n--a b=c--'
    yield (
        b"o\0\n"
        + form
        + b"\n\n"
        + part.replace(b"; filename", b"; filename*=UTF-8''%%e2; x") % (b"file", b"")
        + b"--B--"
    )
    yield b"o\0" + cuts + b"\n" + json + b'\n\n{"image": "/9j/4AAQSkZJRg=="}'
    yield b"o\2\n" + json + b'\n\n{"image": "data:image/png;base64,_9j-4A", "landmarks": ' + points + b"}"
    yield b"m\0\n" + json + b'; charset=utf-8\n\n\xef\xbb\xbf{"images": ["AAAA", "AA==\\n", 3, "https://x"]}'
    yield b"m\2\n" + json + b'\n\n{"images": ["AAAA"], "landmarks": [' + points + b"]}"
    yield b"o\0" + cuts + b"\nContent-Type: image/jpeg\n\n\xff\xd8\xff\xe0pixels"
    yield b"o\0\nContent-Type: image/png\nContent-Encoding: gzip\n\nbytes"
    yield b"o\1\n\n\xff\xd8"
    yield b"o\0\nContent-Type: text/plain\n\n"
    yield b"m\0\n" + form + b"\n\n" + (part % (b"files", b"x" * 300)) * 5 + b"--B--"
    yield b"o\0\n" + form + b"\n\n" + part % (b"file", b"x" * 9000) + b"--B--"


# ── the protocol ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _App:
    """Notes each request, and answers with the size of its body, or at once where the path says so."""

    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    connections: Connections = field(
        default_factory=lambda: Connections(4, 60, 60, 1, HeadLimits(64 * 1024, 16 * 1024, 100), 600, 1_000_000)
    )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, has_more = b"", not scope["path"].startswith("/at-once")
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, has_more = body + message["body"], message["more_body"]
        self.requests.append((scope["method"], scope["path"], body))
        content = b"%d" % len(body)
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


class _Wire(asyncio.Transport):
    """The other end of a connection, which reads at once."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        super().__init__()
        self.written, self.is_closed, self.is_paused, self._on_closed = b"", False, False, on_closed

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None:
        pass  # what is read then is dropped

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self._on_closed)

    abort = close

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return 0


_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n((?:[^\r\n]+\r\n)*)\r\n", re.DOTALL)
_STATUSES = {b"200", b"400", b"431"}


def serve_connection(content: bytes) -> str:
    """`HttpProtocol` with what a connection sends: heads, bodies with a length or in chunks, pipelined or malformed.

    Raises:
        AssertionError: An answer is malformed or has another status than 200, 400 or 431; a task, a connection or
            reading hangs; or requests or answers depend on how the bytes are cut.
    """
    lengths, _, stream = content.partition(b"\n")
    pieces = _cut(stream, lengths)
    requests, statuses = _run(_serve(pieces))
    if len(pieces) > 1 and b"/at-once" not in stream:  # that may be answered before the rest of it is refused
        again = _run(_serve([stream]))
        # of two things that are wrong, the first to arrive is named
        assert (requests, _kinds(statuses)) == (again[0], _kinds(again[1])), (requests, statuses, again)
    return " ".join(sorted(set(statuses))) or "nothing"


@cache
def _config() -> uvicorn.Config:
    """Loaded once, which takes milliseconds."""
    config = uvicorn.Config(
        cast("Any", _App()), http=HttpProtocol, ws="none", log_config=None, access_log=False, proxy_headers=False
    )
    config.load()
    return config


async def _serve(pieces: list[bytes]) -> tuple[list[tuple[str, str, bytes]], list[str]]:
    loop, app, failures = asyncio.get_running_loop(), _App(), list[Any]()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    config = _config()
    config.app = config.loaded_app = cast("Any", app)
    state = ServerState()
    protocol = HttpProtocol(config=config, server_state=state, app_state={}, _loop=loop)
    lost: list[None] = []

    def lose() -> None:
        if not lost:
            lost.append(None)
            protocol.connection_lost(None)

    wire = _Wire(lose)
    protocol.connection_made(wire)
    for piece in pieces:
        await _until(lambda: not wire.is_paused or wire.is_closed)
        if wire.is_closed:
            break
        protocol.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(_PATIENCE):  # a task that awaits the rest of its body stays
        before = len(wire.written), len(app.requests), len(state.tasks)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if before == (len(wire.written), len(app.requests), len(state.tasks)):
            break
    answers = _answers(wire.written, [method for method, *_ in app.requests])
    lose()
    await _until(lambda: not state.tasks)
    assert not failures, failures
    assert not state.connections
    assert app.connections.open == app.connections.lingering == len(app.connections.idle) == 0, app.connections
    return app.requests, answers


def _kinds(statuses: list[str]) -> list[str]:
    return [status[0] for status in statuses]


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(_PATIENCE):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("the connection hangs")


def _answers(written: bytes, methods: list[str]) -> list[str]:
    """The statuses of well-formed answers; `methods` are those of the requests."""
    found, position = list[str](), 0
    while position < len(written):
        answer = _ANSWER.match(written, position)
        assert answer is not None, written[position:]
        position = answer.end()
        if answer[1] == b"100":
            continue
        assert answer[1] in _STATUSES, answer[0]
        length = re.search(rb"(?i)^content-length: (\d+)\r$", answer[2], re.MULTILINE)
        assert length is not None, answer[0]
        is_head = answer[1] == b"200" and len(found) < len(methods) and methods[len(found)] == "HEAD"
        position += 0 if is_head else int(length[1])
        found.append(answer[1].decode())
    assert position == len(written), written
    return found


def connection_seeds() -> Iterator[bytes]:
    """Requests alone and pipelined, with every kind of body, and shapes that smuggle others."""
    get, post = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /embed HTTP/1.1\r\nHost: x\r\n%b\r\n%b"
    length, chunked = b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"
    chunks = b"5\r\nhello\r\n3;name=value\r\n\r\n\n\r\n0\r\nTrailer: x\r\n\r\n"
    streams = [
        get,
        get + get + b"HEAD /at-once HTTP/1.1\r\n\r\n" + get,
        b"\r\n\r\n" + get,
        post % (length % 5, b"hello") + get,
        post % (chunked, chunks) + get,
        post % (length % 5 + chunked, chunks) + get,
        post % (chunked + length % 5, chunks),
        post % (length % 5 + length % 6, b"hello!") + get,
        post % (b"Expect: 100-continue\r\n" + length % 2, b"ok") + get,
        post % (b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + length % 2, b"ok") + get,
        post % (b"Connection: close\r\n" + length % 2, b"ok") + get,
        post % (b"Content-Length : 3\r\n", b"abc"),
        post % (b"Transfer-Encoding: identity, chunked\r\n", chunks),
        b"POST /at-once HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nlong body" + get,
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + get,
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get,
        b"GET /?%b HTTP/1.1\r\n%b\r\n" % (b"q" * 300, b"A: b\r\n" * 101),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff%zz HTTP/1.1\nHost: x\n\n",
        post % (chunked, b"ffffffffffffffff\r\nx"),
        post % (chunked, b"1\r\n\n\r\n" * 30 + b"0\r\n\r\n") + get,
    ]
    for number, stream in enumerate(streams):
        yield bytes((number * 7, number, 30)).replace(b"\n", b"") + b"\n" + stream


TARGETS = {
    "upload": Target(read_upload, upload_seeds, max_bytes=12_000),
    "protocol": Target(serve_connection, connection_seeds, max_bytes=4_000),
}
