"""Ends what a test run leaves running: `python reaper.py MARK`, beside the run, which holds the other end of stdin.

A child of its own sees the end of a run that was killed, and `SIGKILL` also ends a service that hangs. The mark is in
the environment of every process that the run has started, and of those that these have started.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def marked(mark: bytes) -> Iterator[int]:
    """The processes whose environment has the mark. None where there is no /proc."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or belongs to another user
            if mark in environment.read_bytes().split(b"\0"):
                yield int(environment.parent.name)


def main() -> None:
    """Wait for the run's end; then kill until nothing is left."""
    mark = os.fsencode(sys.argv[1])
    sys.stdin.read()
    while pids := list(marked(mark)):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
