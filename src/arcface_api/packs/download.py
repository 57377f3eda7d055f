"""Download one URL to one file: counted and hashed on the way, resumed where the server can.

Never from https to http. A part is resumed only where a hash or a validator shows that it is the same file. One module,
because every step can end as an interruption, which the same record has to survive.
"""

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import Any

import httpx

from arcface_api import __version__
from arcface_api.errors import PackError, SettingInvalid
from arcface_api.outbound import proxy_for, tls_context
from arcface_api.packs.content import HEAD_BYTES, MAX_MODEL_BYTES, Measured, check_size, refuse_foreign
from arcface_api.packs.install import need_room
from arcface_api.progress import Progress

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
"""To wait for a connection; the longest silence in the middle of a download."""
ATTEMPTS, PAUSE_SECONDS = 10, 1.0
"""Attempts for one URL, each of which resumes where the last one broke off, and the pause between two."""
_MAX_REDIRECTS = 10
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_UNREACHABLE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL, httpx.ProxyError, httpx.UnsupportedProtocol)
NEXT_SOURCE = "The next source is tried."
_log = logging.getLogger("arcface_api.packs")


@dataclass(frozen=True)
class Wanted:
    """What to download, and what is known about it."""

    url: str
    part: Path
    """The file to write. Named after what is in it, so that a later run, or another mirror, can resume it."""
    size_bytes: int | None
    sha256: str | None
    is_archive: bool
    """Its size and hash then only show whether resuming went well: the files inside are what is verified."""
    room_bytes: int
    """Room needed beside the download, for unpacking it."""

    @property
    def notes(self) -> Path:
        """The file with what the server said of the part."""
        return self.part.with_name(self.part.name + ".json")


class _Interrupted(Exception):
    """The connection broke in the middle."""


class _StartAgain(Exception):
    """What is on disk cannot be continued."""


@dataclass
class _Transport(httpx.BaseTransport):
    """Sends each request by the proxy for its URL."""

    _by_proxy: dict[object, httpx.HTTPTransport] = field(default_factory=dict)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy, is_tls = proxy_for(request.url), request.url.scheme == "https"
        key = (proxy and proxy.url, is_tls)
        if key not in self._by_proxy:
            self._by_proxy[key] = httpx.HTTPTransport(verify=tls_context(request.url), proxy=proxy)
        return self._by_proxy[key].handle_request(request)

    def close(self) -> None:
        for transport in self._by_proxy.values():
            transport.close()


def http_client() -> httpx.Client:
    """A client for `fetch`; honours the usual proxy and certificate variables."""
    return httpx.Client(
        transport=_Transport(),
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        headers={"User-Agent": f"arcface-api/{__version__}", "Accept-Encoding": "identity"},
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        event_hooks={"response": [_refuse_downgrade]},
    )


def _refuse_downgrade(response: httpx.Response) -> None:
    url = response.url
    if response.has_redirect_location and url.scheme == "https" != url.join(response.headers["Location"]).scheme:
        raise _failure(str(url), "redirects from https to http, where anyone could change the file; that is refused")


def fetch(client: httpx.Client, wanted: Wanted, progress: Progress) -> Measured:
    """Download a URL to `wanted.part`, resuming what is there, and measure the whole file.

    Raises:
        PackError: The server refuses, is silent, redirects from https to http, breaks off again and again, or sends
            other bytes than the manifest states.
        StorageFull: There is no room for what it announces.
    """
    reason = "it kept changing"
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        before = _size(wanted.part)
        try:
            return _attempt(client, wanted, progress)
        except _StartAgain as again:
            _log.info("%s: starting again from the beginning: %s.", shown(wanted.url), again)
            _discard(wanted)
            continue
        except (*_UNREACHABLE, SettingInvalid) as error:
            raise _failure(
                wanted.url, f"cannot be reached: {str(error).rstrip('.') or type(error).__name__}"
            ) from error
        except httpx.TooManyRedirects as error:
            raise _failure(wanted.url, f"redirects more than {_MAX_REDIRECTS} times") from error
        except httpx.TimeoutException:
            reason = "it was silent for too long"
        except httpx.HTTPError as error:
            reason = f"the connection broke: {error}"
        except _Interrupted as interrupted:
            reason = str(interrupted)
        if _size(wanted.part) <= before:
            break
        _log.info("%s: %s; resuming.", shown(wanted.url), reason)
    raise _failure(wanted.url, f"broke off: {reason}")


def reach(url: str, seconds: float) -> datetime | None:
    """Ask a source for one byte, and return the time by its clock, if it states it.

    Raises PackError if it does not answer within that many seconds, or has not what is asked for.
    """
    try:
        with (
            http_client() as client,
            client.stream("GET", url, headers={"Range": "bytes=0-0"}, timeout=seconds) as response,
        ):
            status, stated = response.status_code, response.headers.get("Date", "")
            if status not in (200, 206):
                raise _failure(url, f"answered {status} {response.reason_phrase}".rstrip())
    except (httpx.HTTPError, httpx.InvalidURL, SettingInvalid) as error:
        why = f"no answer within {seconds:g} s" if isinstance(error, httpx.TimeoutException) else str(error).rstrip(".")
        raise _failure(url, f"cannot be reached: {why or type(error).__name__}") from error
    with suppress(ValueError):
        return parsedate_to_datetime(stated)
    return None


