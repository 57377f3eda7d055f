"""One service, ever more clients: starts it or finds it, asks what it is, and sends load."""

import http.client
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arcface_api import __version__
from arcface_api.api.answers import HealthAnswer
from arcface_api.bench.load import closed_loop
from arcface_api.bench.pictures import drawn_faces
from arcface_api.bench.report import LoadReport
from arcface_api.bench.requests import Address, embed_request, raw_request
from arcface_api.bench.service import RunningService, ask, free_port
from arcface_api.cpus import machine
from arcface_api.errors import MeasurementFailed

WARM_UP_SECONDS = 2.0
"""Load before each step that does not count; a quarter of the step where that is less."""
START_SECONDS = 1800.0
"""The first start with a model may compile it for minutes; TensorRT does."""

OnProgress = Callable[[str, float], None]
"""Told what is going on, and how much of the whole is done, 0 to 1."""


@dataclass(frozen=True)
class Step:
    """What so many clients at once got."""

    who: str
    """So many clients, in words."""
    clients: int
    faces_per_second: float
    p50_ms: float
    p99_ms: float
    mean_batch: float | None
    """None where the service does not tell."""
    report: LoadReport
    """All that the load showed."""


@dataclass(frozen=True)
class Process:
    """The service as a process, where it was started here."""

    ready_seconds: float
    """From its start until it could embed."""
    rss_mb: float
    """Resident memory after the load, all its processes together, in 10^6 bytes."""


@dataclass(frozen=True)
class Measurement:
    """What was measured, and on what."""

    service: HealthAnswer
    process: Process | None
    url: str | None
    """Of a service that ran already, on whatever machine."""
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values; of each step all that its load showed."""
        return {
            "benchmark": "arcface-api bench",
            "version": __version__,
            "service": self.service.model_dump(),
            "url": self.url,
            "process": asdict(self.process) if self.process else None,
            "steps": [step.report.to_json() for step in self.steps],
            "machine": machine(),
        }

    def check(self) -> None:
        """Say that figures mean little, where they do.

        Raises:
            MeasurementFailed: Requests failed.
        """
        where = "The service's log" if self.url else "The log of `arcface-api serve` with the same options"
        for step in self.steps:
            if step.report.failed:
                raise MeasurementFailed(
                    f"With {step.who} requests failed ({_reasons(step.report)}), so the figures mean little. {where}"
                    " may say why."
                )


def clients_in_words(clients: int) -> str:
    """`1 client`, `4 clients`."""
    return f"{clients} client{'' if clients == 1 else 's'}"


def measure_own(
    options: Mapping[str, str], clients: Sequence[int], seconds: float, on_progress: OnProgress
) -> Measurement:
    """Start a service on a free port of the loopback, measure it and stop it.

    Args:
        options: Settings by name, as given on the command line; the environment gives the rest.
        clients: How many at once, a step each.
        seconds: Measured time of each step.
        on_progress: Told what is going on.

    Raises:
        MeasurementFailed: It cannot be started, or serves nothing.
    """
    port = free_port()
    command = [sys.executable, "-m", "arcface_api", "serve", "--host", "127.0.0.1", "--port", str(port)]
    for name, value in options.items():
        command += ["--" + name.replace("_", "-"), value]
    first = raw_request(Address("127.0.0.1", port), "GET", "/health")
    on_progress("starting the service", 0)
    with tempfile.TemporaryDirectory(prefix="arcface-api-bench-") as folder:
        log = Path(folder) / "service.log"
        with RunningService(command, port, first, log=log, start_seconds=START_SECONDS) as service:
            measured = measure(service.address, clients, seconds, on_progress)
            process = Process(round(service.ready_seconds, 2), round(service.usage().rss_bytes / 1e6, 1))
    return replace(measured, process=process, url=None)


def measure(address: Address, clients: Sequence[int], seconds: float, on_progress: OnProgress) -> Measurement:
    """Measure a service that runs; arguments as `measure_own`.

    Raises:
        MeasurementFailed: Nothing answers there, it cannot embed, or serves nothing.
    """
    url = f"http://{address.host_header}{address.prefix}"
    about = _health(address, url)
    requests = [embed_request(address, picture) for picture in drawn_faces()]
    steps: list[Step] = []
    for number, count in enumerate(clients):

        def of_the_whole(who: str, share: float, number: int = number) -> None:
            on_progress(who, (number + share) / len(clients))

        steps.append(_step(address, requests, count, seconds, of_the_whole))
    on_progress("done", 1)
    return Measurement(about, None, url, tuple(steps))


def _step(address: Address, requests: Sequence[bytes], clients: int, seconds: float, on_progress: OnProgress) -> Step:
    who = clients_in_words(clients)
    report = closed_loop(
        address,
        requests,
        clients=clients,
        seconds=seconds,
        warm_up_seconds=min(WARM_UP_SECONDS, seconds / 4),
        on_progress=lambda share: on_progress(who, share),
    )
    latency = report.latency_ms
    if latency is None:
        why = _reasons(report) or f"none was answered within {seconds:g} s; give more --seconds"
        raise MeasurementFailed(f"With {who} no request was served: {why}.")
    return Step(who, clients, report.served_per_second, latency.p50, latency.p99, report.mean_batch, report)


def _health(address: Address, url: str) -> HealthAnswer:
    try:
        status, body = ask(address, raw_request(address, "GET", "/health"))
        about = HealthAnswer.model_validate_json(body)
    except OSError as error:
        raise MeasurementFailed(
            f"Nothing answers at {url}: {error.strerror or error}. Start the service there, or leave out --url: then"
            " one is started here to be measured."
        ) from None
    except (http.client.HTTPException, ValidationError):
        raise MeasurementFailed(f"What answers at {url}/health is not arcface-api. Check the address.") from None
    if status != http.HTTPStatus.OK:
        raise MeasurementFailed(f"The service at {url} cannot embed: {about.reason}.")
    return about


def _reasons(step: LoadReport) -> str:
    """What was wrong with those that were not served."""
    refused = {f"refused with {status}": count for status, count in step.refused.items()}
    return ", ".join(f"{count} x {why}" for why, count in (step.failed | refused).items())
