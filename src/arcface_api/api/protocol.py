"""uvicorn's fast HTTP parser, given one message at a time.

    bytes ──▶ head, collected ──whole, within limits──▶ parser ──▶ request ──▶ body, to its last byte ──▶ parser
                 ▲                                                                    │
                 └────────────── what follows waits unread until the answer is sent ──┘

- *TLS*, where it is set, is taken off first (`tls`).
- *Heads* are collected, limited and freed of offers to upgrade (`heads`).
- *Pipelined requests* wait unread. uvicorn would parse and keep all of them.
- *Callers that leave* end the work for them (`connections.leave`). uvicorn informs only an application that asks, which
  ours does not once it has the picture. Behind more than `PIPELINE_BYTES` of pipelined requests this is seen late.
- *Silent connections* are closed: those that send no whole head, or stop in a body that was answered before its end.
- *Idle connections* stay open for as long as their answers announce, unless another one needs their room.

The parser alone decides what belongs to one message and what to the next. A second message in what was fed for one is
refused, so that no mistake here can make it read a body as a request.

One module, because it is one state machine for one connection.
"""

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from arcface_api.api import heads
from arcface_api.api.access import PROBES
from arcface_api.api.app import DirectApp
from arcface_api.api.connections import LATE_SECONDS, PEER, Connections, GentleTransport, leave
from arcface_api.api.problems import answer_to
from arcface_api.api.tls import TlsTransport
from arcface_api.errors import (
    ArcFaceError,
    ClientCertificateMissing,
    RequestHeadTooLarge,
    RequestMalformed,
    TooManyConnections,
    TooManyConnectionsFromAddress,
)

PIPELINE_BYTES = 64 * 1024
"""Reading pauses when more than this follows the request that is served."""
BLANK_BYTES = 8
"""Of empty lines before a request. Some clients send one (RFC 9112 section 2.2)."""
MOST_CUTS = 10_000
"""Empty lines in a chunked body. A form has one for each part, a picture one in gigabytes; more would keep the event
loop busy."""
REST_SECONDS = 5.0
"""How often the speed of the rest of a refused body is checked."""


