"""A pack that is on disk, and the one way to its bytes: read once, verified, used."""

import hashlib
import logging
import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

import tomli_w

from arcface_api.errors import PackError
from arcface_api.packs.content import Measured, check, measure, read_whole
from arcface_api.packs.manifest import Manifest, ModelFile, Role

Origin = Literal["path", "models_dir", "cache", "insightface", "package"]
"""Which of the places a pack was found in; "path": it was named by its path."""

LOCK_NAME = "pack.lock.toml"
_HEADER = """\
# Written by arcface-api: SHA-256 of files that no manifest pins, as they were at their first use.
# A file that changes is refused. If you changed it on purpose, delete this file.

"""
_log = logging.getLogger("arcface_api.packs")


@dataclass(frozen=True)
class TrustRecord:
    """Trust on first use: the hash of a file that no manifest pins is recorded, and must stay the same from then on.

    A record that cannot be understood raises a `PackError`.
    """

    places: tuple[Path, ...]
    """The first of these that can be written takes the record."""

    @classmethod
    def of(cls, path: Path, records_dir: Path) -> Self:
        """A folder's is in it, or, where that is read-only, in `records_dir`; a single file's is only there."""
        elsewhere = records_dir / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.toml"
        return cls((path / LOCK_NAME, elsewhere) if path.is_dir() else (elsewhere,))

    def find(self, name: str) -> tuple[Measured, Path] | None:
        """What was recorded for a file, and where."""
        return next(((entry, place) for place in self.places if (entry := _read(place).get(name))), None)

    def check(self, name: str, found: Measured, path: Path) -> bool:
        """Whether the file was used before; raises a `PackError` if that was with other bytes. Records nothing."""
        known = self.find(name)
        if known is not None and known[0] != found:
            raise PackError(
                f"{path} has changed since its first use: its SHA-256 is {found.sha256}, recorded was"
                f" {known[0].sha256}. If you replaced it on purpose, delete {known[1]}; if not, delete the pack and"
                " install it again."
            )
        return known is not None

    def confirm(self, name: str, found: Measured, path: Path) -> None:
        """`check`, and record a file that was not used before."""
        if self.check(name, found, path):
            return
        tried = " nor in ".join(map(str, self.places))
        recorded = f"which could not be recorded, neither in {tried}: a change will go unnoticed"
        for place in self.places:
            with suppress(OSError):
                write_record(place, {**_read(place), name: found})
                recorded = f"recorded in {place}"
                break
        _log.warning("%s is not pinned and is trusted at its first use: SHA-256 %s, %s.", path, found.sha256, recorded)


def write_record(place: Path, entries: Mapping[str, Measured]) -> None:
    """Write a lock file in one step.

    Of two processes at once one may lose an entry, which is then recorded at the next start.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).replace(microsecond=0)
    files = {name: {**asdict(entry), "recorded": now} for name, entry in sorted(entries.items())}
    new = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    new.write_text(_HEADER + tomli_w.dumps({"files": files}), encoding="utf-8")
    new.replace(place)


def _read(place: Path) -> dict[str, Measured]:
    try:
        files = tomllib.loads(place.read_text(encoding="utf-8"))["files"]
        return {name: Measured(int(entry["size_bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    # ValueError: neither UTF-8 nor TOML; RecursionError: a thousand brackets
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, OSError) and not os.access(place.parent, os.X_OK):
            return {}  # a closed folder, in a home for example, or a link to itself: no record of this user's is in it
        raise PackError(
            f"{place} cannot be understood: {error}. It records the hashes of files at their first use; if you trust"
            " the files as they are now, delete it."
        ) from error


@dataclass(frozen=True)
class VerifiedModel:
    """A model file's bytes, which are the ones that were checked."""

    file: ModelFile
    content: bytes = field(repr=False)
    sha256: str


@dataclass(frozen=True)
class FileCheck:
    """The result of `InstalledPack.verify` for one file of a manifest."""

    file: ModelFile
    is_good: bool
    """A file that is not there is no defect: its role stays empty."""
    message: str


@dataclass(frozen=True)
class InstalledPack:
    """A pack that is on disk. Nothing in it has been verified yet: `read` does that."""

    manifest: Manifest
    folder: Path
    paths: Mapping[Role, Path]
    """The files that are there; a role without one cannot be filled."""
    origin: Origin
    trust: TrustRecord
    inspected: Mapping[Role, str] = field(default_factory=dict)
    """SHA-256 of the bytes from which an unregistered file's part of the manifest was made."""

    def read(self, role: Role) -> VerifiedModel:
        """The bytes of the file in `paths`, read once and verified against the manifest, or against its first use.

        Raises:
            PackError: It cannot be read, or its bytes are not the stated ones, or those of its first use.
        """
        path, remedy = self.paths[role], self._remedy()
        file = next(file for file in self.manifest.files if file.role is role)
        content = read_whole(path, file.size_bytes, remedy)
        found = Measured(len(content), hashlib.sha256(content).hexdigest())
        check(file, found, str(path), remedy)
        if self.inspected.get(role, found.sha256) != found.sha256:
            raise PackError(f"{path} was replaced while it was being opened. Start again.")
        if file.sha256 is None:
            self.trust.confirm(self._key(path), found, path)
        return VerifiedModel(file, content, found.sha256)

    def verify(self) -> list[FileCheck]:
        """Compare every file of the manifest with it, or with its first use; changes and records nothing."""
        return [self._check(file) for file in self.manifest.files]

    def _check(self, file: ModelFile) -> FileCheck:
        path = self.paths.get(file.role)
        if path is None:
            return FileCheck(file, True, "not there: this role stays empty")
        try:
            found = measure(path)
            check(file, found, str(path), self._remedy())
            if file.sha256 is not None:
                return FileCheck(file, True, "as its manifest states")
            if self.trust.check(self._key(path), found, path):
                return FileCheck(file, True, "as at its first use")
        except PackError as error:
            return FileCheck(file, False, str(error))
        return FileCheck(file, True, "not pinned, and not used yet: trusted at its first use")

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _remedy(self) -> str:
        if self.origin == "package":
            return "It is part of the package: install arcface-api again."
        if not self.manifest.sources:
            return "Get the file again from where it came, and import it with `arcface-api packs import FILES`."
        pull = f"`arcface-api packs pull {self.manifest.name} --accept-license`"
        if self.origin == "path":
            return f"Get the file again, for example with {pull}."
        return f"Run {pull}, which replaces what is damaged."
