"""`arcface-api evaluate`."""

import signal
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import click

from arcface_api.cli.api_key import api_key_option, read_api_key
from arcface_api.cli.setting_options import settings_options
from arcface_api.packs import obtain
from arcface_api.progress import BarProgress
from arcface_api.settings import read_settings
from arcface_api.wire import Align, Fit

MODEL_SETTINGS = ("pack", "models_dir", "device", "precision", "cache_dir", "threads", "decode_threads", "max_batch")
"""Of a model that runs in this process."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def service_url(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    """The address of a service, without a final slash."""
    if url is None:
        return None
    with suppress(ValueError):  # raised for a malformed host or port
        parts = urlsplit(url)
        is_plain = not parts.query and not parts.fragment and parts.port != 0
        if parts.scheme in {"http", "https"} and parts.hostname and is_plain:
            return url.rstrip("/")
    raise click.BadParameter(f"{url!r} is not allowed. Give http://host:port or https://host:port.")


@click.command(
    epilog="""\b
    Examples:
      arcface-api evaluate pairs.csv crops/ --output report
      arcface-api evaluate pairs.csv photos.tar --boxes boxes.csv --align auto
      arcface-api evaluate pairs.csv crops/ --url http://localhost:5555

    \b
    Exit status:
      0  all pairs were compared
      1  the pairs cannot be used, or some pictures could not be embedded; figures of the others are printed
      2  an option or a setting is wrong"""
)
@click.argument("pairs", metavar="PAIRS", type=FILE)
@click.argument("images", metavar="IMAGES", type=click.Path(exists=True, path_type=Path))
@click.option("--url", metavar="URL", callback=service_url, help="Embed with a running service: http://host:port.")
@api_key_option
@click.option(
    "--boxes",
    metavar="FILE.csv",
    type=FILE,
    help="IMAGES are whole photos; cut out these face boxes: columns image,x,y,width,height in pixels.",
)
@click.option(
    "--margin",
    metavar="NUMBER",
    type=click.FloatRange(min=0, min_open=True, max=10),
    help="Cut each box this many times as wide and as high, about its centre. Default: 1.",
)
@click.option(
    "--align",
    type=click.Choice([choice.value for choice in Align]),
    help="Turn, scale and shift each face to where the recogniser was trained to see it: by landmarks that are found"
    " (auto) or those of --landmarks. Default: as the service or the pack is set.",
)
@click.option(
    "--landmarks",
    metavar="FILE.csv",
    type=FILE,
    help="For --align landmarks: columns image,x1,y1,…,x5,y5 in pixels of the upright picture (with --boxes: of the"
    " whole photo): left eye, right eye, nose tip, left and right mouth corner as seen in it.",
)
@click.option(
    "--fit",
    type=click.Choice([choice.value for choice in Fit]),
    help="How pictures that are not aligned become crops. Default: as the service or the pack is set.",
)
@click.option("--flip", is_flag=True, help="Add the embedding of the mirror image to each, as `flip=true` does.")
@click.option(
    "--output",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a report that shows the faces of the least plausible pairs (report.html), all figures"
    " (evaluation.json), and plots where matplotlib is installed.",
)
@click.option("--no-faces", is_flag=True, help="Leave out the faces that the report shows: they are biometric data.")
@settings_options(*MODEL_SETTINGS, "max_image_pixels")
def evaluate(  # noqa: PLR0913  # each is an option or an argument of the command
    pairs: Path,
    images: Path,
    *,
    url: str | None,
    api_key_file: Path | None,
    boxes: Path | None,
    margin: float | None,
    align: str | None,
    landmarks: Path | None,
    fit: str | None,
    flip: bool,
    output: Path | None,
    no_faces: bool,
    **options: str | None,
) -> None:
    """Find your threshold from your own pairs of pictures.

    PAIRS is a CSV with the columns image_a,image_b,same (1 for the same person, 0 for two people), or LFW's pairs.txt.
    IMAGES is a folder or a .tar of face crops with those names. The model runs here, or in the service at --url.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if url and given:
        raise click.UsageError("The service at --url has its own settings: leave out --url, or the model's options.")
    api_key = read_api_key(api_key_file, url)
    if margin is not None and boxes is None:
        raise click.UsageError("--margin changes the boxes of --boxes: give both, or neither.")
    if (align == Align.LANDMARKS) != (landmarks is not None):
        raise click.UsageError("--align landmarks uses the landmarks of --landmarks FILE.csv: give both, or neither.")
    # They bring OpenCV and an HTTP client, which --help does not need.
    from arcface_api.evaluate import backend, inputs, report, run  # noqa: PLC0415
    from arcface_api.image import ImageLimits  # noqa: PLC0415

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if output is not None:
        report.prepare_folder(output)
    settings = read_settings(**given)
    labelled = inputs.read_pairs(pairs)
    names = labelled.pictures
    files = inputs.Pictures(images, names)
    preparation = run.Preparation(
        ImageLimits(settings.max_image_pixels),
        boxes=inputs.read_annotations(boxes, "box", names) if boxes else None,
        margin=margin or 1.0,
        landmarks=inputs.read_annotations(landmarks, "landmarks", names) if landmarks else None,
    )
    align_as, fit_as = Align(align) if align else None, Fit(fit) if fit else None
    if url is not None:
        opened = backend.open_remote(url, align=align_as, fit=fit_as, flip=flip, api_key=api_key)
    else:
        with BarProgress() as progress:
            pack = obtain(settings, progress)
        opened = backend.open_local(pack, settings, align=align_as, fit=fit_as, flip=flip)
    with BarProgress("Evaluating") as bar:
        evaluation = run.evaluate(labelled, files, preparation, opened, bar)
    click.echo(report.text(evaluation))
    if output is not None:
        faces = {} if no_faces else report.face_thumbnails(evaluation, files, preparation)
        click.echo(report.write(evaluation, output, faces))
    evaluation.check()
