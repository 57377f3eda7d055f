"""HTTP/1.1 at the least cost: prebuilt requests over keep-alive connections.

On a small machine the client runs on the service's cores, and what it costs is missing there. So a request is one
write, and of an answer only the head is searched, for its length.
"""

import asyncio
import math
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import httpx

from arcface_api.outbound import service_tls

BOUNDARY = "arcface-api-bench-5f0c1d7be2"
"""Separates the parts of a form; a picture contains it with a probability of 1 in 2^200."""
MAX_HEAD_BYTES = 64 * 1024
"""An answer with a longer head counts as broken."""

_STATUS = re.compile(rb"HTTP/1\.([01]) ([2-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?:\r\n|$)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Where a service listens, and the path below which its operations are."""

    host: str
    port: int
    prefix: str = ""
    api_key: str | None = field(default=None, repr=False)
    """Sent with each request."""
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, url: str) -> Self:
        """The address in `http(s)://host[:port][/prefix]`; raises `ValueError` if the URL has another form."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not allowed. Give http://host:port, or https://host:port to measure TLS too.")
        tls = service_tls(httpx.URL("https:")) if parts.scheme == "https" else None
        return cls(parts.hostname, parts.port or (443 if tls else 80), parts.path.rstrip("/"), tls=tls)

    @property
    def url(self) -> str:
        """As `of` reads it."""
        return f"{'https' if self.tls else 'http'}://{self.host_header}{self.prefix}"

    @property
    def host_header(self) -> str:
        """Value of `Host`; an IPv6 address stands in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def form_request(address: Address, path: str, part: str, pictures: Sequence[bytes]) -> bytes:
    """A form with pictures in parts of one name, as `curl -F file=@face.jpg` sends it."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{part}"; filename="face.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    body = b"".join(head + picture + b"\r\n" for picture in pictures) + f"--{BOUNDARY}--\r\n".encode()
    return raw_request(address, "POST", path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def raw_request(
    address: Address, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Any HTTP/1.1 request."""
    lines = [f"{method} {address.prefix}{path} HTTP/1.1", f"Host: {address.host_header}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if address.api_key:
        lines.append(f"Authorization: Bearer {address.api_key}")
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass(slots=True, eq=False)
class Exchange:
    """One attempt to get one request answered. Times are seconds of `time.monotonic`."""

    request: bytes
    arrived: float
    """When the first attempt was due."""
    due: float
    """When this attempt should be sent: latency counts from here, even if it is sent late."""
    attempt: int = 1
    sent: float = 0.0
    answered: float = 0.0
    status: int = 0
    """0 without a whole answer; `failure` says why there is none."""
    head: bytes = b""
    """Status line and headers of the answer."""
    failure: str = ""

    def header(self, name: str) -> str | None:
        """Value of the answer's first header of that name."""
        for line in self.head.split(b"\r\n")[1:]:
            found, _, value = line.partition(b":")
            if found.decode("latin-1").lower() == name.lower():
                return value.decode("latin-1").strip()
        return None


class Caller:
    """Has one request in flight at a time, over a connection that it keeps and opens again where it was closed."""

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        """Nothing is opened before the first exchange."""
        self.opened = 0
        """Connections so far."""
        self.stray = 0
        """Connections on which bytes came that answer no request."""
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._transport: asyncio.Transport | None = None
        self._reader: _Reader
        self._waiting_since = math.inf
        self._is_overdue = False

    async def exchange(self, exchange: Exchange) -> None:
        """Send a request and wait for its answer. Raises nothing: `failure` says what was wrong."""
        self._is_overdue = False
        try:
            await self._exchange(exchange)
        except asyncio.LimitOverrunError:
            exchange.failure = "the answer's head has no end"
        except (OSError, asyncio.IncompleteReadError):
            exchange.failure = "the connection was closed before the answer was whole"
        except _Broken as error:
            exchange.failure = str(error)
        if self._is_overdue:
            exchange.failure = f"no answer within {self._timeout_seconds:g} s"
        exchange.answered = time.monotonic()
        self._waiting_since = math.inf
        if exchange.failure:
            exchange.status = 0
            self._reader.received = 0  # they belong to the failure
            self.close()

    def give_up_if_overdue(self) -> None:
        """To be called regularly: a timer for each exchange would cost the client a third more."""
        if self._waiting_since < time.monotonic() - self._timeout_seconds and self._transport is not None:
            self._is_overdue = True
            self._transport.abort()

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._transport is not None:
            self._transport.abort()
            self.stray += self._reader.received > 0
        self._transport = None

    async def _exchange(self, exchange: Exchange) -> None:
        if self._transport is not None and (self._reader.received or self._reader.at_eof()):
            self.close()
        if self._transport is None:
            await self._open()
        assert self._transport is not None  # noqa: S101  # it was opened
        exchange.sent = self._waiting_since = time.monotonic()
        self._transport.write(exchange.request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        exchange.head = head[:-4]
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None:
            raise _Broken("the answer is no HTTP/1.1" if status is None else "the answer has no Content-Length")
        exchange.status = int(status[2])
        await self._reader.readexactly(int(length[1]))
        surplus = self._reader.received - len(head) - int(length[1])
        self._reader.received = 0
        if surplus:
            raise _Broken("the answer is longer than its Content-Length")
        if head.startswith(b"HTTP/1.0") or _CLOSE.search(head):
            self.close()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._reader = reader = _Reader(MAX_HEAD_BYTES, loop)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._transport, _ = await loop.create_connection(
                    lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
                    self._address.host,
                    self._address.port,
                    ssl=self._address.tls,
                )
        except OSError as error:  # TimeoutError is one
            raise _Broken(f"cannot connect: {error.strerror or 'timed out'}") from None
        self.opened += 1


class _Reader(asyncio.StreamReader):
    """Counts the bytes that it received since the last answer, so that bytes beyond one are noticed."""

    received = 0

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # a loop feeds bytes, no other iterable
        self.received += len(data)
        super().feed_data(data)


class _Broken(Exception):
    """What came is no answer."""
