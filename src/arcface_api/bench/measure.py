"""One service and ever more clients: starts it or finds it, sends load, and shows what that gave."""

import http.client
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2

from arcface_api import __version__
from arcface_api.bench.connection import Address, form_request, raw_request
from arcface_api.bench.load import LoadReport, closed_loop
from arcface_api.bench.service import ask, free_port, running
from arcface_api.cpus import machine
from arcface_api.errors import MeasurementFailed
from arcface_api.session.self_test import probe_crops

HEIGHT, WIDTH, JPEG_QUALITY = 160, 128, 90
"""Of the pictures that are sent, in pixels: a face as a detector cuts it from a picture of medium size."""
WARM_UP_SECONDS = 2.0
"""Load before each step that does not count; a quarter of the step where that is less."""
START_SECONDS = 1800.0
"""The first start with a model may compile it for minutes; TensorRT does."""
BAR_CELLS = 24
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_HEALTH = {"model", "provider", "precision", "threads", "batch_sizes", "self_test_cosine", "reason"}
"""Members of `/health` that are shown."""

OnProgress = Callable[[str, float], None]
"""Called with what is going on, and how much of the whole is done, 0 to 1."""


@dataclass(frozen=True)
class Measurement:
    """What was measured, and on what."""

    service: Mapping[str, Any]
    """What its `/health` answered."""
    url: str | None
    """Of a service that was running already, on whatever machine."""
    steps: tuple[LoadReport, ...]
    """One for each number of clients; each has served some requests."""
    process: Mapping[str, float] | None = None
    """If it was started here: `ready_seconds` until it could embed, and `rss_mb`, the resident memory after the load of
    all its processes together, in 10^6 bytes."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "benchmark": "arcface-api bench",
            "version": __version__,
            "service": dict(self.service),
            "url": self.url,
            "process": self.process,
            "steps": [step.to_json() for step in self.steps],
            "machine": machine(),
        }

    def check(self) -> None:
        """Refuse figures that mean little.

        Raises:
            MeasurementFailed: Requests failed.
        """
        where = "The service's log" if self.url else "The log of `arcface-api serve` with the same options"
        for step in self.steps:
            if step.failed:
                raise MeasurementFailed(
                    f"With {_counted(step.clients, 'client')} requests failed ({_reasons(step)}), so the figures mean"
                    f" little. {where} may say why."
                )


def measure_own(
    options: Mapping[str, str], clients: Sequence[int], seconds: float, on_progress: OnProgress
) -> Measurement:
    """Start a service on a free port of the loopback, measure it and stop it.

    Args:
        options: Settings by name, as given on the command line; the environment gives the rest.
        clients: How many at once, a step each.
        seconds: Measured time of each step.
        on_progress: Called with what is going on.

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
        with running(command, port, first, log=log, start_seconds=START_SECONDS) as service:
            measured = measure(service.address, clients, seconds, on_progress)
            rss_mb = round(service.rss_bytes() / 1e6, 1)
    process = {"ready_seconds": round(service.ready_seconds, 2), "rss_mb": rss_mb}
    return replace(measured, process=process, url=None)


def measure(address: Address, clients: Sequence[int], seconds: float, on_progress: OnProgress) -> Measurement:
    """Measure a service that is running; arguments as `measure_own`.

    Raises:
        MeasurementFailed: Nothing answers there, it cannot embed, or serves nothing.
    """
    url = f"http://{address.host_header}{address.prefix}"
    about = _health(address, url)
    requests = [form_request(address, "/embed", "file", [picture]) for picture in _synthetic_faces()]
    steps: list[LoadReport] = []
    for number, count in enumerate(clients):
        who = _counted(count, "client")

        def of_the_whole(share: float, number: int = number, who: str = who) -> None:
            on_progress(who, (number + share) / len(clients))

        step = closed_loop(
            address,
            requests,
            clients=count,
            seconds=seconds,
            warm_up_seconds=min(WARM_UP_SECONDS, seconds / 4),
            on_progress=of_the_whole,
        )
        if step.latency_ms is None:
            why = _reasons(step) or f"none was answered within {seconds:g} s; give more --seconds"
            raise MeasurementFailed(f"With {who} no request was served: {why}.")
        steps.append(step)
    on_progress("done", 1)
    return Measurement(about, url, tuple(steps))


def _synthetic_faces() -> list[bytes]:
    """The faces on which sessions prove themselves, as JPEG: everybody sends the same, and pictures of nobody."""
    crops = (cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in probe_crops(HEIGHT, WIDTH))
    return [cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes() for crop in crops]


