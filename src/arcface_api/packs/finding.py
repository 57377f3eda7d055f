"""Find a pack on this machine: by path, or by name in the places of `PackLocations`, flat or nested.

One module, because each place is searched by the same steps, and an error names all that were.
"""

import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from arcface_api.errors import GraphUnfit, PackError, PackNotFound
from arcface_api.packs.content import measure, reading
from arcface_api.packs.identify import FoundFile, identify
from arcface_api.packs.installed import InstalledPack, Origin, TrustRecord
from arcface_api.packs.manifest import (
    NAME_PATTERN,
    PACK_TOML,
    Manifest,
    Role,
    mirrored,
    owners,
    read_pack_toml,
    registry,
)
from arcface_api.settings import user_cache
from arcface_api.wording import did_you_mean

AUTO, PREFERRED, CARRIED = "auto", "antelopev2", "open"
"""`auto` is allowed where a pack's name is; it means the preferred pack where that is installed or can be pulled, else
the one that this package carries."""

SHIPPED_DIR = Path(__file__).parents[1] / "shipped_packs"
"""The packs that this package carries; only read."""


@dataclass(frozen=True)
class PackLocations:
    """The folders that hold packs, each as a sub-folder with the pack's name."""

    models_dir: Path | None
    """`ARCFACE_MODELS_DIR`, searched first."""
    cache_dir: Path
    """Ours, in the user's cache."""
    insightface_dir: Path
    """What the InsightFace library has downloaded; only read."""
    known: Mapping[str, Manifest] = field(default_factory=registry, repr=False)

    @classmethod
    def default(cls, models_dir: Path | None, mirror: str | None = None) -> Self:
        """The places of this user, with `models_dir` before them if given; downloads come from `mirror` if given."""
        try:
            home = Path.home()
        except RuntimeError:
            home = Path("/")  # a user without one, as in a container that runs under any number
        return cls(
            models_dir=models_dir.expanduser() if models_dir is not None else None,
            cache_dir=user_cache() / "packs",
            insightface_dir=home / ".insightface" / "models",
            known=mirrored(registry(), mirror) if mirror else registry(),
        )

    @property
    def writable(self) -> Path:
        """Where `pull` and `import_pack` install: the first place searched."""
        return self.models_dir if self.models_dir is not None else self.cache_dir

    @property
    def records_dir(self) -> Path:
        """Where the hashes of unpinned files are recorded when their own folder cannot take them."""
        return self.cache_dir / ".trusted"

    def places(self) -> list[tuple[Path, Origin]]:
        """The folders of packs in the order in which they are searched."""
        own: list[tuple[Path, Origin]] = [(self.models_dir, "models_dir")] if self.models_dir is not None else []
        return [*own, (self.cache_dir, "cache"), (self.insightface_dir, "insightface"), (SHIPPED_DIR, "package")]


_log = logging.getLogger("arcface_api.packs")


def locate(pack: str | os.PathLike[str], locations: PackLocations) -> InstalledPack:
    """Find a pack by the name of a registered or imported one, by `auto`, or by its path.

    A path is what has a slash, begins with `~` or `.`, or ends with `.onnx` or `.zip`. Nothing is verified yet, except
    that the files of an unregistered folder are inspected.

    Raises:
        PackNotFound: It is in none of the places.
        PackError: What was named is not one pack with a recogniser, its `pack.toml` cannot be understood, or its folder
            or `models_dir` may not be searched.
    """
    name = os.fspath(pack)
    if name.startswith(("~", ".")) or name.endswith((".onnx", ".zip")) or "/" in name or os.sep in name:
        path = Path(name).expanduser()
        with reading(path):
            return _at_path(path, locations)
    if name == AUTO:
        try:
            return locate(PREFERRED, locations)
        except PackNotFound:
            return locate(CARRIED, locations)
    looked = []
    for place, origin in locations.places() if NAME_PATTERN.fullmatch(name) else ():
        if origin == "package" and not (place / name).is_dir():
            continue  # nobody can put a pack there
        try:
            for folder in _flat_and_nested(place, name):
                found = _in_folder(name, folder, origin, locations)
                if found is not None:
                    return found
                looked.append(folder)
        except OSError as error:
            closed = f"{folder} cannot be searched: {error.strerror or error}."
            if origin == "models_dir":  # what the operator means may be in it
                raise PackError(
                    f"{closed} Give the user that runs arcface-api the right to read it and the folders it is in, or"
                    " choose another folder with ARCFACE_MODELS_DIR."
                ) from error
            _log.warning("%s", closed)
    raise PackNotFound(_not_found(name, looked, locations.known))


