"""What the embedder relies on: no picture waits for another's slow decoding, and no more threads wake than pay."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from arcface_api.embedder import decode_threads
from arcface_api.embedder.decode_threads import DecodeThreads

Check = Callable[[DecodeThreads], Coroutine[Any, Any, None]]


def run(check: Check, most: int = 2) -> None:
    """Run a check with threads, which end with it."""

    async def whole() -> None:
        threads = DecodeThreads(most)
        try:
            await check(threads)
        finally:
            threads.close()

    asyncio.run(asyncio.wait_for(whole(), 30))


class Gate:
    """A call that has begun when `entered` is set, and ends when `go_on` is."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.go_on.wait(30)
        return threading.current_thread().name


def test_short_jobs_share_one_thread_and_run_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_threads, "PATIENCE_SECONDS", 10)

    async def check(threads: DecodeThreads) -> None:
        began: list[int] = []

        def call(number: int) -> str:
            began.append(number)
            return threading.current_thread().name

        jobs = [threads.submit(partial(call, number), is_long=False) for number in range(50)]
        names = {await job.result for job in jobs}
        assert began == list(range(50))
        assert len(names) == 1

    run(check)


def test_long_jobs_run_side_by_side_on_as_many_threads_as_there_are() -> None:
    async def check(threads: DecodeThreads) -> None:
        gates = [Gate() for _ in range(4)]
        jobs = [threads.submit(gate, is_long=True) for gate in gates]
        for gate in gates[:3]:
            await asyncio.to_thread(gate.entered.wait)
        assert not gates[3].entered.is_set()
        for gate in gates:
            gate.go_on.set()
        assert len({await job.result for job in jobs}) == 3

    run(check, most=3)


def test_short_job_does_not_wait_for_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_threads, "PATIENCE_SECONDS", 10)

    async def check(threads: DecodeThreads) -> None:
        gate = Gate()
        long = threads.submit(gate, is_long=True)
        assert await threads.submit(lambda: 1, is_long=False).result == 1
        assert not long.result.done()
        gate.go_on.set()
        await long.result

    run(check)


def test_short_jobs_do_not_wait_for_one_that_takes_long_after_all() -> None:
    async def check(threads: DecodeThreads) -> None:
        gate = Gate()
        slow = threads.submit(gate, is_long=False)
        await asyncio.to_thread(gate.entered.wait)
        jobs = [threads.submit(lambda: 1, is_long=False) for _ in range(3)]
        assert [await job.result for job in jobs] == [1] * 3
        assert not slow.result.done()
        gate.go_on.set()
        await slow.result

    run(check)


def test_result_does_not_wait_for_a_job_behind_it_that_takes_long_after_all() -> None:
    async def check(threads: DecodeThreads) -> None:
        first, second = Gate(), Gate()
        one, other = threads.submit(first, is_long=False), threads.submit(second, is_long=False)
        await asyncio.to_thread(first.entered.wait)
        first.go_on.set()
        await one.result
        second.go_on.set()
        await other.result

    run(check, most=1)


def test_dropped_job_never_runs_and_one_that_runs_ends_later() -> None:
    async def check(threads: DecodeThreads) -> None:
        gate, ended = Gate(), asyncio.Event()
        running = threads.submit(gate, is_long=True)
        waiting = threads.submit(lambda: pytest.fail("it runs"), is_long=True)
        await asyncio.to_thread(gate.entered.wait)
        assert threads.drop(waiting)
        assert not threads.drop(running)
        running.on_end = ended.set
        running.result.cancel()
        gate.go_on.set()
        await ended.wait()
        assert threads.drop(running), "it has ended"
        assert await threads.submit(lambda: 1, is_long=True).result == 1

    run(check, most=1)


@pytest.mark.parametrize("error", [ValueError("no picture"), SystemExit(1)])
def test_what_a_job_raises_reaches_its_caller_and_the_thread_goes_on(error: BaseException) -> None:
    async def check(threads: DecodeThreads) -> None:
        def fail() -> None:
            raise error

        # SystemExit that is raised in a task would end the event loop, so its future is only asked
        failed, other = threads.submit(fail, is_long=False), threads.submit(lambda: 1, is_long=False)
        assert await other.result == 1
        assert failed.result.exception() is error

    run(check, most=1)


def test_a_job_that_does_not_end_is_visible() -> None:
    async def check(threads: DecodeThreads) -> None:
        gate, before = Gate(), time.monotonic()
        job = threads.submit(gate, is_long=False)
        await asyncio.to_thread(gate.entered.wait)
        assert threads.runs_since_before(time.monotonic())
        assert not threads.runs_since_before(before)
        gate.go_on.set()
        await job.result
        assert not threads.runs_since_before(time.monotonic())

    run(check)


def test_threads_end_when_closed() -> None:
    before = set(threading.enumerate())

    async def check(threads: DecodeThreads) -> None:
        await asyncio.gather(*[threads.submit(lambda: 1, is_long=True).result for _ in range(9)])

    run(check)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
