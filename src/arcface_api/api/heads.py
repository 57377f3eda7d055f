"""The head of a request, its request line and headers as bytes, checked before the parser sees it.

The parser has no limits: it joins a header that arrives in pieces again and again, and keeps as many as arrive.
"""

import re

import httptools

from arcface_api.errors import RequestHeadTooLarge, RequestMalformed

HEAD_BYTES = 64 * 1024  # of the request line and all headers together, line ends included
LINE_BYTES = 16 * 1024  # of the request line, and of each header
HEADERS = 100
END = b"\r\n\r\n"
_UPGRADE = re.compile(rb"(?<=\r\n)upgrade(?=:)", re.IGNORECASE)


def checked(head: bytes) -> bytes:
    """A whole head for the parser, without an offer to upgrade. Raises `RequestHeadTooLarge`.

    A server may ignore such an offer, but llhttp stops reading at it. So the header `Upgrade` gets another name of the
    same length; nothing else changes.
    """
    _check_size(len(head))
    if len(head) > LINE_BYTES:
        lines = head.split(b"\r\n")
        _check_line(len(lines[0]), is_first=True)
        _check_line(max(map(len, lines)), is_first=False)
    if head.count(b"\r\n") > HEADERS + 2:  # and the request line, and the empty one
        raise RequestHeadTooLarge(f"The request has more than {HEADERS} headers. Send fewer.")
    return _UPGRADE.sub(b"decline", head) if b"\r\nupgrade:" in head.lower() else head


def look_ahead(parser: httptools.HttpRequestParser, data: bytearray, start: int, seen: int) -> None:
    """Check a head that begins at `start` and is not whole yet. The parser has got its first `seen` bytes only.

    Raises:
        RequestHeadTooLarge, RequestMalformed: It already exceeds a limit, or no head begins like this.
    """
    _check_size(len(data) - start)
    line = data.rfind(b"\n", start) + 1
    _check_line(len(data) - (line or start) - 1, is_first=not line)  # it may end with a \r
    try:
        parser.feed_data(bytes(data[start + seen :]))
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise malformed() from error


def malformed() -> RequestMalformed:
    """The error of bytes that are not a request."""
    # not the parser's own words: they do not help a caller, and change with its version
    return RequestMalformed(
        "The bytes received are not an HTTP/1.1 request, or contradict themselves (for example Content-Length beside"
        " Transfer-Encoding). Let an HTTP client build the request. This port has no TLS: send http://, not https://."
    )


def _check_size(size: int) -> None:
    if size > HEAD_BYTES:
        raise RequestHeadTooLarge(
            f"The request line and headers have more than {HEAD_BYTES:,} bytes together. Send fewer or shorter headers."
        )


def _check_line(size: int, *, is_first: bool) -> None:
    if size > LINE_BYTES:
        what = "The request line (method, path, query)" if is_first else "One of the headers"
        raise RequestHeadTooLarge(
            f"{what} has more than {LINE_BYTES:,} bytes. Send a shorter one; pictures and landmarks belong in the body."
        )
