"""`packs pull`: have a registered pack complete on this machine, from whichever source gives it."""

import contextlib
import difflib
import logging
import shutil
from collections.abc import Mapping, Sequence

from arcface_api.errors import (
    LicenceNotAccepted,
    PackError,
    PackNotFound,
    PackUnknown,
)
from arcface_api.packs.content import Measured, check, measure
from arcface_api.packs.download import DEFAULT_PATIENCE, Patience
from arcface_api.packs.finding import locate
from arcface_api.packs.install import exclusive, publish, staging
from arcface_api.packs.installed import InstalledPack, verify
from arcface_api.packs.locations import PackLocations
from arcface_api.packs.manifest import Manifest, Source, registry
from arcface_api.packs.sources import Job, download
from arcface_api.packs.storage import need_room, writing
from arcface_api.packs.trust import LOCK_NAME, write_record
from arcface_api.progress import Progress, no_progress

_log = logging.getLogger("arcface_api.packs")


def pull(
    name: str,
    locations: PackLocations,
    *,
    accepted_licences: frozenset[str],
    progress: Progress = no_progress,
    sources: Sequence[Source] | None = None,
    patience: Patience = DEFAULT_PATIENCE,
    known: Mapping[str, Manifest] | None = None,
) -> InstalledPack:
    """Have a registered pack on this machine, with every file of its manifest, verified.

    A pack that is there and good is only verified. What is missing or damaged is replaced; good files that are there
    are used.

    Args:
        name: The registered name.
        locations: Where to look, and where to install (`locations.writable`).
        accepted_licences: Names of the packs whose licence the person who runs this has accepted.
        progress: Told about downloads and unpacking.
        sources: Instead of the manifest's, for example an internal mirror.
        patience: Time limits for the network.
        known: The registered packs; None: those of `packs.toml`.

    Raises:
        PackUnknown: No registered pack has that name.
        LicenceNotAccepted: Its licence has to be accepted first.
        SourcesExhausted: No source gave it; the message has every reason.
        StorageFull: The disk has no room for it.
        StorageUnwritable: The folder cannot be written.
    """
    known = registry() if known is None else known
    if name not in known:
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        guess = f" Did you mean {' or '.join(close)}?" if close else ""
        raise PackUnknown(f"No registered pack is called {name!r}.{guess} Registered are {', '.join(known)}.")
    manifest = known[name]
    there = _find(name, locations, known)
    if there is not None and _is_complete(there):
        return there
    if name not in accepted_licences:
        raise LicenceNotAccepted(
            f"{licence_sentence(manifest)} To accept it, run `arcface-api packs pull {name} --accept-license`, or set"
            f" ARCFACE_ACCEPT_LICENSE={name}."
        )
    parent = locations.writable
    with writing(parent), exclusive(parent, name):
        there = _find(name, locations, known)
        if there is not None and _is_complete(there):
            return there
        with staging(parent, name) as staged:
            job = Job(manifest, staged, parent / ".downloads", progress, patience)
            if there is not None:
                job.trusted = _trusted(there)
                _reuse(job, there)
            download(job, manifest.sources if sources is None else sources)
            _finish(job)
            publish(staged, parent / name)
            job.forget_downloads()
    return locate(name, locations, known=known)


def _find(name: str, locations: PackLocations, known: Mapping[str, Manifest]) -> InstalledPack | None:
    with contextlib.suppress(PackNotFound):
        return locate(name, locations, known=known)
    return None


def _is_complete(pack: InstalledPack) -> bool:
    if any(file.role not in pack.paths for file in pack.manifest.files):
        return False
    bad = [result.message for result in verify(pack) if not result.ok]
    for message in bad:
        _log.warning("%s It is replaced.", message)
    return not bad


def licence_sentence(manifest: Manifest) -> str:
    """The licence of a registered pack's weights, for the person who downloads them."""
    licence = manifest.licence
    return (
        f"The weights of {manifest.name} come under their own licence: {licence.name} ({licence.url}). {licence.notice}"
    )


def _trusted(there: InstalledPack) -> dict[str, Measured]:
    records = {file.name: there.trust.find(file.name) for file in there.manifest.files if file.sha256 is None}
    return {name: record[0] for name, record in records.items() if record is not None}


def _reuse(job: Job, there: InstalledPack) -> None:
    """Take the good files of an incomplete or damaged pack, instead of downloading them again."""
    for file in job.manifest.files:
        path = there.paths.get(file.role)
        if path is None or file.sha256 is None:
            continue
        try:
            measured = measure(path)
            check(file, measured, str(path), "")
        except PackError:
            continue
        copy = job.staged / file.name
        need_room(job.staged, measured.size_bytes, f"A copy of {path}")
        shutil.copyfile(path, copy)
        # the copy is what will be used, so the copy is what has to be right
        if measure(copy) == measured:
            job.have[file.name] = (copy, measured)


def _finish(job: Job) -> None:
    """The flat folder, complete, with the hashes of what nobody pins."""
    trusted = {}
    for file in job.manifest.files:
        path, found = job.have[file.name]
        if path.parent != job.staged:
            path.rename(job.staged / file.name)
        if file.sha256 is None:
            trusted[file.name] = found
            _log.warning(
                "%s of %s is not pinned and is trusted as it came: SHA-256 %s, recorded in %s.",
                file.name, job.manifest.name, found.sha256, LOCK_NAME,
            )  # fmt: skip
    if trusted:
        write_record(job.staged / LOCK_NAME, trusted)
