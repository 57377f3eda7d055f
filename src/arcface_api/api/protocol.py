"""uvicorn's fast HTTP parser without its blind spot: requests that offer an upgrade.

Java's HttpClient offers h2c (`Connection: Upgrade`, `Upgrade: h2c`) with every first request, as HTTP allows; a server
may ignore that. llhttp stops reading at such a head: the body is lost and would be read as the next request. Such a
connection is handed to uvicorn's h11 parser, which ignores the offer and reads on.
"""

import re

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """One connection; give it to `uvicorn.Config(http=…)`."""

    _is_in_head = False
    _is_deaf = False

    def data_received(self, data: bytes) -> None:
        """Parse what came, or hand the connection over at a head that offers an upgrade."""
        if self._is_deaf:
            return
        is_idle = not self._is_in_head and (self.cycle is None or self.cycle.response_complete)
        if is_idle and _UPGRADE.search(data, 0, max(data.find(b"\r\n\r\n"), 0)):
            self._hand_over(data)
        else:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """A request's head begins."""
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        self._is_in_head = False
        super().on_headers_complete()

    def _hand_over(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
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

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: declining an upgrade is in order."""
