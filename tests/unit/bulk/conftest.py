"""A folder of small pictures, and the command on it, in this process."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from pyarrow import parquet

from arcface_api.cli import cli
from pictures import picture_bytes

PICTURES = 12


@pytest.fixture(autouse=True)
def same_sigterm() -> Iterator[None]:
    """The command sets a handler for SIGTERM; here it runs in the tests' own process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Different pictures by their paths below the current folder, which is theirs, in the order of a sorted folder."""
    monkeypatch.chdir(tmp_path)
    made = {}
    for number in range(PICTURES):
        name = f"crops/{'ab'[number % 2]}/{number:02}.jpg"
        content = picture_bytes(size=(40 + 3 * number, 60))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        made[name] = content
    return dict(sorted(made.items()))


@dataclass(frozen=True)
class Done:
    """What a run of the command came to."""

    status: int
    said: str
    error: BaseException | None


Embed = Callable[..., Done]


@pytest.fixture
def embed(tiny_recogniser: Path) -> Embed:
    """Run `arcface-api embed` with the tiny recogniser, or another --pack."""

    def run(*arguments: str | Path, given: bytes | None = None) -> Done:
        pack = [] if {"--pack", "--url"} & {*arguments} else ["--pack", str(tiny_recogniser)]
        done = CliRunner().invoke(cli, ["embed", *map(str, arguments), *pack], input=given)
        return Done(done.exit_code, done.output, done.exception)

    return run


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    return parquet.read_table(out).to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types


def vectors_of(out: Path) -> NDArray[np.float32]:
    """The embeddings of a Parquet file without errors, (n, dim)."""
    column: pa.ChunkedArray = parquet.read_table(out).column("embedding").combine_chunks()
    assert column.null_count == 0
    values: NDArray[np.float32] = column.flatten().to_numpy()
    return values.reshape(len(column), -1)


def metadata_of(out: Path) -> dict[str, Any]:
    """What the file states of itself."""
    stated: dict[str, Any] = json.loads(parquet.read_metadata(out).metadata[b"arcface_api"])
    return stated
