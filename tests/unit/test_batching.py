"""Promises of `arcface_api.batching`, on a model whose batches a test can hold, release and inspect."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_api import batching
from arcface_api.batching import BULK_SHARE, Batched, Batcher, _Run, _Waiting, both
from arcface_api.errors import DeadlineExceeded, ModelFailed, QueueFull, ServiceClosing

SIZES = (1, 2, 4, 8)


class HeldModel:
    """Doubles integers; stands still while held; fails on the batches that contain a poisoned item."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.batches: list[list[int]] = []
        self.poison: set[int] = set()
        self.missing_rows = 0
        self._go = threading.Event()
        self._go.set()
        self.entered = threading.Semaphore(0)
        self.most_at_once = self._at_once = 0
        self._counting = threading.Lock()

    def hold(self) -> None:
        """What begins from now on stands still."""
        self._go = threading.Event()

    def let_go(self) -> None:
        self._go.set()

    def let_these_go(self) -> None:
        """What stands still now goes on, and what begins from now on stands still."""
        held = self._go
        self.hold()
        held.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        with self._counting:
            self.batches.append(list(items))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            go = self._go
        self.entered.release()
        assert go.wait(100)
        with self._counting:
            self._at_once -= 1
        if self.poison & set(items):
            raise ModelFailed("poisoned")
        return [2 * item for item in items][: len(items) - self.missing_rows]


def batcher(model: HeldModel, capacity: int = 100, sizes: Sequence[int] = SIZES) -> Batcher[int, int]:
    def run(items: Sequence[int]) -> list[int]:
        assert len(items) in sizes
        return model(items)

    return Batcher(run, name="test", sizes=sizes, capacity=capacity, lanes=model.lanes)


@pytest.fixture(params=[1, 2, 4])
def model(request: pytest.FixtureRequest) -> HeldModel:
    """A model with that many lanes."""
    return HeldModel(request.param)


async def behind_running_batches(model: HeldModel, queue: Batcher[int, int]) -> "list[asyncio.Task[Batched[int]]]":
    """Occupy each lane with an item 0, so that what is submitted next queues up."""
    model.hold()
    tasks = []
    for _ in range(model.lanes):
        tasks.append(asyncio.create_task(queue.submit(0)))
        await asyncio.to_thread(model.entered.acquire)
    return tasks


