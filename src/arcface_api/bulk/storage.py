"""Where a job keeps its files: a folder, or a place in object storage.

"faces/"           Folder   a file is written under another name, flushed to the disk, and renamed
"s3://bucket/x/"   Bucket   an object is there when all its bytes are

In neither, a file is ever half written.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from filelock import FileLock, Timeout
from pyarrow import fs

from arcface_api.bulk.places import buffered, is_url, local_path, located, reason_of, without_query
from arcface_api.errors import BulkError

TEMPORARY = ".tmp"
SPOOLED_BYTES = 64 * 1024 * 1024
"""So much of an object is kept in memory until it is sent; the rest on the disk."""
LOCK_ATTEMPTS, LOCK_PAUSE_SECONDS = 50, 0.02
"""A job that ends removes its folder, perhaps between two steps of one that begins."""


class Folder:
    """A folder of the file system."""

    def __init__(self, path: Path) -> None:
        """Nothing is read or written yet."""
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def at(self, name: str) -> str:
        """A file's place."""
        return str(self.path / name)

    @contextmanager
    def open_up(self, lock: str, check: Callable[[], None]) -> Iterator[None]:
        """Make the folder, check it, and hold its lock; at the end, an empty folder is removed.

        `check` raises BulkError if the folder is somebody else's.
        """
        held = FileLock(self.path / lock, timeout=0)
        for attempt in range(LOCK_ATTEMPTS):
            try:
                self.path.mkdir(exist_ok=True)
                check()
                held.acquire()
            except Timeout:
                raise BulkError(
                    f"Another process writes {self.path} now. Wait for its end, or give this job another --out."
                ) from None
            except OSError as error:
                is_passing = isinstance(error, FileNotFoundError | FileExistsError) and self.path.parent.is_dir()
                if not is_passing or attempt == LOCK_ATTEMPTS - 1:
                    raise BulkError(
                        f"The folder {self.path} cannot be made: {error.strerror}. Name an --out in a folder that"
                        " exists and can be written to."
                    ) from None
                time.sleep(LOCK_PAUSE_SECONDS)
            else:
                break
        try:
            yield
        finally:
            held.release()
            with suppress(OSError):  # there is a job, or another process has begun one
                self.path.rmdir()

    def name_of(self, place: str) -> str | None:
        """The name that a place has in the folder; None if it is elsewhere."""
        path = local_path(place)
        for each in (path, path.resolve()) if path else ():
            with suppress(OSError):
                if each.parent.samefile(self.path):
                    return each.name
        return None

    def names(self) -> set[str]:
        """Of all files."""
        return {path.name for path in self.path.iterdir()}

    def open(self, name: str) -> IO[bytes]:
        """A file to read."""
        return (self.path / name).open("rb")

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file that appears with all its bytes on the disk."""
        with atomic_file(self.path / name) as file:
            yield file

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.path / name).unlink(missing_ok=True)


class Bucket:
    """A place in object storage. It has no lock."""

    def __init__(self, url: str) -> None:
        """Raises BulkError if the URL is none that pyarrow knows, or there is no such bucket."""
        self.url = without_query(url)
        self._files, path = located(url)
        self._root = path.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def at(self, name: str) -> str:
        """A file's place."""
        return f"{self.url}{name}"

    @contextmanager
    def open_up(self, lock: str, check: Callable[[], None]) -> Iterator[None]:  # noqa: ARG002  # of the protocol
        """Nothing has to be made."""
        check()
        yield

    def name_of(self, place: str) -> str | None:
        """The name that a place has here; None if it is elsewhere."""
        if not is_url(place):
            return None
        files, path = located(place)
        folder, _, name = path.rpartition("/")
        return name if files.type_name == self._files.type_name and folder == self._root else None

    def names(self) -> set[str]:
        """Of all objects."""
        with self._explained():
            found = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        return {each.base_name for each in found if each.type == fs.FileType.File}

    def open(self, name: str) -> IO[bytes]:
        """An object to read, some at a time."""
        with self._explained():
            return buffered(self._files.open_input_file(f"{self._root}/{name}"))

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """An object that appears with all its bytes. They are sent when the block has ended well."""
        with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as whole:
            yield cast("IO[bytes]", whole)
            whole.seek(0)
            self._send(whole, name)

    def _send(self, whole: Any, name: str) -> None:
        try:
            with self._files.open_output_stream(f"{self._root}/{name}") as file:
                shutil.copyfileobj(whole, file, SPOOLED_BYTES)
        except OSError as error:
            raise BulkError(
                f"{self.at(name)} cannot be written: {reason_of(error)}. Make it writable, and start the same command"
                " again: it goes on where it was."
            ) from None

    def remove(self, name: str) -> None:
        """Remove an object."""
        with self._explained(), suppress(FileNotFoundError):
            self._files.delete_file(f"{self._root}/{name}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise BulkError(
                f"{self.url} cannot be reached: {reason_of(error)}. Correct the URL and the keys of the object storage,"
                " and start the same command again: it goes on where it was."
            ) from None


Storage: TypeAlias = Folder | Bucket


def storage_at(place: str) -> Storage:
    """A folder by its path, or a place in object storage by its URL."""
    if place.startswith("file://"):
        return Folder(Path(located(place)[1]))
    return Bucket(place) if is_url(place) else Folder(Path(place))


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block ends, with all its bytes on the disk; or not at all.

    Raises BulkError if it cannot be written.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    with explained(path):
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Make a sentence of what the system says against writing a file."""
    try:
        yield
    except OSError as error:  # pyarrow's errors are such, too
        raise BulkError(
            f"{path} cannot be written: {error.strerror or error}. Make room on the disk, or make the folder writable,"
            " and start the same command again: it goes on where it was."
        ) from None


def publish(temporary: Path, path: Path) -> None:
    """Rename a file that is on the disk, and wait until the folder is, too."""
    temporary.replace(path)
    _sync(path.parent)


def withdraw(path: Path) -> None:
    """Remove a file, if it is there, and wait until it is gone from the disk."""
    path.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
