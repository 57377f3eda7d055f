"""What a process and its children use, read from Linux's /proc (see proc(5)); works on any service, in any language."""

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Self

PROC = Path("/proc")
MIN_SAMPLES_OF_A_FIFTH = 3
"""Fewer samples tell nothing of growth."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


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
    for member in _tree(pid):
        fields = _stat(member)
        if fields is None:
            continue
        count += 1
        rss += int(fields[21]) * _PAGE_BYTES
        cpu += sum(map(int, fields[11:15])) / _TICKS
    if not count:
        raise ProcessLookupError(f"There is no process {pid}.")
    return Usage(time.monotonic(), rss, cpu, count)


def pss_bytes(pid: int) -> int | None:
    """Memory of a process tree, of a page that n processes share 1/n for each; None where the system hides it.

    Walks all pages, which stops the process for milliseconds: not for use during a run.
    """
    total = 0
    for member in _tree(pid):
        try:
            lines = (PROC / str(member) / "smaps_rollup").read_text().splitlines()
        except ProcessLookupError:
            continue
        except OSError:
            return None
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total or None


@dataclass
class UsageWatch:
    """Samples a process tree while a block runs, on a thread of its own.

        with UsageWatch(pid) as watch:
            ...
        watch.samples

    Ends early, without an error, where the process does: the load will tell.
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
        there are too few samples to tell.
        """
        fifth = len(self.samples) // 5
        if fifth < MIN_SAMPLES_OF_A_FIFTH:
            return None
        rss = [sample.rss_bytes for sample in self.samples]
        return median(rss[-fifth:]) / median(rss[fifth : 2 * fifth])

    def _sample(self) -> None:
        try:
            self.samples.append(usage_of(self.pid))
            while not self._end.wait(self.every_seconds):
                self.samples.append(usage_of(self.pid))
            self.samples.append(usage_of(self.pid))
        except ProcessLookupError:
            return


def _tree(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        member = left.pop()
        found.append(member)
        left += children.get(member, [])
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on (state, parent, …); None where the process has ended."""
    try:
        # The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
