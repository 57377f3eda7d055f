"""The pictures of an evaluation: files of a folder or of a .tar, read one after the other and never all at once."""

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from arcface_api.errors import PicturesMissing

SHOWN = 3
"""How many names a message lists."""


class Pictures(Protocol):
    """Where pictures come from."""

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those names for which there is no file."""

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Each named picture once, in any order, with its bytes.

        Raises:
            PicturesMissing: One cannot be read.
        """


def open_pictures(path: Path, names: Sequence[str]) -> Pictures:
    """The pictures of a folder or a .tar.

    Raises:
        PicturesMissing: It cannot be read, or lacks one of the names.
    """
    pictures: Pictures = Folder(path) if path.is_dir() else Archive(path)
    missing = pictures.missing(names)
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
        raise PicturesMissing(
            f"{path} lacks {len(missing):,} of the {len(names):,} pictures that the pairs name: {shown}. Names are"
            " paths below the folder or within the .tar, with their endings, as in A/1.jpg: add the pictures, or name"
            " them so."
        )
    return pictures


class Folder:
    """Pictures as files below a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def missing(self, names: Sequence[str]) -> list[str]:
        """As `Pictures`."""
        return [name for name in names if not (self._path / name).is_file()]

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """As `Pictures`, in the order of the names."""
        for name in names:
            try:
                content = (self._path / name).read_bytes()
            except OSError as error:
                raise PicturesMissing(
                    f"{self._path / name} cannot be read: {error.strerror}. Make it readable, or remove its pairs."
                ) from None
            yield name, content


class Archive:
    """Pictures as members of a .tar, compressed or not."""

    def __init__(self, path: Path) -> None:
        """Read the archive's headers.

        Raises:
            PicturesMissing: It cannot be read.
        """
        self._path = path
        with self._reading() as archive:
            self._places = {_name(member): member.offset for member in archive if member.isfile()}
            """Where each picture begins; of those with one name the last, as when the archive is unpacked."""

    def missing(self, names: Sequence[str]) -> list[str]:
        """As `Pictures`."""
        return [name for name in names if name not in self._places]

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """As `Pictures`, in the order of the archive, which is read once from its beginning to its end."""
        wanted = {self._places[name] for name in names}
        with self._reading() as archive:
            for member in archive:
                if member.offset in wanted:
                    yield _name(member), archive.extractfile(member).read()  # type: ignore[union-attr]  # None: no file

    @contextmanager
    def _reading(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self._path) as archive:
                yield archive
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise PicturesMissing(
                f"{self._path} cannot be read as a .tar: {reason}. Name a folder of pictures, or a whole .tar archive."
            ) from None


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")
