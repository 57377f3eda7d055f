"""What a job has done so far, in the folder FILE.parts: nothing in it is ever half written.

    job.json              what the job is: sources, options, model; written when the listing is complete
    inputs.jsonl          every input, in order
    part-00000000.parquet rows of the inputs 0 to 999, and so on
    output-0.tmp          the file, while it is written
    lock                  held by the process that works on it

Each file is written under another name, flushed to the disk, and renamed.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
from filelock import FileLock, Timeout
from pyarrow import parquet

from arcface_api.errors import BulkError

TEMPORARY = ".tmp"
FORMAT = 1
"""Of the folder; another version's is refused."""
LOCK_ATTEMPTS, LOCK_PAUSE_SECONDS = 50, 0.02
"""A job that ends removes its folder, perhaps between two steps of one that begins."""
_OURS = re.compile(r"lock|(inputs\.jsonl|job\.json|part-\d{8}\.parquet)(\.tmp)?|output-\d\.tmp")
"""Names of a job's files. Others are never touched."""


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


def arrow_file(path: str | Path) -> Any:
    """A file to read, for pyarrow, which takes no paths that are not UTF-8."""
    return pa.OSFile(os.fsencode(path))


@dataclass(frozen=True)
class Job:
    """What `job.json` holds."""

    pins: dict[str, Any]
    """What every start of the job must have in common, by a name for people."""
    inputs: int
    ignored: int
    part_rows: int
    format: int = FORMAT
    broken: tuple[str, ...] = ()
    """Sources that could not be listed to their end."""

    @property
    def parts(self) -> int:
        """How many parts the job has when it is complete."""
        return -(-self.inputs // self.part_rows)


class Parts:
    """The folder FILE.parts; a context manager, which holds its lock."""

    def __init__(self, out: Path) -> None:
        """Nothing is read or written before the block begins."""
        self.folder = out.with_name(f"{out.name}.parts")
        self.inputs = self.folder / "inputs.jsonl"
        self._job = self.folder / "job.json"
        self._at_end = ExitStack()

    def __enter__(self) -> Self:
        """Raises BulkError if another process works on the job, or the folder cannot be made, or is somebody else's."""
        for attempt in range(LOCK_ATTEMPTS):
            try:
                self.folder.mkdir(exist_ok=True)
                self._check_ours()
                self._at_end.enter_context(FileLock(self.folder / "lock", timeout=0))
            except Timeout:
                raise BulkError(
                    f"Another process writes {self.folder} now. Wait for its end, or give this job another --out."
                ) from None
            except OSError as error:
                is_passing = isinstance(error, FileNotFoundError | FileExistsError) and self.folder.parent.is_dir()
                if not is_passing or attempt == LOCK_ATTEMPTS - 1:
                    raise BulkError(
                        f"The folder {self.folder} cannot be made: {error.strerror}. Name an --out in a folder that"
                        " exists and can be written to."
                    ) from None
                time.sleep(LOCK_PAUSE_SECONDS)
            else:
                break
        return self

    def _check_ours(self) -> None:
        """Raises BulkError if the folder holds files, and none says that they are a job's."""
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        if names and not (self.is_begun or ("lock" in names and all(map(_OURS.fullmatch, names)))):
            shown = min((name for name in names if not _OURS.fullmatch(name)), default=min(names))
            raise BulkError(
                f"The folder {self.folder} is needed for what the job has done so far, and holds something else:"
                f" {shown}. Move that away, or name another --out."
            )

    @property
    def is_begun(self) -> bool:
        """Whether there is a job that is not finished."""
        with suppress(OSError, ValueError):
            stored = json.loads(self._job.read_bytes())
            return isinstance(stored, dict) and {"format", "pins"} <= stored.keys()
        return False

    def __exit__(self, *_: object) -> None:
        """Leave a job that is not finished; without one, nothing."""
        if not self._job.exists():
            self.discard()
            (self.folder / "lock").unlink(missing_ok=True)
        self._at_end.close()
        with suppress(OSError):  # there is a job, or another process has begun one
            self.folder.rmdir()

    def read(self) -> Job | None:
        """The job that was begun; None if there is none, or its listing was not complete.

        Raises BulkError if the folder is another version's.
        """
        try:
            stored = json.loads(self._job.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            stored = {}
        if not self.is_begun or stored["format"] != FORMAT:
            raise BulkError(
                f"{self.folder} was begun by another version of arcface-api, which has another format. Continue with"
                " that version, or begin again with --restart."
            )
        return Job(**stored | {"broken": tuple(stored.get("broken", ()))})

    def begin(
        self, pins: dict[str, Any], inputs: int, ignored: int, part_rows: int, broken: tuple[str, ...] = ()
    ) -> Job:
        """Store a new job, whose listing is complete."""
        job = Job(pins, inputs, ignored, part_rows, broken=broken)
        with atomic_file(self._job) as file:
            file.write(json.dumps(asdict(job), indent=1).encode())
        return job

    def missing(self, job: Job) -> set[int]:
        """The numbers of the parts that are not there."""
        present = {path.name for path in self.folder.iterdir()}
        return {number for number in range(job.parts) if self._part(number).name not in present}

    def write(self, number: int, rows: pa.Table) -> None:
        """Store a part."""
        with atomic_file(self._part(number)) as file:
            parquet.write_table(rows, file, compression="none", use_dictionary=False)

    def tables(self, job: Job, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """All parts in order, one at a time, with these columns or all; raises BulkError for a damaged one."""
        for number in range(job.parts):
            part = self._part(number)
            try:
                with parquet.ParquetFile(arrow_file(part)) as file:
                    found = file.read(columns, use_threads=False)
            except (pa.ArrowInvalid, OSError) as error:
                reason = str(error).partition("\n")[0].rstrip(".")
                raise BulkError(
                    f"{part} is damaged: {reason}. Delete it and start the same command again: only its pictures are"
                    " embedded again."
                ) from None
            yield found

    def discard(self) -> None:
        """Remove what a job has left. What says that there is a job goes first: the rest is nothing without it."""
        self._job.unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name != "lock" and _OURS.fullmatch(path.name):
                path.unlink()

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:08}.parquet"
