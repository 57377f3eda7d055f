"""What SOURCES name: folders, globs, archives, tables, standard input.

    "crops/" "shards/*.tar" "faces.parquet" "-" ──resolve──▶ Source ──entries──▶ Entry, in a fixed order

An entry says where a picture is; `listing` stores it, and `reading` gets its bytes later. One module, because all
kinds of sources end in the same entries, and share one rule for what cannot be read.
"""

import codecs
import csv
import glob
import io
import json
import lzma
import os
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs, parquet

from arcface_api.bulk.places import arrow_file, is_url, located, open_binary, reason_of, without_query
from arcface_api.errors import BulkError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Of files that a folder or an archive has among others."""
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
TABLE_SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson")
USUAL_COLUMNS = ("image", "path", "file")
"""Tried where no column is named; a Parquet file of Hugging Face's `datasets` has `image`."""
STDIN = "-"
READ_BYTES = 1024 * 1024

UNREADABLE = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What reading a folder or an archive that is damaged or away raises."""


@dataclass(frozen=True)
class Columns:
    """The columns of tables; None: not named."""

    content: str | None = None
    """Paths, or in Parquet the bytes of picture files."""
    id: str | None = None
    landmarks: str | None = None


@dataclass(frozen=True)
class Source:
    """One thing that holds pictures."""

    kind: str
    """`folder`, `file`, `stdin`, `zip`, `tar`, `table`."""
    given: str
    """As the user wrote it or, of a glob, as it was found."""

    @property
    def path(self) -> str:
        """Absolute, or a URL; without meaning for `stdin`."""
        return self.given if is_url(self.given) else os.path.abspath(self.given)  # noqa: PTH100  # resolve() would follow links that may move

    @property
    def shown(self) -> str:
        """As it stands in ids and messages."""
        return without_query(self.given) if is_url(self.given) else self.given


class Entry(NamedTuple):
    """One picture, before it is read."""

    id: str
    place: Any = None
    """Where its holder has it: a path, the number of a member or row, offset and size. None: the id is the path."""
    landmarks: Any = None
    error: str | None = None
    """Why it cannot be read, if that is known already."""


class BrokenOff(Entry):
    """What stands in place of all that a source, or a folder in it, would have from here on."""


class Holder(NamedTuple):
    """What the entries that follow are read from."""

    kind: str
    """`files` (a folder that relative paths begin at), `zip`, `tar`, `tar-stream` (compressed), `parquet`."""
    path: str
    column: str | None = None


def resolve(sources: Sequence[str]) -> list[Source]:
    """The sources that arguments name, globs expanded; raises BulkError for one that does not exist."""
    found: list[Source] = []
    for given in sources:
        if given == STDIN:
            found.append(Source("stdin", given))
        elif is_url(given):
            found.append(Source(_kind_at(given), given))
        elif os.path.lexists(given):
            found.append(Source(_kind(given), given))
        else:
            matches = sorted(glob.iglob(given, recursive=True))  # noqa: PTH207  # may be absolute
            # As in a shell, folders may match; but ** finds what is in them.
            files = [path for path in matches if not ("**" in given and Path(path).is_dir())]
            if not files:
                raise BulkError(
                    f"{given} is neither a file nor a folder, and no file matches it as a pattern. Name folders,"
                    " picture files, .zip, .tar, .parquet, .csv or .jsonl files, patterns such as 'crops/**/*.jpg', or"
                    " - for a list of paths on standard input."
                )
            found += [Source(_kind(path), path) for path in files]
    paths = [source.path for source in found if source.kind != "stdin"] + [STDIN] * sources.count(STDIN)
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise BulkError(f"{twice} is named twice, and each of its pictures would have two rows. Name it once.")
    return found


def _kind_at(url: str) -> str:
    """Raises BulkError if nothing is there."""
    files, path = located(url)
    try:
        found = files.get_file_info(path.rstrip("/")).type
    except OSError as error:
        raise BulkError(f"{without_query(url)} cannot be reached: {reason_of(error)}.") from None
    if found == fs.FileType.NotFound:
        raise BulkError(
            f"There is nothing at {without_query(url)}. Name a folder, a picture file, an archive or a table; patterns"
            " are for files on this machine only."
        )
    return "folder" if found == fs.FileType.Directory else _kind_of(path)


def _kind(path: str) -> str:
    return "folder" if Path(path).is_dir() else _kind_of(path)


def _kind_of(path: str) -> str:
    lower = path.lower()
    if lower.endswith(".zip"):
        return "zip"
    if lower.endswith(TAR_SUFFIXES):
        return "tar"
    return "table" if lower.endswith(TABLE_SUFFIXES) else "file"


def entries(source: Source, columns: Columns) -> Iterator[Holder | Entry | None]:
    """Each picture of a source, behind its holder; None for a file that its name says is no picture.

    What breaks off in the middle ends with a `BrokenOff`. Raises BulkError if it cannot be read at all.
    """
    number = 0
    try:
        for number, found in enumerate(_read(source, columns)):  # noqa: B007  # used below
            yield found
    except (*UNREADABLE, pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        reason = str(error).partition("\n")[0].rstrip(": .") or type(error).__name__
        if number == 0:
            raise BulkError(
                f"{source.shown} cannot be read: {reason}. Make it readable, or leave it out of the sources."
            ) from None
        yield BrokenOff(source.shown, error=f"It cannot be read further: {reason}.")


def _read(source: Source, columns: Columns) -> Iterator[Holder | Entry | None]:
    here = Holder("files", str(Path.cwd()))
    match source.kind:
        case "file":
            return iter([here, Entry(source.shown, source.path)])
        case "stdin":
            return _stdin(here)
        case "folder":
            return _walk_url(source.given) if is_url(source.given) else _folder(source, here)
        case "zip":
            return _zip(source)
        case "tar":
            return _tar(source)
        case _:
            return _table(source, columns)


def _stdin(here: Holder) -> Iterator[Holder | Entry]:
    yield here
    for number, line in enumerate(sys.stdin.buffer):
        path = os.fsdecode(line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).rstrip("\r\n")
        if path.strip():
            yield Entry(path)


def _folder(source: Source, here: Holder) -> Iterator[Holder | Entry | None]:
    yield here
    yield from _walk(source.given)


def _walk_url(url: str) -> Iterator[Holder | Entry | None]:
    """As `_walk`, in object storage."""
    files, root = located(url)
    root = root.rstrip("/")
    yield Holder("files", url)

    def below(folder: str) -> Iterator[Entry | None]:
        for each in sorted(files.get_file_info(fs.FileSelector(folder)), key=lambda each: each.base_name):
            if each.base_name.startswith("."):
                continue
            if each.type == fs.FileType.Directory:
                yield from below(each.path)
            else:
                name = each.path.removeprefix(f"{root}/")
                yield Entry(f"{without_query(url).rstrip('/')}/{name}", name) if _is_picture(name) else None

    yield from below(root)


def _walk(folder: str) -> Iterator[Entry | None]:
    """The pictures below a folder by name, without hidden files and links to folders, which may lead in circles."""
    names: list[str] = []
    folders: set[str] = set()
    with os.scandir(folder) as found:
        for each in found:
            if each.name.startswith("."):
                continue
            names.append(each.name)
            if each.is_dir(follow_symlinks=False):
                folders.add(each.name)
    for name in sorted(names):
        path = os.path.join(folder, name)  # noqa: PTH118  # a million Path objects take seconds
        if name not in folders:
            yield Entry(path) if _is_picture(name) else None
            continue
        try:
            yield from _walk(path)
        except OSError as error:
            yield BrokenOff(path, error=f"The folder cannot be read: {error.strerror}.")


def _zip(source: Source) -> Iterator[Holder | Entry | None]:
    with open_binary(source.given) as file, zipfile.ZipFile(file) as archive:
        yield Holder("zip", source.path)
        for number, member in enumerate(archive.infolist()):
            if not member.is_dir():
                yield Entry(f"{source.shown}/{member.filename}", number) if _is_picture(member.filename) else None


def _tar(source: Source) -> Iterator[Holder | Entry | None]:
    for mode, kind in (("r:", "tar"), ("r:*", "tar-stream")):
        try:
            file = open_binary(source.given)
            archive = tarfile.open(None, mode, file)  # type: ignore[call-overload]  # either mode is a literal  # noqa: SIM115
        except tarfile.ReadError:
            file.close()
            if mode == "r:*":
                raise
            continue
        with file, archive:
            yield Holder(kind, source.path)
            # Of all files so far, once there is a hard link: until then, memory does not grow with the archive.
            places: dict[str, tuple[int, int]] | None = None
            for member in _members(archive):
                if member.isdir():
                    continue
                if member.islnk() and places is None:
                    places = _places(source.given, mode, member.offset)
                place = _place(member, places or {})
                if places is not None and place:
                    places[member.name] = place
                name = member.name.removeprefix("./")
                if not _is_picture(name):
                    yield None
                elif place:
                    yield Entry(f"{source.shown}/{name}", place)
                else:
                    yield Entry(f"{source.shown}/{name}", error=_why_no_file(member))
        return


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All members, also of archives behind the first one (`cat a.tar b.tar`); raises ReadError if one breaks off."""
    while True:
        while member := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # stubs lack it; it keeps every member, which grows with the archive
            yield member
        # next() returns None for a header that is damaged or cut off, too.
        stream: Any = archive.fileobj
        at = archive.offset
        stream.seek(at)
        if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"the archive is cut off or damaged at byte {at:,}")
        at += tarfile.BLOCKSIZE
        while zeros := stream.read(READ_BYTES):
            if content := zeros.lstrip(tarfile.NUL):
                at += (len(zeros) - len(content)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
                break
            at += len(zeros)
        else:
            return
        stream.seek(at)
        archive = tarfile.TarFile(fileobj=stream)


def _places(path: str, mode: str, end: int) -> dict[str, tuple[int, int]]:
    """Where the files before a byte of an archive are, by the members' names."""
    places: dict[str, tuple[int, int]] = {}
    with open_binary(path) as file, tarfile.open(None, mode, file) as archive:  # type: ignore[call-overload]  # a mode
        for member in _members(archive):
            if member.offset >= end:
                break
            if place := _place(member, places):
                places[member.name] = place
    return places


def _place(member: tarfile.TarInfo, places: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """Offset and size of a member's content; None if it has none of its own, or is stored with holes."""
    if member.islnk():
        return places.get(member.linkname)
    return (member.offset_data, member.size) if member.isreg() and not member.issparse() else None


def _why_no_file(member: tarfile.TarInfo) -> str:
    if member.islnk():
        return f"It is a link to {member.linkname}, which is not before it in the archive."
    if member.issym():
        return f"It is a symbolic link to {member.linkname}. Archive the files themselves: tar --dereference."
    return "It is stored with holes. Archive it without --sparse." if member.isreg() else "It is no file."


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not os.path.basename(name).startswith(".")  # noqa: PTH119


def _table(source: Source, columns: Columns) -> Iterator[Holder | Entry]:
    path, mark, query = source.path.partition("?") if is_url(source.path) else (source.path, "", "")
    folder = os.path.dirname(path) + mark + query  # noqa: PTH120
    if not source.shown.lower().endswith(".parquet"):
        yield Holder("files", folder)
        rows_of = _csv_rows if source.shown.lower().endswith(".csv") else _jsonl_rows
        with open_binary(source.given) as file:
            if file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise BulkError(f"{source.shown} is in UTF-16. Save it in UTF-8.")
            # Paths on Linux need not be UTF-8, and one that is not must not end the table.
            with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
                yield from rows_of(source, lines, columns)
        return
    with parquet.ParquetFile(arrow_file(source.given)) as file:
        schema = file.schema_arrow
        column = _content_column(source, columns, schema.names)
        kind = schema.field(column).type
        if pa.types.is_dictionary(kind):  # as pandas writes categories
            kind = kind.value_type if pa.types.is_string(kind.value_type) else kind
        nested = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0  # of Hugging Face's `datasets`
        has_bytes = nested or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if not (has_bytes or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise BulkError(
                f"{source.shown}: the column {column} has the type {kind}. Name one of paths (string) or of the bytes"
                " of picture files (binary)."
            )
        wanted = {name for name in (columns.id, columns.landmarks, None if has_bytes else column) if name}
        yield (
            Holder("parquet", source.path, f"{column}.bytes" if nested else column)
            if has_bytes
            else Holder("files", folder)
        )
        numbers = count()
        for batch in file.iter_batches(1024, columns=sorted(wanted)):
            rows: Iterable[dict[str, Any]] = batch.to_pylist() if wanted else ({} for _ in range(len(batch)))
            for row in rows:
                yield _row_entry(source, columns, row, next(numbers), None if has_bytes else column)


def _csv_rows(source: Source, lines: Iterable[str], columns: Columns) -> Iterator[Entry]:
    before = csv.field_size_limit(sys.maxsize)  # in place of 131,072 characters, for the whole process
    try:
        yield from _csv_rows_of_any_length(source, lines, columns)
    finally:
        csv.field_size_limit(before)


def _csv_rows_of_any_length(source: Source, lines: Iterable[str], columns: Columns) -> Iterator[Entry]:
    of_row: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines:
            of_row.append(line)
            yield line

    reader = csv.DictReader(noted())
    column = _content_column(source, columns, reader.fieldnames or [])
    last: list[str] = []
    for number, row in enumerate(reader):
        yield _row_entry(source, columns, row, number, column)
        last = of_row.copy()
        of_row.clear()
    if len(last) > 1:  # a quotation mark that is not closed takes all that follows into its field
        try:
            list(csv.reader(last, strict=True))
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise csv.Error(f"a quotation mark is open from line {reader.line_num - len(last) + 1} on") from None


def _jsonl_rows(source: Source, lines: Iterable[str], columns: Columns) -> Iterator[Entry]:
    column: str | None = None
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        row: Any = None
        with suppress(ValueError):
            row = json.loads(line)
        if isinstance(row, dict):
            column = column or _content_column(source, columns, list(row))
            yield _row_entry(source, columns, row, number, column)
        elif column is None:
            raise BulkError(f"{source.shown}: its first line is no JSON object. Correct it, or leave it out.")
        else:
            yield Entry(f"{source.shown}#{number}", error="The line is no JSON object.")


def _content_column(source: Source, columns: Columns, present: Sequence[str]) -> str:
    """The column of pictures; raises BulkError if that or another named column is not there."""
    for option, name in (
        ("column", columns.content),
        ("id-column", columns.id),
        ("landmarks-column", columns.landmarks),
    ):
        if name is not None and name not in present:
            raise BulkError(
                f"{source.shown} has no column {name}. It has {', '.join(present) or 'none'}: name one of them with"
                f" --{option}."
            )
    usual = [name for name in USUAL_COLUMNS if name in present]
    if columns.content is None and not usual:
        raise BulkError(
            f"{source.shown} has none of the columns {', '.join(USUAL_COLUMNS)}, but {', '.join(present) or 'none'}."
            " Name the one with paths or with picture files: --column NAME."
        )
    return columns.content or usual[0]


def _row_entry(source: Source, columns: Columns, row: dict[str, Any], number: int, path_column: str | None) -> Entry:
    """A row with the path of a picture, or (without `path_column`) one whose bytes are read later."""
    identity = row.get(columns.id) if columns.id else None
    landmarks = row.get(columns.landmarks) if columns.landmarks else None
    unnamed = f"{source.shown}#{number}"
    if isinstance(landmarks, str):
        try:
            landmarks = json.loads(landmarks)
        except ValueError:
            return Entry(unnamed if identity is None else str(identity), error="Its landmarks are not numbers in JSON.")
    if landmarks is not None:
        try:
            landmarks = json.loads(json.dumps(landmarks, default=float))  # as the listing stores them
        except (TypeError, ValueError):
            return Entry(unnamed if identity is None else str(identity), error="Its landmarks are not numbers.")
    if isinstance(landmarks, list) and len(landmarks) == 10:
        landmarks = [landmarks[at : at + 2] for at in range(0, 10, 2)]
    if path_column is None:
        return Entry(unnamed if identity is None else str(identity), number, landmarks)
    path = row.get(path_column)
    if not isinstance(path, str) or not path:
        return Entry(unnamed if identity is None else str(identity), error=f"Its column {path_column} holds no path.")
    return Entry(path, None, landmarks) if identity is None else Entry(str(identity), path, landmarks)