def _health(address: Address, url: str) -> Mapping[str, Any]:
    try:
        status, body = ask(address, raw_request(address, "GET", "/health"))
        about = json.loads(body)
    except OSError as error:
        raise MeasurementFailed(
            f"Nothing answers at {url}: {error.strerror or error}. Start the service there, or leave out --url to start"
            " one here."
        ) from None
    except (http.client.HTTPException, ValueError):
        about, status = None, 0
    if not isinstance(about, dict) or not about.keys() >= _HEALTH:
        raise MeasurementFailed(f"What answers at {url}/health is not arcface-api. Check the address.")
    if status != http.HTTPStatus.OK:
        raise MeasurementFailed(f"The service at {url} cannot embed: {about['reason']}.")
    return about


def _reasons(step: LoadReport) -> str:
    """Why requests were not served."""
    refused = {f"refused with {status}": count for status, count in step.refused.items()}
    return ", ".join(f"{count} x {why}" for why, count in (step.failed | refused).items())


# ── what is shown and written ──────────────────────────────────────────────────────────────────────────────────────


def text(measurement: Measurement) -> str:
    """The service in a few lines, and a row for each number of clients."""
    service = measurement.service
    lines = [
        f"{service['model']} on {service['provider']} in {service['precision']},"
        f" {_counted(service['threads'], 'thread')}, batches of at most {max(service['batch_sizes'])}",
        f"self-test: cosine {service['self_test_cosine']:.5f} to float32 on the CPU",
    ]
    if service["reason"]:
        lines.append(f"not faster because: {service['reason']}")
    if process := measurement.process:
        lines.append(f"ready {process['ready_seconds']:.1f} s after its start, {process['rss_mb']:.0f} MB in memory")
    lines += ["", f"{'clients':>7} {'faces/s':>9}  {'':<{BAR_CELLS}} {'p50':>10} {'p99':>10} {'mean batch':>11}"]
    most = max(step.served_per_second for step in measurement.steps)
    lines += [_row(step, most) for step in measurement.steps]
    lines += [
        f"With {_counted(step.clients, 'client')} {sum(step.refused.values())} requests were refused (429 or 503): the"
        " latencies are of the others."
        for step in measurement.steps
        if step.refused
    ]
    return "\n".join(lines)


def write(measurement: Measurement, output: Path) -> str:
    """Write FILE.json, and FILE.svg where matplotlib is installed; returns a sentence that says where they are.

    Raises:
        MeasurementFailed: A file cannot be written.
    """
    plot = output.with_suffix(".svg")
    try:
        output.write_text(json.dumps(measurement.to_json(), indent=2) + "\n", encoding="utf-8")
        try:
            _draw(measurement, plot)
        except ModuleNotFoundError:
            return f"All figures are in {output}. For a plot beside it install matplotlib (arcface-api[evaluate])."
    except OSError as error:
        raise MeasurementFailed(
            f"{error.filename or output} cannot be written: {error.strerror}. Name another --output; the figures stand"
            " above."
        ) from error
    return f"All figures are in {output}, a plot in {plot}."


def _draw(measurement: Measurement, plot: Path) -> None:
    """Latency over throughput, a point for each number of clients: where it turns upwards, more only wait."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # part of the extra `evaluate`

    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.subplots()
    rates = [step.served_per_second for step in measurement.steps]
    for name, style in (("p50", "o-"), ("p99", "s--")):
        axes.plot(rates, [getattr(step.latency_ms, name) for step in measurement.steps], style, label=name)
    for step in measurement.steps:
        if step.latency_ms:
            axes.annotate(
                f"{step.clients}", (step.served_per_second, step.latency_ms.p50), (6, -12), textcoords="offset points"
            )
    axes.set(yscale="log", xlabel="throughput, faces per second", ylabel="latency, milliseconds")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    service = measurement.service
    where = measurement.url or f"{machine()['processor']}, {machine()['cpus']} CPUs"
    axes.set_title(f"{service['model']} · {service['provider']} · {service['precision']}\n{where}", fontsize=10)
    figure.savefig(plot)


def _row(step: LoadReport, most: float) -> str:
    assert step.latency_ms is not None  # noqa: S101  # a step that served nothing is no part of a measurement
    eighths = round(step.served_per_second / most * BAR_CELLS * 8)
    bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
    p50, p99 = (_milliseconds(value) for value in (step.latency_ms.p50, step.latency_ms.p99))
    batch = "" if step.mean_batch is None else f"{step.mean_batch:.1f}"
    return f"{step.clients:>7} {step.served_per_second:>9.1f}  {bar:<{BAR_CELLS}} {p50:>10} {p99:>10} {batch:>11}"


def _milliseconds(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def _counted(count: int | None, thing: str) -> str:
    """`1 client`, `4 clients`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
