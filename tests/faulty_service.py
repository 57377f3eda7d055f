"""A service that fails as it is asked to, before it answers as the real one does."""

import asyncio
import base64
import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from scripted_server import Last, Reset, ScriptedServer

FINGERPRINT, OTHER_FINGERPRINT = "a" * 16, "b" * 16
PASSING = (
    "queue_full",
    "uploads_full",
    "service_closing",
    "deadline_exceeded",
    "proxy",
    "close",
    "reset",
    "lost",
    "cut",
)
"""Faults after which the same request may succeed. `proxy`: an answer of nginx; `lost`: after the work was done; `cut`:
in the middle of the answer. A `stall` passes as well, after the client's timeout."""
MODEL_CHANGES = "model changes"
_REFUSALS = {"queue_full": 429, "uploads_full": 429, "service_closing": 503, "deadline_exceeded": 503}
_PICTURE = re.compile(rb"(?:picture|bad) \d+")


def picture(number: int, *, is_bad: bool = False) -> bytes:
    """What is sent as a picture; its embedding begins with its number, and a bad one is a problem that names it."""
    return f"{'bad' if is_bad else 'picture'} {number}".encode()


def http(status: int, body: bytes, **headers: str) -> bytes:
    """A whole answer; underscores in header names become dashes."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(status: int, code: str, detail: str = "No.", **headers: str) -> bytes:
    """A problem."""
    return http(status, json.dumps({"status": status, "code": code, "detail": detail}).encode(), **headers)


_BEFORE_WORK = {"proxy": http(502, b"<h1>502 Bad Gateway</h1>"), "close": None, "reset": Reset(b"")}


class FaultyService(ScriptedServer):
    """Each request to embed meets the next fault, if there are any left."""

    def __init__(
        self,
        faults: Iterable[str | bytes] = (),
        *,
        port: int = 0,
        retry_after: str = "0",
        work_seconds: float = 0,
        **limits: int,
    ) -> None:
        super().__init__(self._answer, port)
        self._faults = list(faults)
        self._retry_after, self._work_seconds = retry_after, work_seconds
        self._limits = {"max_batch_files": 64, "max_batch_bytes": 1_000_000, "queue_capacity": 256} | limits
        self.fingerprint = FINGERPRINT
        self.served: list[list[bytes]] = []
        """The pictures of each request that was worked on."""

    @property
    def url(self) -> str:
        return f"http://{self.address.host}:{self.address.port}"

    async def _answer(self, number: int) -> bytes | None:
        path = self.heads[number].split()[1].partition(b"?")[0]
        if path == b"/info":
            return http(200, json.dumps(self._info()).encode())
        fault = self._faults.pop(0) if self._faults else ""
        if isinstance(fault, bytes):
            return fault
        if fault == "stall":
            await asyncio.sleep(60)
        if fault == MODEL_CHANGES:
            self.fingerprint = OTHER_FINGERPRINT
        if fault in _REFUSALS:
            return refusal(_REFUSALS[fault], fault, Retry_After=self._retry_after)
        if fault in _BEFORE_WORK:
            return _BEFORE_WORK[fault]
        await asyncio.sleep(self._work_seconds)
        answer = self._work(path, number)
        return {"lost": Reset(b""), "cut": Last(answer[:-20])}.get(fault, answer)

    def _work(self, path: bytes, number: int) -> bytes:
        pictures = _PICTURE.findall(self.bodies[number])
        required = re.search(rb"X-Require-Fingerprint: (\w+)", self.heads[number])
        if required and required[1].decode() != self.fingerprint:
            return refusal(409, "fingerprint_differs", "The model is another one.")
        self.served.append(pictures)
        return self._batch(pictures) if path == b"/embed/batch" else self._one(pictures[0])

    def _info(self) -> dict[str, Any]:
        facts = dict.fromkeys(("version", "pack", "model", "recipe"), "x")
        return facts | {"fingerprint": self.fingerprint, "embedding_dim": 4, "thresholds": [], "limits": self._limits}

    def _headers(self) -> dict[str, str]:
        return {"X_Model_Fingerprint": self.fingerprint, "X_Embedding_Recipe": "c" * 16, "X_Embedding_Norm": "1"}

    def _one(self, content: bytes) -> bytes:
        if content.startswith(b"bad"):
            return refusal(422, "image_damaged", content.decode())
        body = {"embedding": _vector(content), "embedding_dim": 4, "model": "x"}
        return http(200, json.dumps(body).encode(), X_Alignment="none", **self._headers())

    def _batch(self, contents: list[bytes]) -> bytes:
        if len(contents) > self._limits["max_batch_files"]:
            return refusal(413, "too_many_files")
        results = [
            {"problem": {"status": 422, "code": "image_damaged", "detail": content.decode()}}
            if content.startswith(b"bad")
            else {"embedding": _vector(content), "norm": 1.0, "recipe": "c" * 16}
            for content in contents
        ]
        body = json.dumps({"results": results, "embedding_dim": 4, "model": "x"}).encode()
        alignments = ", ".join("-" if "problem" in result else "none" for result in results)
        return http(200, body, X_Alignment=alignments, **self._headers())


def _vector(content: bytes) -> str:
    vector = np.array([int(content.split()[1]), 0, 0, 1], "<f4")
    return base64.b64encode(vector.tobytes()).decode()
