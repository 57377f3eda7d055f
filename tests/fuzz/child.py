"""One process that runs inputs until it is stopped, or until one of them ends it."""

import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz.mutate import Mutator
from fuzz.seeds import all_seeds
from fuzz.targets import TARGETS

MAX_GROWTH_MIB = 100
"""Of a process's peak RSS, from before its first input; a picture of 2 million pixels takes up to 30."""
_REPORT_SECONDS = 0.5


@dataclass
class Report:
    """What became of some executions."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0, 0)
    """CPU seconds of the thread, and the input's number."""
    peak_growth: tuple[float, int] = (0, 0)
    """MiB beyond what the process had before its first input, and the first input's number that took it there."""
    failure: str = ""
    """What is wrong with the last input."""
    number: int = 0
    """Of the last input."""

    def add(self, later: "Report") -> None:
        """Become the report of both."""
        self.outcomes += later.outcomes
        self.slowest = max(self.slowest, later.slowest)
        self.peak_growth = max(self.peak_growth, later.peak_growth)


def run(target: str, seed: int, numbers: range, under_way: MutableSequence[float], reports: Connection) -> None:
    """Run the inputs of `numbers`; `under_way` says to the parent which, and when it began, and is set to 0 at the end.

    Ends after an input that takes the memory beyond `MAX_GROWTH_MIB`.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write a line for each damaged file
    mutator, run_target = Mutator(all_seeds(), seed), TARGETS[target]
    peak_kib = peak_memory()
    before_kib = peak_kib()
    report, reported, growth_mib = Report(), time.monotonic(), 0.0
    for number in numbers:
        content = mutator.input(number)
        now = time.monotonic()
        if report.failure or now - reported > _REPORT_SECONDS:
            reports.send(report)
            report, reported = Report(), now
        under_way[0], under_way[1] = number, now
        began = time.thread_time()
        try:
            outcome = run_target(content)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            outcome, report.failure = "failure", "".join(traceback.format_exception(error))
        report.slowest = max(report.slowest, (time.thread_time() - began, number))
        report.outcomes[outcome] += 1
        report.number = number
        grown_mib = (peak_kib() - before_kib) / 1024
        if grown_mib > growth_mib:
            growth_mib, report.peak_growth = grown_mib, (grown_mib, number)
        if growth_mib > MAX_GROWTH_MIB:
            report.failure = report.failure or f"memory grew by {growth_mib:.0f} MiB"
            break
    under_way[1] = 0
    reports.send(report)


def peak_memory() -> Callable[[], int]:
    """What reads the most memory that this process has at once, in KiB, from now on.

    getrusage's number begins with the parent's.
    """
    Path("/proc/self/clear_refs").write_text("5")
    status = os.open("/proc/self/status", os.O_RDONLY)

    def peak_kib() -> int:
        text = os.pread(status, 1024, 0)
        return int(text[text.index(b"VmHWM:") + 6 :].split(None, 1)[0])

    return peak_kib
