"""A pack that is on disk, and the one way to its bytes: read once, verified, used."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arcface_api.errors import ModelHashWrong, PackError
from arcface_api.packs.content import Measured, check, measure, read_whole
from arcface_api.packs.locations import Origin
from arcface_api.packs.manifest import Manifest, ModelFile, Role
from arcface_api.packs.trust import TrustRecord


@dataclass(frozen=True)
class VerifiedModel:
    """A model file whose bytes are the ones that were checked."""

    file: ModelFile
    path: Path
    content: bytes = field(repr=False)
    sha256: str


@dataclass(frozen=True)
class InstalledPack:
    """A pack that is on disk. Nothing in it has been verified yet: `read` does that."""

    manifest: Manifest
    folder: Path
    paths: Mapping[Role, Path]
    """The files that are there; a role without one cannot be filled."""
    origin: Origin
    trust: TrustRecord
    """Where the hashes of files that the manifest does not pin are recorded."""
    inspected: Mapping[Role, str] = field(default_factory=dict)
    """SHA-256 of the bytes from which an unregistered file's part of the manifest was made."""

    def read(self, role: Role) -> VerifiedModel:
        """The bytes of one file, read once and verified against the manifest, or against its first use.

        Raises:
            KeyError: The pack has no file for that role (`role in pack.paths` tells).
            ModelIsLfsPointer: A Git LFS pointer lies in its place.
            ModelIsHtml: A web page lies in its place.
            ModelTruncated: It has too few bytes.
            ModelHashWrong: Its bytes are not the stated ones.
            ModelHashChanged: Its bytes are not the ones of its first use.
            ModelUnreadable: It cannot be read.
        """
        path, file = self.paths[role], self._file(role)
        content = read_whole(path, file.size_bytes, self._remedy())
        found = Measured(len(content), hashlib.sha256(content).hexdigest())
        check(file, found, str(path), self._remedy())
        if self.inspected.get(role, found.sha256) != found.sha256:
            raise ModelHashWrong(f"{path} was replaced while it was being opened. Start again.")
        if file.sha256 is None:
            self.trust.confirm(self._key(path), found, path)
        return VerifiedModel(file, path, content, found.sha256)

    def check_file(self, file: ModelFile) -> "FileCheck":
        """Compare one file with the manifest or with its first use; changes and records nothing."""
        path = self.paths.get(file.role)
        if path is None:
            return FileCheck(file.name, file.role, file.sha256, None, True, "not there: this role stays empty")
        expected, found = file.sha256, None
        try:
            known = self.trust.find(self._key(path)) if expected is None else None
            expected = known[0].sha256 if known is not None else expected
            measured = measure(path)
            found = measured.sha256
            check(file, measured, str(path), self._remedy())
        except PackError as error:
            return FileCheck(file.name, file.role, expected, found, False, str(error))
        if expected is None:
            return FileCheck(
                file.name, file.role, None, found, True, "not pinned, and not used yet: trusted at its first use"
            )
        if expected != found:
            message = f"{path} has changed since its first use. {self._remedy()}"
            return FileCheck(file.name, file.role, expected, found, False, message)
        message = "as its manifest states" if known is None else "as at its first use"
        return FileCheck(file.name, file.role, expected, found, True, message)

    def _file(self, role: Role) -> ModelFile:
        file = self.manifest.file(role)
        if file is None:
            raise KeyError(role)
        return file

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _remedy(self) -> str:
        if self.origin == "package":
            return "It is part of the package: install arcface-api again."
        if not self.manifest.sources:
            return "Get the file again from where it came, and import it with `arcface-api packs import FILES`."
        name = self.manifest.name
        if self.origin == "path":
            return f"Get the file again, for example with `arcface-api packs pull {name} --accept-license`."
        return f"Run `arcface-api packs pull {name} --accept-license`, which replaces what is damaged."


@dataclass(frozen=True)
class FileCheck:
    """What `verify` found about one file of a manifest."""

    file: str
    role: Role
    expected: str | None
    """SHA-256 that is registered, or was recorded at the first use; None: none is."""
    found: str | None
    """SHA-256 of the file; None: it is not there, or cannot be read."""
    ok: bool
    message: str


def verify(pack: InstalledPack) -> list[FileCheck]:
    """Compare every file of a pack with its manifest, or with its first use. Records nothing."""
    return [pack.check_file(file) for file in pack.manifest.files]
