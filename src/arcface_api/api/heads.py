"""A request's head, which is its request line and its headers, as bytes: looked at before the parser sees it.

The parser limits nothing: it joins a header that comes in pieces again and again, and keeps as many as come. So a head
is collected here, up to the limits, and parsed when it is whole.
"""

import re
from collections.abc import Callable

import httptools

from arcface_api.errors import RequestHeadTooLarge, RequestMalformed

HEAD_BYTES = 64 * 1024
"""Of the request line and all headers together, line ends included."""
LINE_BYTES = 16 * 1024
"""Of the request line, and of each header."""
HEADERS = 100

END = b"\r\n\r\n"

_UPGRADE = re.compile(rb"(?<=\r\n)upgrade(?=:)", re.IGNORECASE)


def checked(head: bytes) -> bytes:
    """A whole head for the parser: within the limits, and with no offer to upgrade.

    A server may ignore such an offer, but llhttp stops reading at it. So the header gets another name of equal length;
    what the parser reads is otherwise what came.

    Raises:
        RequestHeadTooLarge: It exceeds a limit.
    """
    size = len(head)
    if size > HEAD_BYTES:
        raise _whole_too_large()
    if size > LINE_BYTES:
        lines = head.split(b"\r\n")
        if max(map(len, lines)) > LINE_BYTES:
            raise _line_too_large(is_first=len(lines[0]) > LINE_BYTES)
    if head.count(b"\r\n") > HEADERS + 2:  # and the request line, and the empty one
        raise RequestHeadTooLarge(f"The request has more than {HEADERS} headers. Send fewer.")
    if b"\r\nupgrade:" in head.lower():
        return _UPGRADE.sub(b"decline", head)
    return head


class Scout:
    """Reads ahead in a head that comes in pieces: what cannot become one is refused now, not when it is whole."""

    def __init__(self) -> None:
        """Nothing has come."""
        self._parser: Callable[[bytes], None] = httptools.HttpRequestParser(object()).feed_data
        self.seen = 0
        """Bytes of all pieces."""
        self._line_bytes = 0
        self._is_in_first = True

    def look(self, piece: bytes) -> None:
        """Look at what came behind the pieces before; no head ends in it.

        Raises:
            RequestHeadTooLarge: Already now it exceeds a limit.
            RequestMalformed: No head begins so.
        """
        self.seen += len(piece)
        if self.seen > HEAD_BYTES:
            raise _whole_too_large()
        ended = piece.rfind(b"\n") + 1
        self._line_bytes = len(piece) - ended + (0 if ended else self._line_bytes)
        self._is_in_first = self._is_in_first and not ended
        if self._line_bytes > LINE_BYTES + 1:  # its \r, perhaps
            raise _line_too_large(is_first=self._is_in_first)
        try:
            self._parser(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise malformed() from error


def malformed() -> RequestMalformed:
    """Of bytes that are no request."""
    # not the parser's own words: they are of no use to a caller, and change with its version
    return RequestMalformed(
        "What came is no HTTP/1.1 request, or contradicts itself (for example Content-Length beside Transfer-Encoding)."
        " Let an HTTP client build it, and send http://, not https://: this port speaks no TLS."
    )


def trailer_too_large() -> RequestHeadTooLarge:
    """Of a chunked body."""
    return RequestHeadTooLarge(
        f"What stands between the chunks of the body, or behind them, has more than {HEAD_BYTES:,} bytes. Send no"
        " chunk extensions and no trailers."
    )


def too_many_empty_lines(most: int) -> RequestMalformed:
    """Of a chunked body."""
    return RequestMalformed(
        f"The chunked body has more than {most:,} empty lines, as no picture or form has. Send it with a"
        " Content-Length."
    )


def _whole_too_large() -> RequestHeadTooLarge:
    return RequestHeadTooLarge(
        f"The request line and headers have more than {HEAD_BYTES:,} bytes together. Send fewer or shorter headers."
    )


def _line_too_large(*, is_first: bool) -> RequestHeadTooLarge:
    what = "request line (method, path, query)" if is_first else "headers"
    return RequestHeadTooLarge(
        f"The {what} {'has' if is_first else 'include one with'} more than {LINE_BYTES:,} bytes. Send a shorter one;"
        " pictures and landmarks belong into the body."
    )
