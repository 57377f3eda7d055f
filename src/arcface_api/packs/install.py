"""Make a pack appear in one step: built beside its place, then renamed; one process at a time.

kill -9 at any moment leaves no pack or a whole one. What dead runs left behind is swept by the next one, which puts
back a pack that was only just being replaced.
"""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger("arcface_api.packs")


@contextmanager
def exclusive(parent: Path, name: str) -> Iterator[None]:
    """Be the only process that installs `name` in `parent`; wait while another does.

    The lock belongs to the process: when that is killed, the system frees it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(parent / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("Another process is installing %s; waiting for it.", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staging(parent: Path, name: str) -> Iterator[Path]:
    """An empty folder on the same disk as the pack's place; gone afterwards unless `publish` made it the pack."""
    _sweep(parent, name)
    folder = parent / f".{name}.{secrets.token_hex(4)}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, target: Path) -> None:
    """Make a complete folder the pack at `target`, in place of what was there.

    Raises:
        OSError: The disk refuses.
    """
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
    """Have it on the disk, so that a power cut after the rename finds whole files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
