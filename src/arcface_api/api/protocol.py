"""uvicorn's fast HTTP parser, given one message at a time.

    bytes ──▶ head, collected ──whole, within limits──▶ parser ──▶ request ──▶ body, to its last byte ──▶ parser
                 ▲                                                                    │
                 └────────────── what follows waits unread until the answer is sent ──┘

*Heads* are collected, limited and freed of offers to upgrade before the parser sees them (`heads`). Java's HttpClient
offers h2c with every first request.

*Pipelined requests* wait unread. uvicorn would parse all of them, and keep them.

*Callers that leave.* uvicorn tells an application only when it asks, and ours has nothing to ask once it has the
picture. So the work for a caller whose connection is gone is ended here. (Not where a caller has sent more than
`PIPELINE_BYTES` behind its request: then reading is paused, and its end is seen late.)

*Silence.* A connection that sends no whole head, or stops in the middle of a body that was answered before it had come,
would be kept for ever.

What is a message's and what is the next one's is the parser's decision alone; a second message in what was fed for one
is refused, so that no mistake of ours can make it read a body as a request.

Longer than most modules: it is one connection's state, and every step depends on what the others left.
"""

import asyncio
from collections.abc import Iterator
from typing import cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from arcface_api.api import heads
from arcface_api.api.caller import leave
from arcface_api.api.connections import Connections, GentleTransport
from arcface_api.api.direct import DirectApp
from arcface_api.api.problems import answer_to
from arcface_api.errors import ArcFaceError, TooManyConnections

HEAD_SECONDS = 30.0
"""How long a request's head may take: the first one's from the connection's beginning, others' from their own."""
PIPELINE_BYTES = 64 * 1024
"""Of what came behind the request that is served; with more, reading pauses."""
BLANK_BYTES = 8
"""Of empty lines before a request; some clients send one (RFC 9112 section 2.2)."""
MOST_CUTS = 10_000
"""Of a chunked body, one at each empty line: a form has one for each part, a picture one in gigabytes, and parsing
nothing else would keep the event loop busy."""
REST_SECONDS = 5.0
"""How often the rest of a refused body is looked at: what comes slower than allowed, or not at all, is given up."""


