"""A caller that sends single bytes and segments, as no HTTP client does, and a model that waits for it."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx
import pytest

from arcface_api.arrays import Crop, Features
from arcface_api.session.onnx_cpu import OnnxCpuSession
from serving import Service


@dataclass(frozen=True)
class Answer:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        assert self.headers["cache-control"] == "no-store"
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        return problem


class Caller:
    """One connection to the service."""

    def __init__(self, service: httpx.Client, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(100)
        assert service.base_url.port is not None
        self.socket.connect((service.base_url.host, service.base_url.port))
        if service.base_url.scheme == "https":
            self.socket = trusting_everybody().wrap_socket(self.socket)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, *pieces: bytes, pause_seconds: float = 0.005) -> None:
        """Each piece as a segment of its own, and read as such."""
        try:
            for piece in pieces[:-1]:
                self.socket.sendall(piece)
                time.sleep(pause_seconds)
            self.socket.sendall(pieces[-1])
        except ssl.SSLEOFError as error:  # TLS finds the connection closed
            raise BrokenPipeError from error

    def answer(self, *, has_body: bool = True) -> Answer:
        """The next answer."""
        line = self._file.readline()
        assert line, "the connection ended without an answer"
        headers = {}
        while (header := self._file.readline()) != b"\r\n":
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self._file.read(int(headers.get("content-length", 0))) if has_body else b""
        return Answer(int(line.split()[1]), headers, body)

    def rest(self) -> bytes:
        """All that comes until the service closes the connection."""
        return self._file.read()


def request(start: str, *headers: str, body: bytes | None = None) -> bytes:
    """A request; with a body, its length is announced."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join([f"{start} HTTP/1.1", "Host: localhost", *headers, *length, "", ""]).encode() + (body or b"")


def picture(content: bytes, *headers: str, path: str = "/embed") -> bytes:
    """A request to embed a picture, which is its body."""
    return request(f"POST {path}", "Content-Type: image/jpeg", *headers, body=content)


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


def splits(content: bytes) -> Iterator[list[bytes]]:
    """The content in two pieces, cut behind each byte."""
    for at in range(1, len(content)):
        yield [content[:at], content[at:]]


class HeldModel:
    """From now on, every model waits until `go_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        real = OnnxCpuSession.run

        def run(session: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
            self.entered.set()
            assert self.go_on.wait(100)
            return real(session, crops)

        monkeypatch.setattr(OnnxCpuSession, "run", run)


def trusting_everybody() -> ssl.SSLContext:
    """What a caller that trusts everybody does with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def until(found: Callable[[], bool]) -> None:
    """Wait until `found` returns true."""
    end = time.monotonic() + 300
    while not found():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def connections(service: Service) -> int:
    """The number of its connections."""
    return len(service._server.server_state.connections)
