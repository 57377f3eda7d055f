"""The listing of a job: every input in its order, in a file that is written once and read again when a job continues.

A line is the JSON of a `Holder`, as an object, or of an `Entry`, as a list without trailing nulls.

Tables and archives are pinned by size and time of change: the same place in another version holds another picture.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, NamedTuple

from arcface_api.bulk.places import stamp
from arcface_api.bulk.reading import OPEN, Fetch, Fetched, InputUnreadable, fail
from arcface_api.bulk.sources import BrokenOff, Columns, Entry, Holder, Source, entries
from arcface_api.errors import ArcFaceError, BulkError
from arcface_api.progress import Progress


def _utf8(text: str) -> bytes:
    """The bytes of a path, as the file system has them, or of any text."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # JSON can escape what is no character
        return text.encode("utf-8", "backslashreplace")


def _shown(text: str) -> str:
    """Text that can be written: what is not UTF-8 is escaped."""
    return _utf8(text).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Shard:
    """The share of one of several jobs that run on the same sources: `number` of `count`, from 1."""

    number: int = 1
    count: int = 1

    def has(self, identity: str) -> bool:
        """Decided by a hash of the id, so that every job agrees, even if the sources grow between their starts."""
        digest = hashlib.blake2b(_utf8(identity), digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.number - 1


@dataclass(frozen=True)
class Input:
    """One picture."""

    id: str
    landmarks: Any
    """As `embedder.Picture` takes them."""
    read: Callable[[], bytes]
    """Its file's bytes; raises ArcFaceError. May be called on any thread, once."""
    held_bytes: int
    """Of them, those that are in memory already."""


@dataclass(frozen=True)
class Listed:
    """What a listing holds."""

    inputs: int
    ignored: int
    """Files in folders and archives whose names are not those of pictures."""
    broken: tuple[str, ...]
    """Sources that could not be listed to their end."""


def write_listing(
    writing: AbstractContextManager[IO[bytes]],
    sources: Sequence[Source],
    columns: Columns,
    shard: Shard,
    progress: Progress,
) -> Listed:
    """List the sources' pictures into a file, which appears when it is complete.

    Raises BulkError if a source cannot be read, or there is no picture.
    """
    inputs = ignored = 0
    broken: list[str] = []
    with writing as file:
        for source in sources:
            for found in entries(source, columns):
                if isinstance(found, BrokenOff):
                    broken.append(_shown(found.id))
                if found is None:
                    ignored += 1
                elif isinstance(found, Holder):
                    line = json.dumps({**found._asdict(), "stamp": _stamp(found)})
                    file.write(f"{line}\n".encode())
                elif shard.has(found.id):
                    values = list(found)
                    while values[-1] is None:
                        values.pop()
                    file.write(f"{json.dumps(values)}\n".encode())
                    inputs += 1
                    if inputs % 10_000 == 0:
                        progress(f"listing: {inputs:,} pictures", 0.0, None)
        if not inputs and shard.count == 1:
            names = ", ".join(source.shown for source in sources)
            raise BulkError(
                f"There is no picture in {names}"
                + (f"; {ignored:,} files have names of other kinds" if ignored else "")
                + ". Pictures end in .jpg, .jpeg, .png or .webp; files with other names can be listed in a table or on"
                " standard input."
            )
    return Listed(inputs, ignored, tuple(broken))


def read_listing(lines: Iterable[bytes], is_wanted: Callable[[int], bool], max_bytes: int) -> Iterator[Input]:
    """The inputs whose places are wanted, in order.

    `Input.read` refuses files of more than `max_bytes`. Raises BulkError if a table or archive has changed.
    """
    fetch: Fetch | None = None
    holder: Holder | None = None
    index = 0
    for line in lines:
        parsed = json.loads(line)
        if isinstance(parsed, dict):
            stored = parsed.pop("stamp")
            holder, fetch = Holder(**parsed), None
            continue
        if is_wanted(index) and holder is not None:
            entry = Entry(*parsed)
            if fetch is None:
                _check(holder, stored)
                fetch = OPEN[holder.kind](holder, max_bytes)
            fetched = Fetched(partial(fail, _shown(entry.error))) if entry.error else _fetched(fetch, entry)
            yield Input(_shown(entry.id), entry.landmarks, partial(_guarded, fetched.read), fetched.held_bytes)
        index += 1


class Slice(NamedTuple):
    """The lines of a listing that have the inputs of one part."""

    number: int
    inputs: int
    holder: bytes
    """The line of the holder that the first of them is in; it stands before the lines."""
    begin: int
    end: int
    """Bytes of the listing."""


def slices(lines: Iterable[bytes], part_rows: int) -> Iterator[Slice]:
    """Where in a listing each part is."""
    at = begin = inputs = number = 0
    first = holder = b""
    for line in lines:
        if line.startswith(b"{"):
            holder = line
        else:
            if inputs == part_rows:
                yield Slice(number, inputs, first, begin, at)
                number, inputs = number + 1, 0
            if inputs == 0:
                begin, first = at, holder
            inputs += 1
        at += len(line)
    if inputs:
        yield Slice(number, inputs, first, begin, at)


def _fetched(fetch: Fetch, entry: Entry) -> Fetched:
    try:
        return fetch(entry)
    except Exception as error:  # noqa: BLE001  # of a stream that is damaged: costs the entry only
        return Fetched(partial(fail, _reason(error)))


def _guarded(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except BulkError as error:  # of a URL
        raise InputUnreadable(str(error)) from None
    except ArcFaceError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a damaged archive raises costs its own picture only
        raise InputUnreadable(_reason(error)) from None


def _reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
    return f"It cannot be read: {_shown(reason) or type(error).__name__}."


def _stamp(holder: Holder) -> list[int] | None:
    if holder.kind == "files":
        return None
    return stamp(holder.path)


def _check(holder: Holder, stored: list[int] | None) -> None:
    try:
        changed = _stamp(holder) != stored
    except OSError as error:
        raise BulkError(
            f"{holder.path} cannot be read any more: {error.strerror or error}. Restore it and start the same command"
            " again."
        ) from None
    if changed:
        raise BulkError(
            f"{holder.path} has changed since the job listed it, so its pictures cannot be found in it. Restore it and"
            " start the same command again, or begin again with --restart."
        )
