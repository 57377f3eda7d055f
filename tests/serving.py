"""The real service, run for a test: in a thread of this process, or as a command."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import uvicorn

from arcface_api.api.app import DirectApp
from arcface_api.api.protocol import HttpProtocol

T = TypeVar("T")
PATIENCE_SECONDS = 300


class Service(httpx.Client):
    """A client of a real service that runs in a thread of this process."""

    def __init__(self, app: DirectApp, *, access_log: bool = False) -> None:
        """Start the service on a free port and wait until it is ready."""
        self.app = app
        config = uvicorn.Config(
            app, ws="none", http=HttpProtocol, log_config=None, access_log=access_log, proxy_headers=access_log, port=0
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            assert self._thread.is_alive(), "the service ended before it was ready"
        port = self._server.servers[0].sockets[0].getsockname()[1]
        # Without TLS there are no certificates to read, which would take a tenth of the time of a test.
        scheme = "https" if app.connections.tls else "http"
        super().__init__(base_url=f"{scheme}://127.0.0.1:{port}", timeout=100, verify=False)

    def stop(self) -> None:
        """Do what SIGTERM does, and wait for the end."""
        self._server.should_exit = True
        self._thread.join()


def until(found: Callable[[], T | None]) -> T:
    """Wait until `found` returns something true, and return that."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (answer := found()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return answer


def free_port() -> int:
    """A port of the loopback that is free, and stays so: the kernel takes none from here for `--port 0` or a caller."""
    for port in random.SystemRandom().sample(range(10_000, 32_768), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Command:
    """`arcface-api serve` in a process group of its own, as a shell starts it."""

    def __init__(self, *arguments: str | Path, faults: Path | None = None, within: Sequence[str] = ()) -> None:
        """Start it; `faults` is a folder with a `sitecustomize.py`, which each of its processes runs first, and
        `within` a command that runs it."""
        command = [*within, sys.executable, "-m", "arcface_api", "serve", "--port", "0", "--device", "cpu"]
        command += map(str, arguments)
        paths = [str(faults), os.environ.get("PYTHONPATH", "")] if faults else [os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0, env=environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.lines.extend(lines)

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def logged(self, pattern: str, times: int = 1) -> list[str]:
        """Wait for lines with this pattern; returns what its group matched."""

        def found() -> list[str] | None:
            assert self._reader.is_alive() or len(re.findall(pattern, self.log)) >= times, self.log
            caught = re.findall(pattern, self.log)
            return caught if len(caught) >= times else None

        return until(found) or []

    @property
    def port(self) -> int:
        return int(self.logged(r"Listening on https?://127\.0\.0\.1:(\d+),")[0])

    def serving(self) -> list[int]:
        """The workers that serve, when both do."""
        return until(lambda: pids if len(pids := self._open()) == 2 and "2 of 2 workers serve" in self.log else None)

    def _open(self) -> list[int]:
        opened = map(int, re.findall(r"Worker (\d+) serves", self.log))
        return [pid for pid in opened if is_running(pid)]

    def end(self) -> str:
        """Wait for the end; returns the whole log."""
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return self.log

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what a failed test has left over
        self._reader.join()


@contextmanager
def ending_with_this_process() -> Iterator[None]:
    """Every process that is started from here on ends when this one does, even if this one is killed."""
    command = [sys.executable, str(Path(__file__).with_name("reaper.py"))]
    mark = str(uuid.uuid4())
    # Without the mark: the reaper of a run inside another run outlives its run, and ends what that has started.
    with subprocess.Popen(
        [*command, f"TEST_RUN={mark}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={},
        start_new_session=True,
    ):
        os.environ["TEST_RUN"] = mark
        yield


def path_with_programs(folder: Path) -> str:
    """A PATH on which `python` and `arcface-api` are those of this test run; they are written into `folder`."""
    folder.mkdir()
    python = sys.executable
    for name, command in (("python", python), ("python3", python), ("arcface-api", f"{python} -m arcface_api")):
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def is_running(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


PATIENT_END = "from arcface_api.serving import server\nserver.LAST_SECONDS = 60\n"
"""A `sitecustomize.py`: a busy machine needs more than 5 s for the end of the process itself."""

Run = Callable[..., Command]


def descendants(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}
