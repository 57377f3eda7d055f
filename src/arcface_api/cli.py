"""The command line: `serve`, and `packs` with `list`, `pull`, `verify`, `import` and `where`.

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
from arcface_api.errors import ArcFaceError, PackNotFound, SettingInvalid
from arcface_api.packs import InstalledPack, PackLocations
from arcface_api.progress import BarProgress, LoggedProgress
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
    serving.serve(_find_pack(settings), settings, listener)


def _find_pack(settings: Settings) -> InstalledPack:
    locations = PackLocations.default(settings.models_dir)
    try:
        return packs.locate(settings.pack, locations)
    except PackNotFound:
        if not settings.pull or settings.pack not in packs.registry():
            raise
    if settings.pack in settings.accept_license:
        _show_licence(settings.pack, _log.info)
    return packs.pull(settings.pack, locations, accepted_licences=settings.accept_license, progress=LoggedProgress())


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
