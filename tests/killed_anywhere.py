"""A job of `arcface-api embed` that is killed before its n-th operation on the file system, for every n.

    python tests/killed_anywhere.py FOLDER SUFFIX [--restart | --replace]

There are pictures in FOLDER/crops and FOLDER/others. The suffix is that of a file, or `/` for a folder.

With --restart, the job that is killed begins again where another one has left half of its parts, and replaces the
output of a job on the other pictures. With --replace, it does only the latter.

Each time, the job is started again until it ends, and its rows must be those of a job that was not killed. Prints how
many kills that were. Embeddings come from a fake engine: the model has no part in what is tested here.
"""

import io
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from arcface_api.bulk.engine import Engine, Facts
from arcface_api.bulk.listing import Input
from arcface_api.bulk.outputs import description_of
from arcface_api.bulk.parts import Parts
from arcface_api.bulk.rows import Row
from arcface_api.bulk.run import Order, embed_all
from arcface_api.progress import no_progress

OPERATIONS_OF_HALF_A_JOB = {"file": 22, "folder": 32}
"""Of one that begins again."""
OPERATIONS = ("mkdir", "fsync", "replace", "unlink", "rmdir")
FACTS = Facts(model="m", fingerprint="f", dim=2, recipes=["r"], provider="p", precision="float32", options={})


async def _rows(inputs: Iterator[Input]) -> AsyncGenerator[list[Row]]:
    for each in inputs:
        vector = np.array([len(each.read()), 1], np.float32)
        yield [{"id": each.id, "model": "m", "fingerprint": "f", "embedding": vector, "recipe": "r", "warnings": []}]


@asynccontextmanager
async def _opened() -> AsyncIterator[Engine]:
    yield Engine(facts=FACTS, rows=_rows, max_image_bytes=1_000_000)


def _import_what_pyarrow_reads_with() -> None:
    """What it imports late would be imported again by each of the many processes."""
    with suppress(ImportError):
        import_module("pandas")
    file = io.BytesIO()
    parquet.write_table(pa.table({"a": [1]}), file)
    parquet.ParquetFile(file).read(use_threads=False)


def _start(out: Path, kill_at: int | None, *, source: str = "crops", restart: bool = False) -> int:
    """Run the job in a process of its own; returns its wait status."""
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    try:
        if kill_at is not None:
            numbers = count()

            def killing(operation: Callable[..., Any]) -> Callable[..., Any]:
                def run(*arguments: Any, **named: Any) -> Any:
                    if next(numbers) == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    done = operation(*arguments, **named)
                    if operation is opening and "wb" in arguments and next(numbers) == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)  # the file is there, and empty
                    return done

                return run

            opening = io.open
            io.open = killing(opening)  # used by pathlib
            for name in OPERATIONS:
                setattr(os, name, killing(getattr(os, name)))
        named = out if out.suffix else f"{out}/"
        embed_all(Order(sources=(source,), out=named, part_rows=2, restart=restart), _opened(), no_progress)
        os._exit(0)
    finally:
        os._exit(1)


def _job(out: Path) -> Path:
    return Path(f"{out}.parts/job.json") if out.suffix else out / "_job.json"


def _stated(out: Path) -> object:
    return description_of(out) if out.suffix else Parts(f"{out}/").summary()


def _content(out: Path) -> object:
    """All that an output consists of."""
    return _rows_in(out) if out.suffix else (sorted(path.name for path in out.iterdir()), _rows_in(out))


def _rows_in(out: Path) -> object:
    if not out.suffix:
        return [parquet.read_table(path).to_pylist() for path in sorted(out.glob("part-*.parquet"))]
    if out.suffix == ".parquet":
        return parquet.read_table(out).to_pylist()
    if out.suffix == ".npy":
        return np.load(out).tolist(), out.with_name(f"{out.name}.jsonl").read_text()
    return out.read_text()


def main() -> None:
    """Kill at every operation."""
    folder, suffix = sys.argv[1:3]
    begins_again, leaves_half = len(sys.argv) > 3, sys.argv[3:] == ["--restart"]
    os.chdir(folder)
    _import_what_pyarrow_reads_with()
    suffix = suffix.rstrip("/")
    expected, others = Path(f"expected{suffix}"), Path(f"former{suffix}")
    assert _start(expected, None) == 0
    assert _start(others, None, source="others") == 0
    kills = 0
    for number in count():
        out = Path(f"out-{number}{suffix}")
        if begins_again:
            assert _start(out, None, source="others") == 0
        if leaves_half:
            assert os.WIFSIGNALED(_start(out, OPERATIONS_OF_HALF_A_JOB["file" if suffix else "folder"], restart=True))
            begun = {path.name for path in _job(out).parent.iterdir()}
            assert {_job(out).name, "part-00000000.parquet"} < begun, begun
        status = _start(out, number, restart=begins_again)
        if was_killed := os.WIFSIGNALED(status):
            kills += 1
            # nothing half written appears under the file's name, and nothing of two jobs claims to be one output
            assert not out.exists() or _rows_in(out) is not None
            is_whole = _stated(out) is not None
            if is_whole:
                assert _rows_in(out) in (_rows_in(expected), _rows_in(others)), f"killed at operation {number}"
            again = begins_again and not _job(out).exists() and is_whole and _rows_in(out) == _rows_in(others)
            assert _start(out, None, restart=again) == 0, f"killed at operation {number}, it does not go on"
        assert _content(out) == _content(expected), f"killed at operation {number}, it has other rows"
        left = sorted(path.name for path in Path().glob(f"out-{number}{suffix}*"))
        assert left == [name.replace("expected", f"out-{number}") for name in _beside(expected)], left
        if not was_killed:
            break
    json.dump({"kills": kills}, sys.stdout)


def _beside(out: Path) -> list[str]:
    return sorted(path.name for path in Path().glob(f"{out.name}*"))


if __name__ == "__main__":
    main()
