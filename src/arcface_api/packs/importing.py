"""`packs import`: make a pack of a zip, a folder or `.onnx` files that a person brought."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from arcface_api.errors import PackError, PackNotFound
from arcface_api.packs import archive as zips
from arcface_api.packs.content import Measured, check, read_whole, reading
from arcface_api.packs.finding import AUTO, SHIPPED_DIR, PackLocations, locate, stated_manifest
from arcface_api.packs.identify import FoundFile, belongs, identify, safe_name
from arcface_api.packs.install import Files, assemble, copy_file, publish, reuse, staging
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.manifest import (
    NAME_PATTERN,
    PACK_TOML,
    Manifest,
    ModelFile,
    Role,
    owners,
    read_pack_toml,
    write_pack_toml,
)

_BAY = "_import"
"""Where files are copied to and measured. No pack can have this name, so its lock is never a pack's."""
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_log = logging.getLogger("arcface_api.packs")


def import_pack(
    paths: Sequence[Path],
    locations: PackLocations,
    *,
    name: str | None = None,
    prove: Callable[[ModelFile, bytes], None] | None = None,
) -> InstalledPack:
    """Install a pack from files on this machine.

    Registered files are recognised by their hash, whatever they are called. Other files are inspected; what had to be
    assumed about them is written to `pack.toml` in the installed folder. A folder with a `pack.toml` is taken as that
    states.

    Args:
        paths: Zip archives, folders or `.onnx` files; all of them make one pack.
        locations: It is installed in `locations.writable`.
        name: What to call it; None: its registered name, or the name of the first path.
        prove: Gets a recogniser that is not registered, and its bytes; what it raises prevents the installation.

    Raises:
        PackError: The name is malformed, belongs to a registered pack with other files, or is taken; a path is not
            there, a file is damaged or not safe, the files make no pack, or it cannot be installed.
    """
    if name is not None and (not NAME_PATTERN.fullmatch(name) or name.endswith(".onnx") or name == AUTO):
        raise PackError(
            f"{name!r} cannot be the name of a pack. Use letters, digits, '.', '_' and '-', beginning with a letter or"
            f" digit, and not ending with .onnx; {AUTO} means something else."
        )
    for path in paths:
        with reading(path):
            is_there = path.exists()
            (path / PACK_TOML).is_file()  # raises where a folder may not be searched
        if not is_there:
            raise PackNotFound(
                f"There is nothing at {path}. Name zip archives, folders or `.onnx` files that are on this machine."
            )
    parent, known = locations.writable, locations.known
    with staging(parent, _BAY) as bay:
        if len(paths) == 1 and (paths[0] / PACK_TOML).is_file():
            manifest, have = _stated(paths[0], bay, known)
        else:
            manifest, have = _identified(paths, bay, known, name)
        manifest = replace(manifest, name=name) if name else manifest
        if manifest.name in known and manifest != known[manifest.name]:
            raise PackError(
                f"The name {manifest.name} belongs to a registered pack, and these are not its files. Choose another"
                " with `--name`."
            )
        if (SHIPPED_DIR / manifest.name).is_dir():
            return locate(manifest.name, locations)  # a part of it would hide the whole
        with staging(parent, manifest.name) as staged:
            target = parent / manifest.name
            if manifest.name not in known and target.exists():
                there = locate(manifest.name, locations)
                if {file.sha256 for file in there.manifest.files} == {file.sha256 for file in manifest.files}:
                    return there
                raise PackError(
                    f"There is already another pack called {manifest.name}, in {there.folder}. Choose another name with"
                    " `--name`, or delete that folder."
                )
            # an import of some files of a registered pack keeps the others
            reuse(manifest, {file.role: target / file.name for file in manifest.files}, have, staged)
            assemble(manifest, have, staged)
            if manifest.name not in known:
                write_pack_toml(manifest, staged / PACK_TOML)
            recogniser = manifest.file(Role.RECOGNISER)
            if prove and recogniser and recogniser.sha256 and not owners(known, recogniser.sha256):
                prove(recogniser, read_whole(staged / recogniser.name, recogniser.size_bytes, "Start again."))
            publish(staged, target)
    return locate(manifest.name, locations)


def correct(pack: InstalledPack, manifest: Manifest) -> Path | None:
    """Replace the `pack.toml` of an imported pack; returns its path, or None where it has none of its own.

    Raises PackError if it cannot be written.
    """
    path = pack.folder / PACK_TOML
    if not path.is_file() or read_pack_toml(path).files != pack.manifest.files:
        return None
    new = path.with_name(f".{path.name}.new")
    try:
        write_pack_toml(manifest, new)
        new.replace(path)
    except OSError as error:
        raise PackError(f"{path} cannot be written: {error}. Give the folder to the user who runs this.") from error
    return path


