"""Load beyond the closed loop of `arcface_api.bench`: arrivals that wait for nobody, and callers that come back.

An open loop shows what callers feel: they arrive when they arrive, also while the service is slow, and their latency
counts from then. (Counted from the sending, the figures would leave out exactly those that a stall kept from being
sent: "coordinated omission", Gil Tene.)
"""

import asyncio
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcface_api.bench.connection import Address, Caller, Exchange, form_request
from arcface_api.bench.load import (
    REFUSALS,
    SERVED,
    TIMEOUT_SECONDS,
    Load,
    LoadReport,
    OnShare,
    Summary,
    closed_loop,
    run_load,
)

__all__ = [
    "LoadReport",
    "OpenReport",
    "batch_request",
    "closed_loop",
    "embed_request",
    "open_loop",
    "poisson_arrivals",
    "progress",
]

REUSE_SECONDS = 2.0
"""A connection that was idle for longer is not used again: its server may be closing it (uvicorn does after 5 s)."""
MAX_ATTEMPTS = 20
MAX_RETRY_AFTER_SECONDS = 60.0
"""A caller that is asked to wait longer, or was refused MAX_ATTEMPTS times, gives up: a run has to end."""


@dataclass(frozen=True)
class Retries:
    """What callers got that were refused and came back."""

    callers: int
    """Refused at least once."""
    served_at_second_attempt: int
    served_in_the_end: int
    max_attempts: int
    until_served_ms: Summary | None
    """From their first arrival, all waiting included."""


@dataclass(frozen=True, kw_only=True)
class OpenReport(LoadReport):
    """One run of an open loop as figures."""

    offered_per_second: float
    """First attempts."""
    refusal_ms: Summary | None
    """Latency of refusals."""
    retry_after_seconds: Summary | None
    """What refusals asked for."""
    refusals_without_retry_after: int
    retries: Retries | None
    """None where nobody came back."""
    late_ms: Summary | None
    """How late the client itself sent: where it is not small, the client is the limit."""


def embed_request(address: Address, picture: bytes, *, path: str = "/embed") -> bytes:
    """A form with one picture."""
    return form_request(address, path, "file", [picture])


def batch_request(address: Address, pictures: Sequence[bytes], *, path: str = "/embed/batch") -> bytes:
    """A form with many pictures."""
    return form_request(address, path, "files", pictures)


def poisson_arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Times at which independent callers arrive.

    Args:
        rate: Mean arrivals per second.
        seconds: Length of the run.
        seed: The same seed gives the same arrivals.

    Returns:
        (n,) float64, ascending, seconds within 0 … seconds.
    """
    random = np.random.default_rng(seed)
    # Given their number, the arrivals of a Poisson process are uniform and independent.
    return np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))


def open_loop(  # noqa: PLR0913  # keywords that each state one fact of the run
    address: Address,
    requests: Sequence[bytes],
    *,
    arrivals: NDArray[np.float64],
    seconds: float,
    warm_up_seconds: float = 0.0,
    obeys_retry_after: bool = False,
    timeout_seconds: float = TIMEOUT_SECONDS,
    on_progress: OnShare | None = None,
) -> OpenReport:
    """Send each request at its time, whatever happened to those before.

    Args:
        address: Of the service.
        requests: Taken in turn.
        arrivals: (n,) seconds from the start, ascending (`poisson_arrivals`; n zeros are a burst).
        seconds: Length of the arrivals' run: rates are per this time, less the warm-up.
        warm_up_seconds: Arrivals before that do not count.
        obeys_retry_after: A refused caller waits as long as it was asked to, and sends the same again until served.
        timeout_seconds: A request without an answer by then has failed.
        on_progress: Called with how much is done.

    Returns:
        What was measured, of all arrivals after the warm-up: all are waited for. Failures raise nothing.
    """

    async def run() -> OpenReport:
        load = Load(address, requests, timeout_seconds)
        idle: list[tuple[Caller, float]] = []

        async def attempts(due: float) -> None:
            caller, since = idle.pop() if idle else (load.new_caller(), due)
            if time.monotonic() - since > REUSE_SECONDS:
                caller.close()
            exchange = await load.next_exchange(caller, due)
            while obeys_retry_after and (wait := _wait(exchange)) is not None:
                again = time.monotonic() + wait
                await asyncio.sleep(wait)
                exchange = Exchange(exchange.request, exchange.arrived, again, exchange.attempt + 1)
                load.exchanges.append(exchange)
                await caller.exchange(exchange)
            idle.append((caller, time.monotonic()))

        async def arrive() -> None:
            async with asyncio.TaskGroup() as callers:
                for due in (load.begin + arrivals).tolist():
                    # Timers count whole milliseconds: arrivals within one are sent together, up to that much late.
                    if (wait := due - time.monotonic()) > 0:
                        await asyncio.sleep(max(wait, 0.001))
                    callers.create_task(attempts(due))
                await asyncio.sleep(max(0.0, end - time.monotonic()))

        end = load.begin + seconds
        await load.finish(arrive(), end, on_progress)
        return _report(load, load.begin + warm_up_seconds, end)

    _allow_many_connections()
    return run_load(run)


def progress(fraction: float) -> None:
    """Show how much is done, on one line of standard error."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{fraction:4.0%}" if fraction < 1 else "\r    \r")
        sys.stderr.flush()


def _report(load: Load, begin: float, end: float) -> OpenReport:
    # Callers must all be followed to their answer, or the slowest would be left out.
    counted = [each for each in load.exchanges if each.arrived >= begin]
    refused = [each for each in counted if each.status in REFUSALS]
    asked = [wait for each in refused if (wait := _retry_after_seconds(each)) is not None]
    shared: dict[str, Any] = load.figures(counted, load.answered_within(begin, end), end - begin)
    return OpenReport(
        clients=None,
        **shared,
        offered_per_second=round(sum(1 for each in counted if each.attempt == 1) / (end - begin), 3),
        refusal_ms=Summary.of((each.answered - each.due) * 1000 for each in refused),
        retry_after_seconds=Summary.of(asked),
        refusals_without_retry_after=len(refused) - len(asked),
        retries=_retries(counted),
        late_ms=Summary.of((each.sent - each.due) * 1000 for each in counted if each.sent),
    )


def _wait(exchange: Exchange) -> float | None:
    """How long a refused caller waits before it comes back; None if it does not."""
    wait = _retry_after_seconds(exchange) if exchange.status in REFUSALS else None
    comes_back = wait is not None and wait <= MAX_RETRY_AFTER_SECONDS and exchange.attempt < MAX_ATTEMPTS
    return wait if comes_back else None


def _retry_after_seconds(exchange: Exchange) -> float | None:
    value = exchange.header("Retry-After")
    return float(value) if value is not None and value.isdecimal() else None


def _retries(exchanges: Sequence[Exchange]) -> Retries | None:
    again = [each for each in exchanges if each.attempt > 1]
    if not again:
        return None
    served = [each for each in again if each.status == SERVED]
    return Retries(
        callers=sum(1 for each in again if each.attempt == 2),
        served_at_second_attempt=sum(1 for each in served if each.attempt == 2),
        served_in_the_end=len(served),
        max_attempts=max(each.attempt for each in again),
        until_served_ms=Summary.of((each.answered - each.arrived) * 1000 for each in served),
    )


def _allow_many_connections() -> None:
    """An open loop needs a connection for each request in flight: take as many as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
