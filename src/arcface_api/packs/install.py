"""Make a pack appear in one step: built beside its place, then renamed; one process at a time.

kill -9 at any moment leaves no pack or a whole one. The next run removes what a killed one left behind, and puts back
a pack that was being replaced.
"""

import errno
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from arcface_api.errors import PackError, StorageFull
from arcface_api.packs.content import Measured, check, copy, measure, open_regular
from arcface_api.packs.installed import LOCK_NAME, write_record
from arcface_api.packs.manifest import Manifest, Role
from arcface_api.progress import Progress, no_progress

_log = logging.getLogger("arcface_api.packs")


@contextmanager
def staging(parent: Path, name: str) -> Iterator[Path]:
    """An empty folder on the same disk as the place of the pack `name`, for the only process that installs it.

    Waits while another process installs it; the system frees the lock of a process that was killed. The folder is gone
    afterwards unless `publish` made it the pack.

    Raises:
        StorageFull: No room, or a quota is reached, here or in the block.
        PackError: Any other `OSError`, explained.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(parent / f".{name}.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            _log.info("Another process is installing %s; waiting for it.", name)
            held = lock.acquire()
        with held:
            _sweep(parent, name)
            folder = parent / f".{name}.{secrets.token_hex(4)}.tmp"
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise _explained(error, parent) from error


def _explained(error: OSError, folder: Path) -> PackError:
    reason = error.strerror or error
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(
            f"There is no room left in {folder}: {reason}. Free some, or choose another folder with ARCFACE_MODELS_DIR."
            " What was downloaded so far is kept and used the next time."
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return PackError(
            f"{folder} is a file, or lies in one, where a folder is needed. Choose another with ARCFACE_MODELS_DIR."
        )
    return PackError(
        f"{folder} cannot be written: {reason}. Give the user that runs arcface-api the right to write there, or choose"
        " another folder with ARCFACE_MODELS_DIR."
    )


def publish(staged: Path, target: Path) -> None:
    """Make a complete folder the pack at `target`, in place of what was there."""
    for file in staged.iterdir():
        _sync(file)
    _sync(staged)
    old = None
    if target.exists() or target.is_symlink():
        old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
        target.rename(old)
    try:
        staged.rename(target)
    except OSError:
        if old is not None:
            old.rename(target)
        raise
    _sync(target.parent)
    if old is not None:
        _remove(old)


def _sweep(parent: Path, name: str) -> None:
    left_behind = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.(tmp|old)")
    target = parent / name
    for path in list(parent.iterdir()):
        if found := left_behind.fullmatch(path.name):
            if found[1] == "old" and not (target.exists() or target.is_symlink()):
                path.rename(target)  # a run was killed after it had put the pack aside: it is the only whole one
            else:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Write it to the disk, so that a power cut after the rename finds whole files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


Files = dict[str, tuple[Path, Measured]]
"""The files of a pack that were found so far, by their name in the manifest."""


def copy_file(path: Path, target: Path, progress: Progress = no_progress) -> Measured:
    """Copy a file that a person brought or an earlier run installed, and measure the copy.

    Raises:
        StorageFull: There is no room for it.
        PackError: It cannot be read, or is no model.
    """
    with open_regular(path) as source:
        total = os.fstat(source.fileno()).st_size
        need_room(target.parent, total, f"A copy of {path}")
        return copy(source, target, str(path), lambda size: progress(f"Copying {path.name}", size, total))


def reuse(
    manifest: Manifest, paths: Mapping[Role, Path], have: Files, staged: Path, progress: Progress = no_progress
) -> None:
    """Copy what is good of an incomplete or damaged pack at `paths` to the staged folder, and add it to `have`."""
    for file in manifest.files:
        path = paths.get(file.role)
        if path is None or file.sha256 is None or file.name in have:
            continue
        try:
            # first read alone: a disk that cannot read the old file can still take a new one
            check(file, measure(path), str(path), "")
            copied = copy_file(path, staged / file.name, progress)
            check(file, copied, str(path), "")
        except StorageFull:
            raise
        except PackError:
            (staged / file.name).unlink(missing_ok=True)
            continue
        have[file.name] = (staged / file.name, copied)


def assemble(manifest: Manifest, have: Files, staged: Path) -> None:
    """Move the files of a pack to the staged folder, and record the hashes of those that the manifest does not pin."""
    trusted = {}
    for file in manifest.files:
        if file.name not in have:
            continue
        path, found = have[file.name]
        if path.parent != staged:
            path.rename(staged / file.name)
        if file.sha256 is None:
            trusted[file.name] = found
            _log.warning(
                "%s of %s is not pinned and is trusted as it came: SHA-256 %s, recorded in %s.",
                file.name, manifest.name, found.sha256, LOCK_NAME,
            )  # fmt: skip
    if trusted:
        write_record(staged / LOCK_NAME, trusted)


def need_room(folder: Path, size_bytes: int, what: str) -> None:
    """Raise `StorageFull` before what cannot be finished is begun."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise StorageFull(
            f"{what} needs {size_bytes / 1e6:,.0f} MB in {folder}, and {free / 1e6:,.0f} MB are free. Free some, or"
            " choose a folder on another disk with ARCFACE_MODELS_DIR."
        )
