"""uvicorn's fast HTTP parser without its blind spots.

*Requests that offer an upgrade.* Java's HttpClient offers h2c (`Connection: Upgrade`, `Upgrade: h2c`) with every first
request, as HTTP allows; a server may ignore that. llhttp stops reading at such a head: the body is lost and would be
read as the next request. Such a connection is handed to uvicorn's h11 parser, which ignores the offer and reads on.

*Callers that leave.* uvicorn tells an application only when it asks, and ours has nothing to ask once it has the
picture. So the work for a caller whose connection is gone is ended here. (Not where a caller has sent its next request
already, before the answer: that is rare.)

*Silence.* A connection that sends no whole head, or stops in the middle of a body that was answered before it had come,
would be kept for ever.
"""

import asyncio
import re

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from arcface_api.api.caller import leave

HEAD_SECONDS = 30.0
"""How long a request's head may take: the first one's from the connection's beginning, others' from their own."""

_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """One connection; give it to `uvicorn.Config(http=…)`."""

    _is_in_head = True
    """Nothing has come yet, or a head that is not whole."""
    _is_in_message = False
    """A request has begun and its last byte has not come, whether or not it was answered already."""
    _is_deaf = False
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A caller is there."""
        super().connection_made(transport)
        self._watch_silence()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has left."""
        self._stop_head_timer()
        super().connection_lost(exc)
        if self.cycle is not None and not self.cycle.response_complete:
            leave(self.cycle.scope)

    def data_received(self, data: bytes) -> None:
        """Parse what came, or hand the connection over at a head that offers an upgrade."""
        if self._is_deaf:
            return
        # What looks like a head in the middle of a message is that message's body.
        is_idle = not self._is_in_message and (self.cycle is None or self.cycle.response_complete)
        if is_idle and _UPGRADE.search(data, 0, max(data.find(b"\r\n\r\n"), 0)):
            self._hand_over(data)
        else:
            super().data_received(data)
            self._watch_silence()

    def on_message_begin(self) -> None:
        """A request's head begins."""
        self._is_in_head = self._is_in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        self._is_in_head = False
        self._stop_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._is_in_message = False
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # paused by a large body it would not see the connection end

    def _watch_silence(self) -> None:
        """Start the timer that is due; a request whose body is awaited has its own (`upload.STALL_SECONDS`)."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            return  # what comes meanwhile is the next request's
        if self._is_in_head:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)
        else:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _hand_over(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._stop_head_timer()
        self.connections.discard(self)
        successor = _PatientProtocol(self.config, self.server_state, self.app_state)
        successor.connection_made(self.transport)
        self.transport.set_protocol(successor)
        successor.data_received(data)

    def _unsupported_upgrade_warning(self) -> None:
        """The offer came in pieces and was parsed: what follows would be taken for a request, so it is not read."""
        self._is_deaf = True
        if self.cycle is not None:
            self.cycle.keep_alive = False


class _PatientProtocol(H11Protocol):
    """uvicorn's h11 parser, which need not warn of an offer that may be ignored."""

    def data_received(self, data: bytes) -> None:
        """Parse what came; as in `HttpProtocol`, no silence lasts for ever and no end is overlooked."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)
        elif not self.cycle.more_body and not self.conn.trailing_data[0]:
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has left."""
        super().connection_lost(exc)
        if self.cycle is not None and not self.cycle.response_complete:
            leave(self.cycle.scope)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: declining an upgrade is in order."""
