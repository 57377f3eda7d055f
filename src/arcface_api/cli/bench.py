"""`arcface-api bench`: measures, prints a row for each number of clients, and writes the figures and a plot.

With --sweep: a row for each setting, and the best one as lines of an environment file.

One module, because both print and write the same kinds of figures.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from arcface_api.bench.connection import Address
from arcface_api.cli.api_key import api_key_option, read_api_key
from arcface_api.cli.setting_options import settings_options
from arcface_api.cpus import available_cpus, machine
from arcface_api.errors import MeasurementFailed
from arcface_api.packs import obtain
from arcface_api.progress import BarProgress
from arcface_api.settings import ENVIRONMENT_PREFIX, Settings, read_settings
from arcface_api.wording import counted

if TYPE_CHECKING:  # bench.load and bench.measure bring the models' libraries
    from arcface_api.bench.load import LoadReport
    from arcface_api.bench.measure import Measurement
    from arcface_api.bench.sweep import Sweep, Trial

MODEL_SETTINGS = ("pack", "models_dir", "device", "precision", "cache_dir")
PARALLEL_SETTINGS = ("workers", "threads", "lanes", "decode_threads", "max_batch")
"""With the model, what the speed of a service depends on."""
CLIENTS, SECONDS, SWEEP_SECONDS = (1, 4, 16, 32), 12.0, 4.0
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


@click.command(
    epilog="""\b
    Examples:
      arcface-api bench --pack open
      arcface-api bench --url http://localhost:5555 --clients 8 --seconds 5
      arcface-api bench --sweep --output sweep.json

    \b
    Exit status:
      0  it was measured
      1  the service could not be started or reached, requests failed, or Ctrl-C ended it
      2  an option or a setting is wrong"""
)
@click.option("--url", metavar="URL", callback=_address, help="Measure a running service: http(s)://host:port.")
@api_key_option
@click.option(
    "--clients",
    metavar="NUMBER",
    type=click.IntRange(1, 1024),
    multiple=True,
    help="Clients in one step; each sends its next picture when the last is answered. Repeat it for more steps."
    f" Default: {', '.join(map(str, CLIENTS))}. With --sweep, the most of them are the load; default: 4 for each CPU,"
    " 32 to 160.",
)
@click.option(
    "--seconds",
    metavar="NUMBER",
    type=click.FloatRange(min=0.1),
    help=f"Length of a step. Default: {SECONDS:g}; with --sweep {SWEEP_SECONDS:g}.",
)
@click.option(
    "--sweep",
    "is_sweep",
    is_flag=True,
    help="Find the best numbers of workers and lanes, and the best size of batches, in a few minutes.",
)
@click.option(
    "--output",
    metavar="FILE.json",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_json_file,
    help="Write all figures to this file, and a plot beside it (FILE.svg) if matplotlib is installed.",
)
@settings_options(*MODEL_SETTINGS, *PARALLEL_SETTINGS)
def bench(
    url: Address | None,
    api_key_file: Path | None,
    clients: tuple[int, ...],
    seconds: float | None,
    *,
    is_sweep: bool,
    output: Path | None,
    **options: str | None,
) -> None:
    """Measure how fast the service is on this machine.

    Takes about a minute. Starts a service and stops it afterwards, unless --url names a running one. Prints the
    throughput, the latency and the size of batches for each number of clients.
    """
    if url and is_sweep:
        raise click.UsageError(
            "--sweep starts a service with one setting after another, and the settings of a service that runs cannot be"
            " changed: leave out --url, and run the sweep on the machine that is to serve."
        )
    given = {name: value for name, value in options.items() if value is not None}
    if url and given:
        raise click.UsageError("--url measures a service that runs and has its settings: leave out the other options.")
    if (key := read_api_key(api_key_file, url)) and url:
        url = replace(url, api_key=key)
    from arcface_api.bench import measure  # noqa: PLC0415  # brings the models' libraries

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else it would leave a service behind
    if url is None:
        settings = read_settings(**given)
        with BarProgress() as progress:
            obtain(settings, progress)
        if is_sweep:
            run_sweep(given, settings, max(clients, default=None), seconds or SWEEP_SECONDS, output)
            return
    steps, seconds = clients or CLIENTS, seconds or SECONDS
    with BarProgress("Measuring") as bar:
        measured = measure.measure(url, steps, seconds, bar) if url else measure.measure_own(given, steps, seconds, bar)
    click.echo(text(measured))
    if output is not None:
        click.echo(write(measured, output))
    measured.check()


def run_sweep(
    given: Mapping[str, str], settings: Settings, clients: int | None, seconds: float, output: Path | None
) -> None:
    """Try settings; print what was measured, also when Ctrl-C ends it early."""
    from arcface_api.bench.measure import measure_own  # noqa: PLC0415  # as above
    from arcface_api.bench.sweep import LATER_ROUNDS, VARIED, Sweep  # noqa: PLC0415

    # Only what was given on the command line; `lanes` is None for `auto`.
    fixed = {name: number for name in VARIED if name in given and (number := getattr(settings, name)) is not None}
    sweep = Sweep(given, fixed, available_cpus(), clients, seconds)
    minutes = counted(max(1, round(sweep.most_seconds / 60)), "minute")
    click.echo(
        f"Trying {counted(len(sweep.trials), 'setting')} with 1 client and with {sweep.clients},"
        f" in {1 + LATER_ROUNDS} rounds: at most about {minutes}, or more where a start"
        " takes long. Ctrl-C ends it and shows what was measured.",
        err=True,
    )
    try:
        with BarProgress("Sweeping") as bar:
            sweep.run(measure_own, bar)
    except KeyboardInterrupt:
        if sweep.recommended is None:
            raise
    click.echo(sweep_text(sweep))
    if output is not None:
        with _explained(output):
            output.write_text(json.dumps(sweep.to_json(), indent=2) + "\n", encoding="utf-8")
        click.echo(f"All figures are in {output}.", err=True)
    if not sweep.is_complete:
        raise click.Abort


def sweep_text(sweep: "Sweep") -> str:
    """A row for each setting that was measured, why others were not, and the best as lines of an environment file."""
    from arcface_api.bench.sweep import RULE  # noqa: PLC0415  # as above

    best, measured = sweep.recommended, [trial for trial in sweep.trials if trial.is_measured]
    assert best is not None  # noqa: S101  # the caller's promise
    service = best.measurements[0].service
    highest = max(trial.faces_per_second for trial in measured)
    lines = [
        f"{service['model']} on {service['provider']} in {service['precision']}",
        "",
        f"{'workers':>7} {'lanes':>5} {'threads':>7} {'batch':>5} {'faces/s':>9}  {'':<{BAR_CELLS}} {'p99':>10}"
        f" {'alone, p50':>11} {'memory':>9} {'rounds':>6}",
        *(_sweep_row(trial, highest, is_best=trial is best) for trial in measured),
        "",
        *(f"Not measured: {trial.candidate}. {trial.failure}" for trial in sweep.trials if trial.failure),
        RULE,
        *([] if sweep.is_complete else ["The sweep was ended early: others may be faster."]),
        "",
        *(f"{ENVIRONMENT_PREFIX}{name.upper()}={value}" for name, value in best.settings().items()),
    ]
    return "\n".join(lines)


def _sweep_row(trial: "Trial", highest: float, *, is_best: bool) -> str:
    candidate = trial.candidate
    return (
        f"{candidate.workers:>7} {candidate.lanes:>5} {candidate.threads:>7} {trial.max_batch:>5}"
        f" {trial.faces_per_second:>9.1f}  {_bar(trial.faces_per_second / highest):<{BAR_CELLS}}"
        f" {_milliseconds(trial.p99_ms):>10} {_milliseconds(trial.alone_p50_ms):>11} {f'{trial.rss_mb:.0f} MB':>9}"
        f" {len(trial.last):>6}{'  recommended' if is_best else ''}"
    )


def text(measurement: "Measurement") -> str:
    """The service in a few lines, and a row for each number of clients."""
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
        f"With {counted(step.clients, 'client')}, refused with 429 or 503:"
        f" {counted(sum(step.refused.values()), 'request')}. The latencies are of the others."
        for step in measurement.steps
        if step.refused
    ]
    return "\n".join(lines)


def write(measurement: "Measurement", output: Path) -> str:
    """Writes FILE.json, and FILE.svg where matplotlib is installed; returns a sentence that says where they are."""
    plot = output.with_suffix(".svg")
    with _explained(output):
        output.write_text(json.dumps(measurement.to_json(), indent=2) + "\n", encoding="utf-8")
        try:
            _draw(measurement, plot)
        except ModuleNotFoundError:
            return f"All figures are in {output}. For a plot beside it install matplotlib (arcface-api[evaluate])."
    return f"All figures are in {output}, a plot in {plot}."


@contextmanager
def _explained(output: Path) -> Iterator[None]:
    """Raises `MeasurementFailed` where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise MeasurementFailed(
            f"{error.filename or output} cannot be written: {error.strerror}. Name another --output; the figures stand"
            " above."
        ) from error


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
    bar = _bar(step.served_per_second / most)
    p50, p99 = (_milliseconds(value) for value in (step.latency_ms.p50, step.latency_ms.p99))
    batch = "" if step.mean_batch is None else f"{step.mean_batch:.1f}"
    return f"{step.clients:>7} {step.served_per_second:>9.1f}  {bar:<{BAR_CELLS}} {p50:>10} {p99:>10} {batch:>11}"


def _bar(share: float) -> str:
    eighths = round(share * BAR_CELLS * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


def _milliseconds(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"
