"""Load on a service: a closed loop of so many clients, or an open loop of arrivals that wait for nobody.

A closed loop shows what a service can do: each client sends its next request when the answer came. An open loop shows
what its callers feel: they arrive when they arrive, also while the service is slow, and their latency counts from
then. (Counted from the sending, a client that a stall kept from sending would leave the worst out of the figures:
"coordinated omission", Gil Tene.)
"""

import asyncio
import gc
import itertools
import resource
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from arcface_api.bench.connection import Exchange, Pool
from arcface_api.bench.report import REFUSALS, LoadReport, report_of, retry_after_seconds
from arcface_api.bench.requests import Address

TICK_SECONDS = 0.25
"""How often progress is told and the overdue are given up."""
TIMER_SECONDS = 0.001
"""uvloop's timers count whole milliseconds and round down: a shorter wait would be a busy loop. What arrives within one
is sent together, up to that much late, and its latency counts from when it was due."""
PAUSE_AFTER_FAILURE_SECONDS = 0.1
"""A client of the closed loop does not send at once into a service that is gone."""
MAX_ATTEMPTS = 20
MAX_RETRY_AFTER_SECONDS = 60.0
"""Whoever is told to come back later than that, or more often than MAX_ATTEMPTS, gives up: a run has to end."""

OnProgress = Callable[[float], None]
"""Told how much of the run is done, 0 to 1; what is still in flight then is waited for."""


