"""`arcface-api packs`: `list`, `pull`, `verify`, `import`, `check` and `where`."""

import sys
from pathlib import Path

import click

from arcface_api import packs
from arcface_api.cli.evaluate import FILE
from arcface_api.cli.setting_options import settings_options
from arcface_api.errors import ModelFailed
from arcface_api.packs import PackLocations
from arcface_api.progress import BarProgress
from arcface_api.settings import read_settings
from arcface_api.wording import counted


def _epilog(*examples: str, failed: str = "a folder cannot be read") -> str:
    lines = "\n  ".join(examples)
    statuses = f"0  done\n  1  {failed}\n  2  an option or a setting is wrong"
    return f"\b\nExamples:\n  {lines}\n\n\b\nExit status:\n  {statuses}"


@click.group("packs")
def packs_group() -> None:
    """List, download, check and import model packs.

    A pack is a folder with a recogniser and, in most packs, models for age, gender and head pose.
    """


@packs_group.command("list", epilog=_epilog("arcface-api packs list"))
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


@packs_group.command(
    epilog=_epilog(
        "arcface-api packs pull antelopev2 --accept-license",
        "arcface-api packs pull buffalo_l --accept-license --pack-mirror https://mirror.example/packs",
        failed="the pack is not known, its licence is not accepted, or no source has the right files",
    )
)
@click.argument("name", default="antelopev2")
@click.option("--accept-license", "accepts", is_flag=True, help="You accept the licence of the pack's weights.")
@settings_options("models_dir", "pack_mirror")
def pull(name: str, *, accepts: bool, **options: object) -> None:
    """Download a pack and check its files' sizes and hashes."""
    settings = read_settings(**options)
    accepted = settings.accept_license | ({name} if accepts else set())
    if name in packs.registry() and name in accepted:
        click.echo(packs.licence_sentence(packs.registry()[name]))
    with BarProgress() as progress:
        pack = packs.pull(
            name,
            PackLocations.default(settings.models_dir, settings.pack_mirror),
            accepted_licences=frozenset(accepted),
            progress=progress,
        )
    click.echo(f"{name} is installed in {pack.folder}.")


@packs_group.command(
    epilog=_epilog("arcface-api packs verify antelopev2", failed="a file is damaged, or the pack is not installed")
)
@click.argument("name", required=False)
@settings_options("pack", "models_dir")
def verify(name: str | None, **options: object) -> None:
    """Check every file of an installed pack against its size and hash. NAME is the same as --pack."""
    checks = _located(name, options).verify()
    for check in checks:
        click.echo(f"{'ok  ' if check.is_good else 'BAD '} {check.file.name} ({check.file.role}): {check.message}")
    sys.exit(0 if all(check.is_good for check in checks) else 1)


@packs_group.command(
    "import",
    epilog=_epilog(
        "arcface-api packs import antelopev2.zip",
        "arcface-api packs import my_recogniser.onnx --name mine",
        failed="no recogniser is among the files, or one of them cannot be used",
    ),
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(readable=False, path_type=Path))
@click.option(
    "--name",
    help="Name of the pack. Default: that of the registered pack with these files, else the file's or folder's.",
)
@settings_options("models_dir")
def import_(paths: tuple[Path, ...], name: str | None, **options: object) -> None:
    """Install a pack from a zip, a folder or .onnx files.

    A recogniser that is not registered is run on synthetic faces first: how well it distinguishes them is printed.
    """
    locations = PackLocations.default(read_settings(**options).models_dir)
    measured: list[str] = []

    def prove(file: packs.ModelFile, content: bytes) -> None:
        # It brings the model runtimes, which --help does not need.
        from arcface_api.loading import doubt, similarities  # noqa: PLC0415

        try:
            by_feed = similarities(file, content)
        except ModelFailed as error:
            raise ModelFailed(f"{file.name} cannot be run, so it is not installed: {error}") from error
        similarity = by_feed[file.input]
        why = doubt(similarity, by_feed)
        fine = (
            f"Measured: different synthetic faces have a median cosine of {similarity:.2f}, which is usual. Swapped"
            " colours, or numbers from 0 to 1 in place of -1 to 1, only pictures of people show: check it with"
            " `arcface-api packs check` (docs/packs.md)."
        )
        measured.append(f"Warning: {why}" if why else fine)

    pack = packs.import_pack(paths, locations, name=name, prove=prove)
    for assumption in pack.manifest.assumptions:
        click.echo(f"Assumed: {assumption}")
    for sentence in measured:
        click.echo(sentence)
    click.echo(f"{pack.manifest.name} is installed in {pack.folder}.")


