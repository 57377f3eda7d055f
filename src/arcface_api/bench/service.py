"""A service in a process of its own: started, waited for, measured, stopped. Ours, or any other with a port."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from arcface_api.bench.process import Usage, pss_bytes, usage_of
from arcface_api.bench.requests import Address
from arcface_api.errors import MeasurementFailed

START_SECONDS = 180.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
ANSWER_SECONDS = 60.0
"""Longest silence of a service that is asked one thing."""


def free_port() -> int:
    """A TCP port of the loopback that nobody uses now."""
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


class RunningService:
    """Starts when the block begins, answers when it has begun, is gone with all its children when it ends.

    Attributes:
        address: Where it listens.
        ready_seconds: From the start of the process to the first answer of status 200.
        first_answer: That answer's body.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        first_request: bytes,
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """Nothing starts yet.

        Args:
            command: Starts the service on `port` of the loopback.
            port: Where it will listen.
            first_request: Sent until it is answered with 200: an embedding, where readiness means that it can embed.
            log: Where its output goes; by default to this process's standard error.
            environment: Variables it gets beside this process's own.
            start_seconds: Whoever has not answered by then has failed.
        """
        self.address = Address("127.0.0.1", port)
        self._command = list(command)
        self._first_request = first_request
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._start_seconds = start_seconds

    def __enter__(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            MeasurementFailed: It ended, or did not answer in time.
        """
        started = time.monotonic()
        # On a thread, where no signal raises: after Ctrl-C between its start and our knowing of it, it would stay.
        start = ThreadPoolExecutor(1).submit(self._start)
        try:
            self._process = start.result()
            self.first_answer = self._wait_until_ready(started + self._start_seconds)
        except BaseException:
            self._process = start.result()
            self.__exit__(None, None, None)
            raise
        self.ready_seconds = time.monotonic() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGTERM)
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        finally:  # also after a second Ctrl-C
            self._signal(signal.SIGKILL)  # whatever of its group is left
            self._process.wait()

    @property
    def pid(self) -> int:
        """Of its first process, which leads its group."""
        return self._process.pid

    def usage(self) -> Usage:
        """What its processes use now."""
        return usage_of(self.pid)

    def pss_bytes(self) -> int | None:
        """Its processes' memory, shared pages counted once; None where the system hides it."""
        return pss_bytes(self.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") if self._log else nullcontext(sys.stderr) as output:
            return subprocess.Popen(  # noqa: S603  # the command is the caller's, and no shell reads it
                self._command,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT if self._log else None,
                start_new_session=True,  # a group of its own: its children are stopped with it
            )

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _wait_until_ready(self, end: float) -> bytes:
        last = "it never answered"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise MeasurementFailed(f"The service ended before it could serve. {self._last_words()}")
            try:
                status, body = ask(self.address, self._first_request)
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
            else:
                if status == http.HTTPStatus.OK:
                    return body
                last = f"it answered {status}: {body[:500]!r}"
            time.sleep(POLL_SECONDS)
        raise MeasurementFailed(f"The service was not ready after {self._start_seconds:g} s: {last}.")

    def _last_words(self) -> str:
        """Its log's last line, where a service of ours says why it ended; else its command and status."""
        lines = self._log.read_text(errors="replace").split("\n") if self._log else []
        said = next((line for line in reversed(lines) if line.strip()), "")
        return (
            said.removeprefix("Error: ") or f"{' '.join(self._command)} ended with status {self._process.returncode}."
        )
