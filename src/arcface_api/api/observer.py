"""Observes requests for metrics, traces and the log, and keeps out of their way.

    begin ──▶ operation ──has_results──▶ answer ──ended──▶ … it leaves … up to 20 ms … ──▶ count

Requests are counted many at a time, which costs less than each by itself: between two inferences, code probably finds
the CPU's caches cold (docs/adr/0018).
"""

import asyncio
import time
from collections.abc import Sequence

from starlette.types import Scope

from arcface_api.api import request_log
from arcface_api.api.auth import KEY_NAME
from arcface_api.api.connections import has_left
from arcface_api.api.metrics import EMBED, EMBED_BATCH, OTHER_ROUTE, ROUTES, Metrics
from arcface_api.api.problems import CODE, code_of
from arcface_api.api.request_log import SlowRequests
from arcface_api.api.traces import SPAN, Traces
from arcface_api.embedder import Embedded

Header = tuple[bytes, bytes]

COUNT_SECONDS = 0.02
"""A request is counted within this time, and at every scrape. A process that is killed loses what is not counted."""
_RESULTS, _STAGES_MS = "arcface_api.results", "arcface_api.stages_ms"
"""Keys in an ASGI scope: of each picture the embedding or its error, and the request's stages before it is answered."""
_TRACE_RESPONSE = b"traceresponse"
"""Source: W3C Trace Context Level 2, section 4."""


class Observer:
    """Belongs to the event loop."""

    def __init__(self, metrics: Metrics, slow: SlowRequests, traces: Traces | None) -> None:
        """Without `traces` none are recorded."""
        self.metrics, self._slow, self._traces = metrics, slow, traces
        self._leaving: list[tuple[str, int, float, Scope]] = []  # path, status, when it began, scope
        self._sent: list[tuple[str, int, float, int, Scope]] = []  # path, status, seconds, when it left, scope

    def begin(self, scope: Scope) -> list[Header]:
        """A request to embed has begun. Returns headers of its answer."""
        headers = [request_log.begin(scope)]
        if self._traces is not None and (trace := self._traces.begin(scope)):
            headers.append((_TRACE_RESPONSE, trace))
        return headers

    def has_results(self, scope: Scope, results: Sequence[Embedded | Exception], stages_ms: dict[str, float]) -> None:
        """The pictures of a request have been embedded, or could not be; it took so long until here."""
        scope[_RESULTS], scope[_STAGES_MS] = results, stages_ms

    def ended(self, path: str, status: int, started: float, scope: Scope) -> None:
        """A request that began at `started`, by `time.perf_counter`, has been answered."""
        seconds = time.perf_counter() - started
        if seconds > self._slow.least_seconds and path in (EMBED, EMBED_BATCH) and not has_left(scope):
            self._slow.log(path, status, seconds, _stages_ms(scope, seconds))
        self._leaving.append((path, status, started, scope))
        if len(self._leaving) == 1:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._left)  # the answers leave in the turn between

    def count(self) -> None:
        """Count all whose answers have left, and that are not counted yet."""
        self._left()
        sent, self._sent = self._sent, []
        for each in sent:
            self._count(*each)
        self.metrics.count()

    def _left(self) -> None:
        """Answers have left: note how long they took."""
        leaving, self._leaving = self._leaving, []
        if leaving and not self._sent:
            asyncio.get_running_loop().call_later(COUNT_SECONDS, self.count)
        now, now_ns = time.perf_counter(), time.time_ns()
        self._sent += [(path, status, now - started, now_ns, scope) for path, status, started, scope in leaving]

    def close(self) -> None:
        """Send the last traces, after the last count. Blocks for a moment."""
        if self._traces is not None:
            self._traces.close()

    def _count(self, path: str, status: int, seconds: float, left_ns: int, scope: Scope) -> None:
        route, span = path if path in ROUTES else OTHER_ROUTE, scope.get(SPAN)
        if has_left(scope):
            self.metrics.left(route)
            if self._traces is not None and span is not None:
                self._traces.left(span, left_ns)
            return
        code = scope.get(CODE, "")
        self.metrics.answered(route, status, code, seconds)
        results: Sequence[Embedded | Exception] = scope.get(_RESULTS, ())
        for result in results:
            if isinstance(result, Embedded):
                self.metrics.embedded(result, scope.get(KEY_NAME))
            else:
                self.metrics.refused(code_of(result))
        stages_ms = _stages_ms(scope, seconds)
        if stages_ms:
            self.metrics.passed({"receive": stages_ms["receive"], "respond": stages_ms["respond"]})
        elif path == EMBED and code and scope["method"] == "POST":
            self.metrics.refused(code)
        if self._traces is not None and span is not None:
            first = next((result for result in results if isinstance(result, Embedded)), None)
            batch = first.batch_number if first is not None and path == EMBED else None
            self._traces.answered(span, status, code, seconds, left_ns, stages_ms, batch)


def _stages_ms(scope: Scope, seconds: float) -> dict[str, float]:
    """The stages of a request that took so long, up to its end; none if it was refused."""
    stages: dict[str, float] = scope.get(_STAGES_MS, {})
    if not stages:
        return {}
    spent = sum(stages.values()) - stages.get("attributes", 0.0)  # which run beside the others
    return {**stages, "respond": max(0.0, seconds * 1000 - spent)}
