"""What a start has worked out and the next one need not: compiled models and verdicts, in one folder.

An entry is keyed by everything that it depends on, this CPU among it, and carries a checksum: a damaged one counts as
missing. It appears by one rename, so two processes that write the same entry do no harm. What no start has used for a
month goes when something new comes.
"""

import hashlib
import logging
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from arcface_api.cpus import cpu_flags, cpu_name

_HEADER_BYTES = 4096
"""Checksum and filling; a page, so that what follows is aligned when mapped."""

LOCK_SECONDS = 300
"""Longest wait for another start that works out the same."""

UNUSED_DAYS = 30
"""What was not used for so long is of another version, model or CPU, or was left behind by a start that was killed."""

_OURS = re.compile(r"\.?[0-9a-f]{32}(\..+)?|tensorrt-[0-9]+-[0-9a-f]{32}")
"""Names of entries, unfinished ones and runtimes' folders. Nothing else is ever deleted: the folder is the user's."""

_log = logging.getLogger(__name__)


class Cache:
    """Entries in a folder; without a folder, or where it cannot be written, nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        """Nothing is read or written yet."""
        self._folder = folder
        self._has_told = False

    def read(self, *key: object) -> NDArray[np.uint8] | None:
        """The bytes of an entry, mapped from its file; None where there is none, or it is damaged."""
        path = self._path(key)
        if path is None:
            return None
        try:
            stored = np.memmap(path, np.uint8, "c")  # OpenVINO takes only what it may write; never the file
        except (OSError, ValueError):  # ValueError: the file is empty
            return None
        _note_use(path)
        content = stored[_HEADER_BYTES:]
        if bytes(stored[:32]) != hashlib.sha256(content.data).digest():
            _log.warning("%s is damaged and is made anew.", path)
            return None
        return content

    def has(self, *key: object) -> bool:
        """Whether there is an entry, whole or damaged."""
        path = self._path(key)
        return path is not None and os.path.exists(path)  # noqa: PTH110  # Path's raises where the folder is closed

    def write(self, content: bytes | memoryview, *key: object) -> bool:
        """Keep an entry. Where that is not possible, the next start takes longer, and a line in the log says why.

        Returns:
            Whether the next start will find it.
        """
        path = self._path(key)
        if path is None:
            return False
        header = hashlib.sha256(content).digest().ljust(_HEADER_BYTES, b"\0")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
                unfinished = Path(part.name)
            try:
                with unfinished.open("wb") as file:
                    file.write(header)
                    file.write(content)
                unfinished.replace(path)  # closed before: a full disk is noticed while the older entry is still there
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            self._tell(error)
            return False
        _sweep(path.parent)
        return True

    def _tell(self, error: OSError) -> None:
        if self._has_told:
            return
        self._has_told = True
        _log.warning(
            "Nothing is kept for the next start, which will take as long: %s. Give the service a folder that it can"
            " write to (ARCFACE_CACHE_DIR).",
            error,
        )

    def drop(self, *key: object) -> None:
        """Forget an entry."""
        path = self._path(key)
        if path is not None:
            with suppress(OSError):  # a folder that cannot be written
                path.unlink(missing_ok=True)

    def subfolder(self, name: str) -> Path | None:
        """A folder, made here, for a runtime that keeps files of its own; None where nothing can be kept."""
        if self._folder is None:
            return None
        folder = self._folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        _note_use(folder)
        return folder

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder alone: of several services that start together one works out what the others then read."""
        with ExitStack() as held:
            if self._folder is not None:
                with suppress(OSError):  # a folder that cannot be written: each for itself
                    self._folder.mkdir(parents=True, exist_ok=True)
                    held.enter_context(_patient(FileLock(self._folder / ".lock")))
            yield

    def _path(self, key: tuple[object, ...]) -> Path | None:
        if self._folder is None:
            return None
        machine = (platform.machine(), cpu_name(), sorted(cpu_flags()))
        return self._folder / hashlib.sha256(repr((machine, *key)).encode()).hexdigest()[:32]


def _sweep(folder: Path) -> None:
    """Delete what was not used for `UNUSED_DAYS`."""
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for path in folder.iterdir():
        with suppress(OSError):  # another start may be sweeping, too
            if _OURS.fullmatch(path.name) and path.stat().st_mtime < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _note_use(path: Path) -> None:
    with suppress(OSError):  # a folder that cannot be written
        os.utime(path)


@contextmanager
def _patient(lock: FileLock) -> Iterator[None]:
    """Hold a lock, waiting for it but not for ever: a holder that hangs must not keep this start from serving."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("Another start is preparing models in the same cache folder; waiting for it.")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            _log.warning("The other start has not ended in %d s; this one goes on by itself.", LOCK_SECONDS)
    try:
        yield
    finally:
        lock.release()  # nothing, where it was not acquired
