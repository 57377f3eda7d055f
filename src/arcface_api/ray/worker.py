"""One actor of the pool: it loads the model once, and turns parts of the listing into rows."""

import asyncio
import json
from collections import Counter
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import pyarrow as pa
import ray

from arcface_api import __version__
from arcface_api.bulk.engine import Engine, Facts, FailureWatch
from arcface_api.bulk.listing import read_listing
from arcface_api.bulk.local import open_local
from arcface_api.bulk.parts import Job, Parts
from arcface_api.bulk.rows import Row, narrowed, table
from arcface_api.errors import ArcFaceError, BulkError
from arcface_api.packs import obtain
from arcface_api.progress import no_progress
from arcface_api.settings import Settings

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino")
MOST_STARTS = 10
UNREADABLE = "input_unreadable"


@dataclass(frozen=True, kw_only=True)
class Model:
    """What every actor loads."""

    settings: Settings
    chosen: dict[str, Any]
    """Fields of `EmbedOptions`."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the actors of one job have in common."""

    model: Model
    facts: Facts
    """Of the first actor, of whose kind all must be."""
    versions: dict[str, str]
    columns: pa.Schema
    job: Job
    out: str | None
    """Where parts are stored; None: the driver stores them."""
    starts: Any
    """Of `Starts`, the handle."""


class Starts:
    """How often each part was begun: Ray would begin one for ever that ends its process each time."""

    def __init__(self) -> None:
        """No part was begun."""
        self._starts: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Count, and return the count."""
        self._starts[number] += 1
        return self._starts[number]


class Worker:
    """Ray keeps one in each of its actors, and calls it with one part after the other."""

    def __init__(self, model: Model, task: Task | None = None) -> None:
        """Load the model. What fails is raised by the first call: an error in here would reach the driver as text."""
        self._task, self._failures = task, FailureWatch()
        self._runner = asyncio.Runner()
        self._failure: ArcFaceError | None = None
        try:
            self._engine = self._open(model)
            if task is not None:
                self._check_same(task)
        except ArcFaceError as error:
            self._failure = BulkError(f"On the node {_node()}: {error}")

    def _open(self, model: Model) -> Engine:
        pack = obtain(model.settings, no_progress)
        opened = open_local(pack, model.settings, model.chosen)
        self._opened: AbstractAsyncContextManager[Engine] = opened  # or it would be closed
        return self._runner.run(opened.__aenter__())  # it stays open as long as the process

    def _check_same(self, task: Task) -> None:
        ours = asdict(self._engine.facts) | versions()
        for name, value in (asdict(task.facts) | task.versions).items():
            if ours.get(name) != value:
                raise BulkError(
                    f"The {name} is {ours.get(name)} there and {value} on the node that began, so that embeddings would"
                    " differ. Give all nodes the same pack, the same packages and the same kind of CPU or GPU, and name"
                    " --device and --precision."
                )

    def facts(self) -> tuple[Facts, dict[str, str]]:
        """What makes the embeddings, and versions; raises BulkError if the model cannot be loaded on this node."""
        if self._failure is not None:
            raise self._failure
        return self._engine.facts, versions()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A part of `jobs.tables` → its rows, stored or as an Arrow stream, and what the driver wants to know."""
        if self._failure is not None:
            raise self._failure
        task = cast("Task", self._task)
        if ray.get(task.starts.begin.remote(row["number"])) > MOST_STARTS:
            raise BulkError(
                f"Part {row['number']} was begun {MOST_STARTS} times, and each time its process or node was lost. If"
                " nodes do not come and go, a picture in it ends the process, or there is too little memory: name"
                " --decode-isolation process, or a smaller --part-rows with --restart."
            )
        try:
            parts = Parts(task.out) if task.out is not None else None
            rows = self._runner.run(
                _rows(self._engine, row["lines"] or _lines(parts, row), task.columns, self._failures)
            )
            unreadable = [place for place, each in enumerate(rows) if each.get("error_code") == UNREADABLE]
            found = table(rows, task.columns)
            if parts is not None and not unreadable:
                parts.job = task.job
                parts.write(row["number"], found)
                found = None
        except ArcFaceError as error:
            raise BulkError(f"On the node {_node()}: {error}") from None
        errors = Counter("error_code" in each for each in rows)[True]
        return {
            "number": row["number"],
            "inputs": len(rows),
            "errors": errors,
            "unreadable": json.dumps(unreadable),  # the driver finds out whether that is the node's fault
            "node": _node(),
            "rows": None if found is None else as_bytes(found),
        }


# No method: Ray would make the actor one that runs on an event loop of its own.
async def _rows(engine: Engine, lines: bytes, columns: pa.Schema, failures: FailureWatch) -> list[Row]:
    rows: list[Row] = []
    inputs = read_listing(lines.splitlines(), lambda _: True, engine.max_image_bytes)
    async with aclosing(engine.rows(inputs)) as results:
        async for found in results:
            some = [narrowed(row, columns) for row in found]
            for row in some:
                failures.see(row)
            rows += some
    return rows


def _lines(parts: Parts | None, row: dict[str, Any]) -> bytes:
    """Those of a part, from the listing, which every node sees where it sees the output."""
    assert parts is not None  # noqa: S101  # the driver sends lines where it stores the parts
    try:
        with parts.open_inputs() as listing:
            listing.seek(row["begin"])
            return cast("bytes", row["holder"] + listing.read(row["end"] - row["begin"]))
    except OSError as error:
        raise BulkError(
            f"{parts.inputs} cannot be read: {error}. Every node writes its parts to --out: name a folder that all of"
            " them share, or a place in object storage."
        ) from None


def as_bytes(rows: pa.Table) -> bytes:
    """A table as one value, so that Ray neither cuts nor joins it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return cast("bytes", sink.getvalue().to_pybytes())


def versions() -> dict[str, str]:
    """Of what computes the embeddings."""
    found = {"version of arcface-api": __version__}
    for name in RUNTIMES:
        try:
            found[f"version of {name}"] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _node() -> str:
    return str(ray.util.get_node_ip_address())
