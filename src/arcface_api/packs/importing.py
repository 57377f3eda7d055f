"""`packs import`: make a pack of a zip, a folder or `.onnx` files that a person brought."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from arcface_api.errors import PackError, PackNameInvalid, PackNotFound, PackWithoutRecogniser
from arcface_api.packs.content import Measured, check, measure
from arcface_api.packs.finding import locate, stated_manifest
from arcface_api.packs.identify import Candidate, Recognised, belongs, recognise, safe_name
from arcface_api.packs.install import exclusive, publish, staging
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.loading_bay import candidates_at, copied, is_zip
from arcface_api.packs.locations import AUTO, SHIPPED_DIR, PackLocations
from arcface_api.packs.manifest import NAME_PATTERN, PACK_TOML, Manifest, ModelFile, Role, registry, write_pack_toml
from arcface_api.packs.storage import writing
from arcface_api.packs.trust import LOCK_NAME, write_record
from arcface_api.progress import Progress, no_progress

_BAY = "_import"
"""No pack can have this name, so its lock is never a pack's."""
_log = logging.getLogger("arcface_api.packs")


def import_pack(
    paths: Sequence[Path],
    locations: PackLocations,
    *,
    name: str | None = None,
    progress: Progress = no_progress,
    known: Mapping[str, Manifest] | None = None,
) -> InstalledPack:
    """Install a pack from files on this machine.

    Registered files are recognised by their hash, whatever they are called. Other files are looked into; what had to be
    assumed about them is written to `pack.toml` in the installed folder. A folder that has a `pack.toml` is taken as
    that states.

    Args:
        paths: Zip archives, folders or `.onnx` files; all of them make one pack.
        locations: Where to install (`locations.writable`).
        name: What to call it; None: its registered name, or the name of the first path.
        progress: Told about copying and unpacking.
        known: The registered packs; None: those of `packs.toml`.

    Raises:
        PackNameInvalid: The name is malformed, belongs to a registered pack with other files, or is taken.
        PackNotFound: One of the paths is not there.
        PackWithoutRecogniser, PackAmbiguous, PackManifestInvalid, GraphUnfit: The files make no pack.
        ModelIsLfsPointer, ModelIsHtml, ModelTruncated, ModelHashWrong, ModelUnreadable: A file is no good.
        ArchiveDamaged, ArchiveTooLarge, ArchiveEscapes: An archive is not safe or not whole.
        StorageFull, StorageUnwritable: It cannot be installed there.
    """
    known = registry() if known is None else known
    _refuse_name(name)
    for path in paths:
        if not path.exists():
            raise PackNotFound(
                f"There is nothing at {path}. Name zip archives, folders or `.onnx` files that are on this machine."
            )
    parent = locations.writable
    with writing(parent), exclusive(parent, _BAY), staging(parent, _BAY) as bay:
        stated = _stated(paths, bay, known, progress) or _recognised(paths, bay, known, name, progress)
        manifest = replace(stated.manifest, name=name) if name else stated.manifest
        _refuse_reserved(manifest, known)
        if (SHIPPED_DIR / manifest.name).is_dir():
            return locate(manifest.name, locations, known=known)  # a part of it would hide the whole
        with exclusive(parent, manifest.name), staging(parent, manifest.name) as staged:
            target = parent / manifest.name
            if manifest.name not in known and target.exists():
                return _same_or_refused(manifest, locations, known)
            _assemble(replace(stated, manifest=manifest), staged, known)
            _carry_over(manifest, target, staged)
            publish(staged, target)
    return locate(manifest.name, locations, known=known)


@dataclass(frozen=True)
class _Stated:
    """A pack put together in the loading bay: what it is, and where its files are."""

    manifest: Manifest
    files: tuple[tuple[ModelFile, Path, Measured], ...]


def _stated(paths: Sequence[Path], bay: Path, known: Mapping[str, Manifest], progress: Progress) -> _Stated | None:
    """A folder that comes with its `pack.toml`, such as an imported pack from another machine."""
    if len(paths) != 1 or not (paths[0] / PACK_TOML).is_file():
        return None
    manifest = stated_manifest(paths[0], known)
    files: list[tuple[ModelFile, Path, Measured]] = []
    for file in manifest.files:
        if (paths[0] / file.name).is_file():
            candidate = copied(paths[0] / file.name, bay, progress)
            check(file, candidate.measured, str(paths[0] / file.name), "Copy the folder again.")
            measured = candidate.measured
            files.append(
                (replace(file, size_bytes=measured.size_bytes, sha256=measured.sha256), candidate.path, measured)
            )
    if not any(file.role is Role.RECOGNISER for file, _, _ in files):
        raise PackWithoutRecogniser(
            f"{paths[0]} lacks the recogniser that its {PACK_TOML} states. Copy the whole folder."
        )
    return _Stated(replace(manifest, files=tuple(file for file, _, _ in files)), tuple(files))