class HttpProtocol(HttpToolsProtocol):
    """One connection; give it to `uvicorn.Config(http=…)` with a `DirectApp`."""

    transport: GentleTransport
    _shared: Connections
    _tls: TlsTransport | None = None
    _unread: bytearray  # received and not parsed: an incomplete head, or what follows the request that is served
    _scout: httptools.HttpRequestParser | None = None  # reads ahead in a head that arrives in pieces
    _scouted = 0  # bytes of that head that it has got
    _is_in_head = False  # the parser has got a head and has not reached its end
    _is_in_message = False  # a request has begun and its last byte has not arrived, even if it was answered
    _is_refused = False  # the bytes are not a request, or this is one connection too many
    _body_left: int | None = None  # bytes of the announced body; None: it comes in chunks
    _body_bytes = 0  # of this body, so far
    _chunk_bytes = 0  # between chunks, since the last byte of the body
    _blank_bytes = 0  # before the next head
    _cuts = 0  # of this chunked body
    _head_until: float | None = None  # by the loop's clock; None: no head is due
    _rest_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A caller has connected."""
        self._unread = bytearray()
        self._shared = cast("DirectApp", self.config.app).connections  # or an app around one, with its `connections`
        self.timeout_keep_alive = self._shared.keep_alive_seconds + LATE_SECONDS
        if self._shared.tls is not None:
            transport = self._tls = TlsTransport(transport, self._shared.tls.context)
        super().connection_made(GentleTransport(transport, self._shared, self._has_more))
        self._shared.opened(self.transport.address)
        address, shared = self.transport.address, self._shared
        if (most := shared.has_too_many(address)) and not shared.make_room(address):
            self._refuse(TooManyConnectionsFromAddress(most))
            return
        if shared.open - shared.lingering > shared.most and not shared.make_room():
            self._refuse(TooManyConnections(shared.most))
            return
        self._head_until = self.loop.time() + self._shared.head_seconds  # of others from their own beginning
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has left."""
        self._unset_keepalive_if_required()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        self.transport.closed()
        if self._tls is not None:
            self._tls.closed()
        self._shared.closed(self.transport.address)
        if self._unread:
            self._shared.trimmer.note()
        self._unread = bytearray()
        super().connection_lost(exc)
        if self._is_serving:
            leave(cast("Scope", self.cycle.scope))

    def data_received(self, data: bytes) -> None:
        """Parse what can be parsed now."""
        if self._tls is not None:
            data = self._decrypted(self._tls, data)
        if data and not self.transport.is_closing():  # otherwise it is dropped, while the caller reads why
            self._unread += data
            self._go_on()

    def _decrypted(self, tls: TlsTransport, data: bytes) -> bytes:
        """What a caller sent; nothing of one that cannot be understood, which may read why."""
        try:
            data = tls.received(data)
        except ssl.SSLError as error:
            assert self._shared.tls is not None  # noqa: S101  # or there were no TLS
            self._shared.tls.failed(self.client, error)
            self._is_refused = True
            self.transport.close()
            return b""
        if tls.is_plain and not self.transport.is_closing():
            self._refuse(heads.without_tls())
        return data

    def pause_writing(self) -> None:
        """The caller does not read."""
        super().pause_writing()
        self._shared.bound_unread(self.transport)
        self.transport.watch_writing()

    def resume_writing(self) -> None:
        """The caller reads again."""
        super().resume_writing()
        self._shared.unread.pop(self.transport, None)
        self.transport.stop_watching()

    def shutdown(self) -> None:
        """The service ends: close the connection, now or when its request is answered."""
        super().shutdown()
        if self.transport.is_closing() and self._has_more():
            self.transport.abort()  # it has its answer, and still sends

    def on_message_begin(self) -> None:
        """A head begins."""
        if not self._is_in_head or self._is_in_message:
            raise heads.malformed()  # in what was fed for the request before
        self._is_in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if self.parser.should_upgrade():
            raise heads.malformed()  # CONNECT: this is not a proxy
        self._body_left, self._body_bytes, self._chunk_bytes = 0, 0, 0
        has_host = False
        for name, value in self.headers:
            if name == b"content-length":
                self._body_left = int(value)
            elif name == b"transfer-encoding":
                self._body_left = None
            elif name == b"host":
                if has_host:
                    raise heads.malformed()  # proxies go by either one, and only one is checked
                has_host = True
        cast("Scope", self.scope)[PEER] = self.client  # the access log puts the caller behind a proxy in its place
        super().on_headers_complete()
        self.headers = []  # the trailers of a chunked body would be added, and nothing reads them
        self._is_in_head, self._head_until = False, None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Serve a request. An answer after which the connection stays open says for how long."""
        if self._tls is not None and self._tls.lacks_certificate and self.scope["path"] not in PROBES:
            app = self._refuse_without_certificate

        def announcing(scope: Any, receive: Any, send: Any) -> Any:
            def announce(message: Any) -> Any:
                is_start = message["type"] == "http.response.start"
                if is_start and cycle.waiting_for_100_continue:
                    cycle.keep_alive = False  # the caller may send the body now or not, and nothing shows which
                if is_start and cycle.keep_alive and b"connection" not in dict(message["headers"]):
                    cycle.default_headers = [*cycle.default_headers, *self._shared.keep_alive_headers]
                return send(message)

            return app(scope, receive, announce)

        super()._start_asgi_task(cycle, announcing)

    async def _refuse_without_certificate(self, scope: Any, receive: Any, send: Any) -> None:
        error = ClientCertificateMissing()
        answer = answer_to(error)
        self._shared.on_refusal(answer.status_code, error.code)
        await answer(scope, receive, send)

    def on_body(self, body: bytes) -> None:
        """A piece of a body has arrived."""
        self._body_bytes += len(body)
        self._chunk_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._is_in_message = False
        if self._rest_timer is not None:
            self._rest_timer.cancel()
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
            else:
                self._shared.idle[self.transport] = self.loop.time()
        else:
            self._unset_keepalive_if_required()
            end = self.loop.time() + self._shared.upload_seconds
            self._rest_timer = self.loop.call_later(REST_SECONDS, self._check_rest, self._body_bytes, end)

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _has_more(self) -> bool:
        """Whether the caller may be sending something that nobody will read."""
        return self._is_refused or self._is_in_message or bool(self._unread)

    def _go_on(self) -> None:
        """Parse what can be parsed now: the rest of a message, then the next head, unless a request is being served."""
        self._unset_keepalive_if_required()
        self._shared.idle.pop(self.transport, None)
        unread, read = self._unread, 0
        try:
            while read < len(unread) and not self.transport.is_closing():
                if self._is_in_message:
                    read = self._parse_body(unread, read)
                elif self._is_serving:
                    if len(unread) - read > PIPELINE_BYTES:
                        self.flow.pause_reading()
                    break
                elif unread[read] in b"\r\n":  # an empty line before a request means nothing
                    self._blank_bytes += 1
                    if self._blank_bytes > BLANK_BYTES:
                        raise heads.malformed()
                    read += 1
                else:
                    start, read = read, self._parse_head(unread, read)
                    if read == start:
                        break
        except ArcFaceError as error:
            self._refuse(error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(heads.malformed())
        if self._unread is unread:  # otherwise the request was refused or the connection lost
            del unread[:read]
        self._watch()

    def _parse_head(self, data: bytearray, start: int) -> int:
        """Parse the head that begins here. Returns where it ends, `start` if it is not whole."""
        end = data.find(heads.END, start + max(0, self._scouted - len(heads.END) + 1)) + len(heads.END)
        if end < len(heads.END):
            self._scout = self._scout or httptools.HttpRequestParser(object())
            heads.look_ahead(self._scout, data, start, self._scouted, self._shared.head_limits)
            self._scouted = len(data) - start
            return start
        self._scout, self._scouted = None, 0
        head = heads.checked(bytes(data[start:end]), self._shared.head_limits)
        self._is_in_head = True
        self.parser.feed_data(head)
        if self._is_in_head:
            raise heads.malformed()  # the parser sees no end here
        self._blank_bytes = self._cuts = 0
        return end

    def _parse_body(self, data: bytearray, start: int) -> int:
        """Parse what has arrived of the message's body, and not a byte more. Returns where that ends."""
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
                if self._chunk_bytes > heads.BETWEEN_CHUNKS_BYTES:
                    raise RequestHeadTooLarge(
                        "Between the chunks of the body, or after them, are more than"
                        f" {heads.BETWEEN_CHUNKS_BYTES:,} bytes. Send no chunk extensions and no trailers."
                    )
                self._cuts += 1
                if self._cuts > MOST_CUTS:
                    raise RequestMalformed(
                        f"The chunked body has more than {MOST_CUTS:,} empty lines, which no picture or form has. Send"
                        " it with a Content-Length."
                    )
                start = end
        return start

    def _refuse(self, error: ArcFaceError) -> None:
        """Answer with an error, unless an answer was begun, and close."""
        self._is_refused = True
        self._unread, self._scout, self._scouted = bytearray(), None, 0
        self._unset_keepalive_if_required()
        is_answered = self._is_in_message and not self._is_in_head and not self._is_serving
        if self._is_serving:
            is_answered = self.cycle.response_started
            self.cycle.disconnected = True  # ends the task that awaits the rest of its body
            self.cycle.message_event.set()
        if not is_answered:
            answer = answer_to(error)
            self._shared.on_refusal(answer.status_code, error.code)
            answer.headers["Connection"] = "close"
            lines = [b"%s: %s\r\n" % header for header in (*self.server_state.default_headers, *answer.raw_headers)]
            self.transport.write(b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()

    def _watch(self) -> None:
        """Start the timer of a connection between requests. `upload` has the timers of a body that is awaited."""
        if self._is_in_message or self._is_serving or self.transport.is_closing():
            return
        now, seconds = self.loop.time(), float(self.timeout_keep_alive)
        if self._unread and self._head_until is None:
            self._head_until = now + self._shared.head_seconds
        if self._head_until is not None:
            seconds = self._head_until - now
        else:
            self._shared.idle.setdefault(self.transport, now)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _check_rest(self, before: int, end: float) -> None:
        """Cut off the rest of a refused body if it is too slow or takes too long."""
        if self._body_bytes - before < REST_SECONDS * self._shared.min_bytes_per_second or self.loop.time() > end:
            self.transport.abort()  # it was answered long ago
        else:
            self._rest_timer = self.loop.call_later(REST_SECONDS, self._check_rest, self._body_bytes, end)


def _cuts(data: bytearray, start: int) -> Iterator[int]:
    """Where a chunked message may end in this part of it: behind an empty line, and nowhere else."""
    size = len(data)
    yield from range(start + 1, min(start + len(heads.END), size))  # the empty line may have begun before
    while (found := data.find(heads.END, start)) >= 0:
        start = found + len(heads.END)
        yield start
    if start < size:
        yield size
