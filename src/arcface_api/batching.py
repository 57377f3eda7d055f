"""Many callers, one model: whatever is queued when the model is free becomes its next batch.

    submit ──▶ queue (bounded) ──▶ batch of a fixed size ──one thread──▶ rows ──▶ each to its own caller

There is no timer: a lone caller never waits for company, and under load batches fill by themselves, because callers
arrive while the batch before runs. Promises, each with a test:

- rows return to their own callers; a wrong number of rows is an error, never a mix-up;
- a failing batch fails its own callers and nobody else, and an item that fails alone fails its own caller only;
- whatever is raised on the thread, it goes on; a batch that does not end can be seen from outside (`running_since`);
- a caller that leaves, or whose deadline cannot be met, costs the model nothing and its neighbours nothing (where every
  deadline seems lost, the latest one is tried, lest an estimate refuse everybody for ever);
- a full queue refuses at once and says when to come back;
- callers that send one item at a time are not kept waiting by those that send many;
- closing refuses new work and finishes queued work.

Longer than most modules: the promises are about one queue and one thread, and hold only together.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from arcface_api.errors import ArcFaceError, DeadlineExceeded, ModelFailed, QueueFull, ServiceClosing

Item = TypeVar("Item")
Row = TypeVar("Row")
One = TypeVar("One")
Other = TypeVar("Other")

BULK_SHARE = 4
"""While both kinds of callers wait, one in this many places of a batch goes to those that send many items at once."""
SMOOTHING = 0.2
"""Weight of the newest batch in the running mean of the time an item takes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batched(Generic[Row]):
    """One item's row, and how it came about."""

    row: Row
    waited_ms: float
    """From `submit` until its batch began to run."""
    batch_size: int


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Row]):
    """One item in the queue."""

    item: Item
    answer: "asyncio.Future[Batched[Row]]"
    submitted: float
    deadline: float