def _recognised(
    paths: Sequence[Path], bay: Path, known: Mapping[str, Manifest], name: str | None, progress: Progress
) -> _Stated:
    candidates: list[Candidate] = []
    for wanted_only in (True, False):
        for path in paths:
            seen = {candidate.name for candidate in candidates if candidate.brought is path}
            candidates += candidates_at(path, bay, known if wanted_only else None, seen, progress)
        if _is_whole(candidates, known):
            break
    strict = all(path.is_file() and not is_zip(path) for path in paths)
    first = (
        safe_name(paths[0].resolve().stem if paths[0].is_file() else paths[0].resolve().name) if paths else "imported"
    )
    where = ", ".join(str(path) for path in paths)
    found = recognise(candidates, known, name=first, wanted=name, where=where, strict=strict)
    if name is None:
        found = _without_strangers(found, known)
    for sentence in found.skipped:
        _log.info("Left out: %s", sentence)
    files: list[tuple[ModelFile, Path, Measured]] = []
    for entry in found.entries:
        file = found.manifest.file(entry.file.role) or entry.file
        measured = entry.candidate.measured
        if found.manifest.name not in known:
            plain = _plain_name(file, {used.name for used, _, _ in files})
            file = replace(file, name=plain, size_bytes=measured.size_bytes, sha256=measured.sha256, aliases=())
        files.append((file, entry.candidate.path, measured))
    manifest = found.manifest
    if manifest.name not in known:
        manifest = replace(manifest, files=tuple(file for file, _, _ in files), sources=())
    return _Stated(manifest, tuple(files))


def _without_strangers(found: Recognised, known: Mapping[str, Manifest]) -> Recognised:
    """A registered pack that came with files of others (AuraFace comes with InsightFace's) is itself without them."""
    pack = known.get(found.manifest.name)
    if pack is None or pack == found.manifest or pack not in found.entries[0].owners:
        return found
    own = tuple(entry for entry in found.entries if belongs(entry, pack))
    left_out = [
        f"{entry.candidate.name} does not belong to {pack.name}; import with `--name` to have both."
        for entry in found.entries
        if entry not in own
    ]
    return Recognised(pack, own, (*found.skipped, *left_out))


def _is_whole(candidates: Sequence[Candidate], known: Mapping[str, Manifest]) -> bool:
    """Every file of one registered pack is here: whatever else there is is not needed."""
    hashes = {candidate.measured.sha256 for candidate in candidates}
    return any(pack.is_pinned and {file.sha256 for file in pack.files} <= hashes for pack in known.values())


def _plain_name(file: ModelFile, taken: set[str]) -> str:
    """A name that a flat folder can hold, without one that is taken."""
    name = safe_name(PurePosixPath(file.name).name)
    return f"{file.role.value}_{name}" if name in taken else name


def _assemble(stated: _Stated, staged: Path, known: Mapping[str, Manifest]) -> None:
    manifest, trusted = stated.manifest, {}
    for file, path, measured in stated.files:
        path.rename(staged / file.name)
        if file.sha256 is None:
            trusted[file.name] = measured
    if trusted:
        write_record(staged / LOCK_NAME, trusted)
    if manifest.name not in known:
        write_pack_toml(manifest, staged / PACK_TOML)


def _carry_over(manifest: Manifest, target: Path, staged: Path) -> None:
    """Keep the good files of a registered pack that an import of some of its files would otherwise take away."""
    for file in manifest.files:
        old, new = target / file.name, staged / file.name
        if new.exists() or file.sha256 is None or not old.is_file():
            continue
        try:
            check(file, measure(old), str(old), "")
        except PackError:
            continue
        shutil.copyfile(old, new)


def _refuse_name(name: str | None) -> None:
    if name is not None and (not NAME_PATTERN.fullmatch(name) or name.endswith(".onnx") or name == AUTO):
        raise PackNameInvalid(
            f"{name!r} cannot be the name of a pack. Use letters, digits, '.', '_' and '-', beginning with a letter or"
            f" digit, and not ending with .onnx; {AUTO} means something else."
        )


def _refuse_reserved(manifest: Manifest, known: Mapping[str, Manifest]) -> None:
    if manifest.name in known and manifest != known[manifest.name]:
        raise PackNameInvalid(
            f"The name {manifest.name} belongs to a registered pack, and these are not its files. Choose another with"
            " `--name`."
        )


def _same_or_refused(manifest: Manifest, locations: PackLocations, known: Mapping[str, Manifest]) -> InstalledPack:
    there = locate(manifest.name, locations, known=known)
    if {file.sha256 for file in there.manifest.files} == {file.sha256 for file in manifest.files}:
        return there
    raise PackNameInvalid(
        f"There is already another pack called {manifest.name}, in {there.folder}. Choose another name with `--name`,"
        " or delete that folder."
    )
