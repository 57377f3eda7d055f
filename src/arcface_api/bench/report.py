"""Exchanges as figures: rates, latencies, stages, refusals, failures. Read after the run, so they cost it nothing."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from arcface_api import wire
from arcface_api.bench.connection import Exchange

SERVED = 200
REFUSALS = (429, 503)
"""Not now: the service protects itself, and says when to come back."""

_STAGE = re.compile(r"([\w-]+)[^,]*?;\s*dur=([\d.]+)")


@dataclass(frozen=True)
class Summary:
    """How a quantity was distributed."""

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


@dataclass(frozen=True)
class Retries:
    """What became of callers that were refused and came back as told."""

    callers: int
    """Refused at least once."""
    served_at_second_attempt: int
    served_in_the_end: int
    max_attempts: int
    until_served_ms: Summary | None
    """From their first arrival, all waiting included."""


@dataclass(frozen=True)
class LoadReport:
    """One run, as figures. Latencies are in milliseconds, rates a second."""

    loop: Literal["closed", "open"]
    clients: int | None
    """Of a closed loop."""
    offered_per_second: float | None
    """First attempts a second, of an open loop."""
    seconds: float
    """Measured time."""
    served: int
    served_per_second: float
    """Answers within the measured time, whenever their callers came: neither the filling nor the emptying of a queue
    counts."""
    refused: dict[str, int]
    """429 and 503, by status."""
    failed: dict[str, int]
    """Everything else, by what was wrong. A figure beside failures means little."""
    latency_ms: Summary | None
    """Of what was served: from the time it was due to its answer."""
    refusal_ms: Summary | None
    """The same of refusals."""
    stages_ms: dict[str, Summary]
    """The server's own stages, of what was served."""
    mean_batch: float | None
    """Mean size of the batches that ran, where the service tells the size of each request's."""
    retry_after_seconds: Summary | None
    """What refusals said."""
    refusals_without_retry_after: int
    retries: Retries | None
    """None where nobody came back."""
    late_ms: Summary | None
    """How late the client itself sent: where it is not small, the client is the limit."""
    costs: dict[str, float]
    """CPU of the client, connections it opened."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)


def retry_after_seconds(exchange: Exchange) -> float | None:
    """What a refusal's `Retry-After` says, in seconds; None without one that is a number."""
    value = header(exchange, "Retry-After")
    return float(value) if value is not None and value.isdecimal() else None


def header(exchange: Exchange, name: str) -> str | None:
    """Value of the answer's header, the first of that name."""
    for line in exchange.head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.decode("latin-1").lower() == name.lower():
            return value.decode("latin-1").strip()
    return None


def report_of(
    exchanges: Sequence[Exchange],
    window: tuple[float, float],
    *,
    clients: int | None,
    costs: dict[str, float],
    stray: int,
) -> LoadReport:
    """The figures of a run.

    Args:
        exchanges: All attempts, also those before and after the measured time.
        window: Begin and end of the measured time.
        clients: Of a closed loop; None of an open one.
        costs: Of the client.
        stray: Connections on which bytes came that nobody had asked for.
    """
    begin, end = window
    seconds = end - begin
    answered_within = [e for e in exchanges if begin <= e.answered <= end]
    # A client of a closed loop has begun before the window what is answered within it. Callers of an open loop must all
    # be followed to their answer, or the slowest would be left out.
    counted = [e for e in exchanges if e.arrived >= begin] if clients is None else answered_within
    served = [e for e in counted if e.status == SERVED]
    refused = [e for e in counted if e.status in REFUSALS]
    others = [e for e in counted if e.status != SERVED and e.status not in REFUSALS]
    offered = None if clients is not None else sum(1 for e in counted if e.attempt == 1) / seconds
    failed = Counter(e.failure or f"status {e.status}" for e in others)
    if stray:
        failed["bytes after the end of an answer"] = stray
    told = [wait for e in refused if (wait := retry_after_seconds(e)) is not None]
    return LoadReport(
        loop="open" if clients is None else "closed",
        clients=clients,
        offered_per_second=None if offered is None else round(offered, 3),
        seconds=round(seconds, 3),
        served=len(served),
        served_per_second=round(sum(1 for e in answered_within if e.status == SERVED) / seconds, 3),
        refused=dict(Counter(str(e.status) for e in refused)),
        failed=dict(failed),
        latency_ms=Summary.of(_latencies_ms(served)),
        refusal_ms=Summary.of(_latencies_ms(refused)),
        stages_ms=_stages(served),
        mean_batch=_mean_batch(served),
        retry_after_seconds=Summary.of(told),
        refusals_without_retry_after=len(refused) - len(told),
        retries=_retries(counted),
        late_ms=Summary.of((e.sent - e.due) * 1000 for e in counted if e.sent),
        costs=costs,
    )


def _latencies_ms(exchanges: Sequence[Exchange]) -> Iterable[float]:
    return ((e.answered - e.due) * 1000 for e in exchanges)


def _stages(served: Sequence[Exchange]) -> dict[str, Summary]:
    durations: dict[str, list[float]] = {}
    for exchange in served:
        for stage, ms in _STAGE.findall(header(exchange, wire.SERVER_TIMING_HEADER) or ""):
            durations.setdefault(stage, []).append(float(ms))
    return {stage: summary for stage, of in durations.items() if (summary := Summary.of(of))}


def _mean_batch(served: Sequence[Exchange]) -> float | None:
    """Requests over batches: each request of a batch of 8 stands for an eighth of it."""
    sizes = [int(size) for e in served if (size := header(e, wire.BATCH_SIZE_HEADER)) is not None and size.isdecimal()]
    return round(len(sizes) / sum(1 / size for size in sizes), 3) if sizes and all(sizes) else None


def _retries(exchanges: Sequence[Exchange]) -> Retries | None:
    again = [e for e in exchanges if e.attempt > 1]
    if not again:
        return None
    served = [e for e in again if e.status == SERVED]
    return Retries(
        callers=sum(1 for e in again if e.attempt == 2),
        served_at_second_attempt=sum(1 for e in served if e.attempt == 2),
        served_in_the_end=len(served),
        max_attempts=max(e.attempt for e in again),
        until_served_ms=Summary.of((e.answered - e.arrived) * 1000 for e in served),
    )
