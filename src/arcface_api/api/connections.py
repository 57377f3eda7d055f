"""How many connections there may be and how long, how one ends, and what its end means for the request on it.

One module, because each connection counts among all, and all together decide which one ends.
"""

import asyncio
import ctypes
import ipaddress
import logging
import sys
from collections import Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arcface_api.errors import RuntimeUnfit
from arcface_api.wording import counted

if TYPE_CHECKING:  # they bring packages that `doctor` in a bare installation does not have
    from arcface_api.api.certificates import Tls
    from arcface_api.api.heads import HeadLimits

if sys.platform != "win32":
    import resource

LINGER_SECONDS = 5.0
"""How long a caller that is still sending may take to read why its request was refused."""
MOST_LINGERING = 256
"""The most connections that linger at once; further ones are cut off."""
IDLE_SECONDS = 1.0
"""A connection that has been idle for less is not closed for another one: its next request may be on its way."""
LATE_SECONDS = 3
"""A connection stays open this much longer than announced: callers' clocks start later, and requests take time."""
WRITE_SECONDS = 30.0
"""How often a caller that does not read its answer is checked."""
OTHER_FILES = 256
"""Room for the other files of a process: models, libraries, pipes, devices."""
LEAST_FILES = 32
"""With fewer, not even the event loop starts, or callers wait for ever."""
TRIM_SECONDS = 10.0
"""The shortest time between two trims of freed memory, which take a few milliseconds each on a thread of their own."""

TASK = "arcface_api.task"
"""Key in an ASGI scope: the task that ends when the caller leaves."""
PEER = "arcface_api.peer"
"""Key in an ASGI scope: the address and port of the other end of the connection, which may be a proxy."""
_HAS_LEFT = "arcface_api.has_left"

_log = logging.getLogger(__name__)


def leave(scope: MutableMapping[str, Any]) -> None:
    """The caller of this scope has left: cancel the task that works for it, if there is one."""
    task = scope.get(TASK)
    if task is not None:
        scope[_HAS_LEFT] = True
        task.cancel()


def has_left(scope: MutableMapping[str, Any]) -> bool:
    """Whether a task was cancelled because the caller of this scope left."""
    return _HAS_LEFT in scope


# glibc's; other C libraries have none
_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


class Trimmer:
    """Returns freed memory to the system a while after much was freed. Belongs to the event loop.

    Uploads that grow side by side leave holes in the heap, which glibc keeps: after 500 slow uploads a process would
    keep as much memory as it ever needed.
    """

    _is_due = False

    def note(self) -> None:
        """Much memory was freed."""
        if _MALLOC_TRIM is not None and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(TRIM_SECONDS, self._start, _MALLOC_TRIM)

    def _start(self, trim: Callable[[int], int]) -> None:
        self._is_due = False
        asyncio.get_running_loop().run_in_executor(None, trim, 0)  # other threads run meanwhile


@dataclass
class Connections:
    """The limits of the connections of one process, and what they share."""

    most: int
    """At once. One more closes the one that has been idle longest, for `IDLE_SECONDS` at least, or is refused."""
    keep_alive_seconds: int  # between two requests, as callers are informed
    upload_seconds: float  # that the rest of a refused body is read and dropped
    min_bytes_per_second: int  # of that rest, and of an answer that is being read
    head_limits: "HeadLimits"
    head_seconds: float  # that a head may take
    most_unread_bytes: int  # of answers, all connections together
    most_per_address: int | None = None
    is_exempt: Callable[[str], bool] = lambda _host: False
    """Whether an address may have any number: behind a proxy's are many callers."""
    on_refusal: Callable[[int, str], None] = lambda _status, _code: None
    """Is called with the status and code of what is refused before it is a request."""
    tls: "Tls | None" = None
    """What each is secured with."""
    open: int = 0
    lingering: int = 0  # of them closed, but not gone: the caller may still read
    idle: dict["GentleTransport", float] = field(default_factory=dict)
    """Those between two requests, by the loop's time from which on; the one that has been so longest is first."""
    by_address: Counter[str] = field(default_factory=Counter)
    """How many there are from each address, if that is limited."""
    unread: dict["GentleTransport", tuple[float, int]] = field(default_factory=dict)
    """Those whose caller does not read, each with the time since when and the bytes that waited then."""
    cut_off: int = 0  # because all unread answers together were too much
    trimmer: Trimmer = field(default_factory=Trimmer)

    def opened(self, address: str) -> None:
        """There is one more."""
        self.open += 1
        if address:
            self.by_address[address] += 1

    def closed(self, address: str) -> None:
        """One is gone."""
        self.open -= 1
        if address:
            self.by_address[address] -= 1
            if not self.by_address[address]:
                del self.by_address[address]

    def has_too_many(self, address: str) -> int | None:
        """The most that an address may have, if it has more; those that linger count as well."""
        most = self.most_per_address
        return most if most is not None and self.by_address[address] > most else None

    def address_of(self, peer: Any) -> str:
        """The `site_of` a peer; "" if it has no limit."""
        has_limit = self.most_per_address is not None and peer and not self.is_exempt(peer[0])
        return site_of(plain_address(peer[0])) if has_limit else ""

    def make_room(self, address: str | None = None) -> bool:
        """Close the one that has been idle longest, of an address or of all; False: none has been for a second."""
        for oldest, since in self.idle.items():
            if asyncio.get_running_loop().time() - since < IDLE_SECONDS:
                return False
            if address is None or oldest.address == address:
                del self.idle[oldest]
                oldest.make_room()
                return True
        return False

    def bound_unread(self, newest: "GentleTransport") -> None:
        """A caller does not read its answer. If all that waits is too much, cut off those that read most slowly.

        The newest one had no time to read, and is the last to be cut off.
        """
        now = asyncio.get_running_loop().time()
        self.unread[newest] = now, newest.unread_bytes()
        left = {each: each.unread_bytes() for each in self.unread}
        total = sum(left.values())

        def speed(each: GentleTransport) -> tuple[bool, float]:
            since, before = self.unread[each]
            return each is newest, (before - left[each]) / max(now - since, 1e-3)

        for slowest in sorted(left, key=speed) if total > self.most_unread_bytes else ():
            if total <= self.most_unread_bytes:
                break
            total -= left[slowest]
            slowest.abort()
            self.cut_off += 1
            self.trimmer.note()

    def __post_init__(self) -> None:
        keep = b"timeout=%d" % self.keep_alive_seconds
        self.keep_alive_headers = [(b"connection", b"keep-alive"), (b"keep-alive", keep)]
        """Of every answer after which the connection stays open; Java's client wants both."""


