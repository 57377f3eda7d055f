"""`arcface-api embed`.

One module, because most of it is the table of its options, and which of them go together.
"""

import os
import re
import signal
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arcface_api.cli.api_key import api_key_option, read_api_key
from arcface_api.cli.evaluate import service_url
from arcface_api.cli.setting_options import settings_options
from arcface_api.errors import ArcFaceError, BulkError
from arcface_api.packs import obtain
from arcface_api.progress import BarProgress
from arcface_api.settings import Settings, read_settings

if TYPE_CHECKING:
    from arcface_api.bulk.engine import OpenEngine

MODEL_SETTINGS = (
    "pack",
    "models_dir",
    "device",
    "precision",
    "cache_dir",
    "threads",
    "lanes",
    "max_batch",
    "decode_threads",
    "max_image_bytes",
    "max_image_pixels",
    "decode_isolation",
    "decode_timeout_seconds",
)
"""Of a model that runs in this process."""
SETTINGS_HELP = {
    "max_image_bytes": "Largest picture file in bytes; a larger one is not read, and has a row with an error.",
    "max_image_pixels": "Largest picture in pixels (width x height); a larger one has a row with an error.",
    "decode_isolation": "process: decode pictures in separate processes, so that a picture that crashes or hangs the"
    " decoder costs its own row only. For pictures that you do not trust. Linux only. none: in this process.",
    "decode_timeout_seconds": "Longest time to decode the largest allowed picture. Smaller ones get their share of it,"
    " at least 2 seconds. No effect with ARCFACE_DECODE_ISOLATION=none.",
}
"""Of settings whose descriptions are about a service."""
HELP = {
    "align": "none: the whole picture is the crop. auto: turn, scale and shift the face to where the recogniser was"
    " trained to see it, by landmarks that are found; where they are unsure, as none. landmarks: by those of"
    " --landmarks-column. Default: as the pack or ARCFACE_ALIGN says.",
    "fit": "How a picture that is not aligned becomes a crop. stretch: scale each side separately. letterbox: keep the"
    " picture's shape and fill the rest with black. Default: as the pack or ARCFACE_FIT says.",
    "include_crop": "Also write the crop as the recogniser saw it, a PNG (in .jsonl files in Base64).",
    "include_landmarks": "Also write the five points by which the face is aligned. Never changes the embedding.",
}
"""Of options whose description names parts of a request or an answer."""
LEFT_OUT = {"encoding"}
"""Options of the HTTP API that say what an answer looks like."""


class EmbedCommand(click.Command):
    """A command with the options of the HTTP API, too: their table brings the server's packages, so it is read late."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options of the decorators, and those of the table before them."""
        return [*self._query_options, *super().get_params(ctx)]

    @cached_property
    def _query_options(self) -> list[click.Parameter]:
        from arcface_api.api.options import OPTIONS  # noqa: PLC0415

        found: list[click.Parameter] = []
        for name, option in OPTIONS.items():
            if name in LEFT_OUT:
                continue
            help_text = HELP.get(name) or re.sub(r"`([^`]*)`", r"\1", option.description)
            flag = f"--{name.replace('_', '-')}"
            if option.schema["type"] == "boolean":
                found.append(click.Option([flag], is_flag=True, default=None, help=help_text))
            else:
                found.append(click.Option([flag], type=click.Choice(list(option.values)), help=help_text))
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, with the exit status of Ctrl-C that shells know."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Stopped by Ctrl-C.", err=True)
            ctx.exit(128 + signal.SIGINT)


