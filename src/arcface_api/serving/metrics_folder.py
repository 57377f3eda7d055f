"""The folder in which the workers' counts add up: made by the supervisor, held by each process that uses it.

A process that was killed removes nothing, but holds nothing either: the next supervisor removes what nobody holds.
Unlike a process's number, a lock also says so across containers that share a folder.
"""

import logging
import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from arcface_api.api.metrics import SharedMetrics

PREFIX = "arcface-counts-"
"""Not that of versions whose folders nobody held, also while they were used."""
MEMORY = "/dev/shm"  # noqa: S108  # TemporaryDirectory takes a name that nobody can know
"""Linux's folder for files in memory."""

_log = logging.getLogger(__name__)


def make(stack: ExitStack) -> Path | None:
    """A folder until the stack ends, in memory where that is possible; None if no folder can be written."""
    for parent in (MEMORY, None):
        with suppress(OSError):
            where = Path(parent or gettempdir())
            _remove_abandoned(where)
            while True:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix=PREFIX, dir=where)))
                with suppress(FileNotFoundError):
                    stack.callback(os.close, hold(folder))
                    if folder.exists():  # another supervisor may have removed it before it was held
                        return folder
    _log.warning(
        "/metrics counts only what the worker that is asked has done: workers would add up their counts in %s or a"
        " folder for temporary files, and neither can be written. Make one of them writable, or set TMPDIR.",
        MEMORY,
    )
    return None


def share(folder: Path, worker: int, began_seconds: float) -> SharedMetrics | None:
    """What a worker with this number keeps in the folder; None if there is no room for it."""
    shared = SharedMetrics(folder, worker, began_seconds)
    try:
        shared.reserve()
    except OSError as error:
        _log.warning(
            "/metrics leaves worker number %d out: its counts have no room in %s (%s). Free memory there, or allow more"
            " (in a container: shm-size), and restart the service.",
            *(worker, folder.parent, error.strerror),
        )
        return None
    return shared


def hold(folder: Path) -> int:
    """Keep others from removing the folder until this process closes the descriptor that is returned, or ends."""
    import fcntl  # noqa: PLC0415  # as several workers, it needs Linux

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's folders that no process holds."""
    import fcntl  # noqa: PLC0415  # as above

    with suppress(OSError):  # the parent cannot be listed
        for folder in list(parent.glob(f"{PREFIX}*")):
            with suppress(OSError):  # it is held, another user's, or gone
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if os.fstat(descriptor).st_uid == os.geteuid():  # root may open those of all
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(folder)
                finally:
                    os.close(descriptor)
