"""Promises about hostile callers: each is refused or closed, nobody gets a wrong vector, and nothing is left over.

The short form of `benchmarks/questions/hostile_requests.py`, with the same cases.
"""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil

from arcface_api.api.app import DOCUMENT_THREADS
from arcface_api.bench.connection import Address
from benchmarks.lib.hostile_callers import known_vectors, outcome_of
from benchmarks.lib.hostile_cases import all_cases
from serving import Run, until

SLOW = 30
"""Connections that send slowly, and as many that do not read."""
DOCUMENT = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_each_hostile_request_gets_its_refusal_and_nothing_is_left_over(run: Run, tiny_recogniser: Path) -> None:
    # a busy machine may take longer than the service allows by default
    patient = ("--hang-seconds", "300", "--request-timeout-seconds", "300", "--upload-min-bytes-per-second", "1")
    command = run("--pack", tiny_recogniser, *patient)
    address, process = Address("127.0.0.1", command.port), psutil.Process(command.process.pid)
    cases, vectors = all_cases(), known_vectors(address)
    assert len({case.content for case in cases}) >= 500
    before, threads, rss = process.num_fds(), process.num_threads(), process.memory_info().rss
    with ExitStack() as slow:
        for sent in (b"POST /embed HTTP/1.1\r\nHost:", DOCUMENT * 3) * SLOW:
            link = slow.enter_context(socket.socket())
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.connect(("127.0.0.1", command.port))
            link.sendall(sent)
        with ThreadPoolExecutor(4) as callers:
            outcomes = list(callers.map(lambda case: outcome_of(case, address, vectors), cases))
    assert [(each.case.kind, each.case.name, each.got) for each in outcomes if not each.is_right] == []
    until(lambda: process.num_fds() <= before)
    most_in_pools = DOCUMENT_THREADS + min(32, (os.cpu_count() or 1) + 4)  # asyncio's own number
    assert process.num_threads() <= threads + most_in_pools + 2  # and those that write the log's counts
    until(lambda: process.memory_info().rss < 1.5 * rss + 50e6)
    assert known_vectors(address) == vectors
    assert "Traceback" not in command.log
    assert len(command.lines) < 100


def test_system_takes_little_of_an_answer_that_nobody_reads(run: Run, tiny_recogniser: Path) -> None:
    command = run("--pack", tiny_recogniser)
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", command.port))
        caller.sendall(DOCUMENT * 3)
        ends = f"{command.port:04X}", f"{caller.getsockname()[1]:04X}"
        taken = [0]

        def is_full() -> bool:
            time.sleep(0.5)
            taken.append(waiting(*ends))
            return taken[-1] > 0 and taken[-1] == taken[-2]

        until(is_full)
    assert taken[-1] < 1e6, "and not the 4 MB that Linux would take"


def waiting(sender_port: str, receiver_port: str) -> int:
    """Bytes that the system has taken from the sender and not delivered."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, sender, receiver, _, queues, *_ = line.split()
        if sender.endswith(f":{sender_port}") and receiver.endswith(f":{receiver_port}"):
            return int(queues.partition(":")[0], 16)
    return 0
