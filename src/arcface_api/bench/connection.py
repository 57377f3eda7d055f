"""HTTP/1.1 at the least cost: prebuilt requests over keep-alive connections, answers read no further than needed.

On a small machine the client runs on the service's cores: what it costs is missing there. So a request is one write,
and an answer one search for its length.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from arcface_api.bench.requests import Address

MAX_HEAD_BYTES = 64 * 1024
"""An answer whose head is longer is taken for broken."""
REUSE_SECONDS = 2.0
"""A connection idle for longer is not used again: its server may be closing it (uvicorn does after 5 s)."""

_STATUS = re.compile(rb"HTTP/1\.([01]) ([2-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?:\r\n|$)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


@dataclass(slots=True, eq=False)
class Exchange:
    """One attempt to have one request answered.

    Times are seconds of `time.monotonic`: uvloop's own clock counts milliseconds.
    """

    request: bytes
    arrived: float
    """When its caller wanted it served: the start of its first attempt."""
    due: float
    """When this attempt should be sent: latency counts from here, also where the sending was late."""
    attempt: int = 1
    sent: float = 0.0
    answered: float = 0.0
    status: int = 0
    """0 where no whole answer came."""
    head: bytes = b""
    """Status line and headers of the answer."""
    failure: str = ""
    """What was wrong where no whole answer came."""


class Pool:
    """As many connections as there are requests in flight; belongs to one event loop."""

    def __init__(self, address: Address, timeout_seconds: float, on_done: Callable[[Exchange], None]) -> None:
        """Nothing is opened before the first `send`.

        Args:
            address: Of the service.
            timeout_seconds: An exchange without an answer by then has failed.
            on_done: Told each exchange exactly once, answered or failed; may send the next one right away.
        """
        self.in_flight = 0
        self.opened = 0
        """Connections opened so far."""
        self.stray = 0
        """Connections on which bytes came that nobody had asked for."""
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._on_done = on_done
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()

    def send(self, exchange: Exchange) -> None:
        """Send a request at once, over an idle connection or a new one."""
        self.in_flight += 1
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since <= REUSE_SECONDS:
                connection.send(exchange, now)
                return
            connection.close()
        task = self._loop.create_task(self._send_over_new(exchange))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def fail_overdue(self) -> None:
        """Give up what has waited too long; to be called from time to time."""
        oldest = time.monotonic() - self._timeout_seconds
        for connection in [c for c in self._open if c.exchange is not None and c.exchange.sent < oldest]:
            connection.fail(f"no answer within {self._timeout_seconds:g} s")

    async def close(self) -> None:
        """Close all connections."""
        for task in self._opening:
            task.cancel()
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0)

    async def _send_over_new(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self), self._address.host, self._address.port
                )
        except OSError as error:  # TimeoutError is one
            exchange.failure = f"cannot connect: {error.strerror or 'timed out'}"
            self.finish(exchange)
            return
        self.opened += 1
        connection.send(exchange, time.monotonic())

    # ── what connections tell ──────────────────────────────────────────────────────────────────────────────────────

    def made(self, connection: "_Connection") -> None:
        """A connection is open."""
        self._open.add(connection)

    def lost(self, connection: "_Connection") -> None:
        """A connection is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def free(self, connection: "_Connection") -> None:
        """A connection may take its next request."""
        self._idle.append(connection)

    def finish(self, exchange: Exchange) -> None:
        """An exchange is over."""
        exchange.answered = time.monotonic()
        self.in_flight -= 1
        self._on_done(exchange)


class _Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    exchange: Exchange | None = None
    idle_since = 0.0
    _transport: asyncio.Transport
    _missing = -1
    """Bytes of the body still to come; -1 before the head is whole."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        self._pool.made(self)

    def send(self, exchange: Exchange, now: float) -> None:
        """Write one request, now."""
        self.exchange = exchange
        exchange.sent = now
        self._transport.write(exchange.request)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self._pool.stray += 1
            self.close()
            return
        if self._missing >= 0:
            self._missing -= len(data)
        else:
            self._head = data = self._head + data if self._head else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD_BYTES:
                    self.fail("the answer's head has no end")
                return
            exchange.head = data[:end]
            length = _LENGTH.search(exchange.head)
            status = _STATUS.match(exchange.head)
            if status is None or length is None:
                self.fail("the answer is no HTTP/1.1" if status is None else "the answer has no Content-Length")
                return
            exchange.status = int(status[2])
            self._missing = int(length[1]) - (len(data) - end - 4)
        if self._missing == 0:
            self._answered(exchange)
        elif self._missing < 0:
            self.fail("the answer is longer than its Content-Length")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._pool.lost(self)
        self.fail("the connection was closed before the answer was whole")

    def fail(self, why: str) -> None:
        """No answer will come for the exchange in flight, if there is one."""
        exchange, self.exchange = self.exchange, None
        self._transport.abort()
        if exchange is not None:
            exchange.status = 0
            exchange.failure = why
            self._pool.finish(exchange)

    def close(self) -> None:
        """Close an idle connection."""
        self._pool.lost(self)
        self._transport.abort()

    def _answered(self, exchange: Exchange) -> None:
        self.exchange = None
        self._head = b""
        self._missing = -1
        if exchange.head.startswith(b"HTTP/1.0") or _CLOSE.search(exchange.head):
            self._transport.abort()
        else:
            self.idle_since = time.monotonic()
            self._pool.free(self)
        self._pool.finish(exchange)
