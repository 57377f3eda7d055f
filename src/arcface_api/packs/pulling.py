"""`packs pull`: a registered pack complete on this machine, from whichever source gives it; and what `auto` means."""

import contextlib
import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arcface_api.errors import LicenceNotAccepted, PackError, PackNotFound, PackUnknown
from arcface_api.packs.content import Measured
from arcface_api.packs.download import DEFAULT_PATIENCE, Patience
from arcface_api.packs.finding import locate
from arcface_api.packs.install import assemble, publish, reuse, staging
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.locations import PackLocations
from arcface_api.packs.manifest import Manifest, Source, registry
from arcface_api.packs.sources import Job, download
from arcface_api.progress import Progress, no_progress

PREFERRED, CARRIED = "antelopev2", "open"
"""The pack that `auto` takes where it can, and the one that is part of this package."""
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
        progress: Called with bytes while files are downloaded, unpacked and copied.
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
    manifest, parent = known[name], locations.writable
    there = _find(name, locations, known)
    if there is not None and _is_complete(there):
        return there
    if name not in accepted_licences:
        raise LicenceNotAccepted(
            f"{licence_sentence(manifest)} To accept it, run `arcface-api packs pull {name} --accept-license`, or set"
            f" ARCFACE_ACCEPT_LICENSE={name}."
        )
    with staging(parent, name) as staged:
        # another process may have installed it meanwhile
        there = _find(name, locations, known)
        if there is not None and _is_complete(there):
            return there
        job = Job(manifest, staged, parent / ".downloads", progress, patience)
        if there is not None:
            job.trusted = _trusted(there)
            reuse(manifest, there.paths, job.have, staged, progress)
        download(job, manifest.sources if sources is None else sources)
        assemble(manifest, job.have, staged)
        publish(staged, parent / name)
        job.forget_downloads()
    return locate(name, locations, known=known)


def licence_sentence(manifest: Manifest) -> str:
    """The licence of a registered pack's weights, for the person who downloads them."""
    licence = manifest.licence
    return (
        f"The weights of {manifest.name} come under their own licence: {licence.name} ({licence.url}). {licence.notice}"
    )


def _find(name: str, locations: PackLocations, known: Mapping[str, Manifest]) -> InstalledPack | None:
    with contextlib.suppress(PackNotFound):
        return locate(name, locations, known=known)
    return None


def _is_complete(pack: InstalledPack) -> bool:
    if any(file.role not in pack.paths for file in pack.manifest.files):
        return False
    bad = [result.message for result in pack.verify() if not result.is_good]
    for message in bad:
        _log.warning("%s It is replaced.", message)
    return not bad


def _trusted(there: InstalledPack) -> dict[str, Measured]:
    records = {file.name: there.trust.find(file.name) for file in there.manifest.files if file.sha256 is None}
    return {name: record[0] for name, record in records.items() if record is not None}


# ── what a command works with ──────────────────────────────────────────────────────────────────────────────────────


def obtain(
    name: str,
    locations: PackLocations,
    *,
    may_pull: bool,
    accepted_licences: frozenset[str],
    progress: Progress = no_progress,
    sources: Sequence[Source] | None = None,
) -> InstalledPack:
    """The pack as it is installed; one that is registered but not installed is pulled, where that was asked for.

    Args:
        name: A pack's name, or a path, as `locate` takes it.
        locations: Where to look, and where to install.
        may_pull: Whether a download was asked for; accepting a licence does not ask for one.
        accepted_licences: Names of the packs whose licence was accepted.
        progress: As of `pull`.
        sources: As of `pull`.

    Raises:
        PackError: It is not installed and may not or cannot be pulled, or cannot be understood.
    """
    try:
        return locate(name, locations)
    except PackNotFound as missing:
        if name not in registry() or (not may_pull and name not in accepted_licences):
            raise
        if not may_pull:
            raise PackNotFound(
                f"{missing}\nThe licence of {name} is accepted; to download the pack at start, set ARCFACE_PULL=true."
            ) from None
    if name in accepted_licences:
        _log.info("%s", licence_sentence(registry()[name]))
    return pull(name, locations, accepted_licences=accepted_licences, progress=progress, sources=sources)


@dataclass(frozen=True)
class Choice:
    """Which pack `auto` means on this machine."""

    pack: InstalledPack
    reason: str | None = None
    """Why it is not the preferred one, as a sentence; None: it is."""
    remedy: str | None = None
    """What to do to have the preferred one, without a full stop."""


def choose(
    locations: PackLocations,
    *,
    may_pull: bool = False,
    accepted_licences: frozenset[str] = frozenset(),
    progress: Progress = no_progress,
    sources: Sequence[Source] | None = None,
) -> Choice:
    """The preferred pack where `obtain` gives it, else the one that this package carries. Arguments as of `obtain`."""
    try:
        pack = obtain(
            PREFERRED,
            locations,
            may_pull=may_pull,
            accepted_licences=accepted_licences,
            progress=progress,
            sources=sources,
        )
        return Choice(pack)
    except (PackNotFound, LicenceNotAccepted):
        is_accepted = PREFERRED in accepted_licences
        why = "ARCFACE_PULL is not true" if is_accepted else "its licence was not accepted"
        reason = f"{PREFERRED} is not on this machine, and {why}."
        needed = [] if may_pull else ["ARCFACE_PULL=true"]
        needed += [] if is_accepted else [f"ARCFACE_ACCEPT_LICENSE={PREFERRED}"]
        remedy = f"To download {PREFERRED} (non-commercial research only), set {' and '.join(needed)}"
    except PackError as error:
        first, *_ = str(error).splitlines()
        reason = f"{PREFERRED} could not be had: {first.rstrip(':.')}."
        remedy = f"`arcface-api packs pull {PREFERRED}` tries again and shows every reason"
    return Choice(locate(CARRIED, locations), reason, remedy)
