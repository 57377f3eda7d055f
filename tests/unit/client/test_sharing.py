"""Promises of a client that is used after a fork, in another event loop, and in a program that ends."""

import asyncio
import gc
import logging
import signal
import subprocess
import sys
import threading
import time

import pytest

from arcface_api.client import AsyncClient, Client
from client.test_faults import OnlyTheFirst
from faulty_service import FaultyService, picture

FORKS = """
import os, sys
from arcface_api.client import Client

with Client(sys.argv[1]) as client:
    client.embed(b"picture 99")
    client._core.gate._lock.acquire()  # as another thread may have in the moment of the fork
    children = []
    for first in (10, 20, 30, 40):
        if not (child := os.fork()):
            found = [client.embed(b"picture %d" % number).vector[0] for number in range(first, first + 5)]
            os._exit(found != [*range(first, first + 5)])
        children.append(child)
    client._core.gate._lock.release()
    print([os.waitpid(child, 0)[1] for child in children], client.embed(b"picture 99").vector[0])
"""
WAITS = """
import sys
from arcface_api.client import Client

with Client(sys.argv[1], timeout_seconds=3600) as client:
    for result in client.embed_many(b"picture %d" % number for number in range(1, 100)):
        pass
"""


@pytest.mark.timeout(300)
def test_forked_children_have_connections_of_their_own() -> None:
    """On a shared one, each would read the others' vectors."""
    with FaultyService() as service:
        done = subprocess.run(
            [sys.executable, "-c", FORKS, service.url], capture_output=True, text=True, check=False, timeout=250
        )
        assert done.stdout == "[0, 0, 0, 0] 99.0\n", done.stderr
        assert service.connections == 1 + 4


@pytest.mark.timeout(300)
def test_interrupted_program_does_not_wait_for_its_requests() -> None:
    with OnlyTheFirst(refuses=False) as service:
        process = subprocess.Popen([sys.executable, "-c", WAITS, service.url], stderr=subprocess.PIPE, text=True)
        while sum(b"/embed" in head for head in service.heads) < 4:  # all that are sent at once
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=250)  # a fraction of what the request may take
        assert process.returncode == -signal.SIGINT, error
        assert "KeyboardInterrupt" in error


@pytest.mark.parametrize("leaves_first", [True, False])
def test_client_that_is_closed_does_not_report_what_it_left(
    leaves_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with OnlyTheFirst(refuses=False, others=2) as service:
        with Client(service.url, requests_at_once=3) as client:
            results = client.embed_many(map(picture, range(10)))
            next(results)
            if leaves_first:
                results.close()  # type: ignore[attr-defined]  # it is a generator
        service.end()
        while leaves_first and any(thread.name == "arcface-client" for thread in threading.enumerate()):
            time.sleep(0.01)
        if not leaves_first:
            with pytest.raises(RuntimeError, match="closed"):
                next(results)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio's: nobody closes the first loop's connection
def test_client_of_asyncio_may_be_used_in_one_loop_after_another() -> None:
    with FaultyService() as service:
        client = AsyncClient(service.url, retry_seconds=0)

        async def many() -> list[float]:
            return [each.vector[0] async for each in client.embed_many([picture(2), picture(3)])]  # type: ignore[union-attr]

        for _ in range(2):
            assert asyncio.run(client.embed(picture(1))).vector[0] == 1
            assert asyncio.run(many()) == [2, 3]
        asyncio.run(client.close())
        gc.collect()


def test_client_of_asyncio_refuses_two_loops_at_once() -> None:
    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="one for each loop"):
            await client.health()

    async def run() -> None:
        async with client:
            await client.embed(picture(1))
            await asyncio.to_thread(asyncio.run, elsewhere())
            await client.embed(picture(1))

    with FaultyService() as service:
        client = AsyncClient(service.url)
        asyncio.run(run())
        assert service.connections == 1