def poisson_arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Times at which independent callers arrive.

    Args:
        rate: Mean arrivals a second.
        seconds: Length of the run.
        seed: The same seed gives the same arrivals.

    Returns:
        (n,) float64, ascending, seconds within 0 … seconds.
    """
    random = np.random.default_rng(seed)
    # Given their number, the arrivals of a Poisson process are uniform and independent.
    return np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))


def closed_loop(  # noqa: PLR0913  # keywords that each stand for one fact of the run
    address: Address,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    warm_up_seconds: float = 0.0,
    obeys_retry_after: bool = False,
    timeout_seconds: float = 60.0,
    on_progress: OnProgress | None = None,
) -> LoadReport:
    """So many clients, each with one request in flight at any time.

    Args:
        address: Of the service.
        requests: Taken in turn.
        clients: How many at once.
        seconds: Measured time; what is in flight at its end is waited for and not counted.
        warm_up_seconds: Time before that in which the load is the same and nothing counts.
        obeys_retry_after: A refused client waits as told and sends the same again.
        timeout_seconds: A request without an answer by then has failed.
        on_progress: Told from time to time how much is done.

    Returns:
        What was measured; failures are part of it and raise nothing.
    """

    async def run() -> LoadReport:
        load = _Load(address, requests, obeys_retry_after, timeout_seconds)
        end = load.begin + warm_up_seconds + seconds

        def send_next(_: Exchange | None = None) -> None:
            now = time.monotonic()
            if now < end:
                load.send(Exchange(next(load.requests), arrived=now, due=now))

        def go_on(exchange: Exchange) -> None:
            if exchange.failure:
                load.later(PAUSE_AFTER_FAILURE_SECONDS, send_next)
            else:
                send_next()

        load.on_over = go_on
        for _ in range(clients):
            send_next()
        await load.until(end, on_progress)
        return load.report((load.begin + warm_up_seconds, end), clients)

    return _run(run)


def open_loop(  # noqa: PLR0913  # keywords that each stand for one fact of the run
    address: Address,
    requests: Sequence[bytes],
    *,
    arrivals: NDArray[np.float64],
    seconds: float,
    warm_up_seconds: float = 0.0,
    obeys_retry_after: bool = False,
    timeout_seconds: float = 60.0,
    on_progress: OnProgress | None = None,
) -> LoadReport:
    """Callers that arrive at given times, whatever became of those before them.

    Args:
        address: Of the service.
        requests: Taken in turn.
        arrivals: (n,) seconds from the start, ascending (`poisson_arrivals`; n zeros are a burst).
        seconds: Length of the arrivals' run: rates are per this time, less the warm-up.
        warm_up_seconds: Who arrives before that does not count.
        obeys_retry_after: A refused caller waits as told and sends the same again, until served.
        timeout_seconds: A request without an answer by then has failed.
        on_progress: Told from time to time how much is done.

    Returns:
        What was measured, of everyone who arrived after the warm-up: all are waited for. Failures raise nothing.
    """

    async def run() -> LoadReport:
        load = _Load(address, requests, obeys_retry_after, timeout_seconds)
        due = load.begin + arrivals
        waiting = deque(due.tolist())

        def send_due() -> None:
            now = time.monotonic()
            while waiting and waiting[0] <= now:
                arrived = waiting.popleft()
                load.send(Exchange(next(load.requests), arrived=arrived, due=arrived))
            if waiting:
                load.later(max(TIMER_SECONDS, waiting[0] - now), send_due)

        send_due()
        await load.until(load.begin + seconds, on_progress)
        return load.report((load.begin + warm_up_seconds, load.begin + seconds), None)

    _allow_many_connections()
    return _run(run)


@dataclass
class _Load:
    """What both loops share: the pool, who retries, what has been sent, what the client cost."""

    address: Address
    of: Sequence[bytes]
    obeys_retry_after: bool
    timeout_seconds: float
    exchanges: list[Exchange] = field(default_factory=list)
    on_over: Callable[[Exchange], None] = lambda _: None
    """Told an exchange that will not be tried again."""

    def __post_init__(self) -> None:
        if not self.of:
            raise ValueError("a load needs at least one request to send")
        self.loop = asyncio.get_running_loop()
        self.requests = itertools.cycle(self.of)
        self.pool = Pool(self.address, self.timeout_seconds, self._done)
        self.planned = 0
        """Sendings that wait for their time."""
        self.begin = time.monotonic()
        self._cpu_at_begin = time.process_time()

    def send(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.pool.send(exchange)

    def later(self, seconds: float, send: Callable[[], None]) -> None:
        def now() -> None:
            self.planned -= 1
            send()

        self.planned += 1
        self.loop.call_later(seconds, now)

    async def until(self, end: float, on_progress: OnProgress | None) -> None:
        """Wait for the end, and for whatever is still in flight then."""
        total = max(end - self.begin, 1e-9)
        while (now := time.monotonic()) < end or self.pool.in_flight or self.planned:
            self.pool.fail_overdue()
            if on_progress is not None:
                on_progress(min(1.0, (now - self.begin) / total))
            await asyncio.sleep(min(TICK_SECONDS, max(end - now, 0.01)))
        await self.pool.close()

    def report(self, window: tuple[float, float], clients: int | None) -> LoadReport:
        """The figures of the run, and what the client itself cost."""
        microseconds = (time.process_time() - self._cpu_at_begin) * 1e6
        costs = {
            "client_cpu_us_per_request": round(microseconds / max(1, len(self.exchanges)), 1),
            "attempts": len(self.exchanges),
            "connections_opened": self.pool.opened,
        }
        return report_of(self.exchanges, window, clients=clients, costs=costs, stray=self.pool.stray)

    def _done(self, exchange: Exchange) -> None:
        if self.obeys_retry_after and exchange.status in REFUSALS and exchange.attempt < MAX_ATTEMPTS:
            wait = retry_after_seconds(exchange)
            if wait is not None and wait <= MAX_RETRY_AFTER_SECONDS:
                due = time.monotonic() + wait
                again = Exchange(exchange.request, exchange.arrived, due, exchange.attempt + 1)
                self.later(wait, lambda: self.send(again))
                return
        self.on_over(exchange)


def _run(run: Callable[[], Coroutine[None, None, LoadReport]]) -> LoadReport:
    """Run on uvloop's event loop, the cheaper one, where it is installed."""
    try:
        import uvloop  # noqa: PLC0415  # part of the server's extra, and not made for every system
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    collects_garbage = gc.isenabled()
    gc.disable()  # it would stop the client to look through all exchanges, of which none is in a cycle
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(run())
    finally:
        if collects_garbage:
            gc.enable()


def _allow_many_connections() -> None:
    """An open loop needs a connection for each request in flight: take as many as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
