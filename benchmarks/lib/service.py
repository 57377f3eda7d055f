"""This checkout's service in a process of its own, and how a result is written."""

import json
import os
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from arcface_api.bench.measure import START_SECONDS, Service, ask, free_port, running
from arcface_api.errors import MeasurementFailed

__all__ = ["ROOT", "Service", "ask", "free_port", "own_command", "running_service", "write_report"]

ROOT = Path(__file__).resolve().parents[2]


def own_command(recogniser: Path, port: int, *options: str) -> list[str]:
    """The command that serves a recogniser with this checkout."""
    return [sys.executable, "-m", "arcface_api", "serve", "--pack", str(recogniser), "--port", str(port), *options]


@contextmanager
def running_service(  # as `running`
    command: Sequence[str],
    port: int,
    first_request: bytes,
    *,
    log: Path | None = None,
    variables: Mapping[str, str] | None = None,
    start_seconds: float = START_SECONDS,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Service]:
    """As `running`, with this checkout's modules; if the service does not start, the program ends with the reason."""
    found = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), **(variables or {})}
    try:
        with running(
            command, port, first_request, log=log, variables=found, start_seconds=start_seconds, tls=tls
        ) as service:
            yield service
    except MeasurementFailed as error:
        raise SystemExit(str(error)) from None


def write_report(report: Mapping[str, object], output: Path | None) -> None:
    """Print a result as JSON; also write it to a file, if one is given."""
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
