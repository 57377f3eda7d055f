"""What turns inputs into rows, wherever the model runs; `local` and `remote` open one.

inputs ──in groups──▶ read ──▶ embed ──▶ rows, in the inputs' order
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from arcface_api.bulk.listing import Input
from arcface_api.bulk.parts import Job, Parts
from arcface_api.bulk.rows import Row
from arcface_api.errors import ArcFaceError, BulkError

GROUP_PICTURES, GROUP_BYTES = 32, 8 * 1024 * 1024
"""Pictures are read in groups of so many, or as many as have so many bytes: this bounds the memory."""

SERVICE_FAILURES = {"model_failed", "embedding_invalid", "internal_error"}
"""Errors that no picture causes."""
MOST_FAILURES = 100
"""So many of them one after the other end the job."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What makes the embeddings."""

    model: str
    fingerprint: str
    dim: int
    recipes: list[str]
    """Those that the options can lead to."""
    provider: str
    precision: str
    options: dict[str, Any]
    """Each option of the HTTP API by its name, with what holds where none was chosen."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Embeds inputs."""

    facts: Facts
    rows: Callable[[Iterator[Input]], AsyncGenerator[list[Row]]]
    """The rows of the inputs in their order, some at a time."""
    max_image_bytes: int
    """Larger files are refused before they are read."""


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """A part of a job that was embedded on another machine."""

    number: int
    inputs: int
    errors: int
    rows: pa.Table | None
    """None: they are stored already."""


@dataclass(frozen=True, kw_only=True)
class PartsEngine:
    """Embeds whole parts, several at once, in any order, and perhaps more than once."""

    facts: Facts
    parts: Callable[[Parts, Job, pa.Schema], AsyncGenerator[StoredPart]]
    """Those that are missing. Where they are the output, they are stored already."""


OpenEngine: TypeAlias = AbstractAsyncContextManager[Engine | PartsEngine]


class Read(NamedTuple):
    """An input that was read: its bytes, or its error."""

    input: Input
    content: bytes | ArcFaceError


class FailureWatch:
    """Ends a job whose model itself fails, and which would otherwise fill its output with errors."""

    def __init__(self, left: str | None = None) -> None:
        """`left`: a sentence about what such an end would leave."""
        self._failures, self._left = 0, f" {left}" if left else ""

    def see(self, row: Row) -> None:
        """Raises BulkError if this row is the last of many with an error that no picture causes."""
        self._failures = self._failures + 1 if row.get("error_code") in SERVICE_FAILURES else 0
        if self._failures == MOST_FAILURES:
            raise BulkError(
                f"The last {self._failures} pictures have all failed, finally with: {row['error']} No picture is the"
                f" cause.{self._left}"
            )


def next_group(inputs: Iterator[Input]) -> list[Input]:
    """The next inputs, up to `GROUP_PICTURES`, or fewer if those that are in memory already are large."""
    group: list[Input] = []
    held = 0
    for each in inputs:
        group.append(each)
        held += each.held_bytes
        if len(group) == GROUP_PICTURES or held >= GROUP_BYTES:
            break
    return group


def read_some(inputs: Iterator[Input]) -> list[Read]:
    """As many inputs as have `GROUP_BYTES` together, or all that there are."""
    read: list[Read] = []
    size = 0
    for each in inputs:
        try:
            read.append(Read(each, content := each.read()))
        except ArcFaceError as error:
            read.append(Read(each, error))
            continue
        size += len(content)
        if size >= GROUP_BYTES:
            break
    return read
