"""Promises of both clients where a service refuses, resets, stalls, is cut off, restarts and changes its model."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from io import BytesIO
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arcface_api import errors
from arcface_api.client import (
    AnswerInvalid,
    ArcFaceError,
    AsyncClient,
    Client,
    Embedding,
    Picture,
    ServiceBusy,
    ServiceUnreachable,
)
from client.conftest import Async, Kind
from faulty_service import FINGERPRINT, MODEL_CHANGES, OTHER_FINGERPRINT, PASSING, FaultyService, http, picture, refusal
from scripted_server import Slowly

NOT_JSON, NOT_OURS = http(200, b"<h1>Welcome</h1>"), http(200, b'{"results": []}')
NOT_A_PROBLEM = http(200, b'{"results": [{"problem": "x"}]}', X_Alignment="-", X_Model_Fingerprint="x")


@pytest.mark.parametrize("fault", PASSING)
def test_fault_that_passes_is_not_seen(kind: Kind, fault: str) -> None:
    with FaultyService([fault, fault]) as service:
        assert kind.call(service.url, "embed", picture(7)).vector[0] == 7
        assert len(service.bodies) == 3
    with FaultyService([fault, fault]) as service:
        assert kind.embed_many(service.url, map(picture, range(3))).numbers == [0, 1, 2]


def test_service_that_stalls_is_given_up_and_asked_again(kind: Kind) -> None:
    with FaultyService(["stall"]) as service:
        assert kind.call(service.url, "embed", picture(7), timeout_seconds=0.5).vector[0] == 7


def test_answer_that_never_ends_is_given_up(kind: Kind) -> None:
    """Although no pause in it is long."""
    with FaultyService([Slowly(http(200, b" " * 10_000))]) as service:
        assert kind.call(service.url, "embed", picture(7), timeout_seconds=0.5).vector[0] == 7


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_picture_has_exactly_one_result_in_order_whatever_happens(kind: Kind, data: st.DataObject) -> None:
    """Or the iteration raises, after results without a gap."""
    faults = data.draw(st.lists(st.sampled_from([*PASSING, "stall", MODEL_CHANGES, "", ""]), max_size=12))
    bad = data.draw(st.sets(st.integers(1, 40)))
    limits = {name: data.draw(st.integers(1, 9)) for name in ("max_batch_files", "queue_capacity")}
    sent = [picture(number, is_bad=number in bad) for number in range(1, 41)]
    expected = [-number if number in bad else number for number in range(1, 41)]
    with FaultyService(faults, retry_after="0", **limits) as service:
        result = kind.embed_many(service.url, sent, timeout_seconds=0.5)
        if result.raised is None:
            assert result.numbers == expected
        else:
            assert isinstance(result.raised, errors.FingerprintDiffers)
            assert MODEL_CHANGES in faults
            assert result.numbers == expected[: len(result.numbers)]
        embedded = [each for each in result.results if isinstance(each, Embedding)]
        assert len({each.fingerprint for each in embedded}) <= 1


def test_retry_after_is_obeyed(kind: Kind) -> None:
    with FaultyService(["queue_full"], retry_after="1") as service:
        kind.call(service.url, "embed", picture(1))
        assert service.came[1] - service.came[0] >= 1


def test_longer_retry_after_than_patience_is_an_error_at_once(kind: Kind) -> None:
    with FaultyService(["queue_full"], retry_after="3600") as service:
        with pytest.raises(errors.QueueFull, match=r"No\."):
            kind.call(service.url, "embed", picture(1))
        assert len(service.bodies) == 1


def test_what_lasts_is_an_error_when_patience_ends(kind: Kind) -> None:
    with FaultyService(["proxy"] * 1000) as service, pytest.raises(ServiceBusy, match="502"):
        kind.call(service.url, "embed", picture(1), retry_seconds=0.3)
    with FaultyService(["queue_full"]) as service, pytest.raises(errors.QueueFull):
        kind.call(service.url, "embed", picture(1), retry_seconds=0)


@pytest.mark.parametrize("answer", [NOT_JSON, NOT_OURS, NOT_A_PROBLEM, http(301, b"", Location="https://elsewhere/")])
def test_what_is_not_the_service_is_said_at_once(kind: Kind, answer: bytes) -> None:
    for method, images in (("embed", picture(1)), ("health", None)):
        with FaultyService([answer]) as service, pytest.raises(AnswerInvalid, match=r"[Aa]ddress"):
            kind.call(service.url, method, *[images][: method == "embed"])
    with FaultyService([answer]) as service:
        assert isinstance(kind.embed_many(service.url, [picture(1)]).raised, AnswerInvalid)


def test_health_is_asked_once_and_says_why_the_service_cannot_embed(kind: Kind) -> None:
    facts = {"status": "failing", "reason": "It hangs.", "model": "x", "provider": "x", "precision": "x"}
    with FaultyService([http(503, json.dumps(facts).encode())]) as service:
        health = kind.call(service.url, "health")
        assert (health.is_ok, health.reason) == (False, "It hangs.")
    for refused in (refusal(503, "service_closing"), http(503, b"<h1>503</h1>")):
        with FaultyService([refused]) as service, pytest.raises(ServiceBusy):
            kind.call(service.url, "health")
        assert len(service.bodies) == 1


def test_service_that_starts_later_is_waited_for(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    with FaultyService() as service:
        port = service.address.port
    later = FaultyService(port=port)

    def start() -> None:
        while "Nothing answers at http://127.0.0.1" not in caplog.text:
            time.sleep(0.01)
        later.__enter__()

    starting = threading.Thread(target=start, daemon=True)
    with caplog.at_level(logging.WARNING):
        starting.start()
        assert kind.call(f"http://127.0.0.1:{port}", "embed", picture(3)).vector[0] == 3
    starting.join()
    later.end()


def test_service_that_restarts_in_the_middle_loses_nothing(kind: Kind) -> None:
    """Its connections break, nothing listens for a while, and a new process answers."""
    first = FaultyService(max_batch_files=2)
    with first:
        second = FaultyService(max_batch_files=2, port=first.address.port)
        restart = threading.Timer(0.3, second.__enter__)

        def pictures() -> Iterator[bytes]:
            for number in range(60):
                if number == 30:
                    first.end()
                    restart.start()
                yield picture(number)

        try:
            assert kind.embed_many(first.url, pictures()).numbers == list(range(60))
            assert first.served
            assert second.served
        finally:
            restart.join()
            second.__exit__(None, None, None)


def test_nothing_there_is_an_error_that_says_what_to_do(kind: Kind) -> None:
    for method in ("embed", "info", "health"):
        with pytest.raises(ServiceUnreachable, match="arcface-api serve"):
            kind.call("http://127.0.0.1:9", method, *[picture(1)][: method == "embed"], retry_seconds=0)


def test_required_fingerprint_is_sent_and_its_refusal_not_repeated(kind: Kind) -> None:
    with FaultyService() as service:
        assert kind.call(service.url, "embed", picture(1), fingerprint=FINGERPRINT).fingerprint == FINGERPRINT
        with pytest.raises(errors.FingerprintDiffers):
            kind.call(service.url, "embed", picture(1), fingerprint=OTHER_FINGERPRINT)
        assert isinstance(
            kind.embed_many(service.url, [picture(1)], fingerprint=OTHER_FINGERPRINT).raised, errors.FingerprintDiffers
        )
        assert len(service.bodies) == 4


def test_picture_that_fails_the_service_costs_only_itself(kind: Kind) -> None:
    """A request that is too large, or fails as a whole, is sent again in halves, until the cause is alone."""
    failed = refusal(500, "model_failed", "It 4 failed.")
    for cause in (failed, refusal(413, "body_too_large", "It 4 is too large."), http(413, b"nginx 4")):
        # 0 … 7 fail together, 0 … 3 are served, 4 … 7 fail, 4 5 fail, 4 fails
        with FaultyService([cause, "", cause, cause, cause], max_batch_files=8) as service:
            given = kind.embed_many(service.url, map(picture, range(8)), requests_at_once=1)
            assert [isinstance(each, ArcFaceError) for each in given.results] == [number == 4 for number in range(8)]
            assert [picture(number) for number in range(8) if number != 4] == list(chain(*service.served))


def test_requests_keep_inside_what_the_service_takes(kind: Kind) -> None:
    pictures = [b"." * 100 + picture(number) for number in range(100)]
    with FaultyService(max_batch_files=7, max_batch_bytes=500, queue_capacity=8, work_seconds=0.01) as service:
        assert kind.embed_many(service.url, pictures).numbers == list(range(100))
        assert {len(request) for request in service.served} == {4}
        assert service.most_at_once == 2
    with FaultyService(max_batch_files=3) as service:
        kind.embed_many(service.url, map(picture, range(100)))
        assert {len(request) for request in service.served} == {3, 1}


def test_refusal_lowers_what_is_sent_at_once() -> None:
    with FaultyService(["queue_full"] * 4, max_batch_files=4) as service, Client(service.url) as client:
        client.info()
        gate = client._core.gate
        before = gate.limit
        list(client.embed_many(map(picture, range(64))))
        assert gate.limit < before == 256


def test_pictures_are_taken_as_they_are_needed(kind: Kind) -> None:
    taken = count()
    with FaultyService(max_batch_files=2) as service, Client(service.url, requests_at_once=2) as client:
        results = client.embed_many(picture(next(taken)) for _ in range(1000))
        assert len(list(islice(results, 10))) == 10
        assert next(taken) <= 10 + 2 * 2 * 2 + 1
        results.close()  # type: ignore[attr-defined]  # it is a generator


class OnlyTheFirst(FaultyService):
    """Serves picture 0 when others have come; these are refused for hours, or wait for an answer."""

    def __init__(self, *, refuses: bool, others: int = 0) -> None:
        super().__init__(max_batch_files=1)
        self._refuses, self._others = refuses, others

    async def _answer(self, number: int) -> bytes | None:
        if b"/embed" in self.heads[number]:
            if picture(0) not in self.bodies[number]:
                if self._refuses:
                    return refusal(429, "queue_full", Retry_After="9000")
                await asyncio.sleep(9000)
            while sum(b"/embed" in head for head in self.heads) < 1 + self._others:  # noqa: ASYNC110  # a list has no event
                await asyncio.sleep(0.01)
        return await super()._answer(number)


def test_loop_that_is_left_does_not_wait_for_requests_that_were_refused() -> None:
    with (
        OnlyTheFirst(refuses=True, others=1) as service,
        Client(service.url, requests_at_once=2, retry_seconds=99_000) as client,
    ):
        with closing(client.embed_many(map(picture, range(10)))) as results:  # type: ignore[type-var]  # as above
            next(results)
        while any(thread.name.startswith("arcface-client") for thread in threading.enumerate()):
            time.sleep(0.01)  # pytest's timeout ends the test before they have waited
        assert is_empty(client)


@pytest.mark.parametrize("refuses", [True, False])
def test_loop_of_asyncio_that_is_left_ends_its_requests(refuses: bool) -> None:
    async def run() -> None:
        async with AsyncClient(service.url, requests_at_once=2, retry_seconds=99_000) as client:
            async with aclosing(client.embed_many(map(picture, range(10)))) as results:  # type: ignore[type-var]
                await anext(results)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert is_empty(client)

    with OnlyTheFirst(refuses=refuses, others=1) as service:
        asyncio.run(run())


def test_cancelled_request_of_asyncio_leaves_its_place() -> None:
    async def run() -> None:
        async with AsyncClient(service.url) as client:
            client._core.gate.has_capacity(1)
            inside, waiting = (asyncio.create_task(client.embed(picture(number))) for number in (1, 2))
            while not service.bodies:  # noqa: ASYNC110  # another thread fills it
                await asyncio.sleep(0.01)
            for task in (waiting, inside):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert is_empty(client)
            assert (await client.embed(picture(0))).vector[0] == 0

    with OnlyTheFirst(refuses=False) as service:
        asyncio.run(run())


def is_empty(client: Client | AsyncClient) -> bool:
    """Whether nobody is inside the gate, or waits before it."""
    return client._core.gate._inside == 0 and not client._core.gate._waiting


@pytest.mark.parametrize(
    "images",
    [
        str(__file__),
        b"picture 1",
        Path(__file__),
        Picture(b"", []),
        BytesIO(b"picture 1"),
        np.zeros((4, 4, 3), np.uint8),
    ],
    ids=lambda images: type(images).__name__,
)
def test_single_picture_is_not_taken_apart(kind: Kind, images: Any) -> None:
    with FaultyService() as service:
        with pytest.raises(TypeError, match="several pictures, and got one"):
            kind.embed_many(service.url, images)
        assert not service.bodies
        rows = np.array([[b"picture 1"], [b"picture 2"]], object)[:, 0]
        assert kind.embed_many(service.url, rows).numbers == [1, 2]


def test_iterable_that_raises_loses_no_result(kind: Kind) -> None:
    def pictures() -> Iterator[bytes]:
        yield from map(picture, range(100))
        raise OSError("The disk is gone.")

    with FaultyService(max_batch_files=7, work_seconds=0.01) as service:
        given = kind.embed_many(service.url, pictures())
        assert given.numbers == list(range(100))
        assert str(given.raised) == "The disk is gone."


def test_results_are_given_while_pictures_come_slowly(kind: Kind) -> None:
    """Not only when all that may be read ahead has been read."""
    taken, most = [], 2 * 2 * 200

    async def run() -> None:
        async def slowly() -> AsyncIterator[bytes]:
            for number in range(most):
                taken.append(number)
                yield picture(number)
                await asyncio.sleep(0.05)

        async with (
            AsyncClient(service.url, requests_at_once=200) as client,
            aclosing(client.embed_many(slowly())) as results,  # type: ignore[type-var]  # it is a generator
        ):
            await anext(results)

    def pictures() -> Iterator[bytes]:
        for number in range(most):
            taken.append(number)
            yield picture(number)
            time.sleep(0.05)

    with FaultyService(max_batch_files=2) as service:
        if kind is Async:
            asyncio.run(run())
        else:
            with Client(service.url, requests_at_once=200) as client, closing(client.embed_many(pictures())) as results:  # type: ignore[type-var]
                next(results)
    assert len(taken) < most


def test_no_picture_needs_no_request(kind: Kind) -> None:
    with FaultyService() as service:
        assert kind.embed_many(service.url, []).results == []


def test_key_is_sent_and_connections_are_kept(kind: Kind) -> None:
    with FaultyService() as service:
        kind.embed_many(service.url, map(picture, range(200)), api_key="secret", requests_at_once=1)
        assert service.connections == 1
        assert all(b"Authorization: Bearer secret" in head for head in service.heads)


def test_error_names_the_request_for_the_operator(kind: Kind) -> None:
    problem = refusal(422, "image_damaged", "It is damaged.", X_Request_ID="abc")
    with FaultyService([problem]) as service, pytest.raises(errors.ImageDamaged, match="It is damaged") as raised:
        kind.call(service.url, "embed", picture(1))
    assert raised.value.__notes__ == ["X-Request-ID: abc"]


def test_lost_answers_may_run_twice_but_count_once(kind: Kind) -> None:
    with FaultyService(["lost"]) as service:
        assert kind.embed_many(service.url, map(picture, range(3))).numbers == [0, 1, 2]
        assert service.served == [[picture(number) for number in range(3)]] * 2


def test_unknown_option_is_said_before_anything_is_sent(kind: Kind) -> None:
    with FaultyService() as service:
        with Client(service.url) as client, pytest.raises(TypeError, match="no option normalise"):
            client.embed(picture(1), normalise=True)  # type: ignore[call-arg]  # that is the point
        assert not service.bodies
