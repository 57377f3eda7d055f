"""Hostile requests, each with the answers that it may get: from malformed heads to bombs in every picture format.

A case is the bytes of one connection. `allowed` are outcomes: a status and the code of its problem, `closed` for a
connection that ends without an answer, or `same`: 200 with exactly the vector of the picture that the request holds.
Nothing else is right, and never a second answer: then bytes of a body were read as a request.

One long module, because it is one list.
"""

import base64
import itertools
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

MALFORMED, CLOSED, SAME = "400 request_malformed", "closed", "same"
TOO_LARGE, DAMAGED, FOREIGN = "431 request_head_too_large", "422 image_damaged", "415 image_format_unsupported"
TOO_MANY_PIXELS, BAD_FORM, BAD_JSON = "413 image_too_many_pixels", "400 multipart_malformed", "400 json_malformed"
PARAMETER, NO_FILE, BASE64 = "422 parameter_invalid", "422 file_missing", "422 base64_invalid"
LANDMARKS, TYPE, BODY = "422 landmarks_invalid", "415 content_type_unsupported", "413 body_too_large"
EMPTY = "422 image_empty"
MARK = b"/smuggled"
"""In a request inside a body. If an answer names it, the body was read as a request."""


@dataclass(frozen=True)
class Case:
    """What one hostile caller sends."""

    kind: str
    name: str
    content: bytes
    allowed: frozenset[str]
    same_as: str = ""
    """The format of the picture in `pictures()` that it holds, if `same` is allowed."""
    never_ends: bool = False
    """The caller sends no end: it closes its side, and the service may close without an answer."""


def all_cases() -> list[Case]:
    """At least 500, each with a name of its own."""
    kinds = (_lines, _heads, _floods, _lengths, _smuggling, _chunks, _forms, _json, _options, _types)
    pictures = (_cut, _bombs, _polyglots, _foreign, _broken_fields)
    return list(itertools.chain.from_iterable(make() for make in (*kinds, *pictures)))


@cache
def pictures() -> dict[str, bytes]:
    """A small picture in every format, whose vector is known."""
    x, y = np.meshgrid(np.linspace(0, 255, 96), np.linspace(0, 255, 80))
    picture = np.stack([x, y, 255 - (x + y) / 2], axis=-1).astype(np.uint8)
    return {kind: cv2.imencode(f".{kind}", picture)[1].tobytes() for kind in ("jpeg", "png", "webp")}


def head(line: str, *headers: str) -> bytes:
    """The request line and headers."""
    return "\r\n".join([line, "Host: localhost", *headers, "", ""]).encode("latin-1")


def post(body: bytes, *headers: str, path: str = "/embed", of: str = "image/jpeg") -> bytes:
    """A whole request."""
    content_type = [f"Content-Type: {of}"] if of else []
    return head(f"POST {path} HTTP/1.1", *content_type, f"Content-Length: {len(body)}", *headers) + body


def _case(kind: str, name: str, content: bytes, *allowed: str, same_as: str = "", never_ends: bool = False) -> Case:
    return Case(kind, name, content, frozenset(allowed), same_as, never_ends)


# ── heads ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lines() -> Iterator[Case]:
    lines = [
        *("", " ", "GET", "GET /", "GET  / HTTP/1.1", "GET /\tHTTP/1.1", "GET / HTTP/1.1 x", "GET / HTTP/2.0"),
        *("GET / HTTP/0.9", "GET / HTTP/11", "GET / http/1.1", "GET / HTP/1.1", "GET / HTTP/1.", "GET / HTTP/-1.1"),
        *("get / HTTP/1.1", "G\0T / HTTP/1.1", "GE T / HTTP/1.1", "\x7fGET / HTTP/1.1", "FOO / HTTP/1.1"),
        *("PRI * HTTP/2.0", "CONNECT x:443 HTTP/1.1", "GET http:// HTTP/1.1", "GET /\0 HTTP/1.1", "GET \x01 HTTP/1.1"),
        *("\x16\x03\x01\x02\0\x01\0", "SSH-2.0-x", "EHLO x", "*1\r\n$4\r\nPING", "\x80\x9e\x01\x03\x01", "{}"),
        *("GET / RTSP/1.0", "GET / ICE/1.0", "SOURCE / HTTP/1.1", "POST /embed HTTP/1.1 HTTP/1.1", "<html>"),
    ]
    # an HTTP method that this service does not serve is no malformed request
    others = MALFORMED, CLOSED, "404 not_found", "405 method_not_allowed"
    for line in lines:
        allowed = others if line.startswith(("SOURCE", "GET / HTTP/0.9")) else (MALFORMED, CLOSED)
        yield _case("request line", repr(line), line.encode("latin-1") + b"\r\nHost: localhost\r\n\r\n", *allowed)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "GET", "LOCK", "REPORT"):
        yield _case(
            "method",
            method,
            head(f"{method} /embed HTTP/1.1"),
            *("405 method_not_allowed", "405", "404 not_found", MALFORMED),
        )
    paths = [
        *(
            "/../../etc/passwd",
            "/..%2f..%2fetc/passwd",
            "/%2e%2e/etc/passwd",
            "//etc/passwd",
            "/page/../../settings.py",
        ),
        *("/page/%2e%2e/served.py", "/page/..\\served.py", "/.git/config", "/.env", "/server-status", "/admin", "/%00"),
        *("/embed%00", "/embed/", "/embed//batch", "/%", "/%zz", "/%c0%ae%c0%ae/", "/\xff", "/embed;x=1", "/EMBED"),
        *("/static-offline-docs/..%2f..%2fapp.py", "/static-offline-docs/../app.py", "/" + "a/" * 4_000, "/<script>"),
        *("/{{7*7}}", "/${jndi:ldap://x/a}", "/' OR 1=1 --", "*", "http://x/nothing", "x:99999/nothing", "/%0d%0aX: y"),
    ]
    for path in paths:
        yield _case("path", path[:40], head(f"GET {path} HTTP/1.1"), "404 not_found", MALFORMED)