class HttpProtocol(HttpToolsProtocol):
    """One connection; give it to `uvicorn.Config(http=…)` with a `DirectApp`."""

    transport: GentleTransport
    _unread: bytearray
    """What came and was not parsed: a head that is not whole, or what is behind the request that is served."""
    _scout: heads.Scout | None = None
    """Of a head that comes in pieces."""
    _is_in_head = False
    """The parser has got a head, and has not read it to its end."""
    _is_in_message = False
    """A request has begun and its last byte has not come, whether or not it was answered already."""
    _is_refused = False
    """What comes is no request, or one connection too many."""
    _body_left: int | None = None
    """Of the announced body; None: it comes in chunks."""
    _body_bytes = _chunk_bytes = 0
    """Of the message: body that came; since the last of it, what stands between chunks."""
    _blank_bytes = 0
    """Before the next head."""
    _cuts = 0
    """Pieces in which the chunked body was parsed so far."""
    _head_timer: asyncio.TimerHandle | None = None
    _rest_timer: asyncio.TimerHandle | None = None

    # ── the connection ─────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A caller is there."""
        self._unread = bytearray()
        shared = self._shared
        super().connection_made(GentleTransport(transport, shared, self._has_more))
        if len(self.connections) - shared.lingering > shared.most:
            self._refuse(TooManyConnections.of(shared.most))
        else:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has left."""
        self._stop_head_timer()
        self._stop_rest_timer()
        self.transport.closed()
        self._unread = bytearray()
        super().connection_lost(exc)
        if self._is_serving:
            leave(self.cycle.scope)

    def data_received(self, data: bytes) -> None:
        """Parse what is due of what came."""
        if self.transport.is_closing():
            return  # thrown away, while the caller reads why
        if self._unread:
            self._unread += data
            self._go_on()
        else:
            self._unset_keepalive_if_required()
            read = self._parse(data)
            if read < len(data) and not self.transport.is_closing():
                self._unread = bytearray(memoryview(data)[read:])
            self._watch()

    def pause_writing(self) -> None:
        """The caller does not read."""
        super().pause_writing()
        self.transport.watch_writing()

    def resume_writing(self) -> None:
        """The caller reads on."""
        super().resume_writing()
        self.transport.stop_watching()

    def shutdown(self) -> None:
        """The service ends: so does the connection, at once or when its request is answered."""
        super().shutdown()
        if self.transport.is_closing() and self._has_more():
            self.transport.abort()  # it has its answer, and still sends

    # ── what the parser finds ──────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A request's head begins."""
        if not self._is_in_head or self._is_in_message:
            raise heads.malformed()  # in what was fed for the request before
        self._is_in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        if self.parser.should_upgrade():
            raise heads.malformed()  # CONNECT: this is no proxy
        self._body_left, self._body_bytes, self._chunk_bytes = 0, 0, 0
        for name, value in self.headers:
            if name == b"content-length":
                self._body_left = int(value)
            elif name == b"transfer-encoding":
                self._body_left = None
        super().on_headers_complete()
        self.headers = []  # what a chunked body may end with looks like headers, and nobody asked for it
        self._is_in_head = False
        self._stop_head_timer()

    def on_body(self, body: bytes) -> None:
        """A piece of a request's body."""
        self._body_bytes += len(body)
        self._chunk_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._is_in_message = False
        self._stop_rest_timer()
        super().on_message_complete()
        self.flow.resume_reading()  # paused by a large body it would not see the connection end

    def on_response_complete(self) -> None:
        """A request is answered."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if not self._is_in_message:
            if self._unread:
                self._go_on()
        elif self.expect_100_continue and not self._body_bytes:
            self.transport.close()  # whether its body comes now is the caller's choice, and cannot be seen
        else:
            self._unset_keepalive_if_required()
            end = self.loop.time() + self._shared.upload_seconds
            self._rest_timer = self.loop.call_later(REST_SECONDS, self._check_rest, self._body_bytes, end)

    # ── messages ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _shared(self) -> Connections:
        app = cast("DirectApp", self.config.app)  # or what stands before one, and has its `connections`
        return app.connections

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _has_more(self) -> bool:
        """The caller may be sending what nobody will read."""
        return self._is_refused or self._is_in_message or bool(self._unread)

    def _go_on(self) -> None:
        """Parse what is due of what was not parsed."""
        self._unset_keepalive_if_required()
        unread = self._unread
        read = self._parse(unread)
        if self._unread is unread:  # and the connection not lost
            del unread[:read]
        self._watch()

    def _parse(self, data: bytes | bytearray) -> int:
        """Parse what is due: the rest of a message, then the next head, unless one is being served.

        Returns:
            How much of the data is done with.
        """
        read, size = 0, len(data)
        try:
            while read < size and not self.transport.is_closing():
                if self._is_in_message:
                    read = self._parse_body(data, read)
                elif self._is_serving:
                    if size - read > PIPELINE_BYTES:
                        self.flow.pause_reading()
                    break
                elif data[read] in b"\r\n":  # an empty line before a request is nothing
                    self._blank_bytes += 1
                    if self._blank_bytes > BLANK_BYTES:
                        raise heads.malformed()
                    read += 1
                else:
                    start, read = read, self._parse_head(data, read)
                    if read == start:
                        break
        except ArcFaceError as error:
            self._refuse(error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(heads.malformed())
        return read

    def _parse_head(self, data: bytes | bytearray, start: int) -> int:
        """Parse the head that begins here; where it is not whole, look at what came of it.

        Returns:
            Where it ended; `start` where it has not.
        """
        seen = self._scout.seen if self._scout else 0
        end = data.find(heads.END, start + max(0, seen - len(heads.END) + 1)) + len(heads.END)
        if end < len(heads.END):
            self._scout = self._scout or heads.Scout()
            self._scout.look(bytes(data[start + seen :]))
            return start
        self._scout = None
        head = heads.checked(bytes(data[start:end]))
        self._is_in_head = True
        self.parser.feed_data(head)
        if self._is_in_head:
            raise heads.malformed()  # the parser sees no end where we do
        self._blank_bytes = self._cuts = 0
        return end

    def _parse_body(self, data: bytes | bytearray, start: int) -> int:
        """Parse what came of the message's body, and not a byte more. Where it ended."""
        with memoryview(data) as view:
            if self._body_left is not None:
                end = min(len(data), start + self._body_left)
                self._body_left -= end - start
                self.parser.feed_data(view[start:end])
                if self._is_in_message and not self._body_left:
                    raise heads.malformed()
                return end
            for end in _cuts(data, start):
                self._chunk_bytes += end - start
                self.parser.feed_data(view[start:end])
                if not self._is_in_message:
                    return end
                if self._chunk_bytes > heads.HEAD_BYTES:
                    raise heads.trailer_too_large()
                self._cuts += 1
                if self._cuts > MOST_CUTS:
                    raise heads.too_many_empty_lines(MOST_CUTS)
                start = end
        return start

    def _refuse(self, error: ArcFaceError) -> None:
        """Answer what is no request, where no answer was begun, and close."""
        self._is_refused = True
        self._unread, self._scout = bytearray(), None
        self._stop_head_timer()
        is_answered = self._is_in_message and not self._is_in_head and not self._is_serving
        if self._is_serving:
            is_answered = self.cycle.response_started
            self.cycle.disconnected = True  # who awaits the rest of its body ends now
            self.cycle.message_event.set()
        if not is_answered:
            answer = answer_to(error)
            answer.headers["Connection"] = "close"
            lines = [b"%s: %s\r\n" % header for header in (*self.server_state.default_headers, *answer.raw_headers)]
            self.transport.write(b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()

    # ── silence ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _watch(self) -> None:
        """Start the timer that is due between requests; a request whose body is awaited has its own (`receiving`)."""
        if self._is_in_message or self._is_serving or self.transport.is_closing():
            return
        if self._unread:
            self._start_head_timer()
        elif self._head_timer is None:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _check_rest(self, before: int, end: float) -> None:
        """Whether the rest of a refused body still comes, fast enough, and not for too long."""
        if self._body_bytes - before < REST_SECONDS * self._shared.min_bytes_per_second or self.loop.time() > end:
            self.transport.abort()  # it was answered long ago
        else:
            self._rest_timer = self.loop.call_later(REST_SECONDS, self._check_rest, self._body_bytes, end)

    def _stop_rest_timer(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None


def _cuts(data: bytes | bytearray, start: int) -> Iterator[int]:
    """Where a chunked message may end in what comes of it: behind an empty line, and nowhere else."""
    size = len(data)
    yield from range(start + 1, min(start + len(heads.END), size))  # the empty line may have begun before
    while (found := data.find(heads.END, start)) >= 0:
        start = found + len(heads.END)
        yield start
    if start < size:
        yield size
