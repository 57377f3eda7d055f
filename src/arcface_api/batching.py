"""Many callers, one function: whatever is queued when a lane is free becomes that lane's next batch.

    submit ──▶ queue (bounded) ──▶ batch of a fixed size ──a thread for each lane──▶ rows ──▶ each to its own caller

A lone caller never waits for others, and under load batches fill by themselves, because callers arrive while the
previous batches run. Only a lane whose batch has just ended waits for a moment, if others are inside: its callers may
come back at once, and the first of them would otherwise run alone while the others wait for it. Promises, each with a
test for one, two and four lanes:

- rows return to their own callers; a wrong number of rows is an error, never a mix-up;
- a failing batch fails only its own callers, and an item that fails alone only its own caller;
- a thread survives whatever is raised on it, and a batch that does not end is visible outside (`running_since`);
- a caller that leaves, or whose deadline cannot be met, costs the model and the other callers nothing;
- no lane idles while items wait, and lanes that are free together share what waits;
- a full queue refuses at once and says when to come back;
- callers that send one item at a time are not kept waiting by those that send many;
- closing refuses new work and finishes queued work.

One module, because queue, lanes and closing share one lock.
"""

import asyncio
import itertools
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from arcface_api.errors import ArcFaceError, DeadlineExceeded, ModelFailed, QueueFull, ServiceClosing, reference_of
from arcface_api.wording import counted

Item = TypeVar("Item")
Row = TypeVar("Row")
One = TypeVar("One")
Other = TypeVar("Other")

