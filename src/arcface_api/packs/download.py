"""One URL to one file: streamed, counted and hashed on the way, resumed where the server can.

Never from https to http. A Range request goes on with a part only where a hash or a validator tells that it is the
same file.
"""

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import httpx

from arcface_api import __version__
from arcface_api.errors import DownloadFailed, ModelHashWrong, ModelTruncated
from arcface_api.packs.content import HEAD_BYTES, MAX_MODEL_BYTES, Measured, refuse_foreign
from arcface_api.packs.partial import Wanted, discard, note, part_size, resume_from, validator
from arcface_api.packs.storage import need_room
from arcface_api.progress import Progress

_MAX_REDIRECTS = 10
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_log = logging.getLogger("arcface_api.packs")


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to take up a broken download."""

    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    """Longest silence in the middle of a download."""
    attempts: int = 10
    """Tries for one URL, each of which takes up where the last one broke off."""
    pause_seconds: float = 1.0


DEFAULT_PATIENCE = Patience()


class _Interrupted(Exception):
    """The connection broke in the middle."""


class _StartAgain(Exception):
    """What is on disk cannot be continued."""


@contextmanager
def http_client(patience: Patience) -> Iterator[httpx.Client]:
    """A client for `fetch`; honours the usual proxy and certificate variables."""
    timeout = httpx.Timeout(patience.read_seconds, connect=patience.connect_seconds)
    headers = {"User-Agent": f"arcface-api/{__version__}", "Accept-Encoding": "identity"}
    with httpx.Client(timeout=timeout, headers=headers) as client:
        yield client


def fetch(client: httpx.Client, wanted: Wanted, patience: Patience, progress: Progress) -> Measured:
    """Download a URL to `wanted.part`, going on with what is there.

    Returns:
        Size and SHA-256 of the whole file, those of bytes from an earlier run included.

    Raises:
        DownloadFailed: The server refuses, is silent, redirects from https to http, or breaks off again and again.
        ModelIsHtml, ModelIsLfsPointer: It sends that instead.
        ModelTruncated, ModelHashWrong: It sends other bytes than the manifest states.
        StorageFull: There is no room for what it announces.
        OSError: The part cannot be written.
    """
    reason = "it kept changing"
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause_seconds)
        before = part_size(wanted.part)
        try:
            return _attempt(client, wanted, progress)
        except _StartAgain as again:
            _log.info("%s: starting again from the beginning: %s.", shown(wanted.url), again)
            discard(wanted.part)
        except _Interrupted as interrupted:
            reason = str(interrupted)
            if part_size(wanted.part) <= before:
                break
            _log.info("%s: %s; trying to go on.", shown(wanted.url), reason)
    raise DownloadFailed(f"{shown(wanted.url)} broke off: {reason}.")


def shown(url: str) -> str:
    """A URL for messages, without credentials and query."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(username=None, password=None, query=None, fragment=None)) if parsed.host else url


def _attempt(client: httpx.Client, wanted: Wanted, progress: Progress) -> Measured:
    digest, start = resume_from(wanted)
    if start and digest.hexdigest() == wanted.sha256:
        return _finish(wanted, digest, start, resumed=True)
    with _translated(wanted.url), _response(client, wanted, start) as response:
        if start and _is_whole(response, start):
            return _finish(wanted, digest, start, resumed=True)
        start = _accepted_start(response, start, wanted)
        digest = digest if start else hashlib.sha256()
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        chunks = response.iter_raw()
        head = _head(chunks)
        # looked at before the announced size: "is a web page" says more than "has 812 bytes"
        if start == 0:
            refuse_foreign(head, shown(wanted.url))
        limit = _limit(wanted, total)
        coming = (total or wanted.size_bytes or start) - start
        need_room(wanted.part.parent, coming + wanted.room_bytes, "The download")
        if start == 0:
            # never an old part beside a new note: killed here, a later run would join two files
            discard(wanted.part)
        note(wanted, response.headers)
        size = start
        with wanted.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            for chunk in chain([head], chunks):
                size += len(chunk)
                if size > limit:
                    raise ModelHashWrong(f"{shown(wanted.url)} sends more than the {limit} bytes it should.")
                file.write(chunk)
                digest.update(chunk)
                progress(_step(wanted), size, total or wanted.size_bytes)
    expected = total if wanted.is_archive else wanted.size_bytes
    if expected is not None and size < expected:
        raise _Interrupted(f"it ended after {size} of {expected} bytes")
    return _finish(wanted, digest, size, resumed=start > 0)


