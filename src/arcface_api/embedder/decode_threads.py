"""A few threads that decode, no more of them awake than pay.

Python runs one thread at a time, so each further thread that is awake makes all of them wait for their turns. Decoding
a face crop takes less than such a turn costs: crops are decoded one after the other on one thread, and only long work
gets threads of its own.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

Result = TypeVar("Result")

PATIENCE_SECONDS = 0.003
"""The most that short work waits so that fewer threads wake: for its turn, before another thread wakes because the work
before it takes long; or, when it is done, for its thread to finish what else waits."""


@dataclass(eq=False)
class Job(Generic[Result]):
    """One call on a thread, and its result on the event loop."""

    call: Callable[[], Result]
    is_long: bool
    """It takes milliseconds, or may."""
    result: "asyncio.Future[Result]"
    submitted: float = field(default_factory=time.monotonic)
    has_ended: bool = False
    on_end: Callable[[], None] | None = None
    """Called on the event loop when it ends, for one whose caller has left."""


class DecodeThreads:
    """Up to `most` threads, started when they are first needed. All methods belong to one event loop."""

    def __init__(self, most: int) -> None:
        """Starts nothing."""
        self.most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Job[object]] = deque()
        self._ended: deque[tuple[Job[object], object, BaseException | None]] = deque()
        self._lock = threading.Lock()
        """Guards `_waiting` and `_awake`."""
        self._awake = 0
        self._short = self._long = 0  # jobs that wait or run
        self._wakes: SimpleQueue[bool] = SimpleQueue()  # one for each thread to wake; False: it ends
        self._threads: list[threading.Thread] = []
        self._running_since: dict[int, float] = {}  # `time.monotonic`, by thread
        self._check: asyncio.TimerHandle | None = None

    def runs_since_before(self, moment: float) -> bool:
        """Whether a thread has been running one job since before `moment` (`time.monotonic`)."""
        return any(since < moment for since in list(self._running_since.values()))

    def submit(self, call: Callable[[], Result], *, is_long: bool) -> Job[Result]:
        """Run this on a thread, after what was submitted before. Await the job's `result`."""
        self._loop = loop = asyncio.get_running_loop()
        job: Job[Result] = Job(call, is_long, loop.create_future())
        self._count(job, 1)
        with self._lock:
            self._waiting.append(job)  # type: ignore[arg-type]  # each job only meets its own result
            wakes = self._awake < min(self.most, self._long + bool(self._short))
            self._awake += wakes
        if wakes:
            self._wake()
        elif self._check is None:
            self._check = loop.call_later(PATIENCE_SECONDS, self._wake_if_late)
        return job

    def drop(self, job: Job[Result]) -> bool:
        """Whether nothing runs for this job any more: it has ended, or was still waiting and never will run."""
        with self._lock, suppress(ValueError):
            self._waiting.remove(job)  # type: ignore[arg-type]  # as above
            job.has_ended = True
            self._count(job, -1)
        return job.has_ended

    def close(self) -> None:
        """End the threads, which have nothing to do any more."""
        if self._check is not None:
            self._check.cancel()
        for _ in self._threads:
            self._wakes.put(False)

    def _count(self, job: Job[Result], change: int) -> None:
        if job.is_long:
            self._long += change
        else:
            self._short += change

    def _wake(self) -> None:
        """Wake a thread, which counts as awake already."""
        self._wakes.put(True)
        if self._awake > len(self._threads):
            thread = threading.Thread(target=self._work, name=f"decode_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _wake_if_late(self) -> None:
        """The timer while jobs wait: what is held or waits because another job takes long, need not wait for it."""
        self._check = None
        self._settle_ended()
        with self._lock:
            if not self._waiting:
                return
            is_late = time.monotonic() - self._waiting[0].submitted > PATIENCE_SECONDS
            wakes = is_late and self._awake < self.most
            self._awake += wakes
        if wakes:
            self._wake()
        self._check = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._wake_if_late)

    def _work(self) -> None:
        """A thread: asleep, or running one job after the other."""
        thread = threading.get_ident()
        while self._wakes.get():
            hold_until = math.inf
            while (job := self._next()) is not None:
                self._running_since[thread] = time.monotonic()
                result, error = None, None
                try:
                    result = job.call()
                except BaseException as raised:  # noqa: BLE001  # its caller gets it, and the thread goes on
                    error = raised
                now, since = time.monotonic(), self._running_since.pop(thread)
                self._ended.append((job, result, error))
                hold_until = min(hold_until, since + PATIENCE_SECONDS)
                if job.is_long or not self._waiting or now > hold_until:
                    self._hand_over()
                    hold_until = math.inf
                del job, result, error  # nothing of a picture is kept while asleep
            if self._ended:  # another thread took the job for which they were held
                self._hand_over()

    def _next(self) -> "Job[object] | None":
        """The job that has waited longest; None if there is none: the thread goes to sleep."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._awake -= 1
            return None

    def _hand_over(self) -> None:
        """Let the event loop take what has ended."""
        assert self._loop is not None  # noqa: S101  # a job was submitted
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._settle_ended)

    def _settle_ended(self) -> None:
        """Hand each result to its caller, on the event loop."""
        while self._ended:
            job, result, error = self._ended.popleft()
            job.has_ended = True
            self._count(job, -1)
            if job.on_end is not None:
                job.on_end()
            if job.result.done():  # the caller has left
                continue
            if error is None:
                job.result.set_result(result)
            else:
                job.result.set_exception(error)
