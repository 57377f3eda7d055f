"""`arcface-api bench`: measures, prints a row for each number of clients, and writes the figures and a plot."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from arcface_api.bench.connection import Address
from arcface_api.cli.setting_options import settings_options
from arcface_api.cpus import machine
from arcface_api.errors import MeasurementFailed
from arcface_api.packs import obtain
from arcface_api.progress import BarProgress
from arcface_api.settings import read_settings

if TYPE_CHECKING:  # bench.load and bench.measure bring the models' libraries
    from arcface_api.bench.load import LoadReport
    from arcface_api.bench.measure import Measurement

MODEL_SETTINGS = ("pack", "models_dir", "device", "precision", "cache_dir")
PARALLEL_SETTINGS = ("workers", "threads", "decode_threads", "max_batch")
"""With the model, what the speed of a service depends on."""
BAR_CELLS = 24
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def _address(_: click.Context, __: click.Parameter, url: str | None) -> Address | None:
    try:
        return None if url is None else Address.of(url)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _json_file(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """Checked before the measurement, not after it."""
    if path is not None and (path.suffix != ".json" or not os.access(path.parent, os.W_OK)):
        raise click.BadParameter(f"{path} has to end in .json and to be in a folder that exists and can be written.")
    return path


@click.command()
@click.option("--url", metavar="URL", callback=_address, help="Measure a running service: http://host:port.")
@click.option(
    "--clients",
    type=click.IntRange(1, 1024),
    multiple=True,
    default=(1, 4, 16, 32),
    show_default=True,
    help="Number of clients in one step; each sends its next picture when the last is answered. Repeat for more steps.",
)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=12, show_default=True, help="Length of a step.")
@click.option(
    "--output",
    metavar="FILE.json",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_json_file,
    help="Write all figures to this file, and a plot beside it (FILE.svg) if matplotlib is installed.",
)
@settings_options(*MODEL_SETTINGS, *PARALLEL_SETTINGS)
def bench(
    url: Address | None, clients: tuple[int, ...], seconds: float, output: Path | None, **options: str | None
) -> None:
    """Measure how fast the service is on this machine.

    Takes about a minute. Starts a service and stops it afterwards, unless --url names a running one.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if url and given:
        raise click.UsageError("--url measures a service that runs and has its settings: leave out the other options.")
    from arcface_api.bench import measure  # noqa: PLC0415  # brings the models' libraries

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else it would leave a service behind
    if url is None:
        with BarProgress() as progress:
            obtain(read_settings(**given), progress)
    with BarProgress("Measuring") as bar:
        measured = (
            measure.measure(url, clients, seconds, bar) if url else measure.measure_own(given, clients, seconds, bar)
        )
    click.echo(text(measured))
    if output is not None:
        click.echo(write(measured, output))
    measured.check()


def text(measurement: "Measurement") -> str:
    """The service in a few lines, and a row for each number of clients."""
    from arcface_api.bench.measure import counted  # noqa: PLC0415  # as above

    service = measurement.service
    lines = [
        f"{service['model']} on {service['provider']} in {service['precision']},"
        f" {counted(service['threads'], 'thread')}, batches of at most {max(service['batch_sizes'])}",
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
        f"With {counted(step.clients, 'client')} {sum(step.refused.values())} requests were refused (429 or 503): the"
        " latencies are of the others."
        for step in measurement.steps
        if step.refused
    ]
    return "\n".join(lines)


def write(measurement: "Measurement", output: Path) -> str:
    """Writes FILE.json, and FILE.svg where matplotlib is installed; returns a sentence that says where they are."""
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


def _draw(measurement: "Measurement", plot: Path) -> None:
    """Latency over throughput, a point for each number of clients: where it turns upwards, more only wait."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # part of the extra `evaluate`

    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.subplots()
    rates = [step.served_per_second for step in measurement.steps]
    for name, style in (("p50", "o-"), ("p99", "s--")):
        axes.plot(rates, [getattr(step.latency_ms, name) for step in measurement.steps], style, label=name)
    for step, rate in zip(measurement.steps, rates, strict=True):
        if step.latency_ms:
            axes.annotate(f"{step.clients}", (rate, step.latency_ms.p50), (6, -12), textcoords="offset points")
    axes.set(yscale="log", xlabel="throughput, faces per second", ylabel="latency, milliseconds")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    service = measurement.service
    where = measurement.url or f"{machine()['processor']}, {machine()['cpus']} CPUs"
    axes.set_title(f"{service['model']} · {service['provider']} · {service['precision']}\n{where}", fontsize=10)
    figure.savefig(plot)


def _row(step: "LoadReport", most: float) -> str:
    assert step.latency_ms is not None  # noqa: S101  # a step that served nothing is no part of a measurement
    eighths = round(step.served_per_second / most * BAR_CELLS * 8)
    bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
    p50, p99 = (_milliseconds(value) for value in (step.latency_ms.p50, step.latency_ms.p99))
    batch = "" if step.mean_batch is None else f"{step.mean_batch:.1f}"
    return f"{step.clients:>7} {step.served_per_second:>9.1f}  {bar:<{BAR_CELLS}} {p50:>10} {p99:>10} {batch:>11}"


def _milliseconds(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"
