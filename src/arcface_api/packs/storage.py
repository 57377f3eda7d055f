"""Room and permission to write, said in words a person can act on."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arcface_api.errors import StorageFull, StorageUnwritable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say what can be done when a folder cannot be written.

    Raises:
        StorageFull: No room, or a quota is reached.
        StorageUnwritable: Any other `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                f"There is no room left in {folder}: {error.strerror}. Free some, or name another folder with"
                " ARCFACE_MODELS_DIR. What was downloaded so far is kept and used the next time."
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise StorageUnwritable(
                f"{folder} is a file, or lies in one, where a folder is needed. Name another with ARCFACE_MODELS_DIR."
            ) from error
        raise StorageUnwritable(
            f"{folder} cannot be written: {error.strerror or error}. Give the user that runs arcface-api the right to"
            " write there, or name another folder with ARCFACE_MODELS_DIR."
        ) from error


def need_room(folder: Path, size_bytes: int, what: str) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        StorageFull: Fewer than `size_bytes` are free.
    """
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise StorageFull(
            f"{what} needs {size_bytes / 1e6:,.0f} MB in {folder}, and {free / 1e6:,.0f} MB are free. Free some, or"
            " name a folder on another disk with ARCFACE_MODELS_DIR."
        )
