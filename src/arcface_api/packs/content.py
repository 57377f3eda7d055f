"""The bytes of one file: what they really are, how many, and whether they are the ones a manifest states."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from arcface_api.errors import ModelHashWrong, ModelIsHtml, ModelIsLfsPointer, ModelTruncated, ModelUnreadable
from arcface_api.packs.manifest import ModelFile

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 512
MAX_MODEL_BYTES = 2 << 30
"""Protobuf, and so ONNX, ends at 2 GiB: whatever is larger is no model."""

_LFS_POINTER = b"version https://git-lfs"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Measured:
    """What was found when a file's bytes were all looked at."""

    size_bytes: int
    sha256: str


def refuse_foreign(head: bytes, what: str) -> None:
    """Refuse what is commonly found in the place of a model or an archive.

    Args:
        head: The first bytes, 512 are enough.
        what: The file or URL, for the message.

    Raises:
        ModelIsLfsPointer: A Git LFS pointer.
        ModelIsHtml: A web page (or an XML error document).
    """
    if head.startswith(_LFS_POINTER):
        raise ModelIsLfsPointer(
            f"{what} is a Git LFS pointer, a text of about 130 bytes that stands for a model, not the model itself."
            " Run `git lfs pull` where it came from, or get the pack with `arcface-api packs pull`."
        )
    # neither protobuf nor zip can begin with "<"
    if head.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"<"):
        raise ModelIsHtml(
            f"{what} is a web page, not a model or an archive; a login or error page was probably saved under its"
            " name. Download it again and look at the file before you import it."
        )


def check(file: ModelFile, found: Measured, what: str, remedy: str) -> None:
    """Refuse bytes that are not those of a pinned file; a file whose size or hash is unknown passes that part.

    Raises:
        ModelTruncated: Too few bytes.
        ModelHashWrong: Too many bytes, or others.
    """
    check_size(file.size_bytes, found.size_bytes, what, remedy)
    if file.sha256 is not None and found.sha256 != file.sha256:
        raise ModelHashWrong(
            f"{what} is not the registered {file.name}: its SHA-256 is {found.sha256}, it must be {file.sha256}."
            f" {remedy}"
        )


def check_size(expected: int | None, found: int, what: str, remedy: str) -> None:
    """Refuse a file by its size alone.

    Raises:
        ModelTruncated: Too few bytes.
        ModelHashWrong: Too many.
    """
    if expected is None or found == expected:
        return
    if found < expected:
        raise ModelTruncated(f"{what} is cut short: it has {found} bytes, it must have {expected}. {remedy}")
    raise ModelHashWrong(f"{what} is another file: it has {found} bytes, it must have {expected}. {remedy}")


def measure(path: Path) -> Measured:
    """Size and SHA-256 of a file, read in pieces.

    Raises:
        ModelUnreadable: It cannot be read.
        ModelIsLfsPointer: It is a Git LFS pointer.
        ModelIsHtml: It is a web page.
    """
    digest, size = hashlib.sha256(), 0
    with reading(path), path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            if size == 0:
                refuse_foreign(chunk[:HEAD_BYTES], str(path))
            digest.update(chunk)
            size += len(chunk)
    return Measured(size, digest.hexdigest())


def read_whole(path: Path, expected_bytes: int | None, remedy: str) -> bytes:
    """All bytes of a file in one reading, so that what is checked is what is used.

    Raises:
        ModelUnreadable: It cannot be read, is no regular file, or is larger than a model can be.
        ModelIsLfsPointer: It is a Git LFS pointer.
        ModelIsHtml: It is a web page.
        ModelTruncated: It has fewer bytes than expected.
        ModelHashWrong: It has more.
    """
    limit = MAX_MODEL_BYTES if expected_bytes is None else expected_bytes
    with reading(path):
        # a named pipe would block for ever
        if not path.is_file():
            raise ModelUnreadable(f"{path} is not a regular file. Name the `.onnx` file itself.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, limit) + 1)
    refuse_foreign(content[:HEAD_BYTES], str(path))
    if expected_bytes is None and len(content) > limit:
        raise ModelUnreadable(f"{path} is larger than 2 GiB, which no ONNX file can be. Name the `.onnx` file itself.")
    check_size(expected_bytes, max(size, len(content)) if len(content) > limit else len(content), str(path), remedy)
    return content


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say what can be done when a file cannot be read.

    Raises:
        ModelUnreadable: Instead of any `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise ModelUnreadable(
            f"{path} cannot be read: {error.strerror or error}. The user that runs arcface-api needs read permission."
        ) from error
