"""Keeps callers from filling the log: of each kind of line, a limited number a minute; the others are counted.

A kind is what one statement logs: the logger's name, the level and the text before its values are put in.
"""

import logging
import threading
import time
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
"""The minute of a kind begins with its first line."""
UNLIMITED = "uvicorn.access"
"""A line for each request is what the operator has asked for."""
MOST_KINDS = 1_000
"""Kinds whose lines are counted at once. More occur only if a text is put together before it is logged."""

Kind = tuple[str, int, str]


@dataclass
class _Minute:
    ends: float
    lines: int = 0
    dropped: int = 0


class LogLimit(logging.Filter):
    """A filter of one handler. Any thread may log."""

    dropped_lines = 0
    """Since the process began, by all of these filters."""

    def __init__(self, handler: logging.Handler, most: int) -> None:
        """Lets `most` lines of each kind a minute through to `handler`, which gets the lines about the others too."""
        super().__init__()
        self._handler, self._most = handler, most
        self._lock = threading.Lock()
        self._minutes: dict[Kind, _Minute] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line may be written."""
        if record.name == UNLIMITED or hasattr(record, "is_about_dropped"):
            return True
        kind, now = (record.name, record.levelno, str(record.msg)), time.monotonic()
        with self._lock:
            minute = self._minutes.get(kind)
            if minute is None:
                if len(self._minutes) >= MOST_KINDS:
                    self._forget(now)
                minute = self._minutes[kind] = _Minute(now + WINDOW_SECONDS)
            elif now >= minute.ends and not minute.dropped:  # otherwise its timer ends it
                minute.ends, minute.lines = now + WINDOW_SECONDS, 0
            minute.lines += 1
            if minute.lines <= self._most:
                return True
            minute.dropped += 1
            LogLimit.dropped_lines += 1
            if minute.dropped == 1:
                timer = threading.Timer(max(0.0, minute.ends - now), self._end, [kind])
                timer.daemon = True
                timer.start()
        return False

    def _end(self, kind: Kind) -> None:
        """A minute in which lines were dropped is over: say how many."""
        with self._lock:
            minute = self._minutes.pop(kind)
        name, level, text = kind
        more = f"… {minute.dropped:,} more like this in the last minute: {text}"
        record = logging.LogRecord(name, level, __file__, 0, more, (), None)
        record.is_about_dropped = True
        self._handler.handle(record)

    def _forget(self, now: float) -> None:
        """Forget the kinds whose minute is over; all that have dropped nothing if there are none."""
        kept = {kind: minute for kind, minute in self._minutes.items() if minute.dropped or now < minute.ends}
        if len(kept) >= MOST_KINDS:
            kept = {kind: minute for kind, minute in kept.items() if minute.dropped}
        self._minutes = kept