@packs_group.command(
    epilog=_epilog(
        "arcface-api packs check mine crops/ --pairs pairs.csv",
        failed="another way is better, but not certainly, or no pack.toml states it; or the pairs cannot be used",
    )
)
@click.argument("name", metavar="PACK")
@click.argument("images", metavar="IMAGES", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--pairs",
    metavar="FILE",
    required=True,
    type=FILE,
    help="CSV with the columns image_a,image_b,same, as for `evaluate`.",
)
@click.option(
    "--boxes",
    metavar="FILE",
    type=FILE,
    help="IMAGES are whole photos; cut out these face boxes: columns image,x,y,width,height in pixels.",
)
@settings_options("models_dir", "cache_dir", "threads", "decode_threads", "max_image_pixels")
def check(name: str, images: Path, pairs: Path, boxes: Path | None, **options: object) -> None:
    """Find out how a recogniser must be fed, from labelled pairs.

    Feeds PACK (a name or path, as --pack of `serve`) with numbers from -1 to 1, from 0 to 1 and from 0 to 255, in the
    order RGB and BGR, then with faces aligned in other usual ways, and evaluates each with your pairs. IMAGES is a
    folder or a .tar of face crops. If another way is certainly better than what its pack.toml states, pack.toml is
    corrected.
    """
    # It brings OpenCV and the model runtimes, which --help does not need.
    from arcface_api.evaluate import feeds, inputs, run  # noqa: PLC0415
    from arcface_api.image import ImageLimits  # noqa: PLC0415

    pack, settings = _located(name, options), read_settings(**options)
    labelled = inputs.read_pairs(pairs)
    pictures = inputs.Pictures(images, labelled.pictures)
    preparation = run.Preparation(
        ImageLimits(settings.max_image_pixels),
        boxes=inputs.read_annotations(boxes, "box", labelled.pictures) if boxes else None,
    )
    with BarProgress("Checking") as bar:
        results, decision = feeds.Check(pack, settings, labelled, pictures, preparation)(bar)
    click.echo(feeds.table(results))
    best = decision.best
    if not decision.is_certain:
        samples = (
            f" In {1 - decision.certainty:.0%} of random samples of them, {decision.rival} is better than {best}."
            if decision.has_enough_pairs
            else f" At least {feeds.LEAST_OF_A_KIND} of one person and as many of different people are needed."
        )
        click.echo(
            f"Warning: too few pairs ({len(labelled.same):,}).{samples} Use more: 200 were always enough for LFW"
            " (docs/packs.md)."
        )
    if best.is_stated:
        click.echo(f"{pack.manifest.name} is fed as it should be: nothing is better than {best}.")
        return
    if not decision.is_certainly_better:
        click.echo(f"{best} is best, but not certainly better than what is stated. Nothing is changed.")
        sys.exit(1)
    reason = (
        f"{best}, because that separates {counted(len(labelled.same), 'labelled pair')} best (arcface-api packs check)."
    )
    corrected = packs.correct(pack, feeds.with_input(pack.manifest, best.input, reason))
    if corrected is None:
        click.echo(
            f"Feed it {best}. {pack.folder} has no pack.toml to correct: `arcface-api packs import` makes one; then"
            " check the imported pack."
        )
        sys.exit(1)
    click.echo(f"{corrected} now states {best}. Embeddings made before cannot be compared with new ones.")


@packs_group.command(
    epilog=_epilog("arcface-api packs where", "arcface-api packs where --pack auto", failed="the pack is not installed")
)
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
