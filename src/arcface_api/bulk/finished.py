"""The output of a job, when all its parts are there: merged into a file, or the parts themselves.

One of the two by `--out`; `run` knows only what both have.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from arcface_api.bulk.outputs import beside, check_no_source, description_of, open_output
from arcface_api.bulk.parts import Job, Parts, count_errors, description


class Output(Protocol):
    """What a job ends with."""

    def check_no_source(self, sources: Iterable[str]) -> None:
        """Raises BulkError if a source would be replaced."""

    def exists(self) -> bool:
        """Whether anything is there that would be replaced."""

    def stated(self) -> dict[str, Any] | None:
        """What a finished output states of itself; None if it is not there, or was not made by a job."""

    def finish(self, job: Job, columns: pa.Schema) -> dict[str, Any]:
        """Make it from the parts, and remove what is left; returns what it states of itself."""


class OneFile:
    """A file, and its companions."""

    def __init__(self, out: Path, parts: Parts) -> None:
        """Nothing is read yet."""
        self._out, self._parts = out, parts

    def check_no_source(self, sources: Iterable[str]) -> None:
        """Raises BulkError if a source is it, or a companion, or a file of the job."""
        named = list(sources)
        check_no_source(self._out, named)
        self._parts.check_no_source(named)

    def exists(self) -> bool:
        """Whether it, or a companion, is there."""
        return any(path.exists() for path in beside(self._out))

    def stated(self) -> dict[str, Any] | None:
        """What it states of itself."""
        return description_of(self._out)

    def finish(self, job: Job, columns: pa.Schema) -> dict[str, Any]:
        """Write the file from the parts, one after the other."""
        errors: Counter[str] = Counter()
        examples: dict[str, tuple[str, str]] = {}
        for part in self._parts.tables(job, ["id", "error_code", "error"]):
            count_errors(part, errors, examples)
        stated = description(job, job.inputs, errors, examples)
        with open_output(self._out, Path(str(self._parts.storage)), columns, stated) as write:
            for part in self._parts.tables(job):
                write(part)
        self._parts.finish()
        return stated


class ManyFiles:
    """A folder or a place in object storage, with a file for each part."""

    def __init__(self, parts: Parts) -> None:
        """Nothing is read yet."""
        self._parts = parts

    def check_no_source(self, sources: Iterable[str]) -> None:
        """Raises BulkError if a source is one of the files."""
        self._parts.check_no_source(sources)

    def exists(self) -> bool:
        """Whether any file is there but those that a job that was never begun can have left."""
        return any(not name.startswith(("_", ".")) for name in self._parts.storage.names()) or self.stated() is not None

    def stated(self) -> dict[str, Any] | None:
        """What all of them are together."""
        return self._parts.summary()

    def finish(self, job: Job, columns: pa.Schema) -> dict[str, Any]:  # noqa: ARG002  # of the protocol
        """Store a summary."""
        stated = self._parts.summarise(job)
        self._parts.finish()
        return stated


def output_of(out: Path | str, parts: Parts) -> Output:
    """The output that `output_named` has returned."""
    return ManyFiles(parts) if parts.are_output else OneFile(Path(out), parts)
