"""Find a pack on this machine: by path, or by name in the places of `PackLocations`, flat or nested."""

import difflib
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from arcface_api.errors import ArcFaceError, GraphUnfit, PackManifestInvalid, PackNotFound, PackWithoutRecogniser
from arcface_api.packs.content import measure
from arcface_api.packs.identify import Candidate, Recognised, recognise, safe_name
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.locations import Origin, PackLocations
from arcface_api.packs.manifest import NAME_PATTERN, PACK_TOML, Manifest, Role, owners, read_pack_toml, registry
from arcface_api.packs.trust import TrustRecord

_log = logging.getLogger("arcface_api.packs")


def locate(
    pack: str | os.PathLike[str], locations: PackLocations, *, known: Mapping[str, Manifest] | None = None
) -> InstalledPack:
    """Find a pack. Nothing is verified yet, except that the files of an unregistered folder are looked into.

    Args:
        pack: The name of a registered or imported pack, or a path: whatever has a slash, begins with `~` or `.`, or
            ends with `.onnx` or `.zip`.
        locations: The places to look for a name.
        known: The registered packs; None: those of `packs.toml`.

    Raises:
        PackNotFound: It is in none of the places.
        PackWithoutRecogniser: The folder or file that was named has no recogniser.
        PackAmbiguous: The folder that was named has two.
        PackManifestInvalid: Its `pack.toml` cannot be understood.
        GraphUnfit: The file that was named is a model with another input or output.
        ModelUnreadable, ModelIsLfsPointer, ModelIsHtml: The file that was named is no model.
    """
    known = registry() if known is None else known
    name = os.fspath(pack)
    if _is_path(name):
        return _at_path(Path(name).expanduser(), locations, known)
    looked = []
    for folder, origin in _places_of(name, locations) if NAME_PATTERN.fullmatch(name) else ():
        found = _named(name, folder, origin, locations, known)
        if found is not None:
            return found
        looked.append(folder)
    raise PackNotFound(_not_found(name, looked, known))


def installed(locations: PackLocations, *, known: Mapping[str, Manifest] | None = None) -> list[InstalledPack]:
    """Every pack in the places of `locations`, in search order: of two with one name, the first is used."""
    known = registry() if known is None else known
    found: list[InstalledPack] = []
    for place, origin in locations.places():
        for folder in sorted(_folders(place)):
            for candidate in (folder, folder / folder.name):
                if folder.name not in known and not (candidate / PACK_TOML).is_file():
                    continue
                try:
                    pack = _named(folder.name, candidate, origin, locations, known)
                except ArcFaceError as error:
                    _log.warning("%s", error)
                    continue
                if pack is not None:
                    found.append(pack)
                    break
    return found


def stated_manifest(folder: Path, known: Mapping[str, Manifest]) -> Manifest:
    """The manifest in a folder's `pack.toml`; a registered model's name is only for that model's bytes.

    Raises:
        PackManifestInvalid: It cannot be understood, or claims a registered model's name for other bytes.
    """
    manifest = read_pack_toml(folder / PACK_TOML)
    recogniser = manifest.file(Role.RECOGNISER)
    claimed = [registered for registered in known.values() if registered.model == manifest.model]
    for registered in claimed:
        original = registered.file(Role.RECOGNISER)
        if recogniser is None or original is None or recogniser.sha256 != original.sha256 or original.sha256 is None:
            raise PackManifestInvalid(
                f"{folder / PACK_TOML}: the model name {manifest.model!r} belongs to the registered pack"
                f" {registered.name}, whose recogniser has another SHA-256. Write another name: vectors of different"
                " models must not be mixed up."
            )
    return manifest


def _is_path(name: str) -> bool:
    return name.startswith(("~", ".")) or name.endswith((".onnx", ".zip")) or "/" in name or os.sep in name


def _places_of(name: str, locations: PackLocations) -> Iterator[tuple[Path, Origin]]:
    for place, origin in locations.places():
        if origin == "package" and not (place / name).is_dir():
            continue  # nobody can put a pack there
        yield place / name, origin
        # the best-known archive nests its folder inside itself
        yield place / name / name, origin


