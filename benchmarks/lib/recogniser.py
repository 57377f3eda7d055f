"""Which model the benchmarks serve: one that is named, else an IResNet100 with random weights, made if missing."""

import argparse
import hashlib
import sys
from pathlib import Path

from benchmarks.lib import iresnet

MADE = Path(__file__).resolve().parents[2] / "build" / "iresnet100.onnx"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a script the option `--recogniser`."""
    parser.add_argument("--recogniser", type=Path, help="an .onnx file; default: an IResNet100 with random weights")


def find(named: Path | None) -> Path:
    """The absolute path of the model."""
    if named is not None:
        return named.resolve()
    if not MADE.is_file():
        say(f"Making {MADE} ...")
        MADE.parent.mkdir(exist_ok=True)
        iresnet.write(MADE)
    return MADE


def describe(model: Path) -> dict[str, str]:
    """Name and hash, for a report."""
    return {"name": model.name, "sha256": hashlib.sha256(model.read_bytes()).hexdigest()}


def say(line: str) -> None:
    """Progress, on standard error."""
    sys.stderr.write(f"{line}\n")