def installed_packs(locations: PackLocations) -> list[InstalledPack]:
    """Every pack in the places of `locations`, in search order: of two with one name, the first is used."""
    found: list[InstalledPack] = []
    for place, origin in locations.places():
        try:
            names = sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
        except OSError:
            continue
        for name in names:
            for folder in _flat_and_nested(place, name):
                try:
                    if name not in locations.known and not (folder / PACK_TOML).is_file():
                        continue
                    pack = _in_folder(name, folder, origin, locations)
                except (PackError, OSError) as error:
                    _log.warning("%s", error)
                    continue
                if pack is not None:
                    found.append(pack)
                    break
    return found


def stated_manifest(folder: Path, known: Mapping[str, Manifest]) -> Manifest:
    """The manifest in a folder's `pack.toml`; refused if it claims a registered model's name for other bytes."""
    manifest = read_pack_toml(folder / PACK_TOML)
    recogniser = manifest.file(Role.RECOGNISER)
    for registered in known.values():
        original = registered.file(Role.RECOGNISER)
        if registered.model == manifest.model and (
            recogniser is None or original is None or recogniser.sha256 != original.sha256 or original.sha256 is None
        ):
            raise PackError(
                f"{folder / PACK_TOML}: the model name {manifest.model!r} belongs to the registered pack"
                f" {registered.name}, whose recogniser has another SHA-256. Write another name: vectors of different"
                " models must not be mixed up."
            )
    return manifest


def _flat_and_nested(place: Path, name: str) -> tuple[Path, Path]:
    """Where a pack may lie: the best-known archive nests its folder inside itself."""
    return place / name, place / name / name


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
    return InstalledPack(manifest, folder, paths, origin, TrustRecord.of(folder, locations.records_dir))


def _at_path(path: Path, locations: PackLocations) -> InstalledPack:
    if not path.exists():
        raise PackNotFound(
            f"There is nothing at {path}. Give `--pack` the path of a folder or of a recogniser's `.onnx` file as it"
            " is on this machine (inside a container: where it is mounted), or a name from `arcface-api packs list`."
        )
    if path.is_dir():
        return _at_folder(path, locations)
    measured = measure(path)
    if zipfile.is_zipfile(path):
        raise GraphUnfit(
            f"{path} is a zip archive, not a model. Import it with `arcface-api packs import {path}` first."
        )
    if registered := owners(locations.known, measured.sha256):
        manifest, file = registered[0]
        if file.role is not Role.RECOGNISER:
            raise PackError(
                f"{path} is {manifest.name}'s {file.name}, {file.role.described}, not a recogniser. Name the"
                f" recogniser file, or the pack: `--pack {manifest.name}`."
            )
        manifest, trust = replace(manifest, files=(file,)), TrustRecord.of(path, locations.records_dir)
        return InstalledPack(manifest, path.parent, {file.role: path}, "path", trust)
    return _identified([FoundFile(path.name, path, measured)], path, "path", locations)


def _at_folder(path: Path, locations: PackLocations) -> InstalledPack:
    for folder in (path, path / path.resolve().name):
        pack = _in_folder("", folder, "path", locations)
        if pack is not None:
            return pack
        if (folder / PACK_TOML).is_file():
            raise PackError(
                f"{folder} lacks the recogniser that its {PACK_TOML} states. Add the file, or import the pack again"
                " with `arcface-api packs import FILES`."
            )
    return _of_files(path, "path", locations)


def _onnx_files(folder: Path) -> list[Path]:
    """The `.onnx` files of a folder and of its sub-folders; Immich keeps `recognition/model.onnx`."""
    return sorted(path for pattern in ("*.onnx", "*/*.onnx") for path in folder.glob(pattern))


def _of_files(folder: Path, origin: Origin, locations: PackLocations) -> InstalledPack:
    files = [FoundFile(path.relative_to(folder).as_posix(), path, measure(path)) for path in _onnx_files(folder)]
    return _identified(files, folder, origin, locations)


def _identified(files: Sequence[FoundFile], given: Path, origin: Origin, locations: PackLocations) -> InstalledPack:
    """The pack that the files at the given folder, or the given file, make."""
    is_folder = given.is_dir()
    name = given.resolve().name if is_folder else given.stem
    manifest, entries = identify(files, locations.known, name=name, where=str(given), strict=not is_folder)
    return InstalledPack(
        manifest=manifest,
        folder=given if is_folder else given.parent,
        paths={entry.file.role: entry.found.path for entry in entries},
        origin=origin,
        trust=TrustRecord.of(given, locations.records_dir),
        inspected={entry.file.role: entry.found.measured.sha256 for entry in entries},
    )


def _not_found(name: str, looked: Sequence[Path], known: Mapping[str, Manifest]) -> str:
    lines = [f"The pack {name!r} is not on this machine."]
    if name not in known:
        lines[0] = f"There is no pack {name!r}, neither registered nor imported." + (
            did_you_mean(name, known) or f" Registered are {', '.join(known)}."
        )
        if name and os.path.exists(name):  # noqa: PTH110  # Path.exists raises in a closed folder
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
