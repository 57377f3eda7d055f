"""From a pack's sources to its files: each source is tried in turn, and what it gives is verified."""

import hashlib
import logging
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from arcface_api.errors import ModelHashChanged, PackError, SourcesExhausted, StorageFull, StorageUnwritable
from arcface_api.packs import archive as zips
from arcface_api.packs.content import Measured, check, read_whole
from arcface_api.packs.download import NEXT_SOURCE, Patience, Wanted, fetch, http_client, shown
from arcface_api.packs.identify import refuse_misfit
from arcface_api.packs.install import Files
from arcface_api.packs.manifest import Manifest, ModelFile, Source
from arcface_api.progress import Progress

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
        SourcesExhausted: Some are missing after the last source; the message has the reason of each.
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
            except (StorageFull, StorageUnwritable):
                raise
            except PackError as error:
                _log.info("%s", error)
                job.failures.append(str(error).removesuffix(NEXT_SOURCE).rstrip())
    if job.missing:
        raise SourcesExhausted(_exhausted(job))


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
        try:
            recorded = job.trusted.get(file.name, found)
            if recorded != found:
                raise ModelHashChanged(
                    f"{what} is not the {file.name} that was used before: its SHA-256 is {found.sha256}, recorded at"
                    f" the first use was {recorded.sha256}. If that is meant to change, delete the installed pack"
                    " first."
                )
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
