"""Many callers, one model: whatever is queued when the model is free becomes its next batch.

    submit ──▶ queue (bounded) ──▶ batch of a fixed size ──one thread──▶ rows ──▶ each to its own caller

There is no timer: a lone caller never waits for others, and under load batches fill by themselves, because callers
arrive while the previous batch runs. Promises, each with a test:

- rows return to their own callers; a wrong number of rows is an error, never a mix-up;
- a failing batch fails only its own callers, and an item that fails alone only its own caller;
- the thread survives whatever is raised on it, and a batch that does not end is visible outside (`running_since`);
- a caller that leaves, or whose deadline cannot be met, costs the model and the other callers nothing;
- a full queue refuses at once and says when to come back;
- callers that send one item at a time are not kept waiting by those that send many;
- closing refuses new work and finishes queued work.
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
"""While both kinds wait, one place in this many of a batch goes to items of callers that send many at once."""
SMOOTHING = 0.2
"""Weight of the newest batch in the running mean of the seconds per item."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batched(Generic[Row]):
    """One item's row, the milliseconds from `submit` until its batch began, and the size of the batch."""

    row: Row
    waited_ms: float
    batch_size: int


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Row]):
    item: Item
    answer: "asyncio.Future[Batched[Row]]"
    submitted: float
    deadline: float


class Batcher(Generic[Item, Row]):
    """Runs one model in batches on a thread of its own, so the model never waits for a busy event loop.

    `submit` and `close` belong to one event loop.
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
            run: Blocks; returns a row for each item, in order, or an exception for an item that failed alone.
            name: Of the thread.
            sizes: Batch sizes that may occur, 1 among them; a batch has the largest that the queue can fill.
            capacity: Most items that may wait.
        """
        if 1 not in sizes:
            raise ValueError("a batcher needs the batch size 1, or a lone item could never run")
        self.name = name
        self.running_since: float | None = None
        """When the running batch began, in seconds of `time.monotonic`; None if none runs."""
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
        self._item_seconds = 0.0
        """Running mean of the seconds per item; 0 before the first batch."""
        self._owed_to_bulk = 0.0
        """Places, or the fraction of one, that bulk items are still due of their share."""

    @property
    def queued(self) -> int:
        """Items that wait now."""
        return len(self._single) + len(self._bulk)

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing waits, at this moment. Any thread may ask."""
        return self.running_since is None and not self.queued

    @property
    def has_lost_its_thread(self) -> bool:
        """The thread has ended although the batcher was not closed; nothing that waits will run."""
        return self._loop is not None and not self._is_closing and not self._thread.is_alive()

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
        except asyncio.CancelledError:  # the caller left: release its item now, not when the running batch ends
            with self._changed, suppress(ValueError):
                (self._bulk if is_bulk else self._single).remove(waiting)
            raise

    async def close(self) -> None:
        """Refuse new work, finish what is queued, and end the thread."""
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
            except BaseException as error:  # noqa: BLE001  # a defect here: answer everybody who waits, and go on
                _log.exception("A defect in the queue of %s:", self.name)
                self._fail_all(error)
        assert self._loop is not None  # noqa: S101  # the thread starts with the loop
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._ended.set)

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            everybody = [*self._single, *self._bulk]
            self._single.clear()
            self._bulk.clear()
        for waiting in everybody:
            self._deliver(waiting, _own_copy(error))

    def _run_next(self) -> bool:
        """Wait for items and run the next batch; False once closed and empty. Keeps no item after its batch."""
        with self._changed:
            while not self.queued and not self._is_closing:
                self._changed.wait()
            if not self.queued:
                return False
            late, batch = self._take_batch()
            self.running_since = time.monotonic() if batch else None
        try:
            for waiting in late:
                self._deliver(waiting, DeadlineExceeded())
            if batch:
                self._run_batch(batch)
        finally:
            self.running_since = None
        return True

    def _run_batch(self, batch: list[_Waiting[Item, Row]]) -> None:
        started = time.monotonic()
        try:
            rows = self._run([waiting.item for waiting in batch])
            if len(rows) != len(batch):
                raise ModelFailed(f"The model returned {len(rows)} rows for a batch of {len(batch)}.")  # noqa: TRY301  # as if `run` raised it
        except BaseException as error:  # noqa: BLE001  # its own callers get it, and work goes on
            for waiting in batch:
                self._deliver(waiting, _own_copy(error))
            return
        item_seconds = (time.monotonic() - started) / len(batch)
        if self._item_seconds == 0:
            self._item_seconds = item_seconds
        self._item_seconds += SMOOTHING * (item_seconds - self._item_seconds)
        for waiting, row in zip(batch, rows, strict=True):
            waited_ms = (started - waiting.submitted) * 1000
            self._deliver(waiting, row if isinstance(row, Exception) else Batched(row, waited_ms, len(batch)))

    def _deliver(self, waiting: _Waiting[Item, Row], answer: Batched[Row] | Exception) -> None:
        """Hand an answer to its caller, on the event loop."""
        assert self._loop is not None  # noqa: S101  # the thread starts with the loop
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(_settle, waiting.answer, answer)

    def _take_batch(self) -> tuple[list[_Waiting[Item, Row]], list[_Waiting[Item, Row]]]:
        """Take the items that would be too late even in the next batch, and that batch; drop those whose callers left.

        What is too late is an estimate, which only a batch can correct. So if it leaves nothing to run, the item with
        the latest deadline is tried: otherwise one slow batch could make an idle model refuse everybody forever.

        Single items go first, with a share for bulk ones. A fraction of a place is carried over, which keeps the share
        in batches of fewer than `BULK_SHARE` places, too; places that bulk items did not need are not.
        """
        present = [waiting for waiting in (*self._single, *self._bulk) if not waiting.answer.done()]
        now = time.monotonic()
        finished = now + next((size for size in self._sizes if size <= len(present)), 0) * self._item_seconds
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
        size = next((size for size in self._sizes if size <= self.queued), 0)
        share = size / BULK_SHARE
        self._owed_to_bulk = min(self._owed_to_bulk + share, max(1.0, share)) if self._bulk else 0.0
        for_bulk = min(len(self._bulk), max(int(self._owed_to_bulk), size - len(self._single)))
        self._owed_to_bulk = max(0.0, self._owed_to_bulk - for_bulk)
        singles = [self._single.popleft() for _ in range(size - for_bulk)]
        return late, singles + [self._bulk.popleft() for _ in range(for_bulk)]


async def both(one: Coroutine[Any, Any, One], other: Coroutine[Any, Any, Other]) -> tuple[One, Other]:
    """Await both; if one fails, cancel the other, so that it leaves its queue, and raise the first failure."""
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def _settle(caller: "asyncio.Future[Batched[Row]]", answer: Batched[Row] | Exception) -> None:
    if caller.done():  # the caller has left
        return
    if isinstance(answer, Exception):
        caller.set_exception(answer)
    else:
        caller.set_result(answer)


def _own_copy(error: BaseException) -> Exception:
    """An exception for one caller: raised in several tasks, a shared one would collect all their tracebacks."""
    if not isinstance(error, ArcFaceError):
        message = type(error).__name__
        with suppress(Exception):  # a broken exception may raise in its own __str__
            message = str(error) or message
        failed = ModelFailed(f"The batch failed: {message}")
        failed.__cause__ = error
        return failed
    # Without __init__, whose arguments may differ from those that the exception keeps.
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy
