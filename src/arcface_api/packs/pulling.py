"""`packs pull`, which installs a registered pack; and what a command works with, pulled where that was asked for."""

import contextlib
import difflib
import logging

from arcface_api.errors import LicenceNotAccepted, PackError, PackNotFound, PackUnknown
from arcface_api.packs.content import Measured
from arcface_api.packs.download import DEFAULT_PATIENCE, Patience
from arcface_api.packs.finding import locate
from arcface_api.packs.install import assemble, publish, reuse, staging
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.locations import AUTO, CARRIED, PREFERRED, PackLocations
from arcface_api.packs.manifest import Manifest
from arcface_api.packs.sources import Job, fetch_missing
from arcface_api.progress import Progress, no_progress

_log = logging.getLogger("arcface_api.packs")


def pull(
    name: str,
    locations: PackLocations,
    *,
    accepted_licences: frozenset[str],
    progress: Progress = no_progress,
    patience: Patience = DEFAULT_PATIENCE,
) -> InstalledPack:
    """Install a registered pack with every file of its manifest, verified.

    A pack that is installed and good is only verified. What is missing or damaged is replaced, in `locations.writable`;
    good files are kept. `accepted_licences` are names of packs.

    Raises:
        PackUnknown: No registered pack has that name.
        LicenceNotAccepted: Its licence has to be accepted first.
        SourcesExhausted: No source gave it; the message has every reason.
        StorageFull: The disk has no room for it.
        StorageUnwritable: The folder cannot be written.
    """
    known = locations.known
    if name not in known:
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        guess = f" Did you mean {' or '.join(close)}?" if close else ""
        raise PackUnknown(f"No registered pack is called {name!r}.{guess} Registered are {', '.join(known)}.")
    manifest, parent = known[name], locations.writable
    there = _find(name, locations)
    if there is not None and _is_complete(there):
        return there
    if name not in accepted_licences:
        raise LicenceNotAccepted(
            f"{licence_sentence(manifest)} To accept it, run `arcface-api packs pull {name} --accept-license`, or set"
            f" ARCFACE_ACCEPT_LICENSE={name}."
        )
    with staging(parent, name) as staged:
        # another process may have installed it meanwhile
        there = _find(name, locations)
        if there is not None and _is_complete(there):
            return there
        job = Job(manifest, staged, parent / ".downloads", progress, patience)
        if there is not None:
            job.trusted = _trusted(there)
            reuse(manifest, there.paths, job.have, staged, progress)
        fetch_missing(job)
        assemble(manifest, job.have, staged)
        publish(staged, parent / name)
        job.forget_downloads()
    return locate(name, locations)


def licence_sentence(manifest: Manifest) -> str:
    """The licence of a registered pack's weights, for the person who downloads them."""
    licence = manifest.licence
    return f"The weights of {manifest.name} have their own licence, “{licence.name}” ({licence.url}). {licence.notice}"


def _find(name: str, locations: PackLocations) -> InstalledPack | None:
    with contextlib.suppress(PackNotFound):
        return locate(name, locations)
    return None


def _is_complete(pack: InstalledPack) -> bool:
    if any(file.role not in pack.paths for file in pack.manifest.files):
        return False
    bad = [result.message for result in pack.verify() if not result.is_good]
    for message in bad:
        _log.warning("%s It will be replaced.", message)
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
) -> InstalledPack:
    """The pack as it is installed; one that is registered but not installed is pulled, where that was asked for.

    `may_pull` asks for a download, which accepting a licence does not. `auto` falls back to the pack that this package
    carries, and logs a warning with the reason and the remedy. The other arguments are those of `locate` and `pull`.

    Raises:
        PackError: It is not installed and may not or cannot be pulled, or cannot be understood.
    """
    wanted = PREFERRED if name == AUTO else name
    is_accepted = wanted in accepted_licences
    try:
        return locate(wanted, locations)
    except PackNotFound as missing:
        failure: PackError = missing
    if wanted in locations.known and may_pull:
        if is_accepted:
            _log.info("%s", licence_sentence(locations.known[wanted]))
        try:
            return pull(wanted, locations, accepted_licences=accepted_licences, progress=progress)
        except PackError as error:
            failure = error
    elif wanted in locations.known and is_accepted:
        failure = PackNotFound(
            f"{failure}\nThe licence of {wanted} is accepted; to download the pack at start, set ARCFACE_PULL=true."
        )
    if name != AUTO:
        raise failure
    if may_pull and is_accepted:
        first, *_ = str(failure).splitlines()
        reason = f"{PREFERRED} could not be installed: {first.rstrip(':.')}."
        remedy = f"`arcface-api packs pull {PREFERRED}` tries again and shows every reason"
    else:
        why = "ARCFACE_PULL is not true" if is_accepted else "its licence was not accepted"
        reason = f"{PREFERRED} is not on this machine, and {why}."
        needed = ["ARCFACE_PULL=true"] * (not may_pull) + [f"ARCFACE_ACCEPT_LICENSE={PREFERRED}"] * (not is_accepted)
        remedy = f"To download {PREFERRED} (non-commercial research only), set {' and '.join(needed)}"
    carried = locate(CARRIED, locations)
    title, licence = carried.manifest.title, carried.manifest.licence.name
    _log.warning("Serving the pack %s (%s, %s): %s", CARRIED, title, licence, reason)
    _log.warning(
        "It is less accurate, and its vectors cannot be compared with those of other models. %s; for any other pack,"
        " set ARCFACE_PACK.",
        remedy,
    )
    return carried
