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
    """A model file's bytes, which are the ones that were checked."""

    file: ModelFile
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
            KeyError: The pack has no file for that role (`role in pack.paths`).
            PackError: It cannot be read, or its bytes are not the stated ones, or those of its first use.
        """
        path, remedy = self.paths[role], self._remedy()
        file = next(file for file in self.manifest.files if file.role is role)
        content = read_whole(path, file.size_bytes, remedy)
        found = Measured(len(content), hashlib.sha256(content).hexdigest())
        check(file, found, str(path), remedy)
        if self.inspected.get(role, found.sha256) != found.sha256:
            raise ModelHashWrong(f"{path} was replaced while it was being opened. Start again.")
        if file.sha256 is None:
            self.trust.confirm(self._key(path), found, path)
        return VerifiedModel(file, content, found.sha256)

    def verify(self) -> list["FileCheck"]:
        """Compare every file of the manifest with it, or with its first use; changes and records nothing."""
        return [self._check(file) for file in self.manifest.files]

    def _check(self, file: ModelFile) -> "FileCheck":
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


@dataclass(frozen=True)
class FileCheck:
    """The result of `InstalledPack.verify` for one file of a manifest."""

    file: ModelFile
    is_good: bool
    """A file that is not there is no defect: its role stays empty."""
    message: str
