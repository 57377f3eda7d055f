"""A real HTTP server that serves files well or badly, as set per path."""

import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Request"], None]


@dataclass
class Request:
    """One GET, and the means to answer it."""

    handler: BaseHTTPRequestHandler
    number: int
    """How many requests for this path came before."""
    server: "FileServer"

    @property
    def range_start(self) -> int | None:
        found = re.fullmatch(r"bytes=(\d+)-", self.handler.headers.get("Range", ""))
        return int(found[1]) if found else None

    def head(self, status: int, **headers: str | int) -> None:
        self.server.answered.append((self.handler.path, status))
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), str(value))
        self.handler.end_headers()

    def write(self, content: bytes) -> None:
        self.handler.wfile.write(content)
        self.handler.wfile.flush()

    def hang_up(self) -> None:
        self.handler.close_connection = True


@dataclass
class FileServer:
    """Paths and how they are answered; what was asked."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, int | None]] = field(default_factory=list)
    """Path and start of the range of each request."""
    answered: list[tuple[str, int]] = field(default_factory=list)
    """Path and status of each answer."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, answer: Answer | bytes) -> str:
        """Serve a path; gives its URL."""
        self.answers[path] = good(answer) if isinstance(answer, bytes) else answer
        return self.url + path

    def count(self, path: str) -> int:
        return Counter(asked for asked, _ in self.asked)[path]


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are what these tests are about; everything else is printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = served.answers.get(self.path, missing)
            request = Request(self, served.count(self.path), served)
            served.asked.append((self.path, request.range_start))
            answer(request)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has
            pass

    server = _QuietServer(("127.0.0.1", 0), Handler)
    served = FileServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


# ── how a path can be answered ─────────────────────────────────────────────────────────────────────────────────────


def missing(request: Request) -> None:
    request.head(404, Content_Length=0)


def good(content: bytes, *, etag: str = '"one"') -> Answer:
    """As it should be, with ranges."""

    def answer(request: Request) -> None:
        start = request.range_start
        if_range = request.handler.headers.get("If-Range")
        if start is None or (if_range is not None and if_range != etag):
            request.head(200, Content_Length=len(content), ETag=etag)
            request.write(content)
        elif start >= len(content):
            request.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
        else:
            content_range = f"bytes {start}-{len(content) - 1}/{len(content)}"
            request.head(206, Content_Length=len(content) - start, Content_Range=content_range, ETag=etag)
            request.write(content[start:])

    return answer


def without_ranges(content: bytes) -> Answer:
    """Range is ignored: always 200 and everything."""

    def answer(request: Request) -> None:
        request.head(200, Content_Length=len(content))
        request.write(content)

    return answer


def wrong_range(content: bytes) -> Answer:
    """206, but of another part than asked for."""

    def answer(request: Request) -> None:
        if request.range_start is None:
            without_ranges(content)(request)
            return
        request.head(206, Content_Length=len(content), Content_Range=f"bytes 0-{len(content) - 1}/{len(content)}")
        request.write(content)

    return answer


def page(request: Request) -> None:
    """An error page with status 200."""
    body = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
    request.head(200, Content_Length=len(body), Content_Type="text/html")
    request.write(body)


def breaks(content: bytes, *, at: int, then: Answer | None = None, times: int = 1) -> Answer:
    """Hang up after `at` bytes, `times` times; then answer well, or with `then`."""

    def answer(request: Request) -> None:
        if request.number >= times:
            (then or good(content))(request)
            return
        request.head(200, Content_Length=len(content), ETag='"one"')
        request.write(content[:at])
        request.hang_up()

    return answer


def stalls(content: bytes, *, at: int) -> Answer:
    """Send `at` bytes and then nothing, with the connection open, until the test ends."""

    def answer(request: Request) -> None:
        request.head(200, Content_Length=len(content), ETag='"one"')
        request.write(content[:at])
        request.server.stopped.wait()
        request.hang_up()

    return answer


def endless(request: Request) -> None:
    """More and more, in chunks, without a length."""
    request.head(200, Transfer_Encoding="chunked")
    chunk = b"\x08" * 65536
    try:
        while not request.server.stopped.is_set():
            request.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    except OSError:
        request.hang_up()


def redirect(location: str) -> Answer:
    def answer(request: Request) -> None:
        request.head(302, Location=location, Content_Length=0)

    return answer
