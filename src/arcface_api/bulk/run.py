"""One job from its start, or from where it was killed, to its file.

    listed ──▶ embedded, part by part ──▶ merged ──▶ Summary

One module, because a start, what it finds from an earlier one, and the file are one decision.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from arcface_api.bulk.engine import Engine, Facts, FailureWatch, OpenEngine, PartsEngine
from arcface_api.bulk.finished import Output, output_of
from arcface_api.bulk.listing import Shard, read_listing, write_listing
from arcface_api.bulk.parts import Job, Parts
from arcface_api.bulk.places import is_url, without_query
from arcface_api.bulk.rows import DType, Row, narrowed, schema, table
from arcface_api.bulk.sources import STDIN, Columns, Source, resolve
from arcface_api.errors import BulkError
from arcface_api.progress import Progress

PART_ROWS = 1000
"""Pictures that a kill can cost, besides those in progress."""
SHOWN_ERRORS = 10
SIGTERM_STATUS = 128 + signal.SIGTERM
"""As shells report it; 130 is that of Ctrl-C."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done."""

    sources: tuple[str, ...]
    out: Path | str
    """As `outputs.output_named` returns it."""
    columns: Columns = field(default_factory=Columns)
    shard: Shard = field(default_factory=Shard)
    dtype: DType = "float32"
    part_rows: int = PART_ROWS
    restart: bool = False
    """Discard what an unfinished job has left, and replace the file."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a finished job has done; `str` is for people."""

    out: str
    rows: int
    was_complete: bool
    ignored: int
    errors: Counter[str]
    """How many rows have each `error_code`."""
    examples: dict[str, tuple[str, str]]
    """By `error_code`: the first picture with it, and its error."""
    embedded_now: int
    seconds: float
    """From the loaded model to the finished file."""
    broken: tuple[str, ...] = ()
    """Sources that could not be listed to their end, so that pictures may be missing."""

    def __str__(self) -> str:
        failed = sum(self.errors.values())
        lines = [f"{self.out}: {self.rows:,} rows, {self.rows - failed:,} with an embedding, {failed:,} with an error."]
        if self.was_complete:
            lines.append("It was complete already; nothing was done. --restart makes it again.")
        elif self.embedded_now:
            rate = self.embedded_now / self.seconds if self.seconds else 0.0
            kept = self.rows - self.embedded_now
            before = f"; {kept:,} were there from an earlier start" if kept else ""
            lines.append(f"{self.embedded_now:,} pictures in {self.seconds:,.1f} s, {rate:,.1f} a second{before}.")
        if self.ignored:
            lines.append(f"{self.ignored:,} files were left out, whose names are not those of pictures.")
        shown = self.errors.most_common(SHOWN_ERRORS)
        if shown:
            lines.append("The most frequent errors:")
            for code, number in shown:
                identity, error = self.examples[code]
                lines.append(f"  {number:>9,}  {code}, first of {identity}: {error}")
        return "\n".join(lines)


def embed_all(order: Order, opened: OpenEngine, progress: Progress) -> Summary:
    """Do the job, or what is left of it.

    Raises ArcFaceError if a source cannot be read, the model cannot be loaded or the service fails, or BulkError if
    what is there belongs to another job.
    """
    parts = Parts(order.out)
    output = output_of(order.out, parts)
    output.check_no_source(source for source in order.sources if source != STDIN)
    # All that pyarrow writes, it writes on one thread: it keeps freed memory for each thread that has used some.
    with parts, ThreadPoolExecutor(1, "write") as writer:
        job = None if order.restart else parts.read()
        sources = resolve(order.sources) if job is None and (order.restart or not output.exists()) else []
        output.check_no_source(source.given for source in sources if source.kind != "stdin")
        try:
            return asyncio.run(_until_sigterm(_run(order, sources, parts, output, job, opened, writer, progress)))
        except asyncio.CancelledError:
            sys.exit(SIGTERM_STATUS)


async def _until_sigterm(job: Coroutine[Any, Any, Summary]) -> Summary:
    """SIGTERM cancels the job, as asyncio does at Ctrl-C; a second one kills the process."""
    loop, running = asyncio.get_running_loop(), asyncio.ensure_future(job)

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        running.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    return await running


async def _run(  # noqa: PLR0913, PLR0917  # what `embed_all` has opened
    order: Order,
    sources: list[Source],
    parts: Parts,
    output: Output,
    job: Job | None,
    opened: OpenEngine,
    writer: Executor,
    progress: Progress,
) -> Summary:
    progress("loading the model", 0.0, None)
    async with opened as engine:
        started = time.monotonic()
        pins = _pins(order, engine.facts)
        if job is not None:
            _check_same(job.pins, pins, f"{parts.storage} is what is left")
        elif not order.restart and output.exists():
            what, it = (parts.storage, "it") if parts.are_output else (order.out, "the file")
            if (finished := output.stated()) is None:
                raise BulkError(
                    f"{what} exists and is no output of this command. Name another --out, or replace {it}: --restart."
                )
            _check_same(finished["job"]["pins"], pins, f"{what} exists and is the output")
            parts.finish()
            return _complete(order, finished)
        else:
            if order.restart and parts.is_begun:
                parts.discard()
            else:
                parts.finish()
            writing = parts.writing_inputs()
            listed = await asyncio.to_thread(write_listing, writing, sources, order.columns, order.shard, progress)
            if order.restart and parts.are_output:
                parts.discard(is_listed=True)
            job = parts.begin(pins, listed.inputs, listed.ignored, order.part_rows, listed.broken)
        columns = schema(engine.facts.options, engine.facts.dim, order.dtype)
        if isinstance(engine, Engine):
            embedded_now = await _embed_missing(parts, job, engine, columns, writer, progress)
        else:
            embedded_now = await _store_missing(parts, job, engine, columns, writer, progress)
    progress("writing the file", 1.0, 1.0)
    stated = await asyncio.get_running_loop().run_in_executor(writer, output.finish, job, columns)
    seconds = time.monotonic() - started
    return replace(_complete(order, stated), was_complete=False, embedded_now=embedded_now, seconds=seconds)


