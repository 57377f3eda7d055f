"""Where the bytes of a picture are → the bytes: files, members of archives, rows of tables.

Streams (a compressed .tar, a Parquet column) are read in order on the caller's thread; everything else is read
later, on any thread.
"""

import os
import stat
import tarfile
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import IO, Any, NamedTuple, TypeAlias

from pyarrow import parquet

from arcface_api.bulk.places import arrow_file, is_url, located, open_binary
from arcface_api.bulk.sources import Entry, Holder
from arcface_api.errors import ArcFaceError, BodyTooLarge

ENCRYPTED = 0x1
"""Bit of a .zip member's flags (APPNOTE.TXT section 4.4.4)."""
BATCH_ROWS = 16
"""Rows of picture files that are taken out of a Parquet file at once."""


class InputUnreadable(ArcFaceError, code="input_unreadable"):
    """The picture's file, member or row cannot be read."""


class Fetched(NamedTuple):
    """How to get a picture's bytes."""

    read: Callable[[], bytes]
    """May be called on any thread, once."""
    held_bytes: int = 0
    """Of them, those that are in memory already."""


Fetch: TypeAlias = Callable[[Entry], Fetched]
"""Called on one thread, in the listing's order."""


def fail(reason: str) -> bytes:
    """Raises InputUnreadable."""
    raise InputUnreadable(reason)


def _within(size: int, max_bytes: int) -> bytes:
    """Nothing, if a picture of this size is allowed; raises BodyTooLarge if not."""
    if size > max_bytes:
        raise BodyTooLarge(
            f"The picture has {size:,} bytes; at most {max_bytes:,} are allowed. Send a smaller file, or raise"
            " --max-image-bytes."
        )
    return b""


def _openable(place: str) -> str | IO[bytes]:
    """A path as it is, whose file libraries open and close themselves; a URL's file."""
    return open_binary(place) if is_url(place) else place


def _open_files(holder: Holder, max_bytes: int) -> Fetch:
    def read(place: str) -> bytes:
        if is_url(place) or is_url(holder.path):
            files, path = located(place if is_url(place) else holder.path)
            if not is_url(place):
                path = f"{path.rstrip('/')}/{place}"
            with files.open_input_file(path) as opened:
                _within(opened.size(), max_bytes)
                return bytes(opened.read())
        path = os.path.join(holder.path, place)  # noqa: PTH118
        found = os.stat(path)  # noqa: PTH116  # no Path for each of a million
        if not stat.S_ISREG(found.st_mode):  # a named pipe would block for ever
            raise InputUnreadable("It is no file.")
        _within(found.st_size, max_bytes)
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()

    return lambda entry: Fetched(partial(read, entry.place or entry.id))


def _open_tar(holder: Holder, max_bytes: int) -> Fetch:
    def read(offset: int, size: int) -> bytes:
        _within(size, max_bytes)
        if is_url(holder.path):
            files, path = located(holder.path)
            with files.open_input_file(path) as archive:
                content = bytes(archive.read_at(size, offset))
        else:
            with open(holder.path, "rb", buffering=0) as file:  # noqa: PTH123
                content = os.pread(file.fileno(), size, offset)
        if len(content) < size:
            raise EOFError("the archive ends within it")
        return content

    return lambda entry: Fetched(partial(read, *entry.place))


def _open_tar_stream(holder: Holder, max_bytes: int) -> Fetch:
    """A compressed archive is read on the caller's thread: once, and again from its beginning for each hard link."""
    found = _openable(holder.path)
    archive = tarfile.open(found) if isinstance(found, str) else tarfile.open(fileobj=found)  # noqa: SIM115  # closed when the last of its pictures is fetched
    stream: Any = archive.fileobj

    def fetch(entry: Entry) -> Fetched:
        offset, size = entry.place
        if size > max_bytes:
            return Fetched(partial(_within, size, max_bytes))
        stream.seek(offset)
        content = stream.read(size)
        if len(content) < size:
            raise EOFError("the archive ends within it")
        return Fetched(partial(bytes, content), size)

    return fetch


def _open_zip(holder: Holder, max_bytes: int) -> Fetch:
    archive = zipfile.ZipFile(_openable(holder.path))  # closes itself when the last of its pictures is read
    members = archive.infolist()

    def read(number: int) -> bytes:
        _within(members[number].file_size, max_bytes)
        if members[number].flag_bits & ENCRYPTED:
            raise InputUnreadable("It is encrypted. Decrypt the archive first.")
        return archive.read(members[number])

    return lambda entry: Fetched(partial(read, entry.place))


def _open_parquet(holder: Holder, max_bytes: int) -> Fetch:
    """Rows are taken out one group after the other, on the caller's thread."""
    file = parquet.ParquetFile(arrow_file(holder.path), pre_buffer=False)
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    starts = [0, *accumulate(sizes)]
    group, begin, end = -1, 0, 0
    batches: Iterator[Any] = iter(())
    contents: Any = None

    def fetch(entry: Entry) -> Fetched:
        nonlocal group, begin, end, batches, contents
        row = entry.place
        if (its_group := bisect_right(starts, row) - 1) != group:
            group, end = its_group, starts[its_group]
            batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[holder.column])
        while row >= end:
            batch = next(batches)
            contents = batch.column(0).field("bytes") if batch.column(0).type.num_fields else batch.column(0)
            begin, end = end, end + len(batch)
        content = contents[row - begin]
        if not content.is_valid:
            return Fetched(partial(fail, "The row holds no picture."))
        if (size := len(content.as_buffer())) > max_bytes:
            return Fetched(partial(_within, size, max_bytes))
        return Fetched(content.as_py, size)

    return fetch


OPEN: dict[str, Callable[[Holder, int], Fetch]] = {
    "files": _open_files,
    "tar": _open_tar,
    "tar-stream": _open_tar_stream,
    "zip": _open_zip,
    "parquet": _open_parquet,
}
