"""Arguments that several questions take."""

import argparse
from pathlib import Path

from benchmarks.lib import faces, recogniser


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the option `--output`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", type=Path, help="also write the result, JSON, to this file")
    return made


def add_service(to: argparse.ArgumentParser) -> None:
    """Which service is measured and what it is sent: `--recogniser`, `--faces`, and options of `arcface-api serve`."""
    to.add_argument("serve_options", nargs="*", help="after --: options of arcface-api serve")
    recogniser.add_option(to)
    faces.add_option(to)
