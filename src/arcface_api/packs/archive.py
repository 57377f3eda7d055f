"""Zip archives, not trusted: names, sizes and packing ratios are checked, and bytes are counted, not believed."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from arcface_api.errors import PackError
from arcface_api.packs.content import HEAD_BYTES, MAX_MODEL_BYTES, Measured, copy, open_regular, reading, refuse_foreign
from arcface_api.packs.install import need_room
from arcface_api.progress import Progress, no_progress

_RATIO_MATTERS_FROM = 64 << 20
_MAX_RATIO = 100
"""Trained weights hardly shrink at all; zip bombs shrink a thousandfold."""


@contextmanager
def opened(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """A zip archive in which no member's name points out of the folder; `what` is its name or URL, for messages."""
    with reading(path):
        with open_regular(path) as file:
            refuse_foreign(file.read(HEAD_BYTES), what)
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise _incomplete(what, str(error)) from error
    with archive:
        for member in archive.infolist():
            if member.header_offset < 0:
                raise _incomplete(what, f"its member {member.orig_filename!r} would begin before the archive does")
            inside = PurePosixPath(member.orig_filename.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts or (inside.parts and inside.parts[0].endswith(":")):
                raise PackError(
                    f"{what} was not unpacked: its member {member.orig_filename!r} would land outside the pack's"
                    " folder. An archive of models never needs that; get it from its original source."
                )
        yield archive


def models(archive: zipfile.ZipFile, what: str) -> list[zipfile.ZipInfo]:
    """The members that may be models; not the shadow copies that macOS adds. `what` as in `opened`.

    Raises PackError if all of them together are packed as only a zip bomb is: members can share their bytes.
    """
    found = [
        member
        for member in archive.infolist()
        if (path := PurePosixPath(member.filename)).suffix.lower() == ".onnx"
        and not path.name.startswith(".")
        and "__MACOSX" not in path.parts
    ]
    packed, size = Path(archive.filename or "").stat().st_size, sum(member.file_size for member in found)
    if len(found) > 1 and size > _RATIO_MATTERS_FROM and size > _MAX_RATIO * packed:  # a single one: see `unpack`
        raise _too_large(what, f"{packed} packed bytes announce {len(found)} models of {size} bytes together")
    return found


def unpack(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    target: Path,
    what: str,
    *,
    limit_bytes: int | None = None,
    progress: Progress = no_progress,
) -> Measured:
    """Write one member of an archive from `opened` to a file, counting and hashing what really comes out.

    Raises:
        PackError: It has more than `limit_bytes` (None: than a model can have), is packed as only a zip bomb is or by
            another method than deflate, is damaged, or is no model.
        StorageFull: There is no room for it.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # the others are not unpacked in pieces: a kilobyte of them can become gigabytes of memory at once
        raise PackError(
            f"{member.filename} in {what} is packed by zip's method {member.compress_type}. Only 0 (stored) and 8"
            " (deflated) are supported: pack it again, or unpack it yourself and import the folder."
        )
    name, limit, packed = f"{member.filename} in {what}", limit_bytes or MAX_MODEL_BYTES, max(member.compress_size, 1)
    if member.file_size > limit:
        raise _too_large(name, f"it announces {member.file_size} bytes, {limit} are allowed")
    need_room(target.parent, member.file_size, f"Unpacking {member.filename}")

    def admit(size: int) -> None:
        if size > limit:
            raise _too_large(name, f"it has more than the {limit} bytes allowed")
        if size > _RATIO_MATTERS_FROM and size > _MAX_RATIO * packed:
            raise _too_large(name, f"{packed} packed bytes became more than {size}")
        progress(f"Unpacking {member.filename}", size, member.file_size)

    try:
        with archive.open(member) as source:
            return copy(source, target, name, admit)
    # ValueError: a name that is not the UTF-8 that it is said to be
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        target.unlink(missing_ok=True)
        raise PackError(
            f"{name} cannot be unpacked ({error}). Download the archive again, or unpack it yourself and import the"
            " folder."
        ) from error
    except PackError:
        target.unlink(missing_ok=True)
        raise


def _incomplete(what: str, why: str) -> PackError:
    return PackError(
        f"{what} is not a complete zip archive ({why}). Only zip is supported: download it again completely, or unpack"
        " it yourself and import the folder."
    )


def _too_large(name: str, why: str) -> PackError:
    return PackError(
        f"{name} was not unpacked, it looks like a zip bomb: {why}. Get the archive from its original source, or"
        " unpack it yourself and import the `.onnx` files."
    )
