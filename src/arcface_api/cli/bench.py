"""`arcface-api bench`."""

import os
import signal
import sys
from pathlib import Path

import click

from arcface_api.bench.connection import Address
from arcface_api.cli.setting_options import settings_options
from arcface_api.packs import obtain
from arcface_api.progress import BarProgress
from arcface_api.settings import read_settings

MODEL_SETTINGS = ("pack", "models_dir", "device", "precision", "cache_dir")
PARALLEL_SETTINGS = ("workers", "threads", "decode_threads", "max_batch")
"""With the model, what the speed of a service depends on."""


def _address(_: click.Context, __: click.Parameter, url: str | None) -> Address | None:
    try:
        return None if url is None else Address.of(url)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _json_file(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """Refused before the measuring and not after it."""
    if path is not None and (path.suffix != ".json" or not os.access(path.parent, os.W_OK)):
        raise click.BadParameter(f"{path} has to end in .json and to be in a folder that exists and can be written.")
    return path


@click.command()
@click.option("--url", metavar="URL", callback=_address, help="Measure the service that runs there: http://host:port.")
@click.option(
    "--clients",
    type=click.IntRange(1, 1024),
    multiple=True,
    default=(1, 4, 16, 32),
    show_default=True,
    help="How many send at once, each the next picture when it has its answer. Repeat it for more steps.",
)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=12, show_default=True, help="Length of a step.")
@click.option(
    "--output",
    metavar="FILE.json",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_json_file,
    help="Write all figures there, and with matplotlib a plot beside it (FILE.svg).",
)
@settings_options(*MODEL_SETTINGS, *PARALLEL_SETTINGS)
def bench(
    url: Address | None, clients: tuple[int, ...], seconds: float, output: Path | None, **options: str | None
) -> None:
    """Measure how fast the service is on this machine, in about a minute: starts one, or takes the one at --url."""
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
    click.echo(measure.text(measured))
    if output is not None:
        click.echo(measure.write(measured, output))
    measured.check()
