"""How the long steps tell what they are doing."""

from typing import Protocol


class Progress(Protocol):
    """Called often, from the thread that works, while something is downloaded or unpacked."""

    def __call__(self, what: str, done_bytes: int, total_bytes: int | None) -> None:
        """Take note.

        Args:
            what: The step, in words; a new step has other words.
            done_bytes: Bytes so far, with those of an earlier run that is resumed.
            total_bytes: Bytes in the end; None: not known.
        """


def no_progress(what: str, done_bytes: int, total_bytes: int | None) -> None:
    """Tell nobody."""
