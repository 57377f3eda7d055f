"""Paths and URLs alike: what sources are read from, and outputs are written to. pyarrow has the file systems.

"s3://bucket/a%20b/?region=eu-west-1" ──located──▶ S3FileSystem, "bucket/a b/"
"""

import io
import os
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from arcface_api.errors import BulkError

BUFFER_BYTES = 1024 * 1024


def is_url(place: str) -> bool:
    """Whether a place is written as a URL."""
    return "://" in place


def without_query(url: str) -> str:
    """A URL without what configures the access, as it is shown and stored."""
    return url.partition("?")[0]


def located(url: str) -> tuple[Any, str]:
    """Pyarrow's file system, and the path in it; raises BulkError if pyarrow does not know such URLs."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    host, _, path = rest.partition("/")
    if ":" in host.rpartition("@")[0]:
        raise BulkError(
            f"A key stands in a URL of {host.rpartition('@')[2]}. URLs are stored with the output: leave it out, and"
            " set it where the store's own tools read it, for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    files, root = _root(scheme, host, query)
    return files, root + unquote(path)


@cache
def _root(scheme: str, host: str, query: str) -> tuple[Any, str]:
    """One for all paths: opening a file system can take a request of its own."""
    try:
        files, path = fs.FileSystem.from_uri(f"{scheme}://{host}/x" + (f"?{query}" if query else ""))
    except (pa.ArrowInvalid, OSError) as error:
        raise BulkError(
            f"{scheme}://{host} cannot be reached: {reason_of(error)}. URLs begin with s3://, gs://, abfs:// or"
            " file:///; keys come from where the store's own tools read them, for example AWS_ACCESS_KEY_ID."
        ) from None
    return files, path.removesuffix("x")


def local_path(place: str) -> Path | None:
    """The path of a file on this machine; None for a URL of another."""
    if not is_url(place):
        return Path(place)
    return Path(located(place)[1]) if place.startswith("file://") else None


def arrow_file(place: str | Path) -> Any:
    """A file to read, for pyarrow, which takes no paths that are not UTF-8; raises OSError."""
    if isinstance(place, str) and is_url(place):
        files, path = located(place)
        return files.open_input_file(path)
    return pa.OSFile(os.fsencode(place))


def open_binary(place: str) -> io.BufferedReader:
    """A file that can seek, at a path or a URL; raises OSError."""
    if not is_url(place):
        return open(place, "rb")  # noqa: PTH123  # as the user wrote it
    files, path = located(place)
    return buffered(files.open_input_file(path))


def buffered(file: Any) -> io.BufferedReader:
    """Pyarrow's file as one of Python's, whose lines are read quickly."""
    return io.BufferedReader(file, BUFFER_BYTES)


def stamp(place: str) -> list[int]:
    """Size and time of change of a file, which differ if it is another one; raises OSError."""
    if not is_url(place):
        found = os.stat(place)  # noqa: PTH116
        return [found.st_size, found.st_mtime_ns]
    files, path = located(place)
    info = files.get_file_info(path)
    if info.type != fs.FileType.File:
        raise FileNotFoundError(2, "There is no such object", place)
    return [info.size, info.mtime_ns]


def reason_of(error: Exception) -> str:
    """The first line of an error, without the stop at its end."""
    return str(error).partition("\n")[0].rstrip(": .") or type(error).__name__
