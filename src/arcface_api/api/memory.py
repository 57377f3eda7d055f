"""Memory that was needed for a moment, given back to the system.

Uploads that grow side by side leave holes in the allocator's heap. glibc keeps them: after 500 slow uploads a process
has as much as it ever needed, though nothing is inside.
"""

import asyncio
import ctypes
from collections.abc import Callable

TRIM_SECONDS = 10.0
"""How often, at most: it takes some milliseconds, on a thread of its own."""


def _glibc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim  # it lets other threads run
    except (OSError, AttributeError, TypeError):  # another C library, or Windows
        return None


class Trimmer:
    """Gives free memory back, a while after much was freed."""

    def __init__(self) -> None:
        """Nothing is due."""
        self._trim = _glibc_trim()
        self._is_due = False

    def note(self) -> None:
        """Much was freed. Belongs to the event loop."""
        if self._trim is not None and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(TRIM_SECONDS, self._start)

    def _start(self) -> None:
        self._is_due = False
        if self._trim is not None:
            asyncio.get_running_loop().run_in_executor(None, self._trim, 0)
