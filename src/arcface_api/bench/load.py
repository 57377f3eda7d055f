"""A closed loop of clients, each of which sends its next request when it has its answer; and its figures."""

import asyncio
import gc
import itertools
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import numpy as np
import uvloop

from arcface_api import wire
from arcface_api.bench.connection import Address, Caller, Exchange

TICK_SECONDS = 0.25
"""Between two reports of progress, and two checks for overdue answers."""
PAUSE_AFTER_FAILURE_SECONDS = 0.1
"""A client whose request failed waits so long: the service may be gone."""
TIMEOUT_SECONDS = 60.0
"""A request without an answer by then has failed."""
SERVED = 200
REFUSALS = (429, 503)
"""Not now: the service protects itself, and says when to come back."""

_STAGE = re.compile(r"([\w-]+)[^,]*?;\s*dur=([\d.]+)")

_Report = TypeVar("_Report", bound="LoadReport")

OnShare = Callable[[float], None]
"""Called with how much of the run is done, 0 to 1; then answers to the last requests are waited for."""


@dataclass(frozen=True)
class Summary:
    """How a quantity is distributed."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """The summary of some values, rounded to 3 digits; None of none."""
        array = np.fromiter(values, np.float64)
        if not array.size:
            return None
        figures = [array.mean(), *np.percentile(array, [50, 90, 99]), array.max()]
        return cls(array.size, *(round(float(figure), 3) for figure in figures))


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """One run as figures. Latencies are in milliseconds, rates per second."""

    clients: int | None
    seconds: float
    """Measured time."""
    served: int
    served_per_second: float
    """Answers within the measured time."""
    refused: dict[str, int]
    """429 and 503, by status."""
    failed: dict[str, int]
    """Everything else, by what was wrong."""
    latency_ms: Summary | None
    """Of what was served: from when it was due to its answer."""
    stages_ms: dict[str, Summary]
    """The server's own stages, of what was served."""
    mean_batch: float | None
    """Mean size of the batches that ran (each request of a batch of 8 counts as an eighth of it); None if the service
    does not state the size of each request's."""
    costs: dict[str, float]
    """CPU time of the client, connections it opened."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class Load:
    """Callers of one service, and all their exchanges so far."""

    def __init__(self, address: Address, requests: Sequence[bytes], timeout_seconds: float) -> None:
        """Inside an event loop. Requests are taken in turn."""
        if not requests:
            raise ValueError("a load needs at least one request to send")
        self.callers: list[Caller] = []
        self.exchanges: list[Exchange] = []
        self.begin = time.monotonic()
        self._requests = itertools.cycle(requests)
        self._about_caller = address, timeout_seconds
        self._cpu_at_begin = time.process_time()

    def new_caller(self) -> Caller:
        """A caller that counts."""
        self.callers.append(Caller(*self._about_caller))
        return self.callers[-1]

    async def next_exchange(self, caller: Caller, due: float) -> Exchange:
        """The next request, sent now, and its answer."""
        exchange = Exchange(next(self._requests), arrived=due, due=due)
        self.exchanges.append(exchange)
        await caller.exchange(exchange)
        return exchange

    async def finish(self, clients: Awaitable[object], end: float, on_share: OnShare | None) -> None:
        """Wait for the clients, reporting what share of the time until `end` has passed; then close the connections."""
        waiting = asyncio.ensure_future(clients)
        while not waiting.done():
            now = time.monotonic()
            if on_share is not None:
                on_share(min(1.0, (now - self.begin) / max(end - self.begin, 1e-9)))
            for caller in self.callers:
                caller.give_up_if_overdue()
            await asyncio.wait([waiting], timeout=min(TICK_SECONDS, max(end - now, 0.05)))
        await waiting
        for caller in self.callers:
            caller.close()
        await asyncio.sleep(0)

    def answered_within(self, begin: float, end: float) -> list[Exchange]:
        """The exchanges that were answered, or failed, between two times."""
        return [exchange for exchange in self.exchanges if begin <= exchange.answered <= end]

    def figures(self, counted: Sequence[Exchange], within: Sequence[Exchange], seconds: float) -> dict[str, Any]:
        """The members of a `LoadReport` but for `clients`: of the exchanges that count; the rate of those `within`."""
        served = [each for each in counted if each.status == SERVED]
        others = [each for each in counted if each.status != SERVED and each.status not in REFUSALS]
        failed = Counter(each.failure or f"status {each.status}" for each in others)
        if stray := sum(caller.stray for caller in self.callers):
            failed["bytes after the end of an answer"] = stray
        stages: dict[str, list[float]] = {}
        for exchange in served:
            for stage, ms in _STAGE.findall(exchange.header(wire.SERVER_TIMING_HEADER) or ""):
                stages.setdefault(stage, []).append(float(ms))
        sizes = [int(size) for each in served if (size := each.header(wire.BATCH_SIZE_HEADER)) and size.isdecimal()]
        microseconds = (time.process_time() - self._cpu_at_begin) * 1e6
        return {
            "seconds": round(seconds, 3),
            "served": len(served),
            "served_per_second": round(sum(each.status == SERVED for each in within) / seconds, 3),
            "refused": dict(Counter(str(each.status) for each in counted if each.status in REFUSALS)),
            "failed": dict(failed),
            "latency_ms": Summary.of((each.answered - each.due) * 1000 for each in served),
            "stages_ms": {stage: summary for stage, of in stages.items() if (summary := Summary.of(of))},
            "mean_batch": round(len(sizes) / sum(1 / size for size in sizes), 3) if sizes and all(sizes) else None,
            "costs": {
                "client_cpu_us_per_request": round(microseconds / max(1, len(self.exchanges)), 1),
                "attempts": len(self.exchanges),
                "connections_opened": sum(caller.opened for caller in self.callers),
            },
        }


def closed_loop(  # keywords that each state one fact of the run
    address: Address,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    warm_up_seconds: float = 0.0,
    timeout_seconds: float = TIMEOUT_SECONDS,
    on_progress: OnShare | None = None,
) -> LoadReport:
    """Sends load from clients that each have one request in flight at any time, and take requests in turn.

    What is in flight at the end of the measured seconds is waited for and does not count, nor does the load of the
    warm-up before them. Failures are part of the report and raise nothing.
    """

    async def run() -> LoadReport:
        load = Load(address, requests, timeout_seconds)
        end = load.begin + warm_up_seconds + seconds

        async def client() -> None:
            caller = load.new_caller()
            while (now := time.monotonic()) < end:
                exchange = await load.next_exchange(caller, now)
                if exchange.failure:
                    await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)

        await load.finish(asyncio.gather(*(client() for _ in range(clients))), end, on_progress)
        within = load.answered_within(load.begin + warm_up_seconds, end)
        return LoadReport(clients=clients, **load.figures(within, within, seconds))

    return run_load(run)


def run_load(run: Callable[[], Coroutine[None, None, _Report]]) -> _Report:
    """Runs a load on uvloop's event loop, without garbage collection: it would stop the client to search exchanges."""
    collects_garbage = gc.isenabled()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())
    finally:
        if collects_garbage:
            gc.enable()
