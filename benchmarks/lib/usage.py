"""What a process and its descendants use; works on any service, in any language."""

import threading
import time
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.lib.load import LoadReport

MIN_SAMPLES_OF_A_FIFTH = 3
"""Fewer samples show nothing of growth."""


@dataclass(frozen=True)
class Usage:
    """What a tree of processes uses at one moment."""

    at: float
    """Seconds on `time.monotonic`'s clock."""
    rss_bytes: int
    """Resident memory, summed: pages that processes share count for each."""
    cpu_seconds: float
    """User and system time so far, of children that ended too."""
    processes: int


def usage_of(pid: int) -> Usage:
    """Usage of a process and all its descendants.

    Raises:
        ProcessLookupError: There is no such process.
    """
    rss, cpu, count = 0, 0.0, 0
    for process in _tree(pid):
        try:
            with process.oneshot():
                rss += process.memory_info().rss
                times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        cpu += times.user + times.system + times.children_user + times.children_system
        count += 1
    return Usage(time.monotonic(), rss, cpu, count)


def pss_bytes(pid: int) -> int | None:
    """Memory of a process tree, of a page that n processes share 1/n for each; None where the system hides it.

    Walks all pages, which stops the process for milliseconds: not for use during a run.
    """
    total = 0
    for process in _tree(pid):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except (psutil.AccessDenied, AttributeError):
            return None
    return total


@dataclass
class UsageWatch:
    """Samples a process tree while a block runs, on a thread of its own.

        with UsageWatch(pid) as watch:
            ...
        watch.samples

    Ends early, without an error, if the process does.
    """

    pid: int
    every_seconds: float = 1.0
    samples: list[Usage] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="usage-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    @property
    def cpu_seconds(self) -> float:
        """CPU time between the first and the last sample."""
        return self.samples[-1].cpu_seconds - self.samples[0].cpu_seconds if self.samples else 0.0

    @property
    def rss_growth(self) -> float | None:
        """Resident memory of the last fifth of the samples over that of the second fifth, by medians; 1.0 is flat.

        The first fifth is left out: buffers and thread stacks that the load needs once are not a leak. None where
        there are too few samples.
        """
        fifth = len(self.samples) // 5
        if fifth < MIN_SAMPLES_OF_A_FIFTH:
            return None
        rss = [sample.rss_bytes for sample in self.samples]
        return median(rss[-fifth:]) / median(rss[fifth : 2 * fifth])

    def summary(self, report: LoadReport) -> dict[str, Any]:
        """Memory and CPU of the service during a load; warm-up included in both, so CPU per request is of all of it."""
        rss = [round(sample.rss_bytes / 1e6, 1) for sample in self.samples]
        return {
            "cpu_seconds": round(self.cpu_seconds, 2),
            "cpu_us_per_attempt": round(self.cpu_seconds / max(1, report.costs["attempts"]) * 1e6, 1),
            "rss_mb_first": rss[0] if rss else None,
            "rss_mb_last": rss[-1] if rss else None,
            "rss_mb_max": max(rss, default=None),
            "rss_growth": round(self.rss_growth, 4) if self.rss_growth else None,
            "samples": len(rss),
        }

    def _sample(self) -> None:
        try:
            self.samples.append(usage_of(self.pid))
            while not self._end.wait(self.every_seconds):
                self.samples.append(usage_of(self.pid))
            self.samples.append(usage_of(self.pid))
        except ProcessLookupError:
            return


def _tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        raise ProcessLookupError(f"There is no process {pid}.") from None
