"""The head of a request, its request line and headers as bytes, checked before the parser sees it.

The parser has no limits: it joins a header that arrives in pieces again and again, and keeps as many as arrive.
"""

import re
from dataclasses import dataclass

import httptools

from arcface_api.errors import RequestHeadTooLarge, RequestMalformed

BETWEEN_CHUNKS_BYTES = 64 * 1024
"""Of chunk extensions and trailers."""
END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb'[!-~]+ [!"$-~]+ HTTP/1\.[01]\r\n')
"""The parser reads more than this (HTTP/0.9 and 2.0, RTSP, several spaces, a fragment); proxies read that otherwise."""
_UPGRADE = re.compile(rb"(?<=\r\n)upgrade(?=:)", re.IGNORECASE)


@dataclass(frozen=True)
class HeadLimits:
    """How large a head may be."""

    all_bytes: int
    """Of the request line and all headers together, line ends included."""
    line_bytes: int
    """Of the request line, and of each header."""
    headers: int


def checked(head: bytes, limits: HeadLimits) -> bytes:
    """A whole head for the parser, without an offer to upgrade.

    A server may ignore such an offer, but llhttp stops reading at it. So the header `Upgrade` gets another name of the
    same length; nothing else changes.

    Raises:
        RequestHeadTooLarge, RequestMalformed: It exceeds a limit, or one of its lines ends without a carriage return.
    """
    _check_size(len(head), limits)
    if len(head) > limits.line_bytes:
        lines = head.split(b"\r\n")
        _check_line(len(lines[0]), limits, is_first=True)
        _check_line(max(map(len, lines)), limits, is_first=False)
    lines_ended = head.count(b"\r\n")
    if head.count(b"\n") != lines_ended:
        raise malformed()  # parsers differ on lines that end otherwise; ours reads a request without a version there
    if lines_ended > limits.headers + 2:  # and the request line, and the empty one
        raise RequestHeadTooLarge(f"The request has more than {limits.headers} headers. Send fewer.")
    if not _REQUEST_LINE.match(head):
        raise malformed()
    return _UPGRADE.sub(b"decline", head) if b"\r\nupgrade:" in head.lower() else head


def look_ahead(parser: httptools.HttpRequestParser, data: bytearray, start: int, seen: int, limits: HeadLimits) -> None:
    """Check a head that begins at `start` and is not whole yet. The parser has got its first `seen` bytes only.

    Raises:
        RequestHeadTooLarge, RequestMalformed: It already exceeds a limit, or no head begins like this.
    """
    _check_size(len(data) - start, limits)
    line = data.rfind(b"\n", start) + 1
    _check_line(len(data) - (line or start) - 1, limits, is_first=not line)  # it may end with a \r
    try:
        parser.feed_data(bytes(data[start + seen :]))
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise malformed() from error


def malformed() -> RequestMalformed:
    """The error of bytes that are not a request."""
    # not the parser's own words: they do not help a caller, and change with its version
    return RequestMalformed(
        "The bytes received are not an HTTP/1.1 request, or contradict themselves (for example Content-Length beside"
        " Transfer-Encoding). Let an HTTP client build the request. A port without TLS takes http://, not https://."
    )


def without_tls() -> RequestMalformed:
    """The error of a request that came without TLS to a port that has it."""
    return RequestMalformed(
        "This port takes TLS alone, and the request came without it. Use https:// in place of http://."
    )


def _check_size(size: int, limits: HeadLimits) -> None:
    if size > limits.all_bytes:
        raise RequestHeadTooLarge(
            f"The request line and headers have more than {limits.all_bytes:,} bytes together. Send fewer or shorter"
            " headers."
        )


def _check_line(size: int, limits: HeadLimits, *, is_first: bool) -> None:
    if size > limits.line_bytes:
        what = "The request line (method, path, query)" if is_first else "One of the headers"
        raise RequestHeadTooLarge(
            f"{what} has more than {limits.line_bytes:,} bytes. Send a shorter one; pictures and landmarks belong in"
            " the body."
        )