BULK_SHARE = 4
"""While both kinds wait, one place in this many of a batch goes to items of callers that send many at once."""
SMOOTHING = 0.2
"""Weight of the newest batch in the running mean of the seconds per item."""
REFILL_SHARE = 0.02
"""The longest wait for callers to come back, as a part of the seconds that their batch took (ADR 14)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batched(Generic[Row]):
    """One item's row, the milliseconds from `submit` until its batch began, and the batch's size and number."""

    row: Row
    waited_ms: float
    batch_size: int
    batch_number: int


class _Run(NamedTuple):
    began: float
    """In seconds of `time.monotonic`."""
    size: int


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Row]):
    item: Item
    answer: "asyncio.Future[Batched[Row]]"
    submitted: float
    deadline: float


class Batcher(Generic[Item, Row]):
    """Runs one function in batches on threads of its own, so that it never waits for a busy event loop.

    The function is a model, or decodes pictures. `submit` and `close` belong to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Row | Exception]],
        *,
        name: str,
        sizes: Sequence[int],
        capacity: int,
        lanes: int = 1,
        run_alone: Callable[[Sequence[Item]], Sequence[Row | Exception]] | None = None,
    ) -> None:
        """Nothing runs before the first `submit`.

        Args:
            run: Blocks; returns a row for each item, in order, or an exception for an item that failed alone. With
                several lanes, as many threads call it at once.
            name: Of the threads.
            sizes: Batch sizes that may occur, 1 among them; a batch has the largest that its lane's share can fill.
            capacity: Most items that may wait.
            lanes: Batches that run side by side.
            run_alone: As `run`, for a batch of one item while nothing else runs or waits, nor did while the batch
                before it ran: it may take what the other lanes leave idle. Default: `run`.
        """
        if 1 not in sizes:
            raise ValueError("a batcher needs the batch size 1, or a lone item could never run")
        self.name = name
        self.batches: Counter[int] = Counter()
        """How many batches have run, by their size."""
        self._numbers = itertools.count()
        self.busy_seconds = 0.0
        """How long the lanes have run batches, added up."""
        self._run, self._run_alone = run, run_alone or run
        self._sizes = sorted(sizes, reverse=True)
        self._capacity = capacity
        self._single: deque[_Waiting[Item, Row]] = deque()
        self._bulk: deque[_Waiting[Item, Row]] = deque()
        self._lock = threading.Lock()
        """Guards the state that the lanes share: all that follows and both queues."""
        self._wakes = [threading.Condition(self._lock) for _ in range(lanes)]
        """What each lane waits on while nothing is queued."""
        self._idle: list[int] = []
        """Lanes that wait. The last one wakes first: its data is still in its core's cache."""
        self._threads: list[threading.Thread] = []
        """One for each lane, from the first `submit` on."""
        self._running: dict[int, _Run] = {}
        """What each busy lane runs."""
        self._refills: dict[int, tuple[int, int, float]] = {}
        """By lane whose batch has ended: the items to wait for (its share of all inside), the lane, and until when."""
        self._had_company = False
        """Whether anything else ran or waited while the last batch ran."""
        self._ended_lanes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        self._ended = asyncio.Event()
        self._item_seconds = 0.0
        """Running mean of the seconds from one finished item to the next, all lanes together; 0 before any batch."""
        self._owed_to_bulk = 0.0
        """Places, or the fraction of one, that bulk items are still due of their share."""

    @property
    def queued(self) -> int:
        """Items that wait now."""
        return len(self._single) + len(self._bulk)

    @property
    def running_since(self) -> float | None:
        """When the oldest running batch began, in seconds of `time.monotonic`; None if none runs."""
        return min((run.began for run in list(self._running.values())), default=None)

    @property
    def has_lost_a_thread(self) -> bool:
        """A thread has ended although the batcher was not closed."""
        return not self._is_closing and not all(thread.is_alive() for thread in self._threads)

    def seconds_for(self, items: int) -> int:
        """Whole seconds that the model needs for that many items at its recent speed, at least 1."""
        return max(1, math.ceil(items * self._item_seconds))

    async def submit(self, item: Item, *, deadline: float = math.inf, is_bulk: bool = False) -> Batched[Row]:
        """Run one item in the next batch that has room for it.

        Args:
            item: What `run` takes.
            deadline: In seconds of `time.monotonic`. An item that cannot be served by then is dropped before it runs,
                unless nothing else is left to run and it has the latest deadline.
            is_bulk: The caller sends many at once; single items go first.

        Raises:
            QueueFull: At once, when `capacity` items wait.
            DeadlineExceeded: It could not be served in time.
            ServiceClosing: `close` was called.
            ModelFailed, ...: What `run` raised for its batch, or returned in its place.
        """
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Row] = _Waiting(item, loop.create_future(), time.monotonic(), deadline)
        with self._lock:
            if self._is_closing:
                raise ServiceClosing("The service is shutting down and takes no new work. Send the request again.")
            if self.queued >= self._capacity:
                raise QueueFull(self.queued, self._capacity, 1, self.seconds_for(self.queued))
            if not self._threads:
                self._start(loop)
            self._had_company |= bool(self._running)
            (self._bulk if is_bulk else self._single).append(waiting)
            if self._idle:
                self._wakes[self._idle.pop()].notify()
        try:
            return await waiting.answer
        except asyncio.CancelledError:  # the caller left: release its item now, not when the running batch ends
            with self._lock, suppress(ValueError):
                (self._bulk if is_bulk else self._single).remove(waiting)
            raise

    async def close(self) -> None:
        """Refuse new work, finish what is queued, and end the threads."""
        with self._lock:
            self._is_closing = True
            for wake in self._wakes:
                wake.notify()
        if self._threads:
            await self._ended.wait()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a thread for each lane, or as many as the system allows; raises `ModelFailed` if it allows none."""
        self._loop = loop
        for lane in range(len(self._wakes)):
            thread = threading.Thread(target=self._work, args=(lane,), name=f"{self.name} {lane}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                remedy = "Allow the service more threads (ulimit -u, or the container's limit of processes)."
                if not self._threads:
                    raise ModelFailed(f"No thread can be started for {self.name}: {error}. {remedy}") from error
                _log.warning(
                    "%s has %s instead of %d: %s. %s",
                    self.name,
                    counted(lane, "thread"),
                    len(self._wakes),
                    error,
                    remedy,
                )
                return
            self._threads.append(thread)

    def _work(self, lane: int) -> None:
        """A lane's thread: batch after batch, until closed and empty."""
        goes_on = True
        while goes_on:
            try:
                goes_on = self._run_next(lane)
            except BaseException as error:  # noqa: BLE001  # a defect here: answer everybody who waits, and go on
                _log.exception("A defect in the queue of %s (reference %s):", self.name, reference_of(error))
                self._fail_all(error)
        with self._lock:
            self._ended_lanes += 1
            is_last = self._ended_lanes == len(self._threads)
        assert self._loop is not None  # noqa: S101  # the threads start with the loop
        if is_last:
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                self._loop.call_soon_threadsafe(self._ended.set)

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            everybody = [*self._single, *self._bulk]
            self._single.clear()
            self._bulk.clear()
        self._deliver([(waiting, _own_copy(error)) for waiting in everybody])

    def _run_next(self, lane: int) -> bool:
        """Wait for items and run the next batch; False once closed and empty. Keeps no item after its batch."""
        with self._lock:
            self._wait_for(1, lane, math.inf)
            self._wait_for(*self._refills.pop(lane, (1, lane, 0.0)))
            if not self.queued:
                return not self._is_closing
            late, batch = self._take_batch()
            has_company = bool(self._running or self.queued or len(batch) > 1)
            is_alone = not has_company and not self._had_company
            self._had_company = has_company
            if batch:
                self._running[lane] = _Run(time.monotonic(), len(batch))
        try:
            if late:
                self._deliver([(waiting, DeadlineExceeded()) for waiting in late])
            if batch:
                self._run_batch(lane, batch, self._run_alone if is_alone else self._run)
        finally:
            self._running.pop(lane, None)
        return True

    def _wait_for(self, items: int, lane: int, until: float) -> None:
        """Wait, with the lock, until so many items are queued, or until a time, or until closed."""
        while self.queued < items and not self._is_closing and (seconds := until - time.monotonic()) > 0:
            self._idle.append(lane)
            try:
                self._wakes[lane].wait(None if math.isinf(seconds) else seconds)
            finally:
                with suppress(ValueError):  # who wakes a lane takes it off the list
                    self._idle.remove(lane)

    def _run_batch(
        self, lane: int, batch: list[_Waiting[Item, Row]], run: Callable[[Sequence[Item]], Sequence[Row | Exception]]
    ) -> None:
        started, busy_before = time.monotonic(), len(self._running)
        try:
            rows = run([waiting.item for waiting in batch])
            if len(rows) != len(batch):
                raise ModelFailed(f"The model returned {counted(len(rows), 'row')} for a batch of {len(batch)}.")  # noqa: TRY301  # as if `run` raised it
        except BaseException as error:  # noqa: BLE001  # its own callers get it, and work goes on
            with self._lock:
                self._count(len(batch), time.monotonic() - started)
            message = "A batch of %d failed on %s (reference %s):"
            _log.error(message, len(batch), self.name, reference_of(error), exc_info=error)  # once for all its callers
            self._deliver([(waiting, _own_copy(error)) for waiting in batch])
            return
        now = time.monotonic()
        with self._lock:  # before any caller can send again, who would seem to have company, and count twice
            self._count(len(batch), now - started)
            busy_lanes = (busy_before + len(self._running)) / 2  # on average, about
            inside = self.queued + sum(run.size for run in self._running.values())
            share = min(self._sizes[0], inside // len(self._threads))
            self._refills[lane] = share, lane, now + REFILL_SHARE * (now - started)
            del self._running[lane]
            item_seconds = (now - started) / len(batch) / busy_lanes
            if self._item_seconds == 0:
                self._item_seconds = item_seconds
            self._item_seconds += SMOOTHING * (item_seconds - self._item_seconds)
        number = next(self._numbers)
        answers: list[tuple[_Waiting[Item, Row], Batched[Row] | Exception]] = []
        for waiting, row in zip(batch, rows, strict=True):
            waited_ms = (started - waiting.submitted) * 1000
            answers.append(
                (waiting, row if isinstance(row, Exception) else Batched(row, waited_ms, len(batch), number))
            )
        self._deliver(answers)

    def _count(self, size: int, seconds: float) -> None:
        self.batches[size] += 1
        self.busy_seconds += seconds

    def _deliver(self, answers: Sequence[tuple[_Waiting[Item, Row], Batched[Row] | Exception]]) -> None:
        """Hand answers to their callers, on the event loop, which they wake once."""
        assert self._loop is not None  # noqa: S101  # the threads start with the loop
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(_settle, [(waiting.answer, answer) for waiting, answer in answers])

    def _take_batch(self) -> tuple[list[_Waiting[Item, Row]], list[_Waiting[Item, Row]]]:
        """Take the items that would be too late even in the next batch, and that batch; drop those whose callers left.

        Lanes that are free share what waits, so that none of them takes all of it while another idles.

        What is too late is an estimate, which only a batch can correct. So if it leaves nothing to run, the item with
        the latest deadline is tried: otherwise one slow batch could make an idle model refuse everybody forever.

        Single items go first, with a share for bulk ones. A fraction of a place is carried over, which keeps the share
        in batches of fewer than `BULK_SHARE` places, too; places that bulk items did not need are not.
        """
        present = [waiting for waiting in (*self._single, *self._bulk) if not waiting.answer.done()]
        now, running = time.monotonic(), len(self._running)
        free = len(self._threads) - running
        finished = now + self._size_for(len(present), free) * self._item_seconds * (running + 1)
        late = [waiting for waiting in present if waiting.deadline < finished]
        if late and len(late) == len(present):
            most_patient = max(late, key=lambda waiting: waiting.deadline)
            if most_patient.deadline > now:
                late.remove(most_patient)
        in_time = set(present).difference(late)
        for queue in (self._single, self._bulk):
            kept = [waiting for waiting in queue if waiting in in_time]
            queue.clear()
            queue.extend(kept)
        size = self._size_for(self.queued, free)
        share = size / BULK_SHARE
        self._owed_to_bulk = min(self._owed_to_bulk + share, max(1.0, share)) if self._bulk else 0.0
        for_bulk = min(len(self._bulk), max(int(self._owed_to_bulk), size - len(self._single)))
        self._owed_to_bulk = max(0.0, self._owed_to_bulk - for_bulk)
        singles = [self._single.popleft() for _ in range(size - for_bulk)]
        return late, singles + [self._bulk.popleft() for _ in range(for_bulk)]

    def _size_for(self, items: int, free: int) -> int:
        """The largest batch size that one of `free` lanes can fill with its share of the items; 0 for no items."""
        return next((size for size in self._sizes if size <= math.ceil(items / free)), 0)


async def both(one: Coroutine[Any, Any, One], other: Coroutine[Any, Any, Other]) -> tuple[One, Other]:
    """Await both; if one fails, cancel the other, so that it leaves its queue, and raise the first failure."""
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def _settle(answers: "Sequence[tuple[asyncio.Future[Batched[Row]], Batched[Row] | Exception]]") -> None:
    for caller, answer in answers:
        if caller.done():  # the caller has left
            continue
        if isinstance(answer, StopIteration):  # no future takes one
            caller.set_exception(RuntimeError(f"{answer!r} was raised"))
        elif isinstance(answer, Exception):
            caller.set_exception(answer)
        else:
            caller.set_result(answer)


def _own_copy(error: BaseException) -> Exception:
    """An exception for one caller: raised in several tasks, a shared one would collect all their tracebacks."""
    if not isinstance(error, ArcFaceError):
        # Not with its message, which may hold what other callers have sent.
        failed = ModelFailed(f"The batch failed with {type(error).__name__}.")
        failed.__cause__ = error
        failed.__dict__["reference"] = reference_of(error)  # under which it was logged
        return failed
    # Without __init__, whose arguments may differ from those that the exception keeps.
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy
