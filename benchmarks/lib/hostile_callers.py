"""Sends hostile requests and says what came of each: an allowed outcome, or what was wrong."""

import json
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from arcface_api.bench.connection import Address
from benchmarks.lib.hostile_cases import CLOSED, MARK, SAME, Case, pictures, post

PATIENCE_SECONDS = 100.0
_FINAL = re.compile(rb"HTTP/1\.1 (?!100)(\d{3}) ")


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    case: Case
    got: str
    """A status with its problem's code, `closed`, or `same`; otherwise what was wrong."""

    @property
    def is_right(self) -> bool:
        """Whether the case may end like this."""
        return self.got in self.case.allowed


def known_vectors(address: Address) -> dict[str, Sequence[float]]:
    """The vector of each of `pictures()`, as the service gives it to a good caller."""
    vectors = {}
    for kind, content in pictures().items():
        answers = _exchange(address, post(content, "Connection: close"), never_ends=False)
        vectors[kind] = json.loads(answers.partition(b"\r\n\r\n")[2])["embedding"]
    return vectors


def outcome_of(case: Case, address: Address, vectors: Mapping[str, Sequence[float]]) -> Outcome:
    """Send one case on a connection of its own, and read all that comes."""
    try:
        answers = _exchange(address, case.content, never_ends=case.never_ends)
    except TimeoutError:
        return Outcome(case, "no answer and not closed")
    return Outcome(case, _got(case, answers, vectors))


def _exchange(address: Address, content: bytes, *, never_ends: bool) -> bytes:
    """All that the service sends until it closes, or has answered and the caller closes its side."""
    with socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS) as link:
        with suppress(ConnectionError):  # it may be refused before all is sent
            link.sendall(content)
        received = bytearray()
        with suppress(ConnectionError):
            if never_ends:
                link.shutdown(socket.SHUT_WR)
            while not _has_answer(received) and (chunk := link.recv(65536)):
                received += chunk
            with suppress(OSError):
                link.shutdown(socket.SHUT_WR)
            while chunk := link.recv(65536):
                received += chunk
    return bytes(received)


def _has_answer(received: bytearray) -> bool:
    """Whether a whole final answer is there."""
    start = 0
    while True:
        end = received.find(b"\r\n\r\n", start) + 4
        if end < 4:
            return False
        lines = bytes(received[start:end]).lower().split(b"\r\n")
        if lines[0].split(b" ")[1] != b"100":
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            return len(received) >= end + length
        start = end


def _got(case: Case, answers: bytes, vectors: Mapping[str, Sequence[float]]) -> str:
    if not answers:
        return CLOSED
    statuses = _FINAL.findall(answers)
    head, _, body = answers.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    status = statuses[0].decode() if statuses else "no status"
    wrong = ""
    if len(statuses) != 1 or MARK in answers:
        wrong = f"{status}, and a second answer"
    elif status == "200" and (not case.same_as or _read(body).get("embedding") != vectors[case.same_as]):
        wrong = "200 with a vector that is not the picture's"
    elif status != "200" and (b"application/problem+json" not in head or _read(body).get("status") != int(status)):
        wrong = f"{status} that is no problem"
    return wrong or (SAME if status == "200" else f"{status} {_read(body)['code']}")


def _read(body: bytes) -> dict[str, Any]:
    """The JSON object; empty if it is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