def _heads() -> Iterator[Case]:
    for name, lines in {
        "no colon": "novalue",
        "empty name": ": v",
        "space before the colon": "X : v",
        "space in the name": "X Y: v",
        "folded": "X: v\r\n folded",
        "folded by a tab": "X: v\r\n\tfolded",
        "first one folded": " X: v",
        "NUL in a name": "X\0: v",
        "NUL in a value": "X: a\0b",
        "control in a name": "X\x01: v",
        "bare CR": "X: a\rY: b",
        "high byte in a name": "X\xff: v",
        "brackets in a name": "X[0]: v",
        "quotes in a name": '"X": v',
        "slash in a name": "X/Y: v",
    }.items():
        yield _case("header", name, head("GET /nothing HTTP/1.1", lines), MALFORMED, CLOSED)
    for name, content in {
        "bare LF": b"GET / HTTP/1.1\nHost: localhost\n\n",
        "LF after CRLF": b"GET / HTTP/1.1\r\nHost: localhost\n\r\n",
        "CR alone": b"GET / HTTP/1.1\rHost: localhost\r\r",
        "two CRs": b"GET / HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
        "many empty lines": b"\r\n" * 1_000,
        "zeros": bytes(5_000),
        "ones": b"\xff" * 5_000,
        "random": np.random.default_rng(0).bytes(5_000),
    }.items():
        yield _case("line ends", name, content, MALFORMED, CLOSED, never_ends=True)
    whole = post(pictures()["jpeg"], "Accept: application/json")
    for at in range(1, whole.index(b"\r\n\r\n") + 4, 5):
        yield _case("head cut off", f"at {at}", whole[:at], CLOSED, MALFORMED, never_ends=True)


def _floods() -> Iterator[Case]:
    for size in (16_385, 17_000, 65_536, 200_000, 1_000_000):
        yield _case("head flood", f"path of {size}", head(f"GET /{'a' * size} HTTP/1.1"), TOO_LARGE)
        yield _case("head flood", f"query of {size}", head(f"GET /livez?{'a' * size} HTTP/1.1"), TOO_LARGE)
        yield _case("head flood", f"method of {size}", head(f"{'A' * size} / HTTP/1.1"), TOO_LARGE, MALFORMED)
        yield _case("head flood", f"name of {size}", head("GET / HTTP/1.1", "A" * size + ": v"), TOO_LARGE)
        yield _case("head flood", f"value of {size}", head("GET / HTTP/1.1", "A: " + "v" * size), TOO_LARGE)
        yield _case("head flood", f"cookie of {size}", head("GET / HTTP/1.1", "Cookie: " + "a=b;" * size), TOO_LARGE)
        yield _case("head flood", f"never ends, {size}", b"GET / HTTP/1.1\r\nA: " + b"v" * size, TOO_LARGE)
    for number in (101, 200, 1_000, 10_000, 60_000):
        yield _case("head flood", f"{number} headers", head("GET / HTTP/1.1", *["a: b"] * number), TOO_LARGE)
        names = [f"a{name}: b" for name in range(number)]
        yield _case("head flood", f"{number} names", head("GET / HTTP/1.1", *names), TOO_LARGE)
        yield _case("head flood", f"{number} empty headers", head("GET / HTTP/1.1", *["a:"] * number), TOO_LARGE)
        lines = head("GET / HTTP/1.1", *["X: v\r\n f"] * number)
        yield _case("head flood", f"{number} folded", lines, TOO_LARGE, MALFORMED)
        never = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * number
        yield _case("head flood", f"{number} headers, never ends", never, TOO_LARGE, CLOSED, never_ends=True)


# ── what a message is ──────────────────────────────────────────────────────────────────────────────────────────────

_INNER = b"GET " + MARK + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _lengths() -> Iterator[Case]:
    values = [
        *("", "-1", "+5", "0x5", "5.0", "5,5", "5, 6", "5 5", "1e3", "five", "5;", "\xb2", "00000000000000000000005x"),
        *("99999999999999999999", "18446744073709551616", "-0", "5\0", "0 5", "'5'"),
    ]
    for value in values:
        sent = head("POST /embed HTTP/1.1", "Content-Type: image/jpeg", f"Content-Length: {value}") + _INNER
        yield _case("length", repr(value), sent, MALFORMED, CLOSED, BODY)
    for one, other in (("5", "6"), ("5", "5"), ("0", "40"), ("40", "0"), ("5", "-5")):
        two = head("POST /embed HTTP/1.1", f"Content-Length: {one}", f"Content-Length: {other}") + _INNER
        yield _case("length", f"{one} and {other}", two, MALFORMED)
    for size in (10**8, 10**9, 10**12, 2**63 - 1, 2**64 - 1):
        for path, of in itertools.product(
            ("/embed", "/embed/batch"), ("image/jpeg", "multipart/form-data; boundary=b")
        ):
            announced = head(f"POST {path} HTTP/1.1", f"Content-Type: {of}", f"Content-Length: {size}")
            yield _case("length", f"{size} of {of} to {path}", announced, BODY, TYPE, MALFORMED)
    for at in (0, 1, 100, 500):
        jpeg = pictures()["jpeg"]
        sent = post(jpeg)[: -len(jpeg) + at]
        yield _case("body cut off", f"after {at} bytes", sent, CLOSED, never_ends=True)


