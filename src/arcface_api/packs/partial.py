"""A download that is under way: its file on disk, and what tells a later run that it may go on with it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcface_api.packs.content import CHUNK_BYTES


@dataclass(frozen=True)
class Wanted:
    """What to download, and what is known about it."""

    url: str
    part: Path
    """The file to write. Named after what is in it, so that a later run, or another mirror, goes on with it."""
    size_bytes: int | None = None
    sha256: str | None = None
    is_archive: bool = False
    """An archive's size and hash only tell whether resuming went well: the files inside are what is verified."""
    room_bytes: int = 0
    """Room needed beside the download, for unpacking it."""


def resume_from(wanted: Wanted) -> tuple[Any, int]:
    """Hash state and size of what an earlier run left; nothing, if it cannot be told that it is the same file."""
    digest, size = hashlib.sha256(), 0
    is_same = wanted.sha256 is not None or validator(wanted) is not None
    if not wanted.part.is_file() or not is_same:
        return digest, 0
    with wanted.part.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    too_long = not wanted.is_archive and wanted.size_bytes is not None and size > wanted.size_bytes
    return (hashlib.sha256(), 0) if too_long else (digest, size)


def note(wanted: Wanted, headers: Mapping[str, str]) -> None:
    """Keep what tells whether a later answer is the same file; needed where no hash is known."""
    _sidecar(wanted.part).write_text(
        json.dumps({"url": wanted.url, "etag": headers.get("ETag"), "last_modified": headers.get("Last-Modified")}),
        encoding="utf-8",
    )


def validator(wanted: Wanted) -> str | None:
    """The value for If-Range: a strong ETag of this URL, else its Last-Modified."""
    try:
        noted = json.loads(_sidecar(wanted.part).read_text(encoding="utf-8"))
        etag, modified = noted["etag"], noted["last_modified"]
        is_this = noted["url"] == wanted.url
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not is_this:
        return None
    best = etag if etag and not etag.startswith("W/") else modified
    return best if isinstance(best, str) else None


def _sidecar(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def part_size(part: Path) -> int:
    """Bytes that are there; 0 without a file."""
    return part.stat().st_size if part.is_file() else 0


def discard(part: Path) -> None:
    """Delete a part and what is known about it."""
    part.unlink(missing_ok=True)
    _sidecar(part).unlink(missing_ok=True)