def _pins(order: Order, facts: Facts) -> dict[str, Any]:
    """What every start of the job must have in common."""
    return {
        "sources": [_pinned(source) for source in order.sources],
        "--column": order.columns.content,
        "--id-column": order.columns.id,
        "--landmarks-column": order.columns.landmarks,
        "--shard": f"{order.shard.number}/{order.shard.count}",
        "--dtype": order.dtype,
        **{f"--{name.replace('_', '-')}": value for name, value in facts.options.items()},
        "model": facts.model,
        "fingerprint": facts.fingerprint,
        "recipes": facts.recipes,
        "provider": facts.provider,
        "precision": facts.precision,
    }


def _pinned(source: str) -> str:
    if source == STDIN:
        return source
    return without_query(source) if is_url(source) else str(Path(source).absolute())


def _check_same(theirs: dict[str, Any], ours: dict[str, Any], what: str) -> None:
    """Raises BulkError if a job that has left something is another one."""
    for name, value in ours.items():
        if name not in theirs or theirs[name] != value:
            raise BulkError(
                f"{what} of another job: {name} was {_shown(theirs.get(name))} there and is {_shown(value)} now. Give"
                " the same as then to continue it, name another --out, or begin again: --restart."
            )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not given" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


async def _embed_missing(
    parts: Parts, job: Job, engine: Engine, columns: pa.Schema, writer: Executor, progress: Progress
) -> int:
    """Embed the inputs of the parts that are not there; returns how many that were."""
    loop, missing = asyncio.get_running_loop(), parts.missing(job)
    sizes = {number: min(job.part_rows, job.inputs - number * job.part_rows) for number in sorted(missing)}
    total = sum(sizes.values())
    kept, began = job.inputs - total, time.monotonic()
    done = errors = 0
    failures = FailureWatch(what_is_left(parts))
    rows: list[Row] = []
    writing: asyncio.Future[None] | None = None
    inputs = read_listing(parts.lines(), lambda index: index // job.part_rows in missing, engine.max_image_bytes)
    async with contextlib.aclosing(engine.rows(inputs)) as results:
        async for found in results:
            some = [narrowed(row, columns) for row in found]
            for row in some:
                errors += row.get("error_code") is not None
                failures.see(row)
            rows += some
            done += len(some)
            while sizes and len(rows) >= sizes[number := next(iter(sizes))]:
                size = sizes.pop(number)
                if writing is not None:
                    await writing
                writing = loop.run_in_executor(writer, _write, parts, number, rows[:size], columns)
                del rows[:size]
            progress(_shown_progress(job, kept + done, done / (time.monotonic() - began), errors), done, total)
    if writing is not None:
        await writing
    if sizes:
        raise BulkError(f"{parts.inputs} is damaged: it lacks inputs. Begin again with --restart.")
    return done


async def _store_missing(
    parts: Parts, job: Job, engine: PartsEngine, columns: pa.Schema, writer: Executor, progress: Progress
) -> int:
    """As `_embed_missing`, where whole parts are embedded elsewhere."""
    loop = asyncio.get_running_loop()
    total = sum(min(job.part_rows, job.inputs - number * job.part_rows) for number in parts.missing(job))
    kept, began = job.inputs - total, time.monotonic()
    done = errors = 0
    async with contextlib.aclosing(engine.parts(parts, job, columns)) as results:
        async for part in results:
            if part.rows is not None:
                await loop.run_in_executor(writer, parts.write, part.number, part.rows)
            done, errors = done + part.inputs, errors + part.errors
            progress(_shown_progress(job, kept + done, done / (time.monotonic() - began), errors), done, total)
    if parts.missing(job):
        raise BulkError(f"{parts.inputs} is damaged: it lacks inputs. Begin again with --restart.")
    return done


def _shown_progress(job: Job, done: int, rate: float, errors: int) -> str:
    return f"{done:,} of {job.inputs:,}, {rate:,.0f}/s, {errors:,} errors"


def _write(parts: Parts, number: int, rows: list[Row], columns: pa.Schema) -> None:
    parts.write(number, table(rows, columns))


def what_is_left(parts: Parts, *, restart: bool = False) -> str | None:
    """A sentence about what a job that has ended early has left; None if it has left nothing."""
    if not parts.is_begun:
        return None
    command = "the same command without --restart" if restart else "the same command"
    return f"What is done is kept in {parts.storage}: {command} goes on there."


def _complete(order: Order, description: dict[str, Any]) -> Summary:
    """The summary of a file that is there."""
    return Summary(
        out=str(order.out) if isinstance(order.out, Path) else without_query(order.out),
        rows=description["rows"],
        was_complete=True,
        ignored=description["job"]["ignored"],
        errors=Counter(description["errors"]),
        examples={code: (found[0], found[1]) for code, found in description["examples"].items()},
        embedded_now=0,
        seconds=0.0,
        broken=tuple(description["job"].get("broken", ())),
    )
