"""How long work shows that it goes on: a bar on a terminal, lines in a log."""

import logging
import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import Self

_BAR_WIDTH = 30
_log = logging.getLogger(__name__)


Progress = Callable[[str, float, float | None], None]
"""Called often, from the thread that works: the present step in words, how much of it is done, and of how much in all
(None: not known); in bytes, or as a share of 1."""


def no_progress(what: str, done: float, total: float | None) -> None:
    """Show nothing."""


class BarProgress:
    """A bar on the terminal that is stderr; where that is none, a line as each bar begins."""

    def __init__(self, label: str | None = None, line_seconds: float = math.inf) -> None:
        """With a label, one bar for the whole, the present step behind it; without, a bar for each step.

        Without a terminal, a line every `line_seconds`.
        """
        self._label, self._title, self._line, self._began = label, "", "", 0.0
        self._line_seconds, self._written = line_seconds, 0.0
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, what: str, done: float, total: float | None = 1.0) -> None:
        """Draw the bar again, where it looks different."""
        if self._title != (title := self._label or what):
            self.__exit__()
            self._title, self._began = title, time.monotonic()
            if not self._is_terminal:
                sys.stderr.write(f"{title}\n")
                self._written = self._began
        if not done:
            self._began = time.monotonic()  # what came before is no measure of what follows
        now, share = time.monotonic(), min(done / total, 1.0) if total else 0.0
        left = _left((now - self._began) * (1 / share - 1) if share else 0.0)
        if not self._is_terminal and now - self._written >= self._line_seconds:
            self._written = now
            sys.stderr.write(f"{title} {share:.0%}, {left or 'time left unknown'}: {what}\n")
            sys.stderr.flush()
        if self._is_terminal:
            bar = f"[{'#' * round(share * _BAR_WIDTH):<{_BAR_WIDTH}}]"
            width = shutil.get_terminal_size().columns - 1
            line = f"{title} {bar} {share:4.0%} {left:<12} {what if self._label else ''}"[:width]
            if line != self._line:
                sys.stderr.write(f"\r{line:<{len(self._line)}}")
                sys.stderr.flush()
                self._line = line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last bar as it is, with the cursor below it."""
        if self._line:
            sys.stderr.write("\n")
            self._line = ""


def _left(seconds: float) -> str:
    """The time left, in a unit that keeps it short; empty if there is none."""
    if not seconds:
        return ""
    for unit, of_seconds in (("s", 1), ("min", 60)):
        if seconds < 600 * of_seconds:
            return f"{seconds / of_seconds:.0f} {unit} left"
    return f"{seconds / 3600:.0f} h left"


class LoggedProgress:
    """Log lines with megabytes, one at each tenth, for a service without a terminal."""

    def __init__(self) -> None:
        """Nothing is logged before the first call."""
        self._last: tuple[str, int] | None = None

    def __call__(self, what: str, done: float, total: float | None) -> None:
        """Log when another tenth of `total` bytes (or another 64 MiB where that is not known) is done."""
        step = int(done * 10 / total) if total else int(done) >> 26
        if self._last != (what, step):
            self._last = (what, step)
            _log.info("%s: %.0f%s MB", what, done / 1e6, f" of {total / 1e6:.0f}" if total else "")