def _stated(folder: Path, bay: Path, known: Mapping[str, Manifest]) -> tuple[Manifest, Files]:
    """A folder that comes with its `pack.toml`, such as an imported pack from another machine."""
    manifest = stated_manifest(folder, known)
    files, have = [], {}
    for file in manifest.files:
        path, copied = folder / file.name, bay / file.name
        if path.is_file():
            found = copy_file(path, copied)
            check(file, found, str(path), "Copy the folder again.")
            files.append(replace(file, size_bytes=found.size_bytes, sha256=found.sha256))
            have[file.name] = (copied, found)
    if not any(file.role is Role.RECOGNISER for file in files):
        raise PackError(f"{folder} lacks the recogniser that its {PACK_TOML} states. Copy the whole folder.")
    return replace(manifest, files=tuple(files)), have


def _identified(
    paths: Sequence[Path], bay: Path, known: Mapping[str, Manifest], name: str | None
) -> tuple[Manifest, Files]:
    manifest, entries = identify(
        _gather(paths, bay, known),
        known,
        name=paths[0].resolve().stem if paths[0].is_file() else paths[0].resolve().name,
        where=", ".join(map(str, paths)),
        wanted=name,
        strict=all(path.is_file() and not _is_zip(path) for path in paths),
    )
    pack = known.get(manifest.name)
    if name is None and pack is not None and pack != manifest and pack in entries[0].owners:
        # it came with files of others, as AuraFace comes with InsightFace's, and is itself without them
        for entry in entries:
            if not belongs(entry, pack):
                stray = entry.found.name
                _log.info("Left out: %s does not belong to %s; import with `--name` to have both.", stray, pack.name)
        manifest, entries = pack, tuple(entry for entry in entries if belongs(entry, pack))
    if manifest.name in known:
        files_of = [(manifest.file(entry.file.role) or entry.file, entry.found) for entry in entries]
        return manifest, {file.name: (found.path, found.measured) for file, found in files_of}
    have: Files = {}
    files = []
    for entry in entries:
        # a plain name, which a flat folder can hold
        plain, measured = safe_name(PurePosixPath(entry.file.name).name), entry.found.measured
        plain = f"{entry.file.role.value}_{plain}" if plain in have else plain
        have[plain] = (entry.found.path, measured)
        files.append(
            replace(entry.file, name=plain, size_bytes=measured.size_bytes, sha256=measured.sha256, aliases=())
        )
    return replace(manifest, files=tuple(files), sources=()), have


def _gather(paths: Sequence[Path], bay: Path, known: Mapping[str, Manifest]) -> list[FoundFile]:
    """The model files at the paths, copied to the loading bay and measured.

    Those whose size is a registered file's come first: where these make a whole pack, no other is even unpacked.
    """
    sizes = {file.size_bytes for pack in known.values() for file in pack.files}
    found: list[FoundFile] = []
    taken: set[tuple[Path, str]] = set()
    for registered_only in (True, False):
        taken_before = frozenset(taken)
        for path in paths:
            for name, size, copy_to in _models_at(path):
                if (path, name) not in taken_before and (not registered_only or size in sizes):
                    target = bay / f"{len(found)}.onnx"
                    found.append(FoundFile(name, target, copy_to(target)))
                    taken.add((path, name))
        hashes = {file.measured.sha256 for file in found}
        if any(pack.is_pinned and {file.sha256 for file in pack.files} <= hashes for pack in known.values()):
            break
    return found


def _models_at(path: Path) -> Iterator[tuple[str, int, Callable[[Path], Measured]]]:
    """Name and size of each model file at a path, and how to copy it."""
    if path.is_dir():
        with reading(path):
            models = sorted(model for model in path.rglob("*") if model.suffix.lower() == ".onnx" and model.is_file())
        for model in models:
            name = model.relative_to(path).as_posix()
            yield name, model.stat().st_size, partial(copy_file, model)
    # one that is only called so is opened too, which says what it is instead
    elif _is_zip(path) or path.suffix.lower() == ".zip":
        with zips.opened(path, str(path)) as archive:
            for member in zips.models(archive, str(path)):
                unpack = partial(zips.unpack, archive, member, what=str(path))
                yield member.filename, member.file_size, unpack
    else:
        yield path.name, path.stat().st_size, partial(copy_file, path)


def _is_zip(path: Path) -> bool:
    with reading(path):
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) in _ZIP_MAGIC