def plain_address(host: str) -> str:
    """An address without its zone, and as IPv4 where a listener on [::] sees one; what is no address as it is."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)


def site_of(address: str) -> str:
    """What counts as one caller: a `plain_address` of IPv4, and of IPv6 a /64, which one caller often has to itself."""
    return str(ipaddress.ip_network((address, 64), strict=False)) if ":" in address else address


def open_files(connections: int) -> int:
    """How many files a process with that many connections may have open at once."""
    return connections + MOST_LINGERING + OTHER_FILES


def allow_open_files(connections: int) -> None:
    """Allow this process that many connections. Many systems allow 1,024 files unless a process asks for more.

    Raises `RuntimeUnfit` if it may hardly open any.
    """
    if sys.platform == "win32":
        return
    needed = open_files(connections)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if allowed < LEAST_FILES:
        raise RuntimeUnfit(
            f"This system allows {counted(hard, 'open file')}, of which the service needs {needed}, and at least"
            f" {LEAST_FILES}. Raise the limit (ulimit -n)."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        _log.warning(
            f"This system allows {hard} open files, too few for ARCFACE_MAX_CONNECTIONS={connections}: connections"
            f" beyond that are closed without an answer. Raise the limit (ulimit -n) to {needed}."
        )


class GentleTransport(asyncio.Transport):
    """A connection's transport that closes as a server should (RFC 9112 section 9.6).

    A connection that is closed while unread data arrives is reset, and the caller never reads its answer. So only the
    sending side is closed, and what still arrives is dropped for `LINGER_SECONDS`. A caller that reads too little of
    its answer in `WRITE_SECONDS` is cut off.
    """

    def __init__(self, transport: asyncio.Transport, shared: Connections, has_more: Callable[[], bool]) -> None:
        """`has_more` returns whether the caller is still sending something that nobody will read."""
        super().__init__()
        self._transport, self._shared, self._has_more = transport, shared, has_more
        self._loop = asyncio.get_running_loop()
        self._is_closing = self._is_lingering = False
        self.address = shared.address_of(transport.get_extra_info("peername"))
        """By which it counts; empty if its address has no limit."""
        self._unsent: list[bytes] = []
        """What was written in this turn of the loop: an answer's head and body are one system call for each side."""
        self._end: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        for delegated in ("get_extra_info", "pause_reading", "resume_reading"):
            setattr(self, delegated, getattr(transport, delegated))

    def write(self, data: Any) -> None:
        """Send this at the end of the loop's turn, unless the connection is closing."""
        if not self._is_closing:
            self._unsent.append(data)
            if len(self._unsent) == 1:
                self._loop.call_soon(self._flush)

    def unread_bytes(self) -> int:
        """Bytes that were written and that the system has not taken."""
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Whether it is closed or will be."""
        return self._is_closing or self._transport.is_closing()

    def abort(self) -> None:
        """End it now."""
        self._is_closing = True
        self._unsent.clear()
        self._shared.unread.pop(self, None)
        self._transport.abort()

    def close(self) -> None:
        """End it when everything is sent and the caller had time to read it."""
        if self._is_closing:
            return
        self._flush()
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

    def _flush(self) -> None:
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._transport.write(data)

    def make_room(self) -> None:
        """End it, between two requests, for another connection; it no longer counts."""
        self._is_lingering = True
        self._shared.lingering += 1
        self.close()

    def closed(self) -> None:
        """The connection is gone."""
        self._is_closing = True
        self._unsent.clear()
        self.stop_watching()
        if self._end is not None:
            self._end.cancel()
        if self._is_lingering:
            self._is_lingering = False
            self._shared.lingering -= 1
        self._shared.idle.pop(self, None)
        if self._shared.unread.pop(self, None):
            self._shared.trimmer.note()

    def watch_writing(self) -> None:
        """The caller has data to read: cut it off if it does not."""
        self.stop_watching()
        left = self._transport.get_write_buffer_size()
        self._write_timer = self._loop.call_later(WRITE_SECONDS, self._check_writing, left)

    def stop_watching(self) -> None:
        """The caller has read everything."""
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
