"""`arcface-api packs`: `list`, `pull`, `verify`, `import` and `where`."""

import sys
from pathlib import Path

import click

from arcface_api import packs
from arcface_api.cli.setting_options import settings_options
from arcface_api.packs import PackLocations
from arcface_api.progress import BarProgress
from arcface_api.settings import read_settings


@click.group("packs")
def packs_group() -> None:
    """List, download, check and import model packs."""


@packs_group.command("list")
@settings_options("models_dir")
def list_packs(**options: object) -> None:
    """Show the packs that are known and those that are installed."""
    locations = PackLocations.default(read_settings(**options).models_dir)
    # of two with one name, the first is used
    present = {pack.manifest.name: pack for pack in reversed(packs.installed_packs(locations))}
    known = packs.registry()
    for name in sorted({*known, *present}, key=lambda name: (name not in known, name)):
        manifest = present[name].manifest if name in present else known[name]
        where = f"installed in {present[name].folder}" if name in present else "not installed"
        pinned = "" if manifest.is_pinned else "; hashes not known, recorded at the first use"
        click.echo(f"{name:<14} {manifest.title}\n{'':<14} {_terms(manifest.licence)}; {where}{pinned}")


def _terms(licence: packs.Licence) -> str:
    if licence == packs.UNKNOWN_LICENCE:
        return "its licence is not known here"
    return f"{licence.name} ({'commercial use allowed' if licence.allows_commercial_use else 'non-commercial'})"


@packs_group.command()
@click.argument("name", default="antelopev2")
@click.option("--accept-license", "accepts", is_flag=True, help="You accept the licence of the pack's weights.")
@settings_options("models_dir")
def pull(name: str, *, accepts: bool, **options: object) -> None:
    """Download a pack and check its files' sizes and hashes."""
    settings = read_settings(**options)
    accepted = settings.accept_license | ({name} if accepts else set())
    if name in packs.registry() and name in accepted:
        click.echo(packs.licence_sentence(packs.registry()[name]))
    with BarProgress() as progress:
        pack = packs.pull(
            name, PackLocations.default(settings.models_dir), accepted_licences=frozenset(accepted), progress=progress
        )
    click.echo(f"{name} is installed in {pack.folder}.")


@packs_group.command()
@click.argument("name", required=False)
@settings_options("pack", "models_dir")
def verify(name: str | None, **options: object) -> None:
    """Check every file of an installed pack against its size and hash. NAME is the same as --pack."""
    checks = _located(name, options).verify()
    for check in checks:
        click.echo(f"{'ok  ' if check.is_good else 'BAD '} {check.file.name} ({check.file.role}): {check.message}")
    sys.exit(0 if all(check.is_good for check in checks) else 1)


@packs_group.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="What to call the pack. Default: a known pack's name, else the file's or folder's.")
@settings_options("models_dir")
def import_(paths: tuple[Path, ...], name: str | None, **options: object) -> None:
    """Install a pack from a zip, a folder or .onnx files."""
    locations = PackLocations.default(read_settings(**options).models_dir)
    pack = packs.import_pack(paths, locations, name=name)
    for assumption in pack.manifest.assumptions:
        click.echo(f"Assumed: {assumption}")
    click.echo(f"{pack.manifest.name} is installed in {pack.folder}.")


@packs_group.command()
@click.argument("name", required=False)
@settings_options("pack", "models_dir")
def where(name: str | None, **options: object) -> None:
    """Show which files a pack would be served from. NAME is the same as --pack."""
    pack = _located(name, options)
    click.echo(f"{pack.manifest.name}: {pack.folder} ({pack.origin})")
    for role, path in pack.paths.items():
        click.echo(f"  {role:<12} {path.name}")


def _located(name: str | None, options: dict[str, object]) -> packs.InstalledPack:
    settings = read_settings(**options | ({"pack": name} if name else {}))
    return packs.locate(settings.pack, PackLocations.default(settings.models_dir))
