"""Callers who each know the right vector of every picture they send, and note what became of every request.

    Scene ──starts──▶ service            known pictures ──▶ Crowd of callers ──▶ Counter of endings, notable Endings

A request was *accepted* when the service had accepted its connection and its last byte had been sent.
"""

import asyncio
import itertools
import json
import re
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import uvloop

from arcface_api.bench.connection import Address, form_request, raw_request
from arcface_api.wire import EMBEDDING_VALID_HEADER, MediaType

RIGHT = "right"
"""The answer that was due, each vector in it equal bit by bit."""
WRONG = "WRONG"
"""A 200 with another vector, or without one."""
NO_CONNECTION = "no connection"
"""It was refused, or ended before the service had answered anything on it."""
CLOSED = "closed before the answer"
CUT = "cut off in the answer"
NO_ANSWER = "no answer"
LEFT = "left"
"""The caller itself."""
MARKED = "200 with rows that are marked as failed"
"""A batch of which some pictures were refused or failed; its other vectors are right."""

PATIENCE_SECONDS = 60.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


@dataclass(frozen=True)
class Known:
    """A request and its right answer."""

    kind: str
    request: bytes
    status: int = 200
    body: bytes | None = None
    """None: of an answer without vectors, which only has to have the status."""
    leaves_after: int | None = None
    """The caller leaves when it has sent so many bytes; None: it stays."""
    pause_seconds: float = 0.0
    """Between pieces of 1 KiB, from a slow sender."""


@dataclass(slots=True)
class Ending:
    """What became of one request. Times are seconds of `time.monotonic`."""

    kind: str
    what: str
    """`right`, a status with its code, or one of the constants of this module."""
    connected: float
    sent: float
    """When its last byte was sent; infinite if it was not."""
    ended: float
    local_port: int
    is_first: bool
    """On its connection."""


@dataclass
class Crowd:
    """Callers in closed loops, on a thread of their own, while a block runs."""

    address: Address
    known: Sequence[Known]
    callers: int = 8
    on_ending: Callable[[Ending], None] = lambda _: None
    pause_seconds: float = 0.002
    endings: Counter[str] = field(default_factory=Counter)
    notable: deque[Ending] = field(default_factory=lambda: deque(maxlen=20_000))
    """Those that are not `right`."""
    in_flight: set[int] = field(default_factory=set)
    """Local ports of the connections on which an answer is awaited."""
    rights: list[int] = field(default_factory=list)
    """Right answers so far, by caller."""

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self.rights = [0] * self.callers
        self._thread = threading.Thread(target=self._run, name="crowd")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._call_all())

    async def _call_all(self) -> None:
        await asyncio.gather(*(self._call(number) for number in range(self.callers)))

    async def _call(self, number: int) -> None:
        caller = KnowingCaller(self.address)
        for request in itertools.cycle([*self.known[number:], *self.known[:number]]):
            if self._end.is_set():
                break
            ending = await caller.send(request, self.in_flight)
            self.endings[ending.what] += 1
            if ending.what == RIGHT:
                self.rights[number] += 1
            else:
                self.notable.append(ending)
            self.on_ending(ending)
            is_refused = ending.what[:3] in ("429", "503") or ending.what == NO_CONNECTION
            await asyncio.sleep(0.05 if is_refused else self.pause_seconds)
        caller.close()