class Batcher(Generic[Item, Row]):
    """Runs one model in batches on a thread of its own; `submit` and `close` belong to one event loop.

    The thread takes its next batch from the queue itself: between two batches the model waits for nobody, also while
    the event loop is busy with requests.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Row | Exception]],
        *,
        name: str,
        sizes: Sequence[int],
        capacity: int,
    ) -> None:
        """Nothing runs before the first `submit`.

        Args:
            run: Blocking: a batch of items to as many rows, in order; in the place of an item that failed alone, its
                exception. Called by one thread, one batch at a time.
            name: Of the thread.
            sizes: Batch sizes that may occur, 1 among them. A batch is as large as what is queued allows.
            capacity: Most items that may wait.
        """
        if 1 not in sizes:
            raise ValueError("a batcher needs the batch size 1, or a lone item could never run")
        self._run = run
        self._sizes = sorted(sizes, reverse=True)
        self._capacity = capacity
        self._single: deque[_Waiting[Item, Row]] = deque()
        self._bulk: deque[_Waiting[Item, Row]] = deque()
        self._changed = threading.Condition()
        """Guards both queues and `_is_closing`."""
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        self._ended = asyncio.Event()
        self._running_since: float | None = None
        self._item_seconds = 0.0
        """Running mean of a batch's time divided by its size; 0 before the first batch."""
        self._owed_to_bulk = 0.0
        """The part of a place, or the places of the next batch, that bulk items have yet to get of their share."""

    @property
    def queued(self) -> int:
        """Items that wait now."""
        return len(self._single) + len(self._bulk)

    @property
    def name(self) -> str:
        """Of the thread."""
        return self._thread.name

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing waits. Any thread may ask; a moment later it may be otherwise."""
        return self._running_since is None and not self.queued

    @property
    def running_since(self) -> float | None:
        """When the batch that runs now began, on `time.monotonic`'s clock, in seconds; None: none runs."""
        return self._running_since

    @property
    def has_lost_its_thread(self) -> bool:
        """The thread has ended although the batcher was not closed: nothing that waits will run."""
        return self._loop is not None and not self._is_closing and not self._thread.is_alive()

    def seconds_for(self, items: int) -> int:
        """In how many whole seconds so many items will have been served, at least 1; by the speed of late."""
        return max(1, math.ceil(items * self._item_seconds))

    async def submit(self, item: Item, *, deadline: float = math.inf, is_bulk: bool = False) -> Batched[Row]:
        """Have one item run in the next batch that has room for it.

        Args:
            item: What `run` takes.
            deadline: On `time.monotonic`'s clock; an item that cannot be served by then is dropped before it runs,
                unless nothing else is left to run and it has the most time.
            is_bulk: One of many that the same caller sends at once; gives way to single items.

        Raises:
            QueueFull: At once, when as many items wait as may.
            DeadlineExceeded: It could not be served in time.
            ServiceClosing: `close` was called.
            ModelFailed, ...: What `run` raised for its batch, or returned in its place.
        """
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Row] = _Waiting(item, loop.create_future(), time.monotonic(), deadline)
        with self._changed:
            if self._is_closing:
                raise ServiceClosing("The service is shutting down and takes no new work. Send the request again.")
            if self.queued >= self._capacity:
                raise QueueFull(self.queued, self._capacity, 1, self.seconds_for(self.queued))
            if self._loop is None:
                self._loop = loop
                self._thread.start()
            (self._bulk if is_bulk else self._single).append(waiting)
            self._changed.notify()
        try:
            return await waiting.answer
        except asyncio.CancelledError:  # the caller left: its item is not kept until the running batch ends
            with self._changed, suppress(ValueError):
                (self._bulk if is_bulk else self._single).remove(waiting)
            raise

    async def close(self) -> None:
        """Refuse new work, finish what is queued, end the thread. Waits as long as the running batch takes."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._loop is not None:
            await self._ended.wait()

    def _work(self) -> None:
        """The thread: batch after batch, until closed and empty."""
        goes_on = True
        while goes_on:
            try:
                goes_on = self._run_next()
            except BaseException as error:  # noqa: BLE001  # a defect here: all who wait are answered, and it goes on
                _log.exception("A defect in the queue of %s:", self.name)
                self._fail_all(error)
        self._call_loop(self._ended.set)

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            waiting = [*self._single, *self._bulk]
            self._single.clear()
            self._bulk.clear()
        for each in waiting:
            self._deliver(each, _own_copy(error))

    def _run_next(self) -> bool:
        """Wait for items and run the next batch; False once closed and empty. No item outlives its batch here."""
        with self._changed:
            while not self.queued and not self._is_closing:
                self._changed.wait()
            if not self.queued:
                return False
            late = self._take_out_late()
            batch = self._next_batch()
            self._running_since = time.monotonic() if batch else None
        try:
            for waiting in late:
                self._deliver(waiting, DeadlineExceeded())
            if batch:
                self._run_batch(batch)
        finally:
            self._running_since = None
        return True

    def _run_batch(self, batch: list[_Waiting[Item, Row]]) -> None:
        started = time.monotonic()
        try:
            rows = _checked(self._run([waiting.item for waiting in batch]), len(batch))
        except BaseException as error:  # noqa: BLE001  # whatever it was, it is its own callers' answer, and work goes on
            for waiting in batch:
                self._deliver(waiting, _own_copy(error))
            return
        seconds = time.monotonic() - started
        self._learn(seconds / len(batch))
        for waiting, row in zip(batch, rows, strict=True):
            waited_ms = (started - waiting.submitted) * 1000
            self._deliver(
                waiting,
                row if isinstance(row, Exception) else Batched(row, waited_ms, len(batch)),
            )

    def _deliver(self, waiting: _Waiting[Item, Row], answer: Batched[Row] | Exception) -> None:
        """Hand an answer to its caller, on the event loop; nobody may be there any more."""

        def settle() -> None:
            if waiting.answer.done():
                return
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)

        self._call_loop(settle)

    def _call_loop(self, function: Callable[[], None]) -> None:
        assert self._loop is not None  # noqa: S101  # the thread starts with the loop
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(function)

    def _take_out_late(self) -> list[_Waiting[Item, Row]]:
        """Forget whoever left, and take out those who could not be served in time even by the batch that runs now.

        That is an estimate, which only a batch can correct. So where it leaves nothing to run, whoever has the most
        time is tried: else a single slow batch could make it refuse everybody for ever, beside an idle model.
        """
        for queue in (self._single, self._bulk):
            still_there = [waiting for waiting in queue if not waiting.answer.done()]
            queue.clear()
            queue.extend(still_there)
        now = time.monotonic()
        finished = now + self._next_size() * self._item_seconds
        late = [waiting for queue in (self._single, self._bulk) for waiting in queue if waiting.deadline < finished]
        if late and len(late) == self.queued:
            most_patient = max(late, key=lambda waiting: waiting.deadline)
            if most_patient.deadline > now:
                late.remove(most_patient)
        if late:
            taken_out = set(late)
            for queue in (self._single, self._bulk):
                in_time = [waiting for waiting in queue if waiting not in taken_out]
                queue.clear()
                queue.extend(in_time)
        return late

    def _next_size(self) -> int:
        return next((size for size in self._sizes if size <= self.queued), 0)

    def _next_batch(self) -> list[_Waiting[Item, Row]]:
        """The largest size that what is queued can fill; single items first, with a share for bulk ones.

        Of that share a fraction of a place is carried over, so that it is kept in batches of fewer than `BULK_SHARE`
        places, too. Places that bulk items did not ask for are not.
        """
        size = self._next_size()
        share = size / BULK_SHARE
        self._owed_to_bulk = min(self._owed_to_bulk + share, max(1.0, share)) if self._bulk else 0.0
        for_bulk = min(len(self._bulk), max(int(self._owed_to_bulk), size - len(self._single)))
        self._owed_to_bulk = max(0.0, self._owed_to_bulk - for_bulk)
        batch = [self._single.popleft() for _ in range(size - for_bulk)]
        return batch + [self._bulk.popleft() for _ in range(for_bulk)]

    def _learn(self, item_seconds: float) -> None:
        if self._item_seconds == 0:
            self._item_seconds = item_seconds
        self._item_seconds += SMOOTHING * (item_seconds - self._item_seconds)


async def both(one: Coroutine[Any, Any, One], other: Coroutine[Any, Any, Other]) -> tuple[One, Other]:
    """Two results, worked out side by side; where one cannot be had, what waits for the other leaves its queue.

    Raises:
        ModelFailed, ...: What the first of the two to fail raised.
    """
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def _checked(rows: Sequence[Row | Exception], wanted: int) -> Sequence[Row | Exception]:
    if len(rows) != wanted:
        raise ModelFailed(f"The model returned {len(rows)} rows for a batch of {wanted}.")
    return rows


def _own_copy(error: BaseException) -> Exception:
    """One exception for each caller: raised in several tasks, a shared one would collect all their tracebacks."""
    if not isinstance(error, ArcFaceError):
        said = type(error).__name__
        with suppress(Exception):  # what raises anything may also raise when it is asked what it says
            said = str(error) or said
        failed = ModelFailed(f"The batch failed: {said}")
        failed.__cause__ = error
        return failed
    # Without __init__, which may take other arguments than those that the exception keeps.
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy
