"""The command `arcface-api`, also where only the bare package is installed: then it says what is missing."""

import sys

INTERRUPTED = 130
"""The exit status that shells give to what Ctrl-C ended."""


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while Python still loads its modules."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run() -> None:
    try:
        from arcface_api.cli import main as run  # noqa: PLC0415  # what it imports may be missing, and that is the point
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("arcface_api"):
            raise
        sys.exit(
            f"arcface-api: the package {error.name} is missing. The service needs one of the extras: pip install"
            " 'arcface-api[cpu]' or pip install 'arcface-api[cuda]'."
        )
    run()


if __name__ == "__main__":
    main()
