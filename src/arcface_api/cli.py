"""The command line: `serve`, and `packs` with `list`, `pull`, `verify`, `import` and `where`.

Commands read settings, call the floors below and print; they decide nothing themselves. Options that are settings are
made from `Settings`, so that a setting is described once.
"""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic.fields import FieldInfo

from arcface_api import __version__, packs
from arcface_api.errors import ArcFaceError, PackNotFound, SettingInvalid
from arcface_api.packs import InstalledPack, PackLocations
from arcface_api.progress import BarProgress, LoggedProgress
from arcface_api.settings import ENVIRONMENT_PREFIX, Settings, misspelt_variables, read_settings

BACKLOG = 2048
"""Connections that may wait to be accepted; uvicorn's default."""

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
    # Here and not above: they take a second and a half, which every other command would pay.
    import uvicorn  # noqa: PLC0415

    from arcface_api.api.app import create_app  # noqa: PLC0415
    from arcface_api.api.protocol import HttpProtocol  # noqa: PLC0415

    settings = read_settings(**options)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for variable, meant in misspelt_variables(os.environ).items():
        _log.warning("%s is not a setting and has no effect; was %s meant?", variable, meant)
    # As a container's first process it would ignore SIGTERM while it downloads or loads.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = _bind(settings.host, settings.port)
    pack = _find_pack(settings)
    app = create_app(pack, settings)
    about = app.info
    _log.info(
        "Serving %s: model %s on %s (%s, %d threads), fingerprint %s.",
        about.pack,
        about.model,
        about.provider,
        about.precision,
        about.threads,
        about.fingerprint,
    )
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=settings.access_log,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
        server_header=False,
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal that stopped it once more when all is done: being told to stop is no failure. Before it
    # has handlers of its own, the signal must not be lost either.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    _listen(listener)
    _log.info("Listening on http://%s:%s, API at /docs.", f"[{host}]" if ":" in host else host, port)
    server.run(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    """Take the port before anything slow happens, so that a taken one is told at once; callers still find it closed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except socket.gaierror as error:
        listener.close()
        raise SettingInvalid(
            f"Cannot listen on {host}: this machine has no such address. Give --host or ARCFACE_HOST one that it has:"
            " 127.0.0.1 for itself alone, 0.0.0.0 for every network it is in."
        ) from error
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _listen(listener: socket.socket) -> None:
    """Open the port. Another process may have bound and opened it since `_bind`, which SO_REUSEADDR allows."""
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> SettingInvalid:
    return SettingInvalid(
        f"Cannot listen on {host} port {port}: {error.strerror or error}. Another program may have the port; choose"
        " another with --port or ARCFACE_PORT, or another address with --host or ARCFACE_HOST."
    )


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
