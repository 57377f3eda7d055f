"""How this command line is called here: what messages name `arcface-api` is on nobody's PATH in a clone."""

import re
import shutil
import sys
from pathlib import Path

COMMAND = "arcface-api"
_NAMED = re.compile(rf"{COMMAND} [a-z]")


def as_called() -> str | None:
    """What to type in place of `arcface-api`; None where the shell knows that name."""
    if Path(sys.argv[0]).name == COMMAND or shutil.which(COMMAND):
        return None
    return f"{sys.executable} -m arcface_api"


def hint_for(message: str) -> str | None:
    """A sentence for a person who reads this message; None where it names no command, or the shell knows it."""
    called = as_called()
    if called is None or not _NAMED.search(message):
        return None
    return (
        f"(Here `{COMMAND}` is `{called}`; in a clone of this project `make packs ARGS='…'` does what"
        f" `{COMMAND} packs …` does.)"
    )
