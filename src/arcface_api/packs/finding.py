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
from arcface_api.packs.identify import Entry, FoundFile, identify
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.locations import AUTO, CARRIED, PREFERRED, Origin, PackLocations
from arcface_api.packs.manifest import NAME_PATTERN, PACK_TOML, Manifest, Role, owners, read_pack_toml
from arcface_api.packs.trust import TrustRecord

_log = logging.getLogger("arcface_api.packs")


def locate(pack: str | os.PathLike[str], locations: PackLocations) -> InstalledPack:
    """Find a pack. Nothing is verified yet, except that the files of an unregistered folder are looked into.

    Args:
        pack: The name of a registered or imported pack; `auto`; or a path: whatever has a slash, begins with `~` or
            `.`, or ends with `.onnx` or `.zip`.
        locations: The places to look for a name.

    Raises:
        PackNotFound: It is in none of the places.
        PackError: What was named is not one pack with a recogniser, or its `pack.toml` cannot be understood.
    """
    name = os.fspath(pack)
    if name.startswith(("~", ".")) or name.endswith((".onnx", ".zip")) or "/" in name or os.sep in name:
        return _at_path(Path(name).expanduser(), locations)
    if name == AUTO:
        try:
            return locate(PREFERRED, locations)
        except PackNotFound:
            return locate(CARRIED, locations)
    looked = []
    for folder, origin in _places_of(name, locations) if NAME_PATTERN.fullmatch(name) else ():
        found = _in_folder(name, folder, origin, locations)
        if found is not None:
            return found
        looked.append(folder)
    raise PackNotFound(_not_found(name, looked, locations.known))


def installed_packs(locations: PackLocations) -> list[InstalledPack]:
    """Every pack in the places of `locations`, in search order: of two with one name, the first is used."""
    found: list[InstalledPack] = []
    for place, origin in locations.places():
        for folder in sorted(_folders(place)):
            for candidate in (folder, folder / folder.name):
                if folder.name not in locations.known and not (candidate / PACK_TOML).is_file():
                    continue
                try:
                    pack = _in_folder(folder.name, candidate, origin, locations)
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
    for registered in known.values():
        original = registered.file(Role.RECOGNISER)
        if registered.model == manifest.model and (
            recogniser is None or original is None or recogniser.sha256 != original.sha256 or original.sha256 is None
        ):
            raise PackManifestInvalid(
                f"{folder / PACK_TOML}: the model name {manifest.model!r} belongs to the registered pack"
                f" {registered.name}, whose recogniser has another SHA-256. Write another name: vectors of different"
                " models must not be mixed up."
            )
    return manifest


def _places_of(name: str, locations: PackLocations) -> Iterator[tuple[Path, Origin]]:
    for place, origin in locations.places():
        if origin == "package" and not (place / name).is_dir():
            continue  # nobody can put a pack there
        yield place / name, origin
        # the best-known archive nests its folder inside itself
        yield place / name / name, origin


def _folders(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []


def _in_folder(name: str, folder: Path, origin: Origin, locations: PackLocations) -> InstalledPack | None:
    """The pack in a folder by its registered name (empty for a path), else its `pack.toml`, else its files; or None."""
    if name in locations.known:
        return _with_manifest(locations.known[name], folder, origin, locations)
    if (folder / PACK_TOML).is_file():
        return _with_manifest(stated_manifest(folder, locations.known), folder, origin, locations)
    return _of_files(folder, origin, locations) if _onnx_files(folder) else None


def _with_manifest(manifest: Manifest, folder: Path, origin: Origin, locations: PackLocations) -> InstalledPack | None:
    """The pack in a folder as its manifest describes it; None if its recogniser is not there."""
    paths = {}
    for file in manifest.files:
        path = next((folder / name for name in (file.name, *file.aliases) if (folder / name).is_file()), None)
        if path is not None:
            paths[file.role] = path
    if Role.RECOGNISER not in paths:
        return None
    return InstalledPack(manifest, folder, paths, origin, TrustRecord.of_folder(folder, locations.records_dir))


def _at_path(path: Path, locations: PackLocations) -> InstalledPack:
    if not path.exists():
        raise PackNotFound(
            f"There is nothing at {path}. Give `--pack` the path of a folder or of a recogniser's `.onnx` file as it"
            " is on this machine (inside a container: where it is mounted), or a name from `arcface-api packs list`."
        )
    if not path.is_dir():
        return _single_file(path, locations)
    for folder in (path, path / path.resolve().name):
        pack = _in_folder("", folder, "path", locations)
        if pack is not None:
            return pack
        if (folder / PACK_TOML).is_file():
            raise PackWithoutRecogniser(
                f"{folder} lacks the recogniser that its {PACK_TOML} states. Add the file, or import the pack again"
                " with `arcface-api packs import FILES`."
            )
    return _of_files(path, "path", locations)


def _onnx_files(folder: Path) -> list[Path]:
    """The `.onnx` files of a folder and of its sub-folders; Immich keeps `recognition/model.onnx`."""
    return sorted(path for pattern in ("*.onnx", "*/*.onnx") for path in folder.glob(pattern))


def _of_files(folder: Path, origin: Origin, locations: PackLocations) -> InstalledPack:
    files = [FoundFile(path.relative_to(folder).as_posix(), path, measure(path)) for path in _onnx_files(folder)]
    manifest, entries = identify(files, locations.known, name=folder.resolve().name, where=str(folder))
    return _as_identified(manifest, entries, folder, origin, TrustRecord.of_folder(folder, locations.records_dir))


def _single_file(path: Path, locations: PackLocations) -> InstalledPack:
    measured = measure(path)
    if zipfile.is_zipfile(path):
        raise GraphUnfit(
            f"{path} is a zip archive, not a model. Import it with `arcface-api packs import {path}` first."
        )
    trust = TrustRecord.of_single_file(path, locations.records_dir)
    if registered := owners(locations.known, measured.sha256):
        manifest, file = registered[0]
        if file.role is not Role.RECOGNISER:
            raise PackWithoutRecogniser(
                f"{path} is {manifest.name}'s {file.name}, {file.role.described}, not a recogniser. Name the"
                f" recogniser file, or the pack: `--pack {manifest.name}`."
            )
        return InstalledPack(replace(manifest, files=(file,)), path.parent, {file.role: path}, "path", trust)
    files = [FoundFile(path.name, path, measured)]
    manifest, entries = identify(files, locations.known, name=path.stem, where=str(path), strict=True)
    return _as_identified(manifest, entries, path.parent, "path", trust)


def _as_identified(
    manifest: Manifest, entries: Sequence[Entry], folder: Path, origin: Origin, trust: TrustRecord
) -> InstalledPack:
    for sentence in manifest.assumptions:
        _log.info("Assumed: %s", sentence)
    paths = {entry.file.role: entry.found.path for entry in entries}
    inspected = {entry.file.role: entry.found.measured.sha256 for entry in entries}
    return InstalledPack(manifest, folder, paths, origin, trust, inspected)


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
    what = "it" if name in known else registered
    lines += [
        "Do one of these:",
        f"  - download {what}: arcface-api packs pull {registered} --accept-license",
        f"  - let the service download {what} at start: ARCFACE_PULL=true ARCFACE_ACCEPT_LICENSE={registered}",
        "  - without internet, bring its files: arcface-api packs import FILES",
        "  - name a folder or recogniser file that you have: --pack /path",
        "  - use the open pack, which is part of this package and less accurate: --pack open",
    ]
    return "\n".join(lines)