def _smuggling() -> Iterator[Case]:
    encodings = [
        *(
            "chunked",
            "Chunked",
            "CHUNKED",
            "identity, chunked",
            "gzip, chunked",
            "chunked, chunked",
            "chunked, identity",
        ),
        *(
            "xchunked",
            "chunkedx",
            '"chunked"',
            "chunked;q=1",
            "identity",
            "",
            "\x0bchunked",
            "chunked\x0b",
            "chunked\0",
        ),
    ]
    offers = {
        "": (),
        ", offers h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    }
    ends = b"0\r\n\r\n" + _INNER
    for encoding, (offered, offer) in itertools.product(encodings, offers.items()):
        for order in (0, 1):
            both = ["Content-Length: 5", f"Transfer-Encoding: {encoding}"]
            headers = (*both[:: -1 if order else 1], *offer)
            sent = head("POST /embed HTTP/1.1", "Content-Type: image/jpeg", *headers) + ends
            name = f"{encoding!r} {'before' if order else 'after'} a length{offered}"
            yield _case("smuggling", name, sent, MALFORMED)
    two = head("POST /embed HTTP/1.1", "Transfer-Encoding: identity", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
    yield _case("smuggling", "two encodings, chunked last", two, MALFORMED, TYPE)  # which is what it ends by
    for name, lines in {
        "two encodings": ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        "encoding behind a space": ("Transfer-Encoding : chunked", "Content-Length: 5"),
        "encoding folded": ("Transfer-Encoding:\r\n chunked", "Content-Length: 5"),
        "encoding with a bare LF": ("X: y\nTransfer-Encoding: chunked", "Content-Length: 5"),
        "length with a bare LF": ("X: y\nContent-Length: 5", "Transfer-Encoding: chunked"),
        "encoding by an underscore and a length": ("Transfer_Encoding: chunked", "Content-Length: 5, 5"),
        "HTTP/1.0 with both": ("Transfer-Encoding: chunked", "Content-Length: 5", "Connection: keep-alive"),
    }.items():
        version = "1.0" if "1.0" in name else "1.1"
        yield _case("smuggling", name, head(f"POST /embed HTTP/{version}", *lines) + ends, MALFORMED)
    jpeg = pictures()["jpeg"]
    for name, filler in {"request": _INNER, "answer": b"HTTP/1.1 200 OK\r\n\r\n", "chunk": b"5\r\nhello\r\n"}.items():
        sent = post(jpeg + filler, "Connection: close")
        yield _case("smuggling", f"{name} behind a picture", sent, SAME, same_as="jpeg")
        yield _case("smuggling", f"{name} in the place of a picture", post(filler, "Connection: close"), FOREIGN)


def _chunks() -> Iterator[Case]:
    def chunked(body: bytes, *headers: str) -> bytes:
        about = "Content-Type: image/jpeg", "Transfer-Encoding: chunked", *headers
        return head("POST /embed HTTP/1.1", *about) + body

    sizes = [
        *(
            b"",
            b"g",
            b"-5",
            b"+5",
            b"0x5",
            b" 5",
            b"5 5",
            b"5\0",
            b"FFFFFFFFFFFFFFFFF",
            b"10000000000000000",
            b"\xff",
            b"5,",
        ),
        *(b"5\n", b"\r", b";x", b"5;\0", b"5 ;\n"),
    ]
    for size in sizes:
        yield _case("chunks", f"size {size!r}", chunked(size + b"\r\nhello\r\n0\r\n\r\n"), MALFORMED)
    for name, body in {
        "no end of a chunk": b"5\r\nhelloXX0\r\n\r\n",
        "chunk longer than said": b"5\r\nhello, world\r\n0\r\n\r\n",
        "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
        "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
        "trailers that are no headers": b"0\r\nno header\r\n\r\n",
    }.items():
        yield _case("chunks", name, chunked(body), MALFORMED)
    for extra in (70_000, 1_000_000):
        yield _case(
            "chunks",
            f"extension of {extra}",
            chunked(b"5;" + b"x" * extra + b"\r\nhello\r\n0\r\n\r\n"),
            TOO_LARGE,
            FOREIGN,
        )
        yield _case(
            "chunks", f"trailer of {extra}", chunked(b"0\r\nX: " + b"x" * extra + b"\r\n\r\n"), TOO_LARGE, EMPTY
        )
        many = b"X: y\r\n" * (extra // 6)
        yield _case("chunks", f"trailers of {extra}", chunked(b"0\r\n" + many + b"\r\n"), TOO_LARGE, EMPTY)
    for announced in (b"7fffffff", b"7fffffffffffffff", b"ffffffff"):
        sent = chunked(announced + b"\r\nhello")
        yield _case("chunks", f"announces {announced.decode()}", sent, CLOSED, BODY, MALFORMED, never_ends=True)
    for part in (1, 7):
        jpeg = pictures()["jpeg"]
        pieces = [jpeg[at : at + part] for at in range(0, len(jpeg), part)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        yield _case("chunks", f"of {part} bytes", chunked(body + b"0\r\n\r\n"), SAME, same_as="jpeg")
    too_much = b"".join(b"100000\r\n%b\r\n" % bytes(2**20) for _ in range(24))
    yield _case("chunks", "more than a picture may have", chunked(too_much + b"0\r\n\r\n"), BODY)
    yield _case("chunks", "never end", chunked(b"5\r\nhello\r\n"), CLOSED, never_ends=True)


# ── forms and JSON ─────────────────────────────────────────────────────────────────────────────────────────────────


def part(content: bytes, about: str = 'form-data; name="file"; filename="x"', *headers: str) -> bytes:
    """One part of a form whose boundary is `b`."""
    lines = [f"Content-Disposition: {about}", *headers]
    return b"--b\r\n" + "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes, end: bytes = b"--b--\r\n", path: str = "/embed", boundary: str = "boundary=b") -> bytes:
    """A request with these parts."""
    return post(b"".join(parts) + end, path=path, of=f"multipart/form-data; {boundary}")


def _forms() -> Iterator[Case]:
    jpeg = pictures()["jpeg"]
    whole = part(jpeg)
    for boundary in (
        "",
        "boundary=",
        "boundary=other",
        "boundary=B",
        "boundary=b; boundary=c",
        f"boundary={'b' * 300}",
    ):
        yield _case("form", f"with {boundary[:30]!r}", form(whole, boundary=boundary), BAD_FORM)
    for boundary in ("boundary=\xe9", "boundary=a b", "boundary=\x01", 'boundary="', "bound=b", "boundary*=b"):
        yield _case("form", f"with {boundary!r}", form(whole, boundary=boundary), BAD_FORM, MALFORMED)
    for name, sent in {
        "no end": form(whole, end=b""),
        "half an end": form(whole, end=b"--b-"),
        "end of another": form(whole, end=b"--c--\r\n"),
        "nothing": form(end=b""),
        "only line ends": form(b"\r\n" * 1_000, end=b""),
        "bare LF": form(whole.replace(b"\r\n", b"\n"), end=b"--b--\n"),
        "headers without an end": form(b"--b\r\nContent-Disposition: form-data; name=file\r\n" + b"--b--"),
        "header without a colon": form(b"--b\r\nContent-Disposition\r\n\r\nx\r\n"),
        "part without headers": form(b"--b\r\n\r\n" + jpeg + b"\r\n"),
        "other disposition": form(part(jpeg, 'attachment; name="file"')),
        "header of a part of 100 kB": form(part(jpeg, "form-data; name=file", "X: " + "v" * 100_000)),
        "1,000 headers of a part": form(part(jpeg, "form-data; name=file", *["X: v"] * 1_000)),
        "name of 50 kB": form(part(jpeg, f'form-data; name="{"n" * 50_000}"')),
    }.items():
        yield _case("form", name, sent, BAD_FORM, NO_FILE, BODY)
    for about in (
        *('form-data; name="files"', 'form-data; name="File"', 'form-data; name=" file"', 'form-data; name="file\\0"'),
        *('form-data; name="file[]"', 'form-data; name=""', 'form-data; filename="file"', "form-data; name=fil\xe9"),
        *("form-data; name*=utf-8''file", 'form-data; name="../file"', 'form-data; name="file;x"', "form-data"),
        *('form-data; name="<script>"', 'form-data; xname="file"'),
    ):
        yield _case("form", f"part {about}", form(part(jpeg, about)), NO_FILE, BAD_FORM)
    for name, sent in {
        "two files": form(whole, whole),
        "three files": form(whole, whole, whole),
        "a file and a text of its name": form(whole, part(b"x", 'form-data; name="file"')),
    }.items():
        yield _case("form", name, sent, "422 file_repeated")
    for option in ("align", "normalize", "include_attributes", "encoding", "flip", "fit", "resize", "include_crop"):
        yield _case("form", f"option {option}", form(whole, part(b"x", f'form-data; name="{option}"')), PARAMETER)
    for name, file in {
        "traversal": "../../../../etc/passwd",
        "NUL": "a\0.jpg",
        "1 kB": "n" * 1_000,
        "header": 'a"; name="other',
        "script": "<script>alert(1)</script>",
        "drive": "C:\\\\x.jpg",
        "nothing": "",
        "template": "${jndi:ldap://x/a}",
    }.items():
        sent = form(part(jpeg, f'form-data; name="file"; filename="{file}"'))
        yield _case("file name", name, sent, SAME, BAD_FORM, NO_FILE, same_as="jpeg")
    for coding in ("base64", "quoted-printable", "gzip"):
        sent = form(part(base64.b64encode(jpeg), 'form-data; name="file"', f"Content-Transfer-Encoding: {coding}"))
        yield _case("form", f"coded as {coding}", sent, FOREIGN, BAD_FORM)
    inner = b"--c\r\nContent-Disposition: form-data; name=file\r\n\r\n" + jpeg + b"\r\n--c--\r\n"
    nested = form(part(inner, "form-data; name=file", "Content-Type: multipart/mixed; boundary=c"))
    yield _case("form", "form in a form", nested, FOREIGN, BAD_FORM)
    for number in (100, 1_000, 10_000):
        yield _case("form", f"{number} other parts", form(*[part(b"", 'form-data; name="x"')] * number), NO_FILE, BODY)
    many = form(*[part(jpeg, 'form-data; name="files"')] * 65, path="/embed/batch")
    yield _case("form", "65 pictures", many, "413 too_many_files")
    empty = form(*[part(b"", 'form-data; name="files"')] * 5_000, path="/embed/batch")
    yield _case("form", "5,000 empty pictures", empty, "413 too_many_files", BODY)
    yield _case("form", "22 MB of a text", form(whole, part(bytes(22_000_000), 'form-data; name="x"')), BODY)
    yield _case("form", "21 MB of a picture", form(part(jpeg + bytes(21_000_000))), BODY)
    yield _case("form", "21 MB before it", form(b"x" * 21_000_000, whole), BODY, BAD_FORM)
    for at in range(5, len(whole) - len(jpeg), 9):
        yield _case("form cut off", f"at {at}", form(whole[:at], end=b""), BAD_FORM, NO_FILE)


def _json() -> Iterator[Case]:
    def sent(body: bytes | str, path: str = "/embed") -> bytes:
        content = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
        return post(content, path=path, of="application/json")

    jpeg = base64.b64encode(pictures()["jpeg"]).decode()
    for depth in (10, 100, 1_000, 10_000, 100_000, 1_000_000):
        for opening, closing in (("[", "]"), ('{"image":', "}"), ("[", "")):
            body = opening * depth + closing * depth
            yield _case(
                "JSON bomb", f"{depth} of {opening}{closing}", sent(body), BAD_JSON, BASE64, "422 file_repeated"
            )
    for body in (
        *("", " ", "{", "{}x", "nul", "null", "true", "1", '"x"', "[]", "[{}]", "NaN", "{'image': 'x'}", "{image: 1}"),
        *('{"image": "x",}', '{"image": "x"', '{"image": "\\ud800"}', '{"image": "\\x"}', '{"image": 1e}', "// x\n{}"),
        *('{"image": 01}', '{"image": Infinity}', '{"image": "\t"}', "\ufeff\ufeff{}", '{"image": "\ud800"}', "﹛﹜"),
    ):
        yield _case("JSON", repr(body)[:60], sent(body), BAD_JSON, BASE64)
    for name, raw in {
        "UTF-16": '{"image": "x"}'.encode("utf-16"),
        "UTF-32": '{"image": "x"}'.encode("utf-32"),
        "no UTF-8": b'{"image": "\xff\xfe"}',
        "zeros": bytes(1_000),
        "gzip": b"\x1f\x8b" + bytes(100),
        "a million numbers": b'{"image": [' + b"1," * 999_999 + b"1]}",
        "a million keys": b"{" + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}",
        "a million keys of one name": b'{"image":"x"' + b',"image":"x"' * 100_000 + b"}",
    }.items():
        yield _case("JSON", name, sent(raw), BAD_JSON)
    for value in (
        "1",
        "1e400",
        "-1e400",
        "1" * 5_000,
        "0." + "1" * 5_000,
        "null",
        "true",
        "[]",
        "{}",
        '[""]',
        '{"a":1}',
    ):
        yield _case("JSON", f"image is {value[:20]}", sent(f'{{"image": {value}}}'), BASE64, BAD_JSON)
    for text in (
        *(
            "face.jpg",
            "@face.jpg",
            "https://example.org/x.jpg",
            "file:///etc/passwd",
            "data:image/jpeg,x",
            "====",
            "=AAA",
        ),
        *("A", "AA=A", "AAAA====", "AA==AA==", "A===", "\u0000", "%2F9j", "/9j/ /9j", "AAA*", "!", "../../etc/passwd"),
        *("data:;base64", "data:text/html;base64,!", "-_+/", "AAAA\\nAAA", "A" * 1_001, "<base64>"),
    ):
        yield _case("base64", text[:30], sent(json.dumps({"image": text})), BASE64, FOREIGN, EMPTY)
    for name, text in {
        "blanks": f"  {jpeg}  ",
        "no padding": jpeg.rstrip("="),
        "lines": "\n".join(jpeg[at : at + 76] for at in range(0, len(jpeg), 76)),
        "URL": f"data:image/jpeg;base64,{jpeg}",
        "URL of another type": f"data:text/html;base64,{jpeg}",
    }.items():
        yield _case("base64", name, sent(json.dumps({"image": text})), SAME, same_as="jpeg")
    for key in ("Image", "images", "file", "url", "path", "__proto__", "constructor", "imagé", "image\0", ""):
        yield _case("JSON", f"key {key!r}", sent(json.dumps({key: jpeg})), NO_FILE, BAD_JSON, PARAMETER)
    for key in ("url", "__class__", "align", "normalize", "model", "pack"):
        yield _case("JSON", f"also {key}", sent(json.dumps({"image": jpeg, key: "x"})), PARAMETER)
    yield _case("JSON", "image twice", sent(f'{{"image": "x", "image": "{jpeg}"}}'), "422 file_repeated")
    for value in ('""', "{}", "1", "null", '"x"', '{"0": "x"}'):
        yield _case("JSON", f"images is {value}", sent(f'{{"images": {value}}}', "/embed/batch"), BAD_JSON)
    yield _case("JSON", "no images", sent('{"images": []}', "/embed/batch"), NO_FILE)
    many = json.dumps({"images": ["x"] * 65})
    yield _case("JSON", "65 images", sent(many, "/embed/batch"), "413 too_many_files")
    points = [[38.0, 52.0], [74.0, 52.0], [56.0, 72.0], [42.0, 92.0], [71.0, 92.0]]
    for name, sets in {
        "four": points[:4],
        "six": [*points, [1, 1]],
        "none": [],
        "strings": [["38", "52"]] * 5,
        "three numbers": [[1, 2, 3]] * 5,
        "the same": [[5, 5]] * 5,
        "on a line": [[number, number] for number in range(5)],
        "far away": [[x + 1e9, y] for x, y in points],
        "huge": [[x * 1e300, y] for x, y in points],
        "negative": [[-x, -y] for x, y in points],
        "truth values": [[True, False]] * 5,
        "null": [[None, None]] * 5,
        "object": {"left_eye": [1, 2]},
        "text": "38,52",
        "nested": [[[[[1]]]]],
    }.items():
        body = json.dumps({"image": jpeg, "landmarks": sets})
        yield _case("landmarks", name, sent(body, "/embed?align=landmarks"), LANDMARKS)
        as_part = form(part(pictures()["jpeg"]), part(json.dumps(sets).encode(), 'form-data; name="landmarks"'))
        in_query = as_part.replace(b"POST /embed ", b"POST /embed?align=landmarks ", 1)
        yield _case("landmarks", f"{name}, in a form", in_query, LANDMARKS)
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "0x10", "1_0", "\u0661"):
        body = f'{{"image": "{jpeg}", "landmarks": [[{number}, 1], [2, 3], [4, 5], [6, 7], [8, 9]]}}'
        yield _case("landmarks", number, sent(body, "/embed?align=landmarks"), LANDMARKS, BAD_JSON)


# ── options and types ──────────────────────────────────────────────────────────────────────────────────────────────


def _options() -> Iterator[Case]:
    jpeg = pictures()["jpeg"]
    for query in (
        *(
            "normalise=true",
            "normalize=yes%00",
            "normalize=",
            "normalize",
            "normalize=true&normalize=true",
            "&=&",
            "=1",
        ),
        *(
            "align=landmark",
            "align=auto%0d%0aX: y",
            "align=AUTO1",
            "encoding=hex",
            "fit=../..",
            "%61lign=x",
            "a" * 9_000,
        ),
        *("include_attributes=2", "flip=null", "resize[]=exact", "resize[$ne]=1", "x=%ff%fe", "%00=%00", "align=\xff"),
        *(
            "include_crop=true&include_crop=false",
            "flip=TRUE%20",
            "flip=%F0%9F%98%80",
            "normalize=1;flip=1",
            "__proto__=1",
        ),
        *(
            "align=none&align=none",
            "encoding=float&x",
            "flip=true#x",
            "?flip=true",
            "flip[true]",
            "flip=(1)",
            "flip=true,",
        ),
    ):
        sent = post(jpeg, path=f"/embed?{query}")
        yield _case("query", query[:40], sent, PARAMETER, SAME, MALFORMED, same_as="jpeg" if query == "&=&" else "")
    for name, value, allowed in (
        *(("X-Request-Timeout", value, PARAMETER) for value in ("", "0", "-1", "x", "NaN", "-inf", "1,1", "0x1")),
        *(("X-Require-Fingerprint", value, "409 fingerprint_differs") for value in ("0", "../..", "%00", "f" * 5_000)),
        *(("X-Require-Recipe", value, "409 recipe_differs") for value in ("0", "../..", "%00", "f" * 5_000)),
        *(("Accept", value, "406 not_acceptable") for value in ("text/html", "image/*", "application/json;q=0", "x/y")),
        *(("Content-Encoding", value, TYPE) for value in ("gzip", "br", "deflate, gzip", "zstd", "GZIP", "x-gzip")),
    ):
        yield _case("header", f"{name}: {value[:20]}", post(jpeg, f"{name}: {value}"), allowed, MALFORMED)
    for name in ("X-Request-Timeout: 5", "X-Require-Fingerprint: 0", "X-Require-Recipe: 0"):
        yield _case("header", f"{name}, twice", post(jpeg, name, name), PARAMETER, "409 fingerprint_differs")
    for value in ("xx", "00-x", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-" + "a" * 600, '"', "\xff", "a b"):
        sent = post(jpeg, f"X-Request-ID: {value}", f"traceparent: {value}", "Connection: close")
        yield _case("header", f"identity {value[:20]}", sent, SAME, same_as="jpeg")
    for value in ("nonsense", "100-continue, x", "200-ok", ""):
        sent = post(jpeg, f"Expect: {value}", "Connection: close")
        yield _case("header", f"Expect: {value}", sent, SAME, "417", MALFORMED, same_as="jpeg")


def _types() -> Iterator[Case]:
    jpeg = pictures()["jpeg"]
    for of in (
        *(
            "text/plain",
            "text/html",
            "image/gif",
            "image/svg+xml",
            "application/xml",
            "application/x-www-form-urlencoded",
        ),
        *("multipart/mixed; boundary=b", "multipart/", "image", "image/jpeg/x", "*/*", "image/*", "application/json5"),
        *("application/pdf", "application/zip", "video/mp4", "\xff", "image/jpeg, image/png", "text/json", "a" * 5_000),
    ):
        yield _case("type", of[:40], post(jpeg, of=of), TYPE)
    for of in ("image/jpeg", "application/json", "text/plain", "multipart/mixed", "application/octet-stream"):
        yield _case("type", f"{of} to a batch", post(jpeg, path="/embed/batch", of=of), TYPE, BAD_JSON)


# ── pictures ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _picture(kind: str, name: str, content: bytes, *allowed: str, same_as: str = "") -> Case:
    return _case(kind, name, post(content, "Connection: close"), *allowed, same_as=same_as)


def _cut() -> Iterator[Case]:
    for kind, content in pictures().items():
        for share in range(1, 40):
            at = max(1, len(content) * share // 40)
            yield _picture(f"{kind} cut off", f"at {at}", content[:at], DAMAGED, FOREIGN)


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND")


def _webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _zeros(megabytes: int) -> bytes:
    """Packed zeros, a thousandth of their size, without the end."""
    packer = zlib.compressobj(9)
    first = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + first[2:] * (megabytes - 1)


def _bombs() -> Iterator[Case]:
    refused = TOO_MANY_PIXELS, DAMAGED
    sides = (0, 1, 7_072, 30_000, 65_500, 1_000_000, 1_000_001, 2**31 - 1, 2**31, 2**32 - 1)
    data = _chunk(b"IDAT", zlib.compress(bytes(100)))
    for width, height in itertools.product(sides, (1, 7_072, 2**31 - 1)):
        if (width, height) != (1, 1):
            yield _picture("png bomb", f"{width}x{height}", _png(width, height, data), *refused)
    jpeg = pictures()["jpeg"]
    at = next(jpeg.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in jpeg) + 5
    for width, height in itertools.product((0, 7_072, 40_000, 65_535), repeat=2):
        sized = jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]
        # of a height that is too large for its data, libjpeg decodes what there is
        yield _picture("jpeg bomb", f"{width}x{height}", sized, *refused)
    for width, height in itertools.product((7_072, 65_536, 2**24), repeat=2):
        extended = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        content = _webp(_webp_chunk(b"VP8X", extended), pictures()["webp"][12:])
        yield _picture("webp bomb", f"{width}x{height}", content, *refused)
    for name, pixels in {
        "a gigabyte in one": _zeros(1_200),
        "in a thousand": b"",
        "empty": b"",
        "no zlib": b"x" * 1_000,
        "preset dictionary": b"\x78\xbb" + bytes(100),
        "endless block": b"\x78\x9c" + b"\0\xff\xff\0\0" * 1_000,
    }.items():
        chunks = [_chunk(b"IDAT", pixels)] * (1_000 if name == "in a thousand" else 1)
        yield _picture("png bomb", name, _png(32, 32, *chunks), DAMAGED)
    good = _chunk(b"IDAT", zlib.compress((b"\0" + bytes(96)) * 32))
    for kind in (b"iCCP", b"zTXt", b"iTXt"):
        packed = _chunk(kind, b"x\0" + b"\0" * (4 if kind == b"iTXt" else 1) + _zeros(100))
        yield _picture("png bomb", f"{kind.decode()} of 100 MB", _png(32, 32, packed, data), DAMAGED)
    several = [_chunk(b"tEXt", b"k\0v")] * 100_000
    yield _picture("png bomb", "100,000 texts", _png(32, 32, *several, data), DAMAGED)
    yield _picture("png bomb", "100,000 headers", _png(32, 32, *[_chunk(b"IHDR", bytes(13))] * 100_000, good), DAMAGED)
    scans = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 100_000
    yield _picture("jpeg bomb", "100,000 scans", jpeg[:-2] + scans + b"\xff\xd9", DAMAGED, SAME, same_as="jpeg")
    yield _picture("jpeg bomb", "2 MB of markers", b"\xff\xd8" + b"\xff\xd8" * 1_000_000, DAMAGED)
    yield _picture("jpeg bomb", "2 MB of fill", b"\xff\xd8" + b"\xff" * 2_000_000, DAMAGED)
    yield _picture("webp bomb", "100,000 chunks", _webp(*[_webp_chunk(b"XXXX", b"")] * 100_000), DAMAGED)


def _polyglots() -> Iterator[Case]:
    tails = {
        "ZIP": b"PK\x03\x04" + bytes(100) + b"PK\x05\x06" + bytes(18),
        "HTML": b"<html><script>alert(1)</script></html>",
        "PHP": b"<?php system($_GET['x']); ?>",
        "PDF": b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF",
        "shell": b"\n#!/bin/sh\nid\n",
        "ELF": b"\x7fELF" + bytes(60),
        "zeros": bytes(1_000_000),
    }
    for (kind, content), (name, tail) in itertools.product(pictures().items(), tails.items()):
        yield _picture("polyglot", f"{kind} and {name}", content + tail, SAME, same_as=kind)
    for (one, first), (other, second) in itertools.permutations(pictures().items(), 2):
        yield _picture("polyglot", f"{one} and {other}", first + second, SAME, same_as=one)
    jpeg, png = pictures()["jpeg"], pictures()["png"]
    for name, text in tails.items():
        comment = b"\xff\xfe" + struct.pack(">H", len(text[:60_000]) + 2) + text[:60_000]
        yield _picture("polyglot", f"{name} in a comment", jpeg[:2] + comment + jpeg[2:], SAME, same_as="jpeg")
        noted = png[:33] + _chunk(b"tEXt", b"Comment\0" + text[:60_000]) + png[33:]
        yield _picture("polyglot", f"{name} in a text", noted, SAME, same_as="png")


def _foreign() -> Iterator[Case]:
    jpeg = pictures()["jpeg"]
    for name, content in {
        "GIF": b"GIF89a\x01\0\x01\0\x80\0\0" + bytes(20) + b";",
        "GIF of 65535": b"GIF89a\xff\xff\xff\xff\x80\0\0",
        "BMP": b"BM" + bytes(60),
        "TIFF": b"II*\0\x08\0\0\0" + bytes(50),
        "BigTIFF": b"II+\0\x08\0\0\0" + bytes(50),
        "PSD": b"8BPS\0\x01" + bytes(50),
        "ICO": b"\0\0\x01\0\x01\0" + bytes(50),
        "PDF": b"%PDF-1.4\n",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "XXE": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><svg>&y;</svg>",
        "a billion laughs": b"<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a 'ha'>]><l>&a;</l>",
        "HTML": b"<!doctype html><script>1</script>",
        "ZIP": b"PK\x03\x04" + bytes(50),
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
        "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(50),
        "MP4": b"\0\0\0\x18ftypisom" + bytes(50),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50),
        "JPEG XL": b"\xff\x0a" + bytes(50),
        "EXR": b"v/1\x01" + bytes(50),
        "HDR": b"#?RADIANCE\n" + bytes(50),
        "PNM": b"P6 99999 99999 255\n" + bytes(50),
        "PFM": b"PF\n9 9\n-1.0\n" + bytes(50),
        "DICOM": bytes(128) + b"DICM",
        "NumPy": b"\x93NUMPY\x01\0" + bytes(50),
        "pickle": b"\x80\x04\x95cos\nsystem\n(S'id'\ntR.",
        "WAV": b"RIFF\x24\0\0\0WAVEfmt " + bytes(24),
        "AVI": b"RIFF\x24\0\0\0AVI LIST" + bytes(24),
        "MNG": b"\x8aMNG\r\n\x1a\n" + bytes(50),
        "ImageMagick": b"push graphic-context\nfill 'url(https://x/\"|id\")'\n",
        "PostScript": b"%!PS\n(x) run\n",
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
        "base64": base64.b64encode(jpeg),
        "text": b"face.jpg",
        "zeros": bytes(1_000),
        "one byte": b"\xff",
        "a JPEG behind zeros": bytes(4) + jpeg,
        "a JPEG read as text": jpeg.decode("utf-8", "replace").encode(),
        "a JPEG in hex": jpeg.hex().encode(),
        "a JPEG backwards": jpeg[::-1],
        "a GIF with a JPEG": b"GIF89a" + jpeg,
        "a PDF with a JPEG": b"%PDF-1.7\n" + jpeg,
    }.items():
        yield _picture("other format", name, content, FOREIGN)
    yield _picture("other format", "nothing", b"", EMPTY, TYPE)
    for kind, signature in {
        "jpeg": b"\xff\xd8\xff",
        "png": b"\x89PNG\r\n\x1a\n",
        "webp": b"RIFF\xff\xff\xff\xffWEBP",
    }.items():
        for name, rest in {"nothing": b"", "zeros": bytes(5_000), "ones": b"\xff" * 5_000, "a byte": b"\0"}.items():
            yield _picture("signature alone", f"{kind} and {name}", signature + rest, DAMAGED, TOO_MANY_PIXELS)


def _broken_fields() -> Iterator[Case]:
    """Fields that say how long something is, or what follows, with other values; what they then mean is no picture."""
    png, webp, jpeg = pictures()["png"], pictures()["webp"], pictures()["jpeg"]
    for value in (0, 1, 12, 14, 2**16, 2**31 - 1, 2**31, 2**32 - 1):
        length = struct.pack(">I", value)
        yield _picture("broken field", f"PNG header of {value}", png[:8] + length + png[12:], DAMAGED)
        at = png.index(b"IDAT") - 4
        yield _picture("broken field", f"PNG data of {value}", png[:at] + length + png[at + 4 :], DAMAGED)
    for depth, colour in ((0, 2), (3, 2), (255, 2), (1, 2), (2, 4), (8, 1), (8, 5), (8, 7), (16, 3), (8, 255), (32, 0)):
        data = _chunk(b"IDAT", zlib.compress(bytes(4_000)))
        content = _png(32, 32, data, depth=depth, colour=colour)
        yield _picture("broken field", f"PNG of depth {depth}, colour {colour}", content, DAMAGED)
    for at, name in ((26, "compression"), (27, "filter"), (28, "interlace")):
        header = png[16:29][: at - 16] + b"\x09" + png[16:29][at - 15 :]
        content = png[:8] + _chunk(b"IHDR", header) + png[33:]
        yield _picture("broken field", f"PNG {name}", content, DAMAGED)
    for value in (0, 1, 4, 2**31, 2**32 - 1):
        length = struct.pack("<I", value)
        yield _picture("broken field", f"WebP chunk of {value}", webp[:16] + length + webp[20:], DAMAGED)
    for value in (0, 1, 4):
        content = webp[:4] + struct.pack("<I", value) + webp[8:]
        yield _picture("broken field", f"WebP of {value}", content, DAMAGED)
    for kind in (b"XXXX", b"ALPH", b"ANIM", b"EXIF", b"VP8X"):
        yield _picture("broken field", f"WebP with {kind.decode()}", webp[:12] + kind + webp[16:], DAMAGED)
    first = jpeg.index(b"\xff", 2)
    for value in (0, 1, 65_535):
        content = jpeg[: first + 2] + struct.pack(">H", value) + jpeg[first + 4 :]
        yield _picture("broken field", f"JPEG segment of {value}", content, DAMAGED)
    at = next(jpeg.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in jpeg)
    for marker in (0xC3, 0xC5, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCF):
        content = jpeg[: at + 1] + bytes([marker]) + jpeg[at + 2 :]
        yield _picture("broken field", f"JPEG of frame {marker:02x}", content, DAMAGED, FOREIGN)
    for components in (0, 2, 5, 255):
        content = jpeg[: at + 9] + bytes([components]) + jpeg[at + 10 :]
        yield _picture("broken field", f"JPEG of {components} components", content, DAMAGED)
    for depth in (0, 1, 16, 255):
        content = jpeg[: at + 4] + bytes([depth]) + jpeg[at + 5 :]
        yield _picture("broken field", f"JPEG of {depth} bits", content, DAMAGED, FOREIGN)
    for table, name in ((b"\xff\xdb", "quantisation"), (b"\xff\xc4", "Huffman")):
        at_table = jpeg.index(table)
        content = jpeg[: at_table + 4] + b"\xff" * 20 + jpeg[at_table + 24 :]
        yield _picture("broken field", f"JPEG's {name} table", content, DAMAGED)