def shown(url: str) -> str:
    """A URL for messages, without credentials and query."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(username=None, password=None, query=None, fragment=None)) if parsed.host else url


def _attempt(client: httpx.Client, wanted: Wanted, progress: Progress) -> Measured:
    digest, start = _resume_from(wanted)
    if start and digest.hexdigest() == wanted.sha256:
        return Measured(start, digest.hexdigest())
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and (same := _validator(wanted)) is not None:
        headers["If-Range"] = same
    url = httpx.URL(wanted.url)
    step = f"Downloading {url.path.rpartition('/')[2]} from {url.host}"
    with client.stream("GET", url, headers=headers) as response:
        # asked for more than there is: an earlier run was killed after its last byte
        if start and response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{start}":
            return _finish(wanted, digest, start, is_resumed=True)
        start = _accepted_start(response, start, wanted)
        digest = digest if start else hashlib.sha256()
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        chunks = response.iter_raw()
        head = b""
        while len(head) < HEAD_BYTES and (chunk := next(chunks, None)) is not None:
            head += chunk
        # looked at before the announced size: "is a web page" says more than "has 812 bytes"
        if start == 0:
            refuse_foreign(head, shown(wanted.url))
        limit = _limit(wanted, total)
        coming = (total or wanted.size_bytes or start) - start
        need_room(wanted.part.parent, coming + wanted.room_bytes, "The download")
        if start == 0:
            # never an old part beside new notes: killed here, a later run would join two files
            _discard(wanted)
        _note(wanted, response.headers)
        size = start
        with wanted.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            for chunk in chain([head], chunks):
                size += len(chunk)
                if size > limit:
                    raise _failure(wanted.url, f"sends more than the {limit} bytes it should")
                file.write(chunk)
                digest.update(chunk)
                progress(step, size, total or wanted.size_bytes)
    expected = total if wanted.is_archive else wanted.size_bytes
    if expected is not None and size < expected:
        raise _Interrupted(f"it ended after {size} of {expected} bytes")
    return _finish(wanted, digest, size, is_resumed=start > 0)


def _finish(wanted: Wanted, digest: Any, size: int, *, is_resumed: bool) -> Measured:
    found = Measured(size, digest.hexdigest())
    if wanted.sha256 is None or found.sha256 == wanted.sha256:
        return found
    if is_resumed:
        raise _StartAgain("the resumed download has the wrong SHA-256")
    if wanted.is_archive:
        _log.info("%s is not the expected archive (SHA-256 %s); its files decide.", shown(wanted.url), found.sha256)
        return found
    _discard(wanted)
    raise _failure(wanted.url, f"sends another file: its SHA-256 is {found.sha256}, it must be {wanted.sha256}")


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
        raise _failure(wanted.url, f"answered {status} {response.reason_phrase}".rstrip())
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _failure(wanted.url, "sends the file in a content encoding that was not asked for")
    return 0


def _limit(wanted: Wanted, total: int | None) -> int:
    """The most bytes to take; a wrong size is refused before it is downloaded."""
    if wanted.is_archive or wanted.size_bytes is None:
        if total is not None and total > MAX_MODEL_BYTES:
            raise _failure(wanted.url, f"announces {total} bytes; more than 2 GiB are not taken")
        return MAX_MODEL_BYTES if total is None else total
    if total is not None:
        check_size(wanted.size_bytes, total, shown(wanted.url), NEXT_SOURCE)
    return wanted.size_bytes


def _failure(url: str, what: str) -> PackError:
    return PackError(f"{shown(url)} {what}.")


def _resume_from(wanted: Wanted) -> tuple[Any, int]:
    """Hash state and size of what an earlier run left; of nothing, where nothing shows that it is the same file."""
    is_known = wanted.sha256 is not None or _validator(wanted) is not None
    if is_known and wanted.part.is_file():
        with wanted.part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            size = file.tell()
        if wanted.is_archive or wanted.size_bytes is None or size <= wanted.size_bytes:
            return digest, size
    return hashlib.sha256(), 0


def _note(wanted: Wanted, headers: Mapping[str, str]) -> None:
    """Keep what shows whether a later answer is the same file; needed where no hash is known."""
    validators = {"etag": headers.get("ETag"), "last_modified": headers.get("Last-Modified")}
    wanted.notes.write_text(json.dumps({"url": wanted.url, **validators}), encoding="utf-8")


def _validator(wanted: Wanted) -> str | None:
    """The value for If-Range: a strong ETag of this URL, else its Last-Modified."""
    try:
        noted = json.loads(wanted.notes.read_text(encoding="utf-8"))
        etag, modified, is_this = noted["etag"], noted["last_modified"], noted["url"] == wanted.url
        best = etag if etag and not etag.startswith("W/") else modified
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return best if is_this and isinstance(best, str) else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _discard(wanted: Wanted) -> None:
    wanted.part.unlink(missing_ok=True)
    wanted.notes.unlink(missing_ok=True)
