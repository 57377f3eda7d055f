"""Runs a target in child processes, so that a crash, a hang, memory without bounds and a wrong error are findings."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator, MutableSequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path

from fuzz import child
from fuzz.mutate import Mutator
from fuzz.seeds import all_seeds

HANG_SECONDS = 1.0
MAX_FINDINGS = 5
"""A run ends here: the first ones have to be looked at."""
UNBOUNDED = 10**9
"""Executions of a run that ends by its time."""

_LOOKED_AT_BEFORE_A_CRASH = 20
_POLL_SECONDS, _PROGRESS_SECONDS = 0.05, 10.0
_START_SECONDS = 300.0


@dataclass(frozen=True)
class Finding:
    """An input on which the target fails, and the file that holds it."""

    what: str
    number: int
    file: Path


@dataclass(frozen=True)
class _Child:
    process: SpawnProcess
    reports: Connection
    under_way: MutableSequence[float]
    numbers: range


class Fuzzer:
    """One run over the numbers 0, 1, 2 …, dealt out to some processes."""

    def __init__(self, target: str, seed: int, folder: Path) -> None:
        self.findings: list[Finding] = []
        self.report = child.Report()
        self.seconds = 0.0
        self._target, self._seed, self._folder = target, seed, folder
        self._mutator = Mutator(all_seeds(), seed)

    def run(self, processes: int, seconds: float, executions: int = UNBOUNDED) -> None:
        """Run until the time or the executions are over, or there are `MAX_FINDINGS`."""
        began = shown = time.monotonic()
        children = [self._start(range(place, executions, processes)) for place in range(processes)]
        try:
            while children and len(self.findings) < MAX_FINDINGS and time.monotonic() - began < seconds:
                time.sleep(_POLL_SECONDS)
                children = [again for each in children for again in self._watch(each)]
                self.seconds = time.monotonic() - began
                if time.monotonic() - shown > _PROGRESS_SECONDS:
                    shown = time.monotonic()
                    self._show()
        finally:
            for each in children:
                each.process.kill()
                each.process.join()
                self._collect(each)

    def _start(self, numbers: range) -> _Child:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        under_way = RawArray("d", [numbers.start, time.monotonic() + _START_SECONDS])
        arguments = (self._target, self._seed, numbers, under_way, theirs)
        process = context.Process(target=child.run, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return _Child(process, ours, under_way, numbers)

    def _watch(self, running: _Child) -> Iterator[_Child]:
        """Look at a child: itself if it goes on, another in its place if it failed, nothing if it is through."""
        has_ended = not running.process.is_alive()
        self._collect(running)
        number, began = int(running.under_way[0]), running.under_way[1]
        if not has_ended and (not began or time.monotonic() - began < HANG_SECONDS):
            yield running
            return
        running.process.kill()
        running.process.join()
        if not has_ended:
            self.report.outcomes["stopped"] += 1  # no finding if it is fast alone: the machine was busy
            self._confirm([number], f"takes more than {HANG_SECONDS:g} s", fails_alone=True)
        elif running.process.exitcode:
            self.report.outcomes["died"] += 1
            at = running.numbers.index(number)
            latest = running.numbers[max(0, at - _LOOKED_AT_BEFORE_A_CRASH) : at + 1]
            self._confirm(list(reversed(latest)), f"the process ended with {running.process.exitcode}")
        rest = running.numbers[running.numbers.index(number) + 1 :]
        if rest:
            yield self._start(rest)

    def _collect(self, running: _Child) -> None:
        """Take what a child has reported."""
        with suppress(EOFError, OSError):  # it died, maybe amid a report
            while running.reports.poll():
                report = running.reports.recv()
                self.report.add(report)
                if report.failure:
                    self._found(report.failure, report.number)

    def _confirm(self, numbers: list[int], what: str, *, fails_alone: bool = False) -> None:
        """Find which of the numbers fails alone; memory damaged by one often ends the process at a later one.

        Where it would fail alone and does not, nothing is wrong: the machine was busy.
        """
        for number in numbers:
            file = self._save(number)
            if fails_again(self._target, file):
                self._found(what, number)
                return
            file.unlink()
        if not fails_alone:
            self._found(f"{what}, but not alone", numbers[0])

    def _found(self, what: str, number: int) -> None:
        finding = Finding(what, number, self._save(number))
        self.findings.append(finding)
        again = f"make fuzz ARGS='--target {self._target} --replay {finding.file}'"
        print(f"FOUND in input {number}: {what}\n  again: {again}", file=sys.stderr)

    def _save(self, number: int) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{self._target}-{self._seed}-{number}"
        file.write_bytes(self._mutator.input(number))
        return file

    def _show(self) -> None:
        done = self.report.outcomes.total()
        print(
            f"{self.seconds:.0f} s: {done:,} executions, {done / self.seconds:,.0f}/s; {len(self.findings)} found,"
            f" slowest {self.report.slowest[0] * 1000:.0f} ms, memory grew by {self.report.peak_growth[0]:.0f} MiB",
            file=sys.stderr,
        )


def fails_again(target: str, file: Path) -> bool:
    """Whether a process that runs nothing but this input fails."""
    command = [sys.executable, "-m", "fuzz", "--target", target, "--replay", str(file)]
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=_START_SECONDS).returncode != 0
    except subprocess.TimeoutExpired:
        return True
