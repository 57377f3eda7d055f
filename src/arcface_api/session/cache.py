"""What one start has worked out for the next: compiled models and verdicts, in one folder.

An entry's key holds everything that it depends on, this CPU among it. A damaged entry counts as missing. Entries appear
by one rename, so two processes may write the same one. Those that no start has used for a month are deleted.
"""

import hashlib
import logging
import mmap
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from arcface_api.cpus import cpu_flags, cpu_name

_HEADER_BYTES = 4096
"""The checksum, padded to a page so that the content is aligned when mapped."""
LOCK_SECONDS = 300
"""Longest wait for another start that works out the same."""
UNUSED_DAYS = 30
"""What was not used for so long is of another version, model or CPU, or unfinished."""
_OURS = re.compile(r"\.?[0-9a-f]{32}(\..+)?|tensorrt-[0-9]+-[0-9a-f]{32}")
"""Names of entries, unfinished ones and runtimes' folders. Nothing else is ever deleted: the folder is the user's."""

_log = logging.getLogger(__name__)


class Cache:
    """Entries in a folder; with None for a folder, or one that cannot be written, nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = None if folder is None else FileLock(folder / ".lock")
        self._has_warned = False

    def read(self, *key: object) -> NDArray[np.uint8] | None:
        """An entry's content, mapped from its file; None where it is missing or damaged."""
        path = self._path(key)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # OpenVINO needs writable memory
            content = np.frombuffer(mapped, np.uint8, offset=_HEADER_BYTES)
        except (OSError, ValueError):  # ValueError: the file is too short
            return None
        _mark_used(path)
        if mapped[:32] != hashlib.sha256(content.data).digest():
            _log.warning("%s is damaged and is made again.", path)
            return None
        return content

    def keeps(self) -> bool:
        """Whether what is worked out now is there at the next start."""
        if self._folder is None:
            return False
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
        return os.access(self._folder, os.W_OK)

    def has(self, *key: object) -> bool:
        """Whether there is an entry, damaged or not."""
        path = self._path(key)
        return path is not None and os.path.exists(path)  # noqa: PTH110  # Path.exists raises in a closed folder

    def write(self, content: bytes | memoryview, *key: object) -> bool:
        """Write an entry; returns whether it was written. The first failure is logged."""
        path = self._path(key)
        if path is None:
            return False
        header = hashlib.sha256(content).digest().ljust(_HEADER_BYTES, b"\0")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            unfinished = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(header)
                    file.write(content)
                unfinished.replace(path)  # after closing: a full disk is noticed while the older entry is still there
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                _log.warning(
                    "Nothing can be kept for the next start, which will take as long as this one: %s. Give the service"
                    " a folder that it can write to (ARCFACE_CACHE_DIR).",
                    error,
                )
            return False
        _delete_unused(path.parent)
        return True

    def subfolder(self, name: str) -> Path | None:
        """A folder for a runtime that keeps files of its own; None where nothing can be kept."""
        if self._folder is None:
            return None
        folder = self._folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        _mark_used(folder)
        return folder

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the folder, so that of several services that start together one works out what the others read.

        May be nested.

        After `LOCK_SECONDS` it goes on without the lock: a holder that hangs must not keep this start from serving.
        """
        if self._folder is None or self._lock is None:
            yield
            return
        lock = self._lock
        with suppress(OSError):  # the folder cannot be written: each start works by itself
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                _log.info("Another start is preparing models in the same cache folder; waiting for it.")
                try:
                    lock.acquire(timeout=LOCK_SECONDS)
                except Timeout:
                    _log.warning("The other start has not ended in %d s; this one goes on without it.", LOCK_SECONDS)
        try:
            yield
        finally:
            lock.release()  # does nothing where it was not acquired

    def _path(self, key: tuple[object, ...]) -> Path | None:
        if self._folder is None:
            return None
        machine = (platform.machine(), cpu_name(), sorted(cpu_flags()))
        return self._folder / hashlib.sha256(repr((machine, *key)).encode()).hexdigest()[:32]


def release(content: NDArray[np.uint8]) -> None:
    """Give back the memory of an entry that `Cache.read` mapped. What is read again, the system reads again."""
    if hasattr(mmap, "MADV_DONTNEED"):
        content.base.obj.madvise(mmap.MADV_DONTNEED)  # type: ignore[union-attr]  # a memoryview of the mapping


def _delete_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for path in folder.iterdir():
        with suppress(OSError):  # another start may be deleting it, too
            if _OURS.fullmatch(path.name) and path.stat().st_mtime < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mark_used(path: Path) -> None:
    with suppress(OSError):  # the folder cannot be written
        os.utime(path)
