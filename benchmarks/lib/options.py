"""Arguments that several questions take."""

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.lib import faces, recogniser


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--output`. From now on SIGTERM ends the program in order, with the services that it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", type=Path, help="also write the result, JSON, to this file")
    return made


def add_service(to: argparse.ArgumentParser) -> None:
    """Which service is measured and what it is sent: `--recogniser`, `--faces`, and options of `arcface-api serve`."""
    to.add_argument("serve_options", nargs="*", help="after --: options of arcface-api serve")
    recogniser.add_option(to)
    faces.add_option(to)
