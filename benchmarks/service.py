"""A service in a process of its own: started, waited for, measured, stopped. Ours, or any other with a port."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from arcface_api.bench import Address, Usage, usage_of
from arcface_api.bench.process import pss_bytes

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180.0
STOP_SECONDS = 20.0


def own_command(recogniser: Path, port: int, *options: str) -> list[str]:
    """The command that serves a recogniser with this checkout."""
    return [sys.executable, "-m", "arcface_api", "serve", "--pack", str(recogniser), "--port", str(port), *options]


def free_port() -> int:
    """A TCP port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningService:
    """Starts when the block begins, answers when it has begun, is gone with all its children when it ends.

    Attributes:
        address: Where it listens.
        pid: Of its first process.
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
    ) -> None:
        """Nothing starts yet.

        Args:
            command: Starts the service on `port` of the loopback.
            port: Where it will listen.
            first_request: Sent until it is answered with 200: an embedding, where readiness means that it can embed.
            log: Where its output goes; by default to this process's standard error.
            environment: Variables it gets beside this process's own.
        """
        self.address = Address("127.0.0.1", port)
        self._command = list(command)
        self._first_request = first_request
        self._log = log
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "benchmarks")])
        self._environment = {**os.environ, "PYTHONPATH": paths, **(environment or {})}

    def __enter__(self) -> Self:
        started = time.monotonic()
        output = self._log.open("ab") if self._log else None
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=output or sys.stderr,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,  # a group of its own: its children are stopped with it
        )
        if output:
            output.close()
        self.pid = self._process.pid
        try:
            self.first_answer = self._wait_until_ready(started + START_SECONDS)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.ready_seconds = time.monotonic() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._signal(signal.SIGKILL)  # whatever of its group is left
        self._process.wait()

    def usage(self) -> Usage:
        """What its processes use now."""
        return usage_of(self.pid)

    def pss_bytes(self) -> int | None:
        """Its processes' memory, shared pages counted once; None where the system hides it."""
        return pss_bytes(self.pid)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _wait_until_ready(self, end: float) -> bytes:
        last = "it never answered"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                where = f"; its output is in {self._log}" if self._log else ""
                raise SystemExit(f"{' '.join(self._command)} ended with status {self._process.returncode}{where}.")
            try:
                status, body = ask(self.address, self._first_request)
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
            else:
                if status == http.HTTPStatus.OK:
                    return body
                last = f"it answered {status}: {body[:500]!r}"
            time.sleep(0.02)
        raise SystemExit(f"{' '.join(self._command)} was not ready after {START_SECONDS:g} s: {last}.")


def ask(address: Address, request: bytes) -> tuple[int, bytes]:
    """Send a prebuilt request once; its answer's status and body."""
    with socket.create_connection((address.host, address.port), timeout=60) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


def write_report(report: Mapping[str, object], output: Path | None) -> None:
    """Print a result as JSON; also write it to a file, where one is given."""
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
