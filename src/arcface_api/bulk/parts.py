"""What a job has done so far: nothing of it is ever half written.

    FILE.parts/job.json              what the job is: sources, options, model; written when the listing is complete
               inputs.jsonl          every input, in order
               part-00000000.parquet rows of the inputs 0 to 999, and so on
               output-0.tmp          the file, while it is written
               lock                  held by the process that works on it

Where the output is itself a folder or a place in object storage, its parts are there, and remain; the names of the
other files begin with `_` then, which readers of such folders pass over.

One module, because every file is written, found again and removed by the same names.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
from pyarrow import parquet

from arcface_api import __version__
from arcface_api.bulk.outputs import write_parquet
from arcface_api.bulk.places import without_query
from arcface_api.bulk.rows import METADATA_KEY, SCHEMA_VERSION
from arcface_api.bulk.storage import Folder, storage_at
from arcface_api.errors import BulkError

FORMAT = 1
"""Of the folder; another version's is refused."""
SUMMARY = "_summary.json"
"""Beside parts that are the output, when all are there."""
DISCARDED = "_discarded"
"""Beside parts that are the output, and are being removed."""
READERS = 16
"""Parts whose ends are read at once."""
_LEFT = re.compile(r"(inputs\.jsonl|job\.json|part-\d{8}\.parquet)(\.tmp)?|output-\d\.tmp")
_OUTPUT = re.compile(r"part-\d{8}\.parquet|_summary\.json")
_LEFT_IN_OUTPUT = re.compile(rf"(_inputs\.jsonl|_job\.json)(\.tmp)?|({_OUTPUT.pattern}|{DISCARDED})\.tmp")
"""Names of a job's files. Others are never touched."""


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
    """The parts of the job whose output is `out`; a context manager, which holds its lock."""

    def __init__(self, out: Path | str) -> None:
        """`out`: a file, or a folder or URL that ends in a slash. Nothing is read or written before the block begins.

        Raises BulkError if a URL cannot be reached.
        """
        self.out, self.are_output = out, is_folder(out)
        path = Path(out)
        self.storage = storage_at(str(out)) if self.are_output else Folder(path.with_name(f"{path.name}.parts"))
        prefix = "_" if self.are_output else ""
        self._job, self._inputs, self._lock = f"{prefix}job.json", f"{prefix}inputs.jsonl", f"{prefix}lock"
        self._left = _LEFT_IN_OUTPUT if self.are_output else _LEFT
        self._at_end = ExitStack()
        self.job: Job | None = None
        """The job that was read or begun; parts that are the output state it."""

    def __enter__(self) -> Self:
        """Raises BulkError if another process works on the job, or the folder cannot be made, or is somebody else's."""
        with ExitStack() as opened:
            opened.enter_context(self.storage.open_up(self._lock, self._check_ours))
            if self.are_output and DISCARDED in self.storage.names():
                self.discard()
            self._at_end = opened.pop_all()
        return self

    def _check_ours(self) -> None:
        """Raises BulkError if there are files that a job would remove, and none says that they are a job's."""
        present = self.storage.names()
        if self.are_output:
            names = present & {self._job, SUMMARY}
            is_ours = bool(present & {self._lock, DISCARDED}) or self.summary() is not None
        else:
            names = {name for name in present if not name.startswith(".")}
            is_ours = self._lock in names and all(map(_LEFT.fullmatch, names - {self._lock}))
        if names and not (is_ours or self.is_begun):
            shown = min((name for name in names if not _LEFT.fullmatch(name)), default=min(names))
            raise BulkError(
                f"The folder {self.storage} is needed for what the job has done so far, and holds something else:"
                f" {shown}. Move that away, or name another --out."
            )

    def check_no_source(self, sources: Iterable[str]) -> None:
        """Raises BulkError if a source is one of the job's files, and would be replaced."""
        names = [self._left, _OUTPUT] if self.are_output else [self._left]
        for source in sources:
            name = self.storage.name_of(source)
            if name is not None and any(each.fullmatch(name) for each in names):
                raise BulkError(
                    f"{without_query(source)} is a source, and --out {without_query(str(self.out))} would replace it."
                    " Name another --out."
                )

    def __exit__(self, *_: object) -> None:
        """Leave a job that is not finished; without one, nothing but the output."""
        if self._job not in self.storage.names():
            self.finish()
            self.storage.remove(self._lock)
        self._at_end.close()

    @property
    def is_begun(self) -> bool:
        """Whether there is a job that is not finished."""
        with suppress(OSError, ValueError), self.storage.open(self._job) as file:
            stored = json.loads(file.read())
            return isinstance(stored, dict) and {"format", "pins"} <= stored.keys()
        return False

    def read(self) -> Job | None:
        """The job that was begun; None if there is none, or its listing was not complete.

        Raises BulkError if the folder is another version's.
        """
        try:
            with self.storage.open(self._job) as file:
                stored = json.loads(file.read())
        except FileNotFoundError:
            return None
        except ValueError:
            stored = {}
        if not self.is_begun or stored["format"] != FORMAT:
            raise BulkError(
                f"{self.storage} was begun by another version of arcface-api, which has another format. Continue with"
                " that version, or begin again with --restart."
            )
        self.job = Job(**stored | {"broken": tuple(stored.get("broken", ()))})
        return self.job

    def begin(
        self, pins: dict[str, Any], inputs: int, ignored: int, part_rows: int, broken: tuple[str, ...] = ()
    ) -> Job:
        """Store a new job, whose listing is complete."""
        self.job = job = Job(pins, inputs, ignored, part_rows, broken=broken)
        with self.storage.writing(self._job) as file:
            file.write(json.dumps(asdict(job), indent=1).encode())
        return job

    def writing_inputs(self) -> AbstractContextManager[IO[bytes]]:
        """The listing, to be written; it appears when the block ends."""
        return self.storage.writing(self._inputs)

    def open_inputs(self) -> IO[bytes]:
        """The listing, to be read."""
        return self.storage.open(self._inputs)

    def lines(self) -> Iterator[bytes]:
        """Those of the listing."""
        with self.open_inputs() as file:
            yield from file

    @property
    def inputs(self) -> str:
        """Where the listing is, for people."""
        return self.storage.at(self._inputs)

    def missing(self, job: Job) -> set[int]:
        """The numbers of the parts that are not there."""
        present = self.storage.names()
        return {number for number in range(job.parts) if _name(number) not in present}

    def write(self, number: int, rows: pa.Table) -> None:
        """Store a part."""
        if self.are_output and self.job is not None:
            errors: Counter[str] = Counter()
            examples: dict[str, tuple[str, str]] = {}
            count_errors(rows, errors, examples)
            stated = {METADATA_KEY: json.dumps(description(self.job, len(rows), errors, examples))}
            rows = rows.replace_schema_metadata(stated)
        with self.storage.writing(_name(number)) as file:
            if self.are_output:
                write_parquet(file, rows)
            else:
                parquet.write_table(rows, file, compression="none", use_dictionary=False)

    def tables(self, job: Job, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """All parts in order, one at a time, with these columns or all; raises BulkError for a damaged one."""
        for number in range(job.parts):
            with self._explained(number), self.storage.open(_name(number)) as file:
                found = parquet.ParquetFile(file).read(columns, use_threads=False)
            yield found

    def summary(self) -> dict[str, Any] | None:
        """What parts that are the output were found to be when all were there."""
        try:
            with self.storage.open(SUMMARY) as file:
                stated: dict[str, Any] = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return stated if isinstance(stated, dict) and {"rows", "job"} <= stated.keys() else None

    def summarise(self, job: Job) -> dict[str, Any]:
        """Store what parts that are the output state of themselves; raises BulkError for a damaged one."""

        def stated(number: int) -> dict[str, Any]:
            with self._explained(number), self.storage.open(_name(number)) as file:
                found: dict[str, Any] = json.loads((parquet.read_metadata(file).metadata or {})[METADATA_KEY])
            return found

        errors: Counter[str] = Counter()
        examples: dict[str, tuple[str, str]] = {}
        with ThreadPoolExecutor(READERS) as readers:
            for part in readers.map(stated, range(job.parts)):
                errors.update(part["errors"])
                examples = part["examples"] | examples
        found = description(job, job.inputs, errors, examples)
        with self.storage.writing(SUMMARY) as file:
            file.write(json.dumps(found, indent=1).encode())
        return found

    def finish(self) -> None:
        """Remove what is no output. What says that there is a job goes first: the rest is nothing without it."""
        self.storage.remove(self._job)
        for name in self.storage.names():
            if self._left.fullmatch(name):
                self.storage.remove(name)

    def discard(self, *, is_listed: bool = False) -> None:
        """Remove what a job has left, and parts that are the output, too.

        `is_listed`: the listing is that of the next job, and stays.
        """
        if self.are_output:
            with self.storage.writing(DISCARDED):
                pass  # from here on, the next start goes on with it
        if not is_listed:
            self.finish()
        if self.are_output:
            for name in (SUMMARY, *self.storage.names()):
                if _OUTPUT.fullmatch(name):
                    self.storage.remove(name)
            self.storage.remove(DISCARDED)

    @contextmanager
    def _explained(self, number: int) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise BulkError(
                f"{self.storage.at(_name(number))} is damaged: {reason}. Delete it and start the same command again:"
                " only its pictures are embedded again."
            ) from None


def is_folder(out: Path | str) -> bool:
    """Whether an output is a folder, or a place in object storage, whose parts remain."""
    return isinstance(out, str) and without_query(out).endswith("/")


def description(job: Job, rows: int, errors: Counter[str], examples: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """What an output, or a part that is one, states of itself."""
    return {
        "schema_version": SCHEMA_VERSION,
        "arcface_api": __version__,
        "rows": rows,
        "errors": errors,
        "examples": examples,
        "job": {"ignored": job.ignored, "broken": job.broken, "pins": job.pins},
    }


def count_errors(rows: pa.Table, errors: Counter[str], examples: dict[str, tuple[str, str]]) -> None:
    """Add a table's errors, and the first picture with each."""
    failed = rows.select(["id", "error_code", "error"])
    for row in failed.filter(failed.column("error_code").is_valid()).to_pylist():
        errors[row["error_code"]] += 1
        examples.setdefault(row["error_code"], (row["id"], row["error"]))


def _name(number: int) -> str:
    return f"part-{number:08}.parquet"