async def submitted(queue: Batcher[int, int], *items: int, **options: Any) -> "list[asyncio.Task[Batched[int]]]":
    """Tasks that have all reached the queue."""
    tasks = [asyncio.create_task(queue.submit(item, **options)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def all_idle(queue: Batcher[int, int], model: HeldModel) -> None:
    """Every lane has started and waits; a lane whose batch has ended would take what a test puts into the queue."""
    while len(queue._idle) < model.lanes:  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(0.01)


def taken_by(queue: Batcher[int, int], monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The batches in the order in which lanes take them; they may run in another one."""
    batches: list[list[int]] = []
    real = queue._take_batch

    def take() -> "tuple[list[_Waiting[int, int]], list[_Waiting[int, int]]]":
        late, batch = real()
        batches.append([waiting.item for waiting in batch])
        return late, batch

    monkeypatch.setattr(queue, "_take_batch", take)
    return batches


def test_lone_item_does_not_wait_for_others() -> None:
    async def check() -> None:
        queue = batcher(HeldModel())
        assert (await queue.submit(21)).row == 42
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_it_states_since_when_the_oldest_batch_runs(model: HeldModel) -> None:
    async def check() -> None:
        queue = batcher(model, sizes=(1,))
        before = queue.running_since, time.monotonic()
        first = await behind_running_batches(model, queue)
        since = queue.running_since
        model.let_go()
        await asyncio.gather(*first)
        await queue.close()
        assert before[0] is None
        assert since is not None
        assert before[1] <= since <= time.monotonic()
        assert queue.running_since is None

    asyncio.run(check())


def test_what_queued_up_meanwhile_is_the_next_batch_and_rows_find_their_callers() -> None:
    async def check() -> None:
        model = HeldModel()
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        rest = await submitted(queue, *range(1, 14))
        model.let_go()
        answers = await asyncio.gather(*first, *rest)
        assert [answer.row for answer in answers] == [2 * item for item in range(14)]
        assert [len(batch) for batch in model.batches] == [1, 8, 4, 1]
        assert [answer.batch_size for answer in answers] == [1, *[8] * 8, *[4] * 4, 1]
        await queue.close()

    asyncio.run(check())


def test_only_the_given_sizes_occur() -> None:
    async def check() -> None:
        model = HeldModel()
        queue = batcher(model, sizes=(1, 5))
        first = await behind_running_batches(model, queue)
        rest = await submitted(queue, *range(1, 13))
        model.let_go()
        await asyncio.gather(*first, *rest)
        assert [len(batch) for batch in model.batches] == [1, 5, 5, 1, 1]
        await queue.close()

    asyncio.run(check())


def test_as_many_batches_run_side_by_side_as_there_are_lanes(model: HeldModel) -> None:
    async def check() -> None:
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        (waits,) = await submitted(queue, 1)
        await asyncio.sleep(0.05)
        assert (len(model.batches), queue.queued) == (model.lanes, 1)
        model.let_go()
        await asyncio.gather(*first, waits)
        await queue.close()
        assert model.most_at_once == model.lanes

    asyncio.run(asyncio.wait_for(check(), 100))


def test_callers_whose_batch_has_ended_come_back_as_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one lane: what several lanes find of each other depends on which of them ends first."""
    monkeypatch.setattr(batching, "REFILL_SHARE", 1e6)  # it waits for all of them, however slow this machine is
    model = HeldModel()

    async def check() -> None:
        queue = batcher(model)

        async def call(number: int, times: int) -> None:
            for _ in range(times):
                await queue.submit(number)
                await asyncio.sleep(number / 1000)

        model.hold()
        callers = [asyncio.create_task(call(0, times=3))]
        await asyncio.to_thread(model.entered.acquire)
        callers += [asyncio.create_task(call(number, times=2)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        model.let_go()
        await asyncio.gather(*callers)
        assert [len(batch) for batch in model.batches] == [1, 4, 4]
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_nobody_waits_long_for_callers_that_do_not_come_back(model: HeldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        queue = batcher(model)
        await asyncio.gather(*map(queue.submit, range(8 * model.lanes)))
        assert (await queue.submit(1)).batch_size == 1
        monkeypatch.setattr(batching, "REFILL_SHARE", 1e6)
        assert [(await queue.submit(item)).row for item in range(3)] == [0, 2, 4], "a lone caller waits for nobody"
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


@pytest.mark.parametrize(("lanes", "shares"), [(1, [8]), (2, [4, 4]), (4, [2, 2, 2, 2])])
def test_lanes_that_are_free_together_share_what_waits(lanes: int, shares: list[int]) -> None:
    """The lanes are asked one after the other, as if none had begun before all eight items were there."""
    model = HeldModel(lanes)
    queue = batcher(model)

    async def check() -> None:
        loop = asyncio.get_running_loop()
        await queue.submit(0)  # the threads start
        await all_idle(queue, model)
        for item in range(8):
            queue._single.append(_Waiting(item, loop.create_future(), time.monotonic(), float("inf")))
        taken = []
        for lane in range(lanes):
            _, batch = queue._take_batch()
            queue._running[lane] = _Run(time.monotonic(), len(batch))
            taken.append(len(batch))
        assert taken == shares
        queue._running.clear()
        await queue.close()

    asyncio.run(check())


def test_no_lane_idles_while_items_wait(model: HeldModel) -> None:
    """Items that come one by one occupy a lane each, and each lane goes on as soon as it is free."""

    async def check() -> None:
        queue = batcher(model, sizes=(1,))
        model.hold()
        tasks = await submitted(queue, *range(3 * model.lanes))
        for _ in range(model.lanes):
            await asyncio.to_thread(model.entered.acquire)
        assert queue.queued == 2 * model.lanes
        model.let_go()
        await asyncio.gather(*tasks)
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


@pytest.mark.parametrize("lanes", [2, 4])
def test_only_a_lone_item_runs_alone(lanes: int) -> None:
    """An item runs alone if nothing else runs or waits, nor did while the batch before it ran."""
    model, alone = HeldModel(lanes), list[int]()

    def run_alone(items: Sequence[int]) -> list[int]:
        alone.extend(items)
        return model(items)

    async def check() -> None:
        queue: Batcher[int, int] = Batcher(
            model, name="test", sizes=SIZES, capacity=100, lanes=lanes, run_alone=run_alone
        )
        assert [(await queue.submit(item)).row for item in (1, 2)] == [2, 4]
        assert alone == [1, 2]
        model.hold()
        for _ in (1, 2):
            model.entered.acquire()
        tasks = [asyncio.create_task(queue.submit(item)) for item in (3, 4)]
        for _ in tasks:
            await asyncio.to_thread(model.entered.acquire)
        model.let_go()
        await asyncio.gather(*tasks)
        assert 4 not in alone, "another one ran or waited"
        await queue.submit(5)
        assert 5 not in alone, "the batch before had company"
        await queue.submit(6)
        assert alone[-1] == 6
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_deadlines_go_by_the_speed_of_all_lanes_together(model: HeldModel) -> None:
    """With all lanes busy, an item takes as many times the time between two answers as there are lanes."""

    async def check() -> None:
        queue = batcher(model, sizes=(1,))
        began = time.monotonic()
        first = await behind_running_batches(model, queue)
        await asyncio.sleep(1.0)
        model.let_go()
        await asyncio.gather(*first)
        assert 0.5 * 1.0 / model.lanes < queue._item_seconds < 2 * (time.monotonic() - began) / model.lanes
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_a_batch_beside_others_is_expected_to_take_longer() -> None:
    """Two items at one a second in all, in one of two busy lanes: they end after four seconds, not two."""
    model = HeldModel(2)
    queue = batcher(model)

    async def check() -> None:
        await queue.submit(0)  # the threads start
        await all_idle(queue, model)
        loop, now = asyncio.get_running_loop(), time.monotonic()
        queue._item_seconds, queue._running = 1.0, {0: _Run(now, 1)}
        for item, seconds in ((1, 3.0), (2, 5.0)):
            queue._single.append(_Waiting(item, loop.create_future(), now, now + seconds))
        late, batch = queue._take_batch()
        assert ([each.item for each in late], [each.item for each in batch]) == ([1], [2])
        queue._running.clear()
        await queue.close()

    asyncio.run(check())


def test_a_lane_is_free_before_its_callers_have_their_answers(
    model: HeldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a lone caller that sends the next item at once would seem to have company."""
    busy: list[float | None] = []
    real = Batcher._deliver

    def deliver(self: Batcher[int, int], *arguments: Any) -> None:
        busy.append(self.running_since)
        real(self, *arguments)

    async def check() -> None:
        queue = batcher(model)
        await queue.submit(1)
        await queue.close()
        assert busy == [None]

    monkeypatch.setattr(Batcher, "_deliver", deliver)
    asyncio.run(asyncio.wait_for(check(), 100))


def test_failing_batch_fails_its_own_callers_only(model: HeldModel) -> None:
    async def check() -> None:
        model.poison = {3}
        queue = batcher(model, sizes=(1, 2))
        first = await behind_running_batches(model, queue)
        rest = await submitted(queue, 1, 2, 3, 4, 5, 6)
        model.let_go()
        answers = await asyncio.gather(*first, *rest, return_exceptions=True)
        (poisoned,) = [batch for batch in model.batches if 3 in batch]
        items = [0] * model.lanes + [1, 2, 3, 4, 5, 6]
        for item, answer in zip(items, answers, strict=True):
            assert isinstance(answer, ModelFailed) if item in poisoned else answer.row == 2 * item  # type: ignore[union-attr]  # a row
        errors = [answer for answer in answers if isinstance(answer, ModelFailed)]
        assert {str(error) for error in errors} == {"poisoned"}
        assert len({id(error) for error in errors}) == len(poisoned)
        assert (await queue.submit(7)).row == 14
        await queue.close()

    asyncio.run(check())


@pytest.mark.parametrize("error", [ValueError("odd"), StopIteration()])
def test_item_that_fails_alone_fails_its_own_caller_only(error: Exception) -> None:
    async def check() -> None:
        def run(items: Sequence[int]) -> list[int | Exception]:
            return [2 * item if item % 2 == 0 else error for item in items]

        queue: Batcher[int, int] = Batcher(run, name="test", sizes=(1, 4), capacity=100)
        results = await asyncio.gather(*map(queue.submit, range(9)), return_exceptions=True)
        rows = [result.row for result in results if isinstance(result, Batched)]
        assert rows == [0, 4, 8, 12, 16]
        failures = [result for result in results if isinstance(result, Exception)]
        assert len(failures) == 4
        assert all(repr(error) in repr(failure) for failure in failures)
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


@pytest.mark.parametrize("startable", [0, 1])
def test_without_all_its_threads_it_works_with_those_that_start(
    startable: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, started = threading.Thread.start, list[str]()

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("test "):
            if len(started) == startable:
                raise RuntimeError("can't start new thread")
            started.append(thread.name)
        real(thread)

    async def check() -> None:
        queue = batcher(HeldModel(lanes=2))
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            if startable:
                assert [(await queue.submit(item)).row for item in (1, 2)] == [2, 4]
                assert "test has 1 thread instead of 2: can't start new thread. Allow" in caplog.text
            else:
                with pytest.raises(ModelFailed, match="No thread can be started for test: can't start new thread"):
                    await queue.submit(1)
        assert not queue.has_lost_a_thread
        if not startable:  # it tries again
            assert (await queue.submit(3)).row == 6
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_wrong_number_of_rows_is_an_error_not_a_mix_up(model: HeldModel) -> None:
    async def check() -> None:
        model.missing_rows = 1
        queue = batcher(model)
        with pytest.raises(ModelFailed, match="returned 0 rows for a batch of 1"):
            await queue.submit(1)
        model.missing_rows = 0
        assert (await queue.submit(1)).row == 2
        await queue.close()

    asyncio.run(check())


def test_caller_that_leaves_costs_the_model_nothing_and_its_neighbours_nothing(model: HeldModel) -> None:
    async def check() -> None:
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        rest = await submitted(queue, 1, 2, 3)
        rest[1].cancel()
        await asyncio.sleep(0)
        model.let_go()
        answers = await asyncio.gather(*first, *rest, return_exceptions=True)
        assert [getattr(answer, "row", None) for answer in answers] == [*[0] * model.lanes, 2, None, 6]
        assert sorted(item for batch in model.batches for item in batch) == [*[0] * model.lanes, 1, 3]
        await queue.close()

    asyncio.run(check())


def test_no_item_is_kept_for_a_caller_that_left_or_once_it_was_served() -> None:
    class Large:
        pass

    async def check() -> None:
        gate = threading.Event()
        entered = threading.Event()

        def run(items: Sequence[Large]) -> list[int]:
            entered.set()
            gate.wait(100)
            return [1] * len(items)

        queue: Batcher[Large, int] = Batcher(run, name="test", sizes=(1,), capacity=10)
        served, departed = Large(), Large()
        kept = weakref.ref(served), weakref.ref(departed)
        stays = asyncio.create_task(queue.submit(served))
        leaves = asyncio.create_task(queue.submit(departed))
        del served, departed
        await asyncio.to_thread(entered.wait)
        leaves.cancel()
        await asyncio.wait([leaves])
        del leaves
        gc.collect()
        assert (queue.queued, kept[1]()) == (0, None)  # while the batch of the other still runs
        gate.set()
        await stays
        del stays
        for _ in range(5000):  # its thread may still be on its way back to waiting
            gc.collect()
            if kept[0]() is None:
                break
            await asyncio.sleep(0.01)
        assert kept[0]() is None
        await queue.close()

    asyncio.run(check())


def test_caller_that_leaves_while_its_batch_runs_changes_nothing(model: HeldModel) -> None:
    async def check() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        first[0].cancel()
        (second,) = await submitted(queue, 1)
        model.let_go()
        assert (await second).row == 2
        await queue.close()
        assert not complaints

    asyncio.run(check())


def test_item_that_cannot_be_served_in_time_is_dropped_before_it_runs(model: HeldModel) -> None:
    async def check() -> None:
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        (late,) = await submitted(queue, 1, deadline=time.monotonic() + 0.01)
        (patient,) = await submitted(queue, 2, deadline=time.monotonic() + 60)
        await asyncio.sleep(0.05)
        model.let_go()
        with pytest.raises(DeadlineExceeded, match="within the time allowed"):
            await late
        assert [answer.row for answer in await asyncio.gather(*first, patient)] == [*[0] * model.lanes, 4]
        assert [1] not in model.batches
        await queue.close()

    asyncio.run(check())


def test_full_queue_refuses_at_once_and_says_when_to_come_back(model: HeldModel) -> None:
    async def check() -> None:
        queue = batcher(model, capacity=3)
        first = await behind_running_batches(model, queue)
        rest = await submitted(queue, 1, 2, 3)
        with pytest.raises(
            QueueFull, match="holds 3 pictures at once; with 3 inside there is no room for 1 more"
        ) as refused:
            await queue.submit(4)
        assert refused.value.retry_after_seconds >= 1
        model.let_go()
        await asyncio.gather(*first, *rest)
        assert (await queue.submit(4)).row == 8
        await queue.close()

    asyncio.run(check())


def test_retry_after_grows_with_the_queue(model: HeldModel) -> None:
    async def check() -> None:
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        await asyncio.sleep(0.3)
        model.let_go()
        await asyncio.gather(*first)
        first = await behind_running_batches(model, queue)
        rest = await submitted(queue, *range(20))
        assert queue.seconds_for(queue.queued) >= 6 / model.lanes
        assert queue.seconds_for(2 * queue.queued) > queue.seconds_for(queue.queued)
        model.let_go()
        await asyncio.gather(*first, *rest)
        await queue.close()

    asyncio.run(check())


def test_single_items_go_before_bulk_and_bulk_is_not_starved(model: HeldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        taken = taken_by(queue, monkeypatch)
        bulk = await submitted(queue, *range(100, 116), is_bulk=True)
        single = await submitted(queue, *range(1, 9))
        model.let_go()
        await asyncio.gather(*first, *bulk, *single)
        if model.lanes == 1:
            assert model.batches[1] == [1, 2, 3, 4, 5, 6, 100, 101]
            assert model.batches[2] == [7, 8, 102, 103, 104, 105, 106, 107]
        served = [item for batch in taken for item in batch]
        assert sum(item >= 100 for item in served[:8]) >= 2 * 8 // BULK_SHARE // 2, "bulk gets its share"
        assert max(map(served.index, range(1, 9))) < 14, "and no more"
        await queue.close()

    asyncio.run(check())


@pytest.mark.parametrize("sizes", [(1,), (1, 2)])
def test_bulk_is_not_starved_in_small_batches_either(
    model: HeldModel, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    async def check() -> None:
        queue = batcher(model, sizes=sizes)
        first = await behind_running_batches(model, queue)
        taken = taken_by(queue, monkeypatch)
        bulk = await submitted(queue, 100, is_bulk=True)
        single = await submitted(queue, *range(1, 13))
        model.let_go()
        await asyncio.gather(*first, *bulk, *single)
        served = [item for batch in taken for item in batch]
        assert served.index(100) <= 4 + model.lanes
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_places_that_bulk_items_did_not_need_are_not_carried_over() -> None:
    """One bulk item waits at each of many batches, and then many do: they get their share and no more."""

    async def check() -> None:
        model = HeldModel()
        queue = batcher(model, capacity=1000)
        model.hold()
        tasks = await submitted(queue, *range(200))
        for number in range(20):
            await asyncio.to_thread(model.entered.acquire)
            tasks += await submitted(queue, 1000 + number, is_bulk=True)
            model.let_these_go()
        await asyncio.to_thread(model.entered.acquire)
        tasks += await submitted(queue, *range(2000, 2040), is_bulk=True)
        begun = len(model.batches)
        model.let_go()
        await asyncio.gather(*tasks)
        assert [sum(item >= 1000 for item in batch) for batch in model.batches[begun : begun + 4]] == [2, 2, 2, 2]
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_one_slow_batch_does_not_make_it_refuse_everybody_forever(model: HeldModel) -> None:
    """The estimated time per item is then far too long, and only batches can correct it."""

    async def check() -> None:
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        await asyncio.sleep(0.5)
        model.let_go()
        await asyncio.gather(*first)
        served = 0
        while served < 20:
            with suppress(DeadlineExceeded):
                await queue.submit(1, deadline=time.monotonic() + 0.1)
                served += 1
        late = await asyncio.gather(queue.submit(2, deadline=time.monotonic() - 1), return_exceptions=True)
        assert isinstance(late[0], DeadlineExceeded)
        assert [2] not in model.batches
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_both_fails_with_either_and_leaves_nothing_in_a_queue() -> None:
    async def check() -> None:
        model, failing = HeldModel(), HeldModel()
        failing.poison.add(2)
        queue, other = batcher(model), batcher(failing)
        first = await behind_running_batches(model, queue)
        with pytest.raises(ModelFailed, match="poisoned"):
            await both(queue.submit(1), other.submit(2))
        await asyncio.sleep(0)
        assert queue.queued == 0
        model.let_go()
        await asyncio.gather(*first)
        assert model.batches == [[0]]
        assert [each.row for each in await both(queue.submit(3), other.submit(4))] == [6, 8]
        await queue.close()
        await other.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_closing_refuses_new_work_and_finishes_queued_work(model: HeldModel) -> None:
    async def check() -> None:
        queue = batcher(model)
        first = await behind_running_batches(model, queue)
        rest = await submitted(queue, *range(1, 12))
        closing = asyncio.create_task(queue.close())
        await asyncio.sleep(0)
        with pytest.raises(ServiceClosing):
            await queue.submit(99)
        model.let_go()
        await closing
        assert [(await task).row for task in (*first, *rest)] == [*[0] * model.lanes, *range(2, 24, 2)]

    asyncio.run(check())


def test_closing_waits_for_every_lane(model: HeldModel) -> None:
    async def check() -> None:
        queue = batcher(model)
        model.hold()
        (runs,) = await submitted(queue, 1)
        await asyncio.to_thread(model.entered.acquire)
        closing = asyncio.create_task(queue.close())
        await asyncio.sleep(0.05)  # the lanes that are idle have ended by now
        assert not closing.done()
        model.let_go()
        await closing
        assert (await runs).row == 2

    asyncio.run(asyncio.wait_for(check(), 100))


def test_closing_an_idle_batcher_ends() -> None:
    asyncio.run(asyncio.wait_for(batcher(HeldModel()).close(), 100))


def test_batch_size_one_is_needed() -> None:
    with pytest.raises(ValueError, match="batch size 1"):
        batcher(HeldModel(), sizes=(2, 4))


@settings(deadline=None, max_examples=60)  # a time limit would be a timed assertion
@given(
    callers=st.lists(
        st.tuples(
            st.sampled_from(["stays", "stays", "stays", "leaves", "poisoned", "late"]),
            st.booleans(),  # bulk
            st.integers(0, 3),  # how often the loop turns before the next one
        ),
        max_size=60,
    ),
    sizes=st.sampled_from([(1,), (1, 2), (1, 2, 4, 8), (1, 3, 7)]),
    capacity=st.integers(1, 40),
    lanes=st.sampled_from([1, 2, 4]),
)
def test_whatever_happens_everyone_gets_their_own_answer(
    callers: list[tuple[str, bool, int]], sizes: tuple[int, ...], capacity: int, lanes: int
) -> None:
    async def check() -> None:
        model = HeldModel(lanes)
        model.poison = {number for number, (kind, _, _) in enumerate(callers) if kind == "poisoned"}
        queue = batcher(model, capacity, sizes)
        tasks = []
        for number, (kind, is_bulk, turns) in enumerate(callers):
            deadline = 0.0 if kind == "late" else float("inf")
            tasks.append(asyncio.create_task(queue.submit(number, is_bulk=is_bulk, deadline=deadline)))
            for _ in range(turns):
                await asyncio.sleep(0)
            if kind == "leaves":
                tasks[-1].cancel()
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 100)
        await asyncio.wait_for(queue.close(), 100)
        for number, ((kind, _, _), answer) in enumerate(zip(callers, answers, strict=True)):
            if isinstance(answer, Batched):
                assert answer.row == 2 * number
                assert kind in {"stays", "leaves"}
            elif isinstance(answer, ModelFailed):
                assert any(number in batch and model.poison & set(batch) for batch in model.batches)
            elif isinstance(answer, DeadlineExceeded):
                assert kind == "late"
            elif isinstance(answer, asyncio.CancelledError):
                assert kind == "leaves"
            else:
                assert isinstance(answer, QueueFull)
        ran = [item for batch in model.batches for item in batch]
        assert len(ran) == len(set(ran)), "nothing runs twice"
        assert {len(batch) for batch in model.batches} <= set(sizes)
        assert model.most_at_once <= lanes
        assert not {number for number, (kind, _, _) in enumerate(callers) if kind == "late"} & set(ran)

    asyncio.run(check())
