"""`packs pull`, which installs a registered pack; and what a command works with, pulled where that was asked for."""

import contextlib
import difflib
import hashlib
import logging
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from arcface_api.errors import PackError, PackNotFound, StorageFull
from arcface_api.packs import archive as zips
from arcface_api.packs.content import Measured, check, read_whole
from arcface_api.packs.download import DEFAULT_PATIENCE, NEXT_SOURCE, Patience, Wanted, fetch, http_client, shown
from arcface_api.packs.finding import AUTO, CARRIED, PREFERRED, PackLocations, locate
from arcface_api.packs.identify import refuse_misfit
from arcface_api.packs.install import Files, assemble, publish, reuse, staging
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.manifest import Manifest, ModelFile, Source
from arcface_api.progress import Progress, no_progress

_log = logging.getLogger("arcface_api.packs")


@dataclass
class Job:
    """One pack being put together."""

    manifest: Manifest
    staged: Path
    downloads: Path
    progress: Progress
    patience: Patience
    trusted: Mapping[str, Measured] = field(default_factory=dict)
    """What was recorded of the pack that is being replaced: files that its manifest does not pin must stay the same."""
    have: Files = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[ModelFile]:
        """The files that no source has given yet."""
        return [file for file in self.manifest.files if file.name not in self.have]

    def part(self, url: str, sha256: str | None) -> Path:
        """Where a download is kept: by its content where that is known, so that another mirror can resume it."""
        identity = sha256 or hashlib.sha256(url.encode()).hexdigest()
        return self.downloads / f"{self.manifest.name}-{identity[:32]}.part"

    def forget_downloads(self) -> None:
        """Delete what was downloaded for this pack; to be called when the pack is installed."""
        ours = re.compile(rf"{re.escape(self.manifest.name)}-[0-9a-f]{{32}}\.part(\.json)?")
        for path in list(self.downloads.iterdir()):
            if ours.fullmatch(path.name):
                path.unlink(missing_ok=True)


def fetch_missing(job: Job) -> None:
    """Get every missing file of a pack.

    Raises:
        PackError: Some are missing after the last source; the message has the reason of each.
        StorageFull: The disk has no room.
        OSError: The disk refuses.
    """
    job.downloads.mkdir(parents=True, exist_ok=True)
    with http_client(job.patience) as client:
        for source in job.manifest.sources:
            if not job.missing or source.file in job.have:
                continue
            try:
                if source.file is None:
                    _from_archive(job, source, client)
                else:
                    _single(job, source, client)
            except StorageFull:
                raise
            except PackError as error:
                _log.info("%s", error)
                job.failures.append(str(error).removesuffix(NEXT_SOURCE).rstrip())
    if job.missing:
        raise PackError(_exhausted(job))


def _single(job: Job, source: Source, client: httpx.Client) -> None:
    file = next(file for file in job.manifest.files if file.name == source.file)
    wanted = Wanted(source.url, job.part(source.url, file.sha256), file.size_bytes, file.sha256)
    found = fetch(client, wanted, job.patience, job.progress)
    _accept(job, file, wanted.part, found, shown(source.url))


def _from_archive(job: Job, source: Source, client: httpx.Client) -> None:
    what = shown(source.url)
    wanted = Wanted(
        url=source.url,
        part=job.part(source.url, source.sha256),
        size_bytes=source.size_bytes,
        sha256=source.sha256,
        is_archive=True,
        room_bytes=sum(file.size_bytes or 0 for file in job.missing),
    )
    fetch(client, wanted, job.patience, job.progress)
    try:
        with zips.opened(wanted.part, what) as archive:
            for file in job.missing:
                _from_members(job, file, archive, what)
    except PackError:
        # complete but bad: the next run must not resume it
        wanted.part.unlink(missing_ok=True)
        raise
    if job.missing:
        wanted.part.unlink(missing_ok=True)
        names = ", ".join(file.name for file in job.missing)
        job.failures.append(f"{what} does not have {names}, neither by SHA-256 nor, where that is unknown, by name.")


def _from_members(job: Job, file: ModelFile, archive: zipfile.ZipFile, what: str) -> None:
    """Take a file out of an archive: by its hash where that is known, whatever it is called there, else by name."""
    members = zips.models(archive)
    if file.sha256 is not None:
        members = [member for member in members if member.file_size == file.size_bytes]
    else:
        names = {file.name, *file.aliases}
        members = [member for member in members if any(f"/{member.filename}".endswith(f"/{name}") for name in names)]
    target = job.staged / file.name
    for member in members:
        found = zips.unpack(archive, member, target, what, limit_bytes=file.size_bytes, progress=job.progress)
        if file.sha256 in {None, found.sha256}:
            _accept(job, file, target, found, f"{member.filename} in {what}")
            return
        target.unlink()


def _accept(job: Job, file: ModelFile, path: Path, found: Measured, what: str) -> None:
    check(file, found, what, NEXT_SOURCE)
    if file.sha256 is None:
        recorded = job.trusted.get(file.name, found)
        if recorded != found:
            path.unlink()
            raise PackError(
                f"{what} is not the {file.name} that was used before: its SHA-256 is {found.sha256}, recorded at the"
                f" first use was {recorded.sha256}. If that is meant to change, delete the installed pack first."
            )
        try:
            refuse_misfit(read_whole(path, found.size_bytes, NEXT_SOURCE), file, what)
        except PackError:
            path.unlink()
            raise
    job.have[file.name] = (path, found)


def _exhausted(job: Job) -> str:
    name = job.manifest.name
    archive = next((shown(source.url) for source in job.manifest.sources if source.file is None), None)
    missing = ", ".join(file.name for file in job.missing)
    what, pronoun, files = f"the `.onnx` files of {name}", "them", "FILES"
    if archive is not None:
        what, pronoun, files = archive, "it", archive.rpartition("/")[2]
    reasons = "\n".join(f"  - {reason}" for reason in job.failures)
    return (
        f"No source gave {name} (still missing: {missing}):\n{reasons}\nDownload {what} elsewhere, bring {pronoun}"
        f" here, and run `arcface-api packs import {files}`; or try again later."
    )


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
        StorageFull: The disk has no room for it.
        PackError: It is not registered, its licence is not accepted, no source gave it (the message has every reason),
            or the folder cannot be written.
    """
    known = locations.known
    if name not in known:
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        guess = f" Did you mean {' or '.join(close)}?" if close else ""
        raise PackError(f"No registered pack is called {name!r}.{guess} Registered are {', '.join(known)}.")
    manifest, parent = known[name], locations.writable
    there = _find(name, locations)
    if there is not None and _is_complete(there):
        return there
    if name not in accepted_licences:
        raise PackError(
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
    return (
        f"The weights of {manifest.name} come under their own licence: {licence.name} ({licence.url}). {licence.notice}"
    )


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
        "It is weaker, and its vectors cannot be compared with others. %s; for any other pack set ARCFACE_PACK.", remedy
    )
    return carried
