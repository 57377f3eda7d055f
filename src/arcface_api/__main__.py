"""The command `arcface-api`, also where only the bare package is installed: then it names the extras to install."""

import os
import sys
from typing import NoReturn

from arcface_api import __version__

INTERRUPTED = 130
"""The exit status that shells give to what Ctrl-C ended."""


_EXTRAS = (
    "The service needs one of the extras: pip install 'arcface-api[cpu]', or pip install 'arcface-api[cuda]' for NVIDIA"
    " GPUs."
)
_BARE_HELP = f"""\
Usage: arcface-api [OPTIONS] COMMAND [ARGS]...

  A picture of a face crop in, its ArcFace embedding out.

  {_EXTRAS}
  Without them, this is the Python client: from arcface_api.client import Client

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands, each of which needs an extra (doctor reports what is missing):
  bench     Measure how fast the service is on this machine.
  doctor    Find out what is wrong with this machine and installation.
  embed     Embed many pictures into one file.
  evaluate  Find the threshold to use, from your own pairs of pictures.
  packs     List, download, check and import model packs.
  serve     Run the service.
"""


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while Python still loads its modules."""
    try:
        _open_standard_files()
        _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            raise
        sys.exit(
            f"Error: A library cannot be loaded: {error}. Install the system's package that has it, or allow more"
            " memory (docker --memory, ulimit -v)."
        )


def _open_standard_files() -> None:
    """Open those that the parent closed: else others get their numbers, and libuv ends a process that closes such."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # standard error
        os.set_inheritable(number, True)
    os.close(number)


def _run() -> None:
    try:
        from arcface_api.cli import main as run  # noqa: PLC0415  # its imports are what may be missing
    except ImportError as error:
        if sys.argv[1:2] == ["doctor"] and not {"-h", "--help"} & {*sys.argv}:
            _examine_what_is_there(f"{type(error).__name__}: {error}")
        if not isinstance(error, ModuleNotFoundError) or (error.name or "").startswith("arcface_api"):
            raise
        _answer_without_server(error.name)
    else:
        run()


def _examine_what_is_there(why: str) -> NoReturn:
    """`doctor` where the command line cannot be loaded: what the standard library can examine."""
    from arcface_api.doctor import Subject, as_text, examine  # noqa: PLC0415  # only here

    try:
        from arcface_api.settings import read_usable  # noqa: PLC0415  # as above

        settings, wrong = read_usable()
        subject = Subject(given=settings, wrong_settings=wrong, why_no_commands=why)
    except ImportError:
        subject = Subject(why_no_commands=why)
    report = examine(subject)
    sys.stdout.write(report.to_json() + "\n" if "--json" in sys.argv else as_text(report))
    sys.exit(report.exit_status)


def _answer_without_server(missing: str | None) -> None:
    """Answer `--version` and `--help` with the standard library alone; for all else say what to install."""
    match sys.argv[1:]:
        case ["--version"]:
            sys.stdout.write(f"arcface-api, version {__version__}\n")
        case ["--help" | "-h"]:
            sys.stdout.write(_BARE_HELP)
        case _:
            sys.exit(f"arcface-api: the package {missing} is missing. {_EXTRAS}")


if __name__ == "__main__":
    main()
