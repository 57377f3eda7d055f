"""The bytes of one file: what they really are, how many, and whether they are the ones a manifest states.

What is refused or cannot be read raises a `PackError`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

from arcface_api.errors import PackError
from arcface_api.packs.manifest import ModelFile

HEAD_BYTES = 512
MAX_MODEL_BYTES = 2 << 30
"""Protobuf, and so ONNX, ends at 2 GiB: a larger file is no model."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Measured:
    """Size and SHA-256 of a file whose bytes were all read."""

    size_bytes: int
    sha256: str


def refuse_foreign(head: bytes, what: str) -> None:
    """Refuse a Git LFS pointer and a web page (or an XML error document), by the first `HEAD_BYTES`."""
    if head.startswith(b"version https://git-lfs"):
        raise PackError(
            f"{what} is a Git LFS pointer, a text of about 130 bytes in the place of a model, not the model itself."
            " Run `git lfs pull` where it came from, or get the pack with `arcface-api packs pull`."
        )
    # neither protobuf nor zip can begin with "<"; a byte order mark may stand before it
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise PackError(
            f"{what} is a web page, not a model or an archive; a login or error page was probably saved under its"
            " name. Download it again and look at the file before you import it."
        )


def check(file: ModelFile, found: Measured, what: str, remedy: str) -> None:
    """Refuse bytes that are not those of a pinned file; a size or hash that is not known is not checked."""
    check_size(file.size_bytes, found.size_bytes, what, remedy)
    if file.sha256 is not None and found.sha256 != file.sha256:
        raise PackError(
            f"{what} is not the registered {file.name}: its SHA-256 is {found.sha256}, it must be {file.sha256}."
            f" {remedy}"
        )


def check_size(expected: int | None, found: int, what: str, remedy: str) -> None:
    """The part of `check` that needs no bytes."""
    if expected is not None and found != expected:
        wrong = "cut short" if found < expected else "another file"
        raise PackError(f"{what} is {wrong}: it has {found} bytes, it must have {expected}. {remedy}")


def measure(path: Path) -> Measured:
    """Size and SHA-256 of a file, read in pieces."""
    with reading(path), open_regular(path) as file:
        refuse_foreign(file.read(HEAD_BYTES), str(path))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        return Measured(file.tell(), digest.hexdigest())


def copy(source: IO[bytes], target: Path, what: str, on_size: Callable[[int], None]) -> Measured:
    """Write a stream to a file and measure what is written: what is verified is then what gets installed.

    `on_size` is called with the bytes so far before each write, and may raise.
    """
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            if size == 0:
                refuse_foreign(chunk[:HEAD_BYTES], what)
            size += len(chunk)
            on_size(size)
            digest.update(chunk)
            file.write(chunk)
    return Measured(size, digest.hexdigest())


def read_whole(path: Path, expected_bytes: int | None, remedy: str) -> bytes:
    """All bytes of a file of the expected size (None: up to a model's), read once: what is checked is what is used."""
    limit = MAX_MODEL_BYTES if expected_bytes is None else expected_bytes
    with reading(path), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, limit) + 1)
    refuse_foreign(content[:HEAD_BYTES], str(path))
    if expected_bytes is None and len(content) > limit:
        raise PackError(f"{path} is larger than 2 GiB, which no ONNX file can be. Name the `.onnx` file itself.")
    check_size(expected_bytes, max(size, len(content)), str(path), remedy)
    return content


def open_regular(path: Path) -> BufferedReader:
    """A file, opened to be read; refused if it is none: a named pipe or `/dev/zero` would be read for ever."""
    with reading(path):
        if path.exists() and not path.is_file():
            raise PackError(f"{path} is not a regular file. Name the `.onnx` file itself.")
        return path.open("rb")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any `OSError` into a `PackError`, which says what can be done."""
    try:
        yield
    except OSError as error:
        raise PackError(
            f"{path} cannot be read: {error.strerror or error}. The user that runs arcface-api needs read permission."
        ) from error
