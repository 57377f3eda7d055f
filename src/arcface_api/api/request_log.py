"""What the log knows of a request: who it is, and where its time went if it was slow.

An identity is the caller's own `X-Request-ID`, or a new one. It is in the answer, and in all that the task of the
request logs.
"""

import logging
import random
import re
import time
from contextvars import ContextVar

from starlette.types import Scope

from arcface_api.wire import REQUEST_ID_HEADER

_HEADER = REQUEST_ID_HEADER.lower().encode()
_TRACEPARENT = b"traceparent"
_USABLE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""A caller's identity goes into the log and a header: nothing that ends a line or has to be escaped."""
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
"""Source: W3C Trace Context, section 3.2."""
PAUSE_SECONDS = 1.0
"""Between two lines about slow requests: in an overload, all are slow."""

_log = logging.getLogger(__name__)
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_trace_id: ContextVar[str] = ContextVar("trace_id", default="")


def begin(scope: Scope) -> tuple[bytes, bytes]:
    """Give the request of this task its identity; returns the header of its answer."""
    identity = trace = b""
    for name, value in scope["headers"]:
        if name == _HEADER and _USABLE.fullmatch(value):
            identity = value
        elif name == _TRACEPARENT and (found := _TRACE.fullmatch(value)):
            trace = found[1]
    identity = identity or b"%016x" % random.getrandbits(64)  # `secrets` would ask the system for each: ADR 18
    _request_id.set(identity.decode())
    if trace:
        _trace_id.set(trace.decode())
    return _HEADER, identity


def name_trace(trace_id: str) -> None:
    """The trace that the request of this task belongs to, where the service itself records it."""
    _trace_id.set(trace_id)


def identify(record: logging.LogRecord) -> bool:
    """A filter of a log handler that drops nothing: adds `request_id` and `trace_id`, empty outside of requests."""
    record.request_id, record.trace_id = _request_id.get(), _trace_id.get()
    return True


class SlowRequests:
    """Logs requests that take long, one at most in `PAUSE_SECONDS`. Belongs to the event loop."""

    def __init__(self, least_seconds: float) -> None:
        """Those that take longer than `least_seconds` are slow."""
        self.least_seconds = least_seconds
        self._next_at = 0.0
        self._not_logged = 0

    def log(self, route: str, status: int, seconds: float, stages_ms: dict[str, float]) -> None:
        """A slow request was answered; `stages_ms` is empty if it was refused."""
        now = time.monotonic()
        if now < self._next_at:
            self._not_logged += 1
            return
        where = ", ".join(f"{stage} {ms / 1000:.3f}" for stage, ms in stages_ms.items())
        others = f"; {self._not_logged} more since the last such line" if self._not_logged else ""
        _log.warning(
            "Slow: %s, status %d, took %.3f s%s%s.",
            *(route, status, seconds, f" ({where})" if where else "", others),
            extra={
                "fields": {
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 3),
                    "stages_ms": {stage: round(ms, 1) for stage, ms in stages_ms.items()},
                    "not_logged": self._not_logged,
                }
            },
        )
        self._next_at, self._not_logged = now + PAUSE_SECONDS, 0