def _head(chunks: Iterator[bytes]) -> bytes:
    """Enough of the beginning to see what it is."""
    head = b""
    while len(head) < HEAD_BYTES and (chunk := next(chunks, None)) is not None:
        head += chunk
    return head


def _step(wanted: Wanted) -> str:
    url = httpx.URL(wanted.url)
    return f"Downloading {url.path.rpartition('/')[2]} from {url.host}"


def _finish(wanted: Wanted, digest: Any, size: int, *, resumed: bool) -> Measured:
    found = Measured(size, digest.hexdigest())
    if wanted.sha256 is None or found.sha256 == wanted.sha256:
        return found
    if resumed:
        raise _StartAgain("what was resumed does not add up to the right file")
    if wanted.is_archive:
        _log.info("%s is not the archive we know (SHA-256 %s); its files decide.", shown(wanted.url), found.sha256)
        return found
    discard(wanted.part)
    raise ModelHashWrong(
        f"{shown(wanted.url)} sends another file: its SHA-256 is {found.sha256}, it must be {wanted.sha256}."
    )


@contextmanager
def _response(client: httpx.Client, wanted: Wanted, start: int) -> Iterator[httpx.Response]:
    """The answer to a GET, behind its redirects."""
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        same = validator(wanted)
        if same is not None:
            headers["If-Range"] = same
    request = client.build_request("GET", wanted.url, headers=headers)
    for _ in range(_MAX_REDIRECTS):
        response = client.send(request, stream=True)
        try:
            if response.next_request is None:
                yield response
                return
        finally:
            response.close()
        if request.url.scheme == "https" and response.next_request.url.scheme != "https":
            _fail(wanted.url, "redirects from https to http, where anyone could change the file; that is refused")
        request = response.next_request
    _fail(wanted.url, f"redirects more than {_MAX_REDIRECTS} times")


def _is_whole(response: httpx.Response, start: int) -> bool:
    """The answer to asking for more than there is: an earlier run was killed after its last byte."""
    return response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{start}"


def _accepted_start(response: httpx.Response, start: int, wanted: Wanted) -> int:
    """Where the body begins in the file; 0 where the server sends it from the beginning."""
    status = response.status_code
    if status == 206 and start:
        content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if content_range is None or int(content_range[1]) != start:
            raise _StartAgain("the server sent another part than asked for")
        return start
    if status == 416 and start:
        raise _StartAgain("the server's file is shorter than what is here")
    if status != 200:
        _fail(wanted.url, f"answered {status} {response.reason_phrase}".rstrip())
    if response.headers.get("Content-Encoding", "identity") != "identity":
        _fail(wanted.url, "sends the file in a content encoding that was not asked for")
    return 0


def _limit(wanted: Wanted, total: int | None) -> int:
    """The most bytes to take; a wrong size is refused before it is downloaded."""
    if wanted.is_archive or wanted.size_bytes is None:
        if total is not None and total > MAX_MODEL_BYTES:
            raise ModelHashWrong(f"{shown(wanted.url)} announces {total} bytes; more than 2 GiB are not taken.")
        return total if total is not None else MAX_MODEL_BYTES
    if total is not None and total < wanted.size_bytes:
        raise ModelTruncated(f"{shown(wanted.url)} has {total} bytes, it must have {wanted.size_bytes}.")
    if total is not None and total > wanted.size_bytes:
        raise ModelHashWrong(f"{shown(wanted.url)} has {total} bytes, it must have {wanted.size_bytes}: another file.")
    return wanted.size_bytes


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """What the network does wrong, as our errors."""
    try:
        yield
    except (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.UnsupportedProtocol,
        httpx.ProxyError,
        httpx.InvalidURL,
    ) as error:
        _fail(url, f"cannot be reached: {str(error) or type(error).__name__}")
    except httpx.TimeoutException as error:
        raise _Interrupted("it was silent for too long") from error
    except httpx.HTTPError as error:
        raise _Interrupted(f"the connection broke: {error}") from error


def _fail(url: str, what: str) -> NoReturn:
    raise DownloadFailed(f"{shown(url)} {what}.")