def _shard(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", value)
    if found and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise click.BadParameter(
        f"{value!r} is not allowed. Give the number of this job and how many there are, from 1/n to n/n."
    )


def _check_together(url: str | None, given: dict[str, Any], engine: str, address: str | None) -> None:
    """Raises UsageError for options that do not go together."""
    if url and given:
        raise click.UsageError("The service at --url has its own settings: leave out --url, or the model's options.")
    if url and engine == "ray":
        raise click.UsageError(
            "A running service embeds by itself: nodes of a cluster would only send it what one machine can. Leave out"
            " --url, or --engine ray."
        )
    if address and engine != "ray":
        raise click.UsageError("--address is that of a Ray cluster: add --engine ray, or leave it out.")


def _open_ray(settings: Settings, values: dict[str, Any], address: str | None) -> "OpenEngine":
    try:
        from arcface_api.ray.jobs import open_ray  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise BulkError(
            "--engine ray needs Ray, which is not installed. Install the extra ray, on every node of the cluster: pip"
            " install 'arcface-api[cpu,bulk,ray]' (in a clone: pip install '.[cpu,bulk,ray]'). Without a cluster, leave"
            " out --engine ray."
        ) from None
    return open_ray(settings, values, address)


@click.command(
    cls=EmbedCommand,
    epilog="""\b
    Examples:
      arcface-api embed crops/ --pack open --out faces.parquet
      arcface-api embed crops.tar --align auto --normalize --out faces.npy
      arcface-api embed crops/ --url http://localhost:5555 --out faces.jsonl
      arcface-api embed s3://bucket/crops/ --out s3://bucket/faces/ --engine ray --address auto

    \b
    Exit status:
      0    every input has its row; those with an error are counted in the summary
      1    the job is unfinished, or a source broke off: the line that begins with "Error:" says why, and how to go on
      2    an option or a setting is wrong
      130  stopped by Ctrl-C; the same command, without --restart, goes on where it was
      143  stopped by SIGTERM; the same holds""",
)
@click.argument("sources", metavar="SOURCES...", nargs=-1, required=True)
@click.option(
    "--out",
    metavar="FILE",
    required=True,
    help="The file to write: .parquet, .npy (with the other columns in .npy.jsonl) or .jsonl. If it ends in a slash, a"
    " folder, or a URL in object storage (s3://, gs://, abfs://), for a Parquet file of each part.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="local: this process embeds. ray: all nodes of a Ray cluster do.",
)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Of the Ray cluster: auto, or host:port. Default: RAY_ADDRESS, else a cluster of this machine alone.",
)
@click.option("--url", metavar="URL", callback=service_url, help="Embed with a running service: http://host:port.")
@api_key_option
@click.option(
    "--column",
    metavar="NAME",
    help="Of tables: the column with paths, or in Parquet the bytes of picture files. Default: image, path or file.",
)
@click.option(
    "--id-column", metavar="NAME", help="Of tables: the column with the id of each picture. Default: its path."
)
@click.option(
    "--landmarks-column",
    metavar="NAME",
    help="Of tables, for --align landmarks: the column with five points x, y, as a list or as JSON.",
)
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", help="Of the numbers that are written."
)
@click.option(
    "--shard",
    metavar="I/N",
    default="1/1",
    callback=_shard,
    help="Embed the I-th of N shares of the sources: N jobs, each with its own --out, embed all of them.",
)
@click.option(
    "--part-rows",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    help="Pictures after which what is done is stored: so many may be embedded again after a kill.",
)
@click.option("--restart", is_flag=True, help="Begin again: discard what an unfinished job has left, and replace FILE.")
@settings_options(*MODEL_SETTINGS, described=SETTINGS_HELP)
def embed(  # noqa: PLR0913  # each is an option or an argument of the command
    sources: tuple[str, ...],
    *,
    out: str,
    engine: str,
    address: str | None,
    url: str | None,
    api_key_file: Path | None,
    column: str | None,
    id_column: str | None,
    landmarks_column: str | None,
    dtype: Any,
    shard: tuple[int, int],
    part_rows: int,
    restart: bool,
    **options: Any,
) -> None:
    """Embed many pictures into one file.

    SOURCES are folders, picture files, patterns ('crops/**/*.jpg'), .zip and .tar archives, tables (.parquet, .csv,
    .jsonl) with a column of paths or of picture files, and - for a list of paths on standard input.

    A job that was killed goes on where it was when the same command is started again (without --restart, which begins
    again each time). A picture that cannot be embedded has a row with an error.
    """
    given = {name: options[name] for name in MODEL_SETTINGS if options[name] is not None}
    _check_together(url, given, engine, address)
    api_key = read_api_key(api_key_file, url)
    # They bring pyarrow and the model runtimes, which --help does not need.
    try:
        from arcface_api.bulk import listing, outputs, remote, run  # noqa: PLC0415
        from arcface_api.bulk import sources as named  # noqa: PLC0415
        from arcface_api.bulk.parts import Parts  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise BulkError(
            "arcface-api embed writes its file with pyarrow, which is not installed. Install the extra bulk:"
            " pip install 'arcface-api[bulk]' (in a clone: pip install '.[cpu,bulk]', or make embed)."
        ) from None
    from arcface_api.api.options import OPTIONS  # noqa: PLC0415
    from arcface_api.wire import Align  # noqa: PLC0415

    output = outputs.output_named(out)
    chosen = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    if (chosen.get("align") == Align.LANDMARKS) != (landmarks_column is not None):
        raise click.UsageError("--align landmarks uses the landmarks of --landmarks-column: give both, or neither.")
    order = run.Order(
        sources=sources,
        out=output,
        columns=named.Columns(column, id_column, landmarks_column),
        shard=listing.Shard(*shard),
        dtype=dtype,
        part_rows=part_rows,
        restart=restart,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(run.SIGTERM_STATUS))
    opened: OpenEngine
    if url is not None:
        opened = remote.open_remote(url, chosen, api_key)
    else:
        from arcface_api.bulk.local import open_local  # noqa: PLC0415

        settings = read_settings(**given)
        values = {name: OPTIONS[name].values[str(value).lower()] for name, value in chosen.items()}
        if engine == "ray":
            opened = _open_ray(settings, values, address or os.environ.get("RAY_ADDRESS") or None)
        else:
            with BarProgress() as progress:
                pack = obtain(settings, progress)
            opened = open_local(pack, settings, values)
    try:
        with BarProgress("Embedding", line_seconds=60) as bar:
            summary = run.embed_all(order, opened, bar)
    except (KeyboardInterrupt, SystemExit, ArcFaceError) as error:
        # A BulkError says itself how to go on, but not that --restart would begin again.
        is_silent = restart or not isinstance(error, BulkError)
        if is_silent and (left := run.what_is_left(Parts(output), restart=restart)):
            click.echo(left, err=True)
        raise
    click.echo(str(summary).encode("utf-8", "backslashreplace"))  # a path need not be UTF-8
    if summary.broken:
        raise BulkError(
            f"{', '.join(summary.broken)} could not be read to the end, so pictures are missing from {summary.out};"
            " rows with input_unreadable say why. Repair or replace the source, and begin again with --restart."
        )
