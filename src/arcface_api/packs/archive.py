"""Zip archives, not trusted: names, sizes and packing ratios are checked, and bytes are counted, not believed."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from arcface_api.errors import ArchiveDamaged, ArchiveEscapes, ArchiveTooLarge
from arcface_api.packs.content import CHUNK_BYTES, HEAD_BYTES, MAX_MODEL_BYTES, Measured, reading, refuse_foreign

_RATIO_MATTERS_FROM = 64 << 20
_MAX_RATIO = 100
"""Trained weights hardly shrink at all; zip bombs shrink a thousandfold."""


@contextmanager
def opened(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """An archive whose names have been checked.

    Args:
        path: The file.
        what: Its name or URL, for messages.

    Raises:
        ArchiveDamaged: Not a zip archive, incomplete, or packed in a way that cannot be read.
        ArchiveEscapes: A member's name points out of the folder.
        ModelIsHtml, ModelIsLfsPointer: It is that instead.
        ModelUnreadable: The file cannot be read.
    """
    with reading(path):
        with path.open("rb") as file:
            refuse_foreign(file.read(HEAD_BYTES), what)
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise ArchiveDamaged(
                f"{what} is not a zip archive, or only a part of one ({error}). Only zip is read: download it again"
                " completely, or unpack it yourself and import the folder."
            ) from error
    with archive:
        for member in archive.infolist():
            _refuse_escape(member, what)
        yield archive


def models(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members that may be models; not the shadow copies that macOS adds."""
    return [
        member
        for member in archive.infolist()
        if PurePosixPath(member.filename).suffix.lower() == ".onnx"
        and not PurePosixPath(member.filename).name.startswith(".")
        and "__MACOSX" not in PurePosixPath(member.filename).parts
    ]


def unpack(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, *, limit_bytes: int = MAX_MODEL_BYTES, what: str
) -> Measured:
    """Write one member to a file, counting and hashing what really comes out.

    Args:
        archive: An archive from `opened`.
        member: One of its members.
        target: The file to write; deleted again when the member is refused.
        limit_bytes: What it may have at most.
        what: The archive's name or URL, for messages.

    Raises:
        ArchiveTooLarge: More than `limit_bytes`, or packed as only a zip bomb is.
        ArchiveDamaged: Its checksum is wrong, or it is packed in a way that cannot be read.
        OSError: The target cannot be written.
    """
    name = f"{member.filename} in {what}"
    if member.file_size > limit_bytes:
        raise _too_large(name, f"it announces {member.file_size} bytes, {limit_bytes} are allowed")
    try:
        # the source is opened first: a member that cannot be opened leaves no file
        with archive.open(member) as source, target.open("wb") as file:
            return _copy(source, file, limit_bytes, max(member.compress_size, 1), name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        target.unlink(missing_ok=True)
        raise ArchiveDamaged(
            f"{name} cannot be unpacked ({error}). Download the archive again, or unpack it yourself and import the"
            " folder."
        ) from error
    except ArchiveTooLarge:
        target.unlink(missing_ok=True)
        raise


def _copy(source: IO[bytes], file: IO[bytes], limit_bytes: int, packed_bytes: int, name: str) -> Measured:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(name, f"it has more than the {limit_bytes} bytes allowed")
        if size > _RATIO_MATTERS_FROM and size > _MAX_RATIO * packed_bytes:
            raise _too_large(name, f"{packed_bytes} packed bytes became more than {size}")
        digest.update(chunk)
        file.write(chunk)
    return Measured(size, digest.hexdigest())


def _too_large(name: str, why: str) -> ArchiveTooLarge:
    return ArchiveTooLarge(
        f"{name} was not unpacked, it looks like a zip bomb: {why}. Get the archive from its original source, or"
        " unpack it yourself and import the `.onnx` files."
    )


def _refuse_escape(member: zipfile.ZipInfo, what: str) -> None:
    path = PurePosixPath(member.orig_filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise ArchiveEscapes(
            f"{what} was not unpacked: its member {member.orig_filename!r} would land outside the pack's folder. No"
            " honest archive of models has that; get it from its original source."
        )
