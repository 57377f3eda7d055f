"""`pull`, which installs a registered pack from its sources, and `obtain`, which a command begins with.

One module, because `obtain` explains why `pull` was not possible.
"""

import contextlib
import hashlib
import logging
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from arcface_api.errors import PackError, PackNotFound, SettingInvalid, StorageFull
from arcface_api.outbound import proxy_for, tls_context
from arcface_api.packs import archive as zips
from arcface_api.packs.content import Measured, check, read_whole
from arcface_api.packs.download import NEXT_SOURCE, Wanted, fetch, http_client, shown
from arcface_api.packs.finding import AUTO, CARRIED, PREFERRED, PackLocations, locate
from arcface_api.packs.graph import refuse_misfit
from arcface_api.packs.install import Files, assemble, publish, reuse, staging
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.manifest import Manifest, ModelFile, Source
from arcface_api.progress import Progress, no_progress
from arcface_api.settings import Settings
from arcface_api.wording import did_you_mean

_log = logging.getLogger("arcface_api.packs")


def pull(
    name: str, locations: PackLocations, *, accepted_licences: frozenset[str], progress: Progress = no_progress
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
        raise PackError(
            f"No registered pack is called {name!r}.{did_you_mean(name, known)} Registered are {', '.join(known)}."
        )
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
        trusted, have = {}, Files()
        if there is not None:
            for file in manifest.files:
                if file.sha256 is None and (record := there.trust.find(file.name)) is not None:
                    trusted[file.name] = record[0]
            reuse(manifest, there.paths, have, staged, progress)
        downloads = parent / ".downloads"
        _fetch_missing(_Job(manifest, staged, downloads, progress, trusted, have))
        assemble(manifest, have, staged)
        publish(staged, parent / name)
        ours = re.compile(rf"{re.escape(name)}-[0-9a-f]{{32}}\.part(\.json)?")
        for path in list(downloads.iterdir()):
            if ours.fullmatch(path.name):
                path.unlink(missing_ok=True)
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


def obtain(settings: Settings, progress: Progress) -> InstalledPack:
    """The pack of the settings; one that is registered but not installed is pulled, where that was asked for.

    `pull` asks for a download, which accepting a licence does not. `auto` falls back to the pack that this package
    carries, and logs a warning with the reason and the remedy.

    Raises:
        PackError: It is not installed and may not or cannot be pulled, or cannot be understood.
    """
    name, may_pull, accepted_licences = settings.pack, settings.pull, settings.accept_license
    locations = PackLocations.default(settings.models_dir, settings.pack_mirror)
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


@dataclass
class _Job:
    """One pack being put together."""

    manifest: Manifest
    staged: Path
    downloads: Path
    progress: Progress
    trusted: Mapping[str, Measured]
    """What was recorded of the pack that is being replaced: files that its manifest does not pin must stay the same."""
    have: Files
    failures: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[ModelFile]:
        """The files that no source has given yet."""
        return [file for file in self.manifest.files if file.name not in self.have]


def _fetch_missing(job: _Job) -> None:
    """Get every missing file; if some are missing after the last source, the error has the reason of each."""
    for source in job.manifest.sources:
        try:
            proxy_for(url := httpx.URL(source.url))
            tls_context(url)
        except SettingInvalid as error:  # no source can be reached, and this says why
            raise PackError(str(error)) from None
    job.downloads.mkdir(parents=True, exist_ok=True)
    with http_client() as client:
        for source in job.manifest.sources:
            if job.missing and source.file not in job.have:
                try:
                    _try_source(job, source, client)
                except StorageFull:
                    raise
                except PackError as error:
                    _log.info("%s", error)
                    job.failures.append(str(error).removesuffix(NEXT_SOURCE).rstrip())
    if not job.missing:
        return
    name, missing = job.manifest.name, ", ".join(file.name for file in job.missing)
    what, pronoun, files = f"the `.onnx` files of {name}", "them", "FILES"
    archive = next((shown(source.url) for source in job.manifest.sources if source.file is None), None)
    if archive is not None:
        what, pronoun, files = archive, "it", archive.rpartition("/")[2]
    reasons = "\n".join(f"  - {reason}" for reason in job.failures)
    raise PackError(
        f"No source gave {name} (still missing: {missing}):\n{reasons}\nDownload {what} elsewhere, bring {pronoun}"
        f" here, and run `arcface-api packs import {files}`; or try again later."
    )


def _try_source(job: _Job, source: Source, client: httpx.Client) -> None:
    file = next((file for file in job.manifest.files if file.name == source.file), None)
    stated = source if file is None else file
    what = shown(source.url)
    # named by the content where that is known, so that another mirror can resume it
    identity = stated.sha256 or hashlib.sha256(source.url.encode()).hexdigest()
    wanted = Wanted(
        url=source.url,
        part=job.downloads / f"{job.manifest.name}-{identity[:32]}.part",
        size_bytes=stated.size_bytes,
        sha256=stated.sha256,
        is_archive=file is None,
        room_bytes=sum(missing.size_bytes or 0 for missing in job.missing) if file is None else 0,
    )
    found = fetch(client, wanted, job.progress)
    if file is not None:
        _accept(job, file, wanted.part, found, what)
        return
    try:
        with zips.opened(wanted.part, what) as archive:
            for missing in job.missing:
                _from_members(job, missing, archive, what)
    except PackError:
        # complete but bad: the next run must not resume it
        wanted.part.unlink(missing_ok=True)
        raise
    if job.missing:
        wanted.part.unlink(missing_ok=True)
        names = ", ".join(missing.name for missing in job.missing)
        raise PackError(f"{what} does not have {names}, neither by SHA-256 nor, where that is unknown, by name.")


def _from_members(job: _Job, file: ModelFile, archive: zipfile.ZipFile, what: str) -> None:
    """Take a file out of an archive: by its hash where that is known, whatever it is called there, else by name."""
    members = zips.models(archive, what)
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


def _accept(job: _Job, file: ModelFile, path: Path, found: Measured, what: str) -> None:
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
