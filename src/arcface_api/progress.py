"""How long work shows that it goes on: a bar on a terminal, lines in a log."""

import logging
import sys
from typing import Any, Self

import click

_log = logging.getLogger(__name__)


class BarProgress:
    """Progress as a bar on a terminal."""

    def __init__(self) -> None:
        """Nothing is shown before the first call."""
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done_bytes: int, total_bytes: int | None) -> None:
        """Show `done_bytes` of `total_bytes` (None: not known) of what is going on now."""
        if what != self._what:
            self._end()
            self._what = what
            self._bar = click.progressbar(
                length=total_bytes or 0, label=what, file=sys.stderr, show_pos=False, update_min_steps=1
            )
            self._bar.__enter__()
        self._bar.update(done_bytes - self._bar.pos)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


class ShareBar:
    """One bar on a terminal for the whole of something, with its present part in words."""

    def __init__(self, label: str) -> None:
        """Shown when the block begins."""
        self._bar: Any = click.progressbar(
            length=1000,
            label=label,
            file=sys.stderr,
            show_pos=False,
            item_show_func=lambda what: what,
            update_min_steps=1,
        )

    def __call__(self, what: str, share: float) -> None:
        """Show that `share` (0 to 1) of the whole is done, and what is going on now."""
        self._bar.update(round(share * 1000) - self._bar.pos, what)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)


class LoggedProgress:
    """Progress as log lines, one at each tenth, for a service without a terminal."""

    def __init__(self) -> None:
        """Nothing is logged before the first call."""
        self._last: tuple[str, int] | None = None

    def __call__(self, what: str, done_bytes: int, total_bytes: int | None) -> None:
        """Log `what` when another tenth of `total_bytes` (or another 64 MiB where that is not known) is done."""
        step = done_bytes * 10 // total_bytes if total_bytes else done_bytes >> 26
        if self._last == (what, step):
            return
        self._last = (what, step)
        of_total = f" of {total_bytes / 1e6:.0f}" if total_bytes else ""
        _log.info("%s: %.0f%s MB", what, done_bytes / 1e6, of_total)
