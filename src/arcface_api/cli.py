"""The command line: `serve`, `bench`, and `packs` with `list`, `pull`, `verify`, `import` and `where`.

Commands read settings, call the floors below and print; they decide nothing themselves. Options that are settings are
made from `Settings`, so that a setting is described once.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic.fields import FieldInfo

from arcface_api import __version__, packs, serving
from arcface_api.bench.requests import Address
from arcface_api.errors import ArcFaceError, PackNotFound, SettingInvalid
from arcface_api.packs import InstalledPack, PackLocations
from arcface_api.packs.progress import Progress
from arcface_api.progress import BarProgress, LoggedProgress, ShareBar
from arcface_api.serving import port
from arcface_api.serving.logs import log_to_stderr
from arcface_api.settings import ENVIRONMENT_PREFIX, Settings, misspelt_variables, read_settings

_log = logging.getLogger(__name__)


def main() -> None:
    """Run the command line; errors we raise on purpose become one sentence and exit status 1 (2 for wrong settings)."""
    try:
        cli(prog_name="arcface-api")
    except ArcFaceError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, SettingInvalid) else 1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="arcface-api")
def cli() -> None:
    """A picture of a face crop in, its ArcFace embedding out."""


# ── settings as options ────────────────────────────────────────────────────────────────────────────────────────────


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    """The command line option of one setting. Its value stays text, which `read_settings` checks and explains."""
    flag = "--" + name.replace("_", "-")
    help_text = f"{field.description} [{ENVIRONMENT_PREFIX}{name.upper()}]"
    if field.annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    return click.option(flag, name, metavar="TEXT", help=help_text)


def settings_options(*names: str) -> Callable[[Any], Any]:
    """Give a command the options of these settings; of all settings without names."""

    def decorate(command: Any) -> Any:
        for name in reversed(names or tuple(Settings.model_fields)):
            command = _option(name, Settings.model_fields[name])(command)
        return command

    return decorate


# ── serve ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@cli.command()
@settings_options()
def serve(**options: object) -> None:
    """Run the service until SIGTERM or Ctrl-C; requests in flight are answered first."""
    settings = read_settings(**options)
    log_to_stderr(settings)
    for variable, meant in misspelt_variables(os.environ).items():
        _log.warning("%s is not a setting and has no effect; was %s meant?", variable, meant)
    # As a container's first process it would ignore SIGTERM while it downloads or loads.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = port.take(settings.host, settings.port)
    serving.serve(_find_pack(settings, LoggedProgress()), settings, listener)


def _find_pack(settings: Settings, progress: Progress) -> InstalledPack:
    locations = PackLocations.default(settings.models_dir)
    try:
        return packs.locate(settings.pack, locations)
    except PackNotFound:
        if not settings.pull or settings.pack not in packs.registry():
            raise
    if settings.pack in settings.accept_license:
        _show_licence(settings.pack, _log.info)
    return packs.pull(settings.pack, locations, accepted_licences=settings.accept_license, progress=progress)


# ── bench ──────────────────────────────────────────────────────────────────────────────────────────────────────────

MEASURED_SETTINGS = (
    "pack",
    "models_dir",
    "device",
    "precision",
    "cache_dir",
    "workers",
    "threads",
    "decode_threads",
    "max_batch",
)
"""Of a service that is started to be measured: what its speed depends on."""


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


@cli.command()
@click.option("--url", metavar="URL", callback=_address, help="Measure the service that runs there: http://host:port.")
@click.option(
    "--clients",
    type=click.IntRange(1, 1024),
    multiple=True,
    default=(1, 4, 16, 32),
    show_default=True,
    help="How many send at once, each its next picture when the answer came. Repeat it for more steps.",
)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=12, show_default=True, help="Length of a step.")
@click.option(
    "--output",
    metavar="FILE.json",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_json_file,
    help="Write all figures there, and a plot beside it (FILE.svg).",
)
@settings_options(*MEASURED_SETTINGS)
def bench(
    url: Address | None, clients: tuple[int, ...], seconds: float, output: Path | None, **options: str | None
) -> None:
    """Measure how fast the service is on this machine, in about a minute: starts one, or takes the one at --url."""
    given = {name: value for name, value in options.items() if value is not None}
    if url and given:
        raise click.UsageError("--url measures a service that runs and has its settings: leave out the other options.")
    from arcface_api import measuring  # noqa: PLC0415  # brings the models' libraries

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else it would leave a service behind
    if url is None:
        with BarProgress() as progress:
            _find_pack(read_settings(**given), progress)
    with ShareBar("Measuring") as bar:
        if url is None:
            measured = measuring.measure_own(given, clients, seconds, bar)
        else:
            measured = measuring.measure(url, clients, seconds, bar)
    click.echo(measuring.text(measured))
    if output is not None:
        plot = measuring.write(measured, output)
        click.echo(f"All figures are in {output}, a plot in {plot}.")
    measured.check()


# ── packs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@cli.group("packs")
def packs_group() -> None:
    """List, download, check and import model packs."""


@packs_group.command("list")
@settings_options("models_dir")
def list_packs(**options: object) -> None:
    """Show the packs that are known and those that are installed."""
    locations = PackLocations.default(read_settings(**options).models_dir)
    present = {pack.manifest.name: pack for pack in packs.installed(locations)}
    known = packs.registry()
    for name in sorted({*known, *present}, key=lambda name: (name not in known, name)):
        manifest = present[name].manifest if name in present else known[name]
        where = f"installed in {present[name].folder}" if name in present else "not installed"
        pinned = "" if manifest.is_pinned else "; hashes not known, recorded at the first use"
        use = "commercial use allowed" if manifest.licence.allows_commercial_use else "non-commercial"
        click.echo(f"{name:<14} {manifest.title}\n{'':<14} {manifest.licence.name} ({use}); {where}{pinned}")


@packs_group.command()
@click.argument("name", default="antelopev2")
@click.option("--accept-license", "accepts", is_flag=True, help="You accept the licence of the pack's weights.")
@settings_options("models_dir")
def pull(name: str, *, accepts: bool, **options: object) -> None:
    """Download a pack, checking every byte against its known size and hash."""
    settings = read_settings(**options)
    accepted = settings.accept_license | ({name} if accepts else set())
    if name in packs.registry() and name in accepted:
        _show_licence(name, click.echo)
    with BarProgress() as progress:
        pack = packs.pull(
            name, PackLocations.default(settings.models_dir), accepted_licences=frozenset(accepted), progress=progress
        )
    click.echo(f"{name} is installed in {pack.folder}.")


@packs_group.command()
@click.argument("name", required=False)
@settings_options("pack", "models_dir")
def verify(name: str | None, **options: object) -> None:
    """Check every file of an installed pack against its size and hash. NAME says the same as --pack."""
    settings = read_settings(**options | ({"pack": name} if name else {}))
    checks = packs.verify(packs.locate(settings.pack, PackLocations.default(settings.models_dir)))
    for check in checks:
        click.echo(f"{'ok  ' if check.ok else 'BAD '} {check.file} ({check.role}): {check.message}")
    sys.exit(0 if all(check.ok for check in checks) else 1)


@packs_group.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="What to call the pack. Default: a known pack's name, else the file's or folder's.")
@settings_options("models_dir")
def import_(paths: tuple[Path, ...], name: str | None, **options: object) -> None:
    """Install a pack from a zip, a folder or single .onnx files, without internet."""
    locations = PackLocations.default(read_settings(**options).models_dir)
    pack = packs.import_pack(paths, locations, name=name)
    for assumption in pack.manifest.assumptions:
        click.echo(f"Assumed: {assumption}")
    click.echo(f"{pack.manifest.name} is installed in {pack.folder}.")


@packs_group.command()
@click.argument("name", required=False)
@settings_options("pack", "models_dir")
def where(name: str | None, **options: object) -> None:
    """Show which files a pack would be served from. NAME says the same as --pack."""
    settings = read_settings(**options | ({"pack": name} if name else {}))
    pack = packs.locate(settings.pack, PackLocations.default(settings.models_dir))
    click.echo(f"{pack.manifest.name}: {pack.folder} ({pack.origin})")
    for role, path in pack.paths.items():
        click.echo(f"  {role:<12} {path.name}")


def _show_licence(name: str, say: Callable[[str], object]) -> None:
    licence = packs.registry()[name].licence
    say(f"Licence of the {name} weights: {licence.name} ({licence.url}). {licence.notice}")