class KnowingCaller:
    """One caller with one connection, which it keeps as long as the service does."""

    def __init__(self, address: Address) -> None:
        """Connects with its first request."""
        self._address = address
        self._socket: socket.socket | None = None
        self._connected = 0.0
        self._requests = 0

    def close(self) -> None:
        """Leave."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    async def send(self, known: Known, in_flight: set[int] | None = None) -> Ending:
        """Send a request and judge its answer; raises nothing."""
        ending = Ending(known.kind, NO_CONNECTION, self._connected, float("inf"), 0.0, 0, is_first=False)
        in_flight = set() if in_flight is None else in_flight
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._exchange(known, ending, in_flight)
        except TimeoutError:
            ending.what = NO_ANSWER
        except OSError:
            pass  # `what` says how far it came
        in_flight.discard(ending.local_port)
        ending.ended = time.monotonic()
        if ending.what in (NO_CONNECTION, CLOSED, CUT, NO_ANSWER, LEFT):
            self.close()
        return ending

    async def _exchange(self, known: Known, ending: Ending, in_flight: set[int]) -> None:
        loop = asyncio.get_running_loop()
        if self._socket is not None and _has_ended(self._socket):
            self.close()
        if self._socket is None:
            link = socket.socket()
            link.setblocking(False)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket, self._requests = link, 0
            await loop.sock_connect(link, (self._address.host, self._address.port))
            self._connected = time.monotonic()
        link = self._socket
        ending.connected, ending.local_port = self._connected, link.getsockname()[1]
        ending.is_first = self._requests == 0
        ending.what = CLOSED
        self._requests += 1
        in_flight.add(ending.local_port)
        await self._write(loop, link, known)
        ending.sent = time.monotonic()
        if known.leaves_after is not None:
            ending.what = LEFT
            return
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            await self._read(loop, link, data, ending)
        head = bytes(data[:end])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None:
            raise AssertionError(head)
        while len(data) < end + 4 + int(length[1]):
            await self._read(loop, link, data, ending)
        ending.what = _judged(known, int(status[1]), head, bytes(data[end + 4 :]))
        if _CLOSE.search(head):
            self.close()

    async def _write(self, loop: asyncio.AbstractEventLoop, link: socket.socket, known: Known) -> None:
        request = known.request if known.leaves_after is None else known.request[: known.leaves_after]
        if not known.pause_seconds:
            await loop.sock_sendall(link, request)
            return
        for start in range(0, len(request), 1024):
            await loop.sock_sendall(link, request[start : start + 1024])
            await asyncio.sleep(known.pause_seconds)

    async def _read(
        self, loop: asyncio.AbstractEventLoop, link: socket.socket, data: bytearray, ending: Ending
    ) -> None:
        piece = await loop.sock_recv(link, 65536)
        if not piece:
            raise ConnectionResetError
        data += piece
        ending.what = CUT


def _has_ended(link: socket.socket) -> bool:
    """Whether the service has closed a connection on which nothing is awaited, as clients look before they send."""
    try:
        return not link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _judged(known: Known, status: int, head: bytes, body: bytes) -> str:
    if status == known.status and known.body in (None, body):
        return RIGHT
    if status == 200:
        return WRONG if known.body is None or len(body) != len(known.body) else _judged_rows(known, head, body)
    code = ""
    with suppress(ValueError):
        code = str(json.loads(body).get("code", ""))
    return f"{status} {code}"


def _judged_rows(known: Known, head: bytes, body: bytes) -> str:
    """A batch of which some pictures failed: their rows are NaN, and the header says so."""
    valid = re.search(rb"\r\n" + EMBEDDING_VALID_HEADER.encode() + rb": ([01]+)", head, re.IGNORECASE)
    if valid is None or known.body is None or b"0" not in valid[1]:
        return WRONG
    row_bytes = len(body) // len(valid[1])
    for place, digit in enumerate(valid[1].decode()):
        row = slice(place * row_bytes, (place + 1) * row_bytes)
        if digit == "1" and body[row] != known.body[row]:
            return WRONG
    return MARKED


def ask_once(address: Address, known: Known) -> tuple[int, bytes]:
    """Status and body of the answer to one request, from a service that is left alone."""

    async def ask() -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(known.request)
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = _STATUS.match(head), _LENGTH.search(head)
        assert status is not None
        assert length is not None
        body = await reader.readexactly(int(length[1]))
        writer.close()
        return int(status[1]), body

    return asyncio.run(ask())


BYTES = {"Accept": MediaType.BYTES.value}


def requests_of(address: Address, pictures: Sequence[bytes], *, batch: int = 4) -> list[Known]:
    """Requests without their right answers: single bodies, forms, batches, and some that are bad, slow, or leave."""
    found = []
    for number, picture in enumerate(pictures):
        single = raw_request(address, "POST", "/embed", picture, {"Content-Type": "image/jpeg"} | BYTES)
        form = _accepting_bytes(form_request(address, "/embed", "file", [picture]))
        found += [Known("single", single), Known("form", form)]
        if number % 4 == 3:
            several = [pictures[(number + k) % len(pictures)] for k in range(batch)]
            found.append(Known("batch", _accepting_bytes(form_request(address, "/embed/batch", "files", several))))
        if number % 4 == 1:
            no_picture = raw_request(address, "POST", "/embed", b"no picture at all", {"Content-Type": "image/jpeg"})
            found.append(Known("bad", no_picture, 415))
            cut = raw_request(address, "POST", "/embed", picture[:40], {"Content-Type": "image/jpeg"})
            found.append(Known("bad", cut, 422))
        if number % 4 == 2:
            stages = (0, 20, len(single) - len(picture), len(single) - 100, len(single))
            found.append(Known("leaves", single, leaves_after=stages[number // 4 % len(stages)]))
        if number % 8 == 7:
            found.append(Known("slow", single, pause_seconds=0.02))
    return found


def _accepting_bytes(request: bytes) -> bytes:
    line, _, rest = request.partition(b"\r\n")
    return line + b"\r\nAccept: " + MediaType.BYTES.value.encode() + b"\r\n" + rest


def learnt(address: Address, requests: Sequence[Known]) -> list[Known]:
    """The same requests with their right answers, from a service that is left alone; all vectors differ."""
    bodies: dict[bytes, bytes] = {}
    found = []
    for known in requests:
        if known.leaves_after is not None or known.status != 200:
            found.append(known)
            continue
        if known.request not in bodies:
            status, bodies[known.request] = ask_once(address, known)
            assert status == 200, bodies[known.request]
        found.append(Known(known.kind, known.request, 200, bodies[known.request], None, known.pause_seconds))
    singles = {known.body for known in found if known.kind == "single"}
    assert len(singles) == sum(known.kind == "single" for known in found), "two pictures have the same vector"
    return found


def readdressed(known: Sequence[Known], requests: Sequence[Known]) -> list[Known]:
    """The known answers to the same requests to another port."""
    return [
        Known(new.kind, new.request, old.status, old.body, new.leaves_after, new.pause_seconds)
        for old, new in zip(known, requests, strict=True)
    ]


# ── who listens, who serves a connection ───────────────────────────────────────────────────────────────────────────


def _tcp_lines() -> list[list[str]]:
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]


def listeners(port: int) -> int:
    """How many sockets are open to callers on this port. Source: proc(5), /proc/net/tcp; state 0A is LISTEN."""
    return sum(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in _tcp_lines())


def connections_of(pid: int, port: int) -> set[int]:
    """The other ends' ports of the connections that a process has accepted on this port."""
    inodes = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(str(link.readlink()))
    return {
        int(fields[2].split(":")[1], 16)
        for fields in _tcp_lines()
        if fields[1].endswith(f":{port:04X}") and f"socket:[{fields[9]}]" in inodes
    }


def is_running(pid: int) -> bool:
    """Whether the process has a thread; its first one may have ended while others still hold its sockets."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return len(tasks) > 1 or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
