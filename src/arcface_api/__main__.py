"""The command `arcface-api`, also where only the bare package is installed: then it names the extras to install."""

import sys

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

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands, each of which needs an extra:
  bench     Measure how fast the service is on this machine.
  evaluate  Find the threshold to use, from your own pairs of pictures.
  packs     List, download, check and import model packs.
  serve     Run the service.
"""


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while Python still loads its modules."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run() -> None:
    try:
        from arcface_api.cli import main as run  # noqa: PLC0415  # its imports are what may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("arcface_api"):
            raise
        _answer_without_server(error.name)
    else:
        run()


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
