"""Copy what a person brought to where it will be installed, hashing what is copied: that is what gets installed."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from arcface_api.packs import archive as zips
from arcface_api.packs.content import CHUNK_BYTES, HEAD_BYTES, MAX_MODEL_BYTES, Measured, reading, refuse_foreign
from arcface_api.packs.identify import Candidate
from arcface_api.packs.manifest import Manifest
from arcface_api.packs.storage import need_room
from arcface_api.progress import Progress

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


def candidates_at(
    path: Path, bay: Path, known: Mapping[str, Manifest] | None, seen: set[str], progress: Progress
) -> Iterator[Candidate]:
    """The model files at a path, copied to the loading bay.

    With `known`, only those that may be registered, by their size: where these make a whole pack, the detector beside
    them is never even unpacked.
    """
    sizes = {file.size_bytes for pack in known.values() for file in pack.files} if known is not None else None
    if path.is_dir():
        for model, size in _models_below(path):
            label = model.relative_to(path).as_posix()
            if label not in seen and (sizes is None or size in sizes):
                yield replace(copied(model, bay, progress), name=label, brought=path)
    elif is_zip(path):
        with zips.opened(path, str(path)) as archive:
            for member in zips.models(archive):
                if member.filename not in seen and (sizes is None or member.file_size in sizes):
                    # a header may announce anything: `unpack` refuses what is too much
                    need_room(bay, min(member.file_size, MAX_MODEL_BYTES), f"Unpacking {member.filename}")
                    target = _slot(bay)
                    progress(f"Unpacking {member.filename}", 0, member.file_size)
                    measured = zips.unpack(archive, member, target, what=str(path))
                    progress(f"Unpacking {member.filename}", measured.size_bytes, member.file_size)
                    refuse_foreign(_head(target), f"{member.filename} in {path}")
                    yield Candidate(member.filename, target, measured, path)
    elif path.name not in seen and (sizes is None or path.stat().st_size in sizes):
        if path.suffix.lower() == ".zip":
            # says what it is instead of a zip archive
            with zips.opened(path, str(path)):
                pass
        yield replace(copied(path, bay, progress), brought=path)


def _models_below(folder: Path) -> list[tuple[Path, int]]:
    with reading(folder):
        found = (path for path in folder.rglob("*") if path.suffix.lower() == ".onnx" and path.is_file())
        return [(path, path.stat().st_size) for path in sorted(found)]


def copied(path: Path, bay: Path, progress: Progress) -> Candidate:
    """Copy a file, hashing what is copied: what is verified is what gets installed."""
    digest, size, target = hashlib.sha256(), 0, _slot(bay)
    with reading(path):
        total = path.stat().st_size
        source = path.open("rb")
    need_room(bay, total, f"A copy of {path}")
    with source, target.open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            if size == 0:
                refuse_foreign(chunk[:HEAD_BYTES], str(path))
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
            progress(f"Copying {path.name}", size, total)
    return Candidate(path.name, target, Measured(size, digest.hexdigest()))


def _slot(bay: Path) -> Path:
    return bay / f"{sum(1 for _ in bay.iterdir())}.onnx"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, by its content."""
    with reading(path):
        return path.is_file() and _head(path).startswith(_ZIP_MAGIC)
