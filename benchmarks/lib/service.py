"""This checkout's service in a process of its own, and how a result is written."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from arcface_api import bench
from arcface_api.bench.service import START_SECONDS, ask, free_port
from arcface_api.errors import MeasurementFailed

__all__ = ["ROOT", "RunningService", "ask", "free_port", "own_command", "write_report"]

ROOT = Path(__file__).resolve().parents[2]


def own_command(recogniser: Path, port: int, *options: str) -> list[str]:
    """The command that serves a recogniser with this checkout."""
    return [sys.executable, "-m", "arcface_api", "serve", "--pack", str(recogniser), "--port", str(port), *options]


class RunningService(bench.RunningService):
    """A service that finds this checkout's modules; where it does not start, the script ends with the reason."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        first_request: bytes,
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """Nothing starts yet; the arguments are those of `bench.RunningService`."""
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        found = {"PYTHONPATH": paths, **(environment or {})}
        super().__init__(command, port, first_request, log=log, environment=found, start_seconds=start_seconds)

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except MeasurementFailed as error:
            raise SystemExit(str(error)) from None


def write_report(report: Mapping[str, object], output: Path | None) -> None:
    """Print a result as JSON; also write it to a file, where one is given."""
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
