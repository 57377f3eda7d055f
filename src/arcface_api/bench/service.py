"""A service in a process of its own: started, waited for, stopped. Ours, or any other with a port."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from arcface_api.bench.connection import Address
from arcface_api.errors import MeasurementFailed

START_SECONDS = 180.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
ANSWER_SECONDS = 60.0
"""Longest silence of a service that is asked one thing."""


@dataclass(frozen=True)
class Service:
    """A service that runs and answers."""

    address: Address
    pid: int
    """Of its first process."""
    ready_seconds: float
    """From the start of the process to the first answer of status 200."""
    first_answer: bytes
    """That answer's body."""

    def rss_bytes(self) -> int:
        """Resident memory of all its processes together; pages that they share count for each."""
        first = psutil.Process(self.pid)
        return sum(process.memory_info().rss for process in (first, *first.children(recursive=True)))


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(address: Address, request: bytes) -> tuple[int, bytes]:
    """Send a prebuilt request once; its answer's status and body.

    Raises:
        OSError: Nothing answers there.
        http.client.HTTPException: What answers does not speak HTTP.
    """
    with socket.create_connection((address.host, address.port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


@contextmanager
def running(  # keywords that each state one fact of the process
    command: Sequence[str],
    port: int,
    first_request: bytes,
    *,
    log: Path | None = None,
    variables: Mapping[str, str] | None = None,
    start_seconds: float = START_SECONDS,
) -> Iterator[Service]:
    """Start a service and wait until it answers; it and all its children end with the block.

    Args:
        command: Starts the service.
        port: Where it will listen, on the loopback.
        first_request: Sent until it is answered with 200.
        log: Receives its output; by default this process's standard error.
        variables: Environment variables that it gets beside this process's own.
        start_seconds: Without an answer by then it has failed.

    Raises:
        MeasurementFailed: It ended, or did not answer in time.
    """
    started = time.monotonic()
    address = Address("127.0.0.1", port)
    output = log.open("ab") if log else None
    with _signals_held() as received:  # one that comes before the process has its name would leave it running
        process = subprocess.Popen(  # noqa: S603  # the command is the caller's, and no shell reads it
            command,
            env={**os.environ, **(variables or {})},
            stdout=output or sys.stderr,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,  # a group of its own: its children are stopped with it
        )
    try:
        for number in received:
            signal.raise_signal(number)
        answer = None
        last = "it never answered"
        while answer is None:
            if process.poll() is not None:
                raise MeasurementFailed(f"The service ended before it could serve. {_last_words(process, log)}")
            if time.monotonic() > started + start_seconds:
                raise MeasurementFailed(f"The service was not ready after {start_seconds:g} s: {last}.")
            time.sleep(POLL_SECONDS)
            try:
                status, body = ask(address, first_request)
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
            else:
                answer = body if status == http.HTTPStatus.OK else None
                last = f"it answered {status}: {body[:500]!r}"
        yield Service(address, process.pid, time.monotonic() - started, answer)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever is left of its group
        process.wait()
        if output:
            output.close()


def _last_words(process: subprocess.Popen[bytes], log: Path | None) -> str:
    """The last line of the log, in which our service says why it ended; otherwise its command and status."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log else []
    if lines:
        return lines[-1].removeprefix("Error: ")
    return f"{process.args!r} ended with status {process.returncode}."


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Only note SIGINT and SIGTERM. Blocked, they would stay blocked in the process that is started here."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # where no signal is handled anyway
        yield received
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda caught, _: received.append(caught)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