def _folders(place: Path) -> Iterator[Path]:
    try:
        yield from (path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return


def _named(
    name: str, folder: Path, origin: Origin, locations: PackLocations, known: Mapping[str, Manifest]
) -> InstalledPack | None:
    if name in known:
        return _with_manifest(known[name], folder, origin, locations)
    if (folder / PACK_TOML).is_file():
        return _with_manifest(stated_manifest(folder, known), folder, origin, locations)
    if not _onnx_files(folder):
        return None
    return _unregistered_folder(folder, origin, locations, known)


def _with_manifest(manifest: Manifest, folder: Path, origin: Origin, locations: PackLocations) -> InstalledPack | None:
    """The pack in a folder as its manifest describes it; None if its recogniser is not there."""
    paths = {}
    for file in manifest.files:
        present = (folder / name for name in (file.name, *file.aliases) if (folder / name).is_file())
        path = next(present, None)
        if path is not None:
            paths[file.role] = path
    if Role.RECOGNISER not in paths:
        return None
    return InstalledPack(manifest, folder, paths, origin, TrustRecord.of_folder(folder, locations.records_dir))


def _at_path(path: Path, locations: PackLocations, known: Mapping[str, Manifest]) -> InstalledPack:
    if not path.exists():
        raise PackNotFound(
            f"There is nothing at {path}. Give `--pack` the path of a folder or of a recogniser's `.onnx` file as it"
            " is on this machine (inside a container: where it is mounted), or a name from `arcface-api packs list`."
        )
    if not path.is_dir():
        return _single_file(path, locations, known)
    for folder in (path, path / path.resolve().name):
        if (folder / PACK_TOML).is_file():
            pack = _with_manifest(stated_manifest(folder, known), folder, "path", locations)
            if pack is None:
                raise PackWithoutRecogniser(
                    f"{folder} lacks the recogniser that its {PACK_TOML} states. Add the file, or import the pack"
                    " again with `arcface-api packs import FILES`."
                )
            return pack
        if _onnx_files(folder):
            return _unregistered_folder(folder, "path", locations, known)
    return _unregistered_folder(path, "path", locations, known)


def _onnx_files(folder: Path) -> list[Path]:
    """The `.onnx` files of a folder and of its sub-folders; Immich keeps `recognition/model.onnx`."""
    return sorted(path for pattern in ("*.onnx", "*/*.onnx") for path in folder.glob(pattern))


def _unregistered_folder(
    folder: Path, origin: Origin, locations: PackLocations, known: Mapping[str, Manifest]
) -> InstalledPack:
    candidates = [Candidate(path.relative_to(folder).as_posix(), path, measure(path)) for path in _onnx_files(folder)]
    name = folder.resolve().name
    recognised = recognise(candidates, known, name=safe_name(name), wanted=None, where=str(folder), strict=False)
    for sentence in recognised.skipped:
        _log.info("Not needed: %s", sentence)
    return _unpacked(recognised, folder, origin, TrustRecord.of_folder(folder, locations.records_dir))


def _single_file(path: Path, locations: PackLocations, known: Mapping[str, Manifest]) -> InstalledPack:
    measured = measure(path)
    if zipfile.is_zipfile(path):
        raise GraphUnfit(
            f"{path} is a zip archive, not a model. Import it with `arcface-api packs import {path}` first."
        )
    registered = owners(known, measured.sha256)
    trust = TrustRecord.of_single_file(path, locations.records_dir)
    if registered:
        manifest, file = registered[0]
        if file.role is not Role.RECOGNISER:
            raise PackWithoutRecogniser(
                f"{path} is {manifest.name}'s {file.name}, {file.role.described}, not a recogniser. Name the"
                f" recogniser file, or the pack: `--pack {manifest.name}`."
            )
        return InstalledPack(replace(manifest, files=(file,)), path.parent, {file.role: path}, "path", trust)
    candidate = Candidate(path.name, path, measured)
    recognised = recognise([candidate], known, name=safe_name(path.stem), wanted=None, where=str(path), strict=True)
    return _unpacked(recognised, path.parent, "path", trust)


def _unpacked(recognised: Recognised, folder: Path, origin: Origin, trust: TrustRecord) -> InstalledPack:
    for sentence in recognised.manifest.assumptions:
        _log.info("Assumed: %s", sentence)
    paths = {entry.file.role: entry.candidate.path for entry in recognised.entries}
    inspected = {entry.file.role: entry.candidate.measured.sha256 for entry in recognised.entries}
    return InstalledPack(recognised.manifest, folder, paths, origin, trust, inspected)


def _not_found(name: str, looked: Sequence[Path], known: Mapping[str, Manifest]) -> str:
    lines = [f"The pack {name!r} is not on this machine."]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        lines[0] = f"There is no pack {name!r}, neither registered nor imported." + (
            f" Did you mean {' or '.join(close)}?" if close else f" Registered are {', '.join(known)}."
        )
        if name and Path(name).exists():
            lines.append(f"There is something called {name} in this folder: write ./{name} to mean it.")
    if looked:
        lines += ["Looked in:", *(f"  - {folder}" for folder in looked)]
    registered = name if name in known else next(iter(known), "antelopev2")
    lines += [
        "To have it, do one of these:",
        f"  - download it: arcface-api packs pull {registered} --accept-license",
        f"  - have the service download it when it starts: ARCFACE_PULL=true ARCFACE_ACCEPT_LICENSE={registered}",
        "  - without internet, bring its files: arcface-api packs import FILES",
        "  - name a folder or recogniser file that you have: --pack /path",
        "  - take the open pack, which is part of this package and weaker: --pack open",
    ]
    return "\n".join(lines)
