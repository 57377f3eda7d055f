"""Parts of sentences that many messages share: counts, and what a misspelt name may have meant."""

import difflib
from collections.abc import Iterable


def counted(number: int | None, thing: str) -> str:
    """`1 picture`, `1,024 pictures`."""
    return f"{number if number is None else format(number, ',')} {thing}{'' if number == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question, after a space, with the known names that are close to one that is not; empty without any."""
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""
