"""A service under test: started, watched, restarted as a service manager would, and given faults."""

import json
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import psutil

from arcface_api.settings import Settings
from benchmarks.lib.knowing import connections_of, listeners
from benchmarks.lib.service import ROOT, free_port, own_command

INJECTED = ROOT / "benchmarks" / "lib" / "injected"
PATIENCE_SECONDS = 300.0
POLL_SECONDS = 0.05


class Scene:
    """One `arcface-api serve`, from a block's beginning to its end; its processes end with the block."""

    def __init__(
        self,
        model: Path,
        *options: str,
        workers: int = 1,
        restarts: bool = False,
        log: Path | None = None,
        disk: Path | None = None,
        variables: Mapping[str, str] | None = None,
        python: Sequence[str] = (),
    ) -> None:
        """`restarts`: start it again whenever it ends, as systemd's `Restart=always` does."""
        self.workers, self.restarts, self.disk = workers, restarts, disk
        self.hang_seconds = float(
            options[options.index("--hang-seconds") + 1]
            if "--hang-seconds" in options
            else Settings.model_fields["hang_seconds"].default
        )
        self.port = free_port()
        self._temporary = tempfile.TemporaryDirectory(prefix="faults-")
        self.folder = Path(self._temporary.name)
        """Where faults are named."""
        self.log = log or self.folder / "log"
        self._command = [
            *python,
            *own_command(model, self.port, "--device", "cpu", "--workers", str(workers), *options),
        ]
        paths = os.pathsep.join([str(INJECTED), str(ROOT / "src"), str(ROOT)])
        self._variables = {**os.environ, "PYTHONPATH": paths, "FAULTS_FOLDER": str(self.folder), **(variables or {})}
        self.statuses: list[int] = []
        """Exit statuses of the processes that were started, but for the last one."""
        self.process: subprocess.Popen[bytes]
        self._log_file: IO[bytes]

    def __enter__(self) -> Self:
        self._is_over = threading.Event()
        self._log_file = self.log.open("ab")
        self._start()
        self._keeper = threading.Thread(target=self._keep, name="keeper")
        self._keeper.start()
        try:
            self.until(self.is_complete)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._keeper.join()
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log_file.close()
        self._temporary.cleanup()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            self._command,
            stdout=self._log_file,
            stderr=self._log_file,
            env=self._variables,
            start_new_session=True,
        )
        resource.prlimit(self.process.pid, resource.RLIMIT_CORE, (0, 0))  # they would hold faces

    def _keep(self) -> None:
        """Notice ends and, if asked, restart."""
        while not self._is_over.wait(0.02):
            status = self.process.poll()
            if status is not None:
                self.statuses.append(status)
                if not self.restarts:
                    return
                self._start()

    def until(self, found: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until it is so; returns when, in seconds of `time.monotonic`."""
        end = time.monotonic() + seconds
        while not found():
            has_ended = self.process.poll() is not None and not self.restarts and not self._is_over.is_set()
            if time.monotonic() > end or has_ended:
                raise AssertionError(f"Waited in vain for {found}. The log:\n{self.log_text()[-4000:]}")
            time.sleep(POLL_SECONDS)
        return time.monotonic()

    def log_text(self) -> str:
        """All that was logged."""
        with suppress(OSError):
            return self.log.read_text(errors="replace")
        return ""

    def is_complete(self) -> bool:
        """All processes listen that should."""
        return listeners(self.port) == self.workers

    def serving(self) -> list[int]:
        """The processes that serve, in the order of their ids."""
        if self.workers == 1:
            return [self.process.pid]
        found = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with suppress(psutil.NoSuchProcess):
                    if any("spawn_main" in part for part in child.cmdline()):
                        found.append(child.pid)
        return sorted(found)

    def connections(self) -> dict[int, set[int]]:
        """The callers' ports of the connections of each process that serves."""
        return {pid: connections_of(pid, self.port) for pid in self.serving()}

    def arm(self, place: str, fault: str) -> int:
        """Let one process meet a fault the next time it comes there; returns which one met it."""
        for old in self.folder.glob(f"{place}.*"):
            old.unlink()
        new = self.folder / "new"
        new.write_text(fault, encoding="utf-8")
        new.replace(self.folder / place)
        self.until(lambda: any(self.folder.glob(f"{place}.*")))
        return int(next(self.folder.glob(f"{place}.*")).suffix[1:])

    def ask(self, path: str) -> tuple[int | None, Any]:
        """Status and JSON of an answer on a new connection; None where there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, ValueError):
            return None, b""

    def pictures_inside(self) -> int:
        """As /metrics counts them."""
        _, text = self.ask("/metrics")
        for line in text.decode().splitlines():
            if line.startswith("arcface_pictures_inside "):
                return int(float(line.split()[1]))
        return 0


class ReadyWatch:
    """Asks `/readyz` ten times a second, while a block runs."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.seen: list[tuple[float, int | None, str]] = []
        """When it was asked, the status (None: no answer), the reason."""

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="readyz")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._end.wait(0.1):
            at = time.monotonic()
            status, body = self._scene.ask("/readyz")
            reason = ""
            with suppress(ValueError):
                reason = str(json.loads(body).get("reason") or "")
            self.seen.append((at, status, reason))

    def between(self, begin: float, end: float) -> dict[str, int]:
        """How often each status was seen; of 503 with the reason."""
        counts: dict[str, int] = {}
        for at, status, reason in self.seen:
            if begin <= at <= end:
                key = "no answer" if status is None else f"{status} {reason}".strip()
                counts[key] = counts.get(key, 0) + 1
        return counts


def limit(pid: int, what: int, value: int | None) -> None:
    """Set a soft limit of a running process; None: back to the hard one."""
    hard = resource.prlimit(pid, what)[1]
    resource.prlimit(pid, what, (hard if value is None else value, hard))
