"""How many connections there may be, and how one ends: so that its caller can read why, and not later than allowed."""

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from arcface_api.api.memory import Trimmer

if sys.platform != "win32":
    import resource

LINGER_SECONDS = 5.0
"""How long a caller that is still sending may take to read why nobody reads on."""
MOST_LINGERING = 256
"""So many at once; where more end like that, the others are cut off."""
WRITE_SECONDS = 30.0
"""How often a caller that does not read its answer is looked at."""
OTHER_FILES = 256
"""What a process has open beside its connections, with room to spare: models, libraries, pipes, devices."""

_log = logging.getLogger(__name__)


@dataclass
class Connections:
    """What is allowed to the connections of one process, and what they share."""

    most: int
    """Served at once; one more is refused."""
    upload_seconds: float
    """How long the rest of a refused body is thrown away."""
    min_bytes_per_second: int
    """Of that rest, and of an answer that is being read."""
    lingering: int = 0
    """Those that were answered and closed, and whose callers may still read."""
    trimmer: Trimmer = field(default_factory=Trimmer)


def allow_open_files(connections: int) -> None:
    """Let this process have so many connections; many systems allow 1,024 files, unless a process asks for more."""
    if sys.platform == "win32":
        return
    wanted = connections + MOST_LINGERING + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            _log.warning(
                "This system allows %d open files, too few for ARCFACE_MAX_CONNECTIONS=%d: with more connections than"
                " that, new ones are closed without an answer. Raise the limit (ulimit -n) to %d.",
                hard,
                connections,
                wanted,
            )


class GentleTransport(asyncio.Transport):
    """A connection's transport, which is closed as a server should (RFC 9112 section 9.6).

    Closed while something unread arrives, a connection is reset, and the caller never reads the answer. So only the
    sending side is closed, and what still comes is thrown away, for `LINGER_SECONDS`.

    A caller that reads nothing would be kept for ever, with what it does not read: after `WRITE_SECONDS` in which
    too little was read the connection is cut off.
    """

    def __init__(self, transport: asyncio.Transport, shared: Connections, has_more: Callable[[], bool]) -> None:
        """Nothing is written yet.

        Args:
            transport: The real one.
            shared: Limits, and where lingering connections are counted.
            has_more: Whether the caller is still sending something that nobody will read.
        """
        super().__init__()
        self._transport, self._shared, self._has_more = transport, shared, has_more
        self._loop = asyncio.get_running_loop()
        self._is_closing = self._is_lingering = False
        self._end: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def write(self, data: Any) -> None:
        """As of the real one; nothing where it is closing."""
        if not self._is_closing:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._is_closing or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of the real one."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """As of the real one."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """As of the real one."""
        self._transport.resume_reading()

    def abort(self) -> None:
        """End it now."""
        self._is_closing = True
        self._transport.abort()

    def close(self) -> None:
        """End it when what was written is sent, and the caller could read it."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._has_more() and self._shared.lingering < MOST_LINGERING and not self._transport.is_closing():
            self._is_lingering = True
            self._shared.lingering += 1
            self._transport.resume_reading()
            self._transport.write_eof()
            self._end = self._loop.call_later(LINGER_SECONDS, self._transport.abort)
            return
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self.watch_writing()

    def closed(self) -> None:
        """The connection is gone."""
        self._is_closing = True
        self.stop_watching()
        if self._end is not None:
            self._end.cancel()
        if self._is_lingering:
            self._is_lingering = False
            self._shared.lingering -= 1

    def watch_writing(self) -> None:
        """From now on the caller has to read."""
        self.stop_watching()
        left = self._transport.get_write_buffer_size()
        self._write_timer = self._loop.call_later(WRITE_SECONDS, self._check_writing, left)

    def stop_watching(self) -> None:
        """The caller has read."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _check_writing(self, before: int) -> None:
        left = self._transport.get_write_buffer_size()
        if left and before - left < WRITE_SECONDS * self._shared.min_bytes_per_second:
            self.abort()
            self._shared.trimmer.note()
        else:
            self.watch_writing()
