"""`arcface-api evaluate`."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from arcface_api.cli.setting_options import settings_options
from arcface_api.packs import obtain
from arcface_api.progress import BarProgress
from arcface_api.settings import Settings, read_settings

if TYPE_CHECKING:
    from arcface_api.evaluate.source import OpenSource

EVALUATED_SETTINGS = (
    "pack",
    "models_dir",
    "device",
    "precision",
    "cache_dir",
    "threads",
    "decode_threads",
    "max_batch",
    "max_image_pixels",
)
"""Of a model that runs in this process: which one, on what."""


def _service(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        is_allowed = parts.scheme in {"http", "https"} and parts.hostname and not parts.query and not parts.fragment
        is_allowed = is_allowed and parts.port != 0  # reading it is what finds a wrong one
    except ValueError:
        is_allowed = False
    if not is_allowed:
        raise click.BadParameter(f"{url!r} is not allowed. Give http://host:port or https://host:port.")
    return url.rstrip("/")


@click.command()
@click.argument("pairs", metavar="PAIRS", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("images", metavar="IMAGES", type=click.Path(exists=True, path_type=Path))
@click.option("--url", metavar="URL", callback=_service, help="Ask the service that runs there: http://host:port.")
@click.option(
    "--boxes",
    metavar="FILE.csv",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="IMAGES are whole photos, of which these face boxes are cut: columns image,x,y,width,height in pixels.",
)
@click.option(
    "--margin",
    type=click.FloatRange(min=0, min_open=True, max=10),
    help="How many times its size each box is cut, about its centre. Default: 1.",
)
@click.option(
    "--align",
    type=click.Choice(["none", "auto"]),
    help="Turn, scale and shift faces to where the recogniser knows them. Default: as the service or the pack is set.",
)
@click.option(
    "--fit",
    type=click.Choice(["stretch", "letterbox"]),
    help="How pictures that are not aligned become crops. Default: as the service or the pack is set.",
)
@click.option("--flip", is_flag=True, help="Add the embedding of the mirror image to each, as `flip=true` does.")
@click.option(
    "--output",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a report there (report.html), its plots (PNG) and all figures (evaluation.json).",
)
@settings_options(*EVALUATED_SETTINGS)
def evaluate(  # noqa: PLR0913  # each is an option or an argument of the command
    pairs: Path,
    images: Path,
    *,
    url: str | None,
    boxes: Path | None,
    margin: float | None,
    align: str | None,
    fit: str | None,
    flip: bool,
    output: Path | None,
    **options: str | None,
) -> None:
    """Tell which threshold to use, from your own pairs of pictures.

    PAIRS is a CSV with the columns image_a,image_b,same (1 for one person, 0 for two), or LFW's pairs.txt. IMAGES is a
    folder, or a .tar, with the face crops under those names. The model runs here, or in the service at --url.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if url and given:
        raise click.UsageError("--url asks a service that runs and has its settings: leave out those of the model.")
    if margin is not None and boxes is None:
        raise click.UsageError("--margin is about the boxes of --boxes: give both, or neither.")
    # They bring the models' libraries.
    from arcface_api import evaluate as evaluation  # noqa: PLC0415
    from arcface_api.image import ImageLimits  # noqa: PLC0415

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if output is not None:
        evaluation.prepare_folder(output)
    settings = read_settings(**given)
    labelled = evaluation.read_pairs(pairs)
    pictures = evaluation.open_pictures(images, labelled.pictures)
    prepare = None
    if boxes is not None:
        margin = margin or 1.0
        cut = evaluation.read_boxes(boxes)
        evaluation.check_boxes(boxes, cut, labelled.pictures)
        prepare = evaluation.cutter(cut, margin, ImageLimits(settings.max_image_pixels))
    source = _source(url, settings, align, fit, flip=flip)
    with BarProgress("Evaluating") as bar:
        evaluated = evaluation.evaluate(labelled, pictures, source, bar, prepare=prepare, margin=margin)
    click.echo(evaluation.text(evaluated))
    if output is not None:
        click.echo(f"The report is {evaluation.write(evaluated, output)}, with its plots and figures beside it.")
    evaluated.check()


def _source(url: str | None, settings: Settings, align: str | None, fit: str | None, *, flip: bool) -> "OpenSource":
    """What embeds: the service at the URL, or the settings' pack in this process."""
    from arcface_api import evaluate as evaluation  # noqa: PLC0415
    from arcface_api.wire import Align, Fit  # noqa: PLC0415

    aligned, fitted = align and Align(align), fit and Fit(fit)
    if url is not None:
        return evaluation.open_over_http(url, aligned or None, fitted or None, flip=flip)
    # Only these bring the runtimes, which a machine that asks a service need not have.
    from arcface_api.evaluate.in_process import open_in_process  # noqa: PLC0415
    from arcface_api.loading import default_options  # noqa: PLC0415

    with BarProgress() as progress:
        pack = obtain(settings, progress)
    default = default_options(pack, settings)
    wanted = replace(default, align=aligned or default.align, fit=fitted or default.fit, flip=flip)
    return open_in_process(pack, settings, wanted)
