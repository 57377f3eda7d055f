"""The file that a job ends with, written beside its place and renamed into it.

    .parquet              everything in one file; what the job was is in its metadata
    .npy                  the embeddings, (n, dim), NaN without one; .npy.jsonl has the other columns, a line for a row
    .jsonl                an object for each row

What a .npy or .jsonl is, its .job.json states.
"""

import json
import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import parquet

from arcface_api.bulk.places import arrow_file, is_url, local_path, without_query
from arcface_api.bulk.rows import METADATA_KEY
from arcface_api.bulk.storage import explained, publish, withdraw
from arcface_api.errors import BulkError

SUFFIXES = (".parquet", ".npy", ".jsonl")
ROW_GROUP_ROWS = 2000
"""At least so many rows of a Parquet file lie together: 4 MB of 512 float32 numbers."""
REPEATED = ("model", "fingerprint", "recipe", "alignment", "warnings.list.element", "gender", "error_code", "error")
"""Columns with few values, each of which is stored once."""

Write = Callable[[pa.Table], None]


def output_named(given: str) -> Path | str:
    """A file's path; a folder's, or a URL, as text that ends in a slash. Raises BulkError if it is none of them."""
    if without_query(given).endswith("/"):
        return given
    if is_url(given):
        raise BulkError(
            f"--out {given}: in object storage the output is a folder of Parquet files. Let its URL end in a slash:"
            f" {given}/."
        )
    out = Path(given)
    if out.is_dir():
        raise BulkError(
            f"--out {out} is a folder. Name a file, or let it end in a slash, {out}/: parts are written there."
        )
    if out.suffix not in SUFFIXES:
        raise BulkError(
            f"--out {out} must end in {', '.join(SUFFIXES)}, or in a slash for a folder of Parquet files. The ending"
            " says what is written."
        )
    return out


def beside(out: Path) -> list[Path]:
    """The files that an output consists of, in the order in which they appear."""
    if out.suffix == ".parquet":
        return [out]
    description = out.with_name(f"{out.name}.job.json")
    return [*([out.with_name(f"{out.name}.jsonl")] if out.suffix == ".npy" else []), out, description]


def check_no_source(out: Path, sources: Iterable[str]) -> None:
    """Raises BulkError if a source is one of the files that an output consists of, and would be replaced."""
    for source in sources:
        given = local_path(source)
        for path in beside(out) if given else ():
            with suppress(OSError):
                if given and path.samefile(given):
                    raise BulkError(f"{source} is a source, and --out {out} would replace it. Name another --out.")


def description_of(out: Path) -> dict[str, Any] | None:
    """What a finished output states of itself; None if it is not there, or was not made by a job."""
    *others, last = beside(out)
    try:
        if out.suffix == ".parquet":
            with parquet.ParquetFile(arrow_file(out)) as file:
                stated: dict[str, Any] = json.loads((file.metadata.metadata or {})[METADATA_KEY])
            return stated
        stated = json.loads(last.read_bytes())
    except (OSError, ValueError, KeyError, pa.ArrowInvalid):
        return None
    return stated if all(path.exists() for path in others) else None


@contextmanager
def open_output(out: Path, folder: Path, columns: pa.Schema, description: dict[str, Any]) -> Iterator[Write]:
    """Write tables one after the other; when the block ends, the files of `beside` appear, the last of them last.

    Until then they are in `folder`, the job's own on the same file system. Raises BulkError if they cannot be written.
    """
    paths = beside(out)
    temporary = [folder / f"output-{number}.tmp" for number in range(len(paths))]
    try:
        with ExitStack() as files:
            files.enter_context(explained(out))
            opened = [files.enter_context(path.open("wb")) for path in temporary]
            if out.suffix == ".parquet":
                writer: AbstractContextManager[Write] = _parquet(opened[0], columns, description)
            elif out.suffix == ".npy":
                writer = _npy(opened[0], opened[1], columns, description["rows"])
            else:
                writer = _jsonl(opened[0], columns)
            with writer as write:
                yield write
            if len(opened) > 1:
                opened[-1].write(json.dumps(description, indent=1).encode())
            for file in opened:
                file.flush()
                os.fsync(file.fileno())
        with explained(out):
            if len(paths) > 1:
                withdraw(paths[-1])  # an earlier output's, which would state that files of two jobs are one output
            for written, path in zip(temporary, paths, strict=True):
                publish(written, path)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


@contextmanager
def _parquet(file: IO[bytes], columns: pa.Schema, description: dict[str, Any]) -> Iterator[Write]:
    metadata = {METADATA_KEY: json.dumps(description)}
    waiting: list[pa.Table] = []

    def flush() -> None:
        if waiting:
            writer.write_table(pa.concat_tables(waiting).replace_schema_metadata(metadata))
            waiting.clear()

    def write(rows: pa.Table) -> None:
        waiting.append(rows)
        if sum(map(len, waiting)) >= ROW_GROUP_ROWS:
            flush()

    schema = columns.with_metadata(metadata)
    with _writer(file, schema) as writer:
        yield write
        flush()


def _writer(file: IO[bytes], columns: pa.Schema) -> parquet.ParquetWriter:
    leaves = _leaves(columns)
    # Embeddings do not get smaller, and would only take longer.
    compression = {name: "none" if name == "embedding.list.element" else "zstd" for name in leaves}
    dictionary = [name for name in REPEATED if name in leaves]
    return parquet.ParquetWriter(file, columns, compression=compression, use_dictionary=dictionary)


def write_parquet(file: IO[bytes], rows: pa.Table) -> None:
    """Write one table, with its metadata."""
    with _writer(file, rows.schema) as writer:
        writer.write_table(rows, ROW_GROUP_ROWS)


def _leaves(columns: pa.Schema) -> list[str]:
    """How Parquet names the columns' values."""
    return [f"{field.name}.list.element" if pa.types.is_nested(field.type) else field.name for field in columns]


@contextmanager
def _npy(sidecar: IO[bytes], file: IO[bytes], columns: pa.Schema, rows: int) -> Iterator[Write]:
    kind = columns.field("embedding").type
    dtype = np.dtype(kind.value_type.to_pandas_dtype()).newbyteorder("<")
    header = {"descr": dtype.str, "fortran_order": False, "shape": (rows, kind.list_size)}
    np.lib.format.write_array_header_1_0(file, header)

    def write(table: pa.Table) -> None:
        file.write(_matrix(table.column("embedding"), dtype).tobytes())
        sidecar.writelines(_lines(table.drop_columns(["embedding"])))

    yield write


@contextmanager
def _jsonl(file: IO[bytes], columns: pa.Schema) -> Iterator[Write]:
    dtype = np.dtype(columns.field("embedding").type.value_type.to_pandas_dtype())

    def write(table: pa.Table) -> None:
        matrix = _matrix(table.column("embedding"), dtype)
        embeddings = [row if np.isfinite(row[0]) else None for row in matrix]
        file.writelines(_lines(table.drop_columns(["embedding"]), embeddings))

    yield write


def _matrix(column: pa.ChunkedArray, dtype: "np.dtype[Any]") -> Any:
    """(n, dim); NaN where the embedding is null."""
    chunks = column.combine_chunks()
    array = chunks if isinstance(chunks, pa.FixedSizeListArray) else pa.concat_arrays(column.chunks)
    dim = array.type.list_size
    # `values` and not `flatten()`, which leaves out those of null rows.
    values = array.values.slice(array.offset * dim, len(array) * dim)
    matrix = values.to_numpy(zero_copy_only=False).reshape(-1, dim).astype(dtype)
    matrix[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return matrix


def _lines(table: pa.Table, embeddings: Any = None) -> Iterator[bytes]:
    singles = [field.name for field in table.schema if pa.types.is_float32(field.type)]
    for number, row in enumerate(table.to_pylist()):
        for name in singles:  # a Python float would be written with all the digits of its float64
            row[name] = None if row[name] is None else np.float32(row[name])
        if row.get("landmarks") is not None:
            row["landmarks"] = np.array(row["landmarks"], np.float32)
        if row.get("crop") is not None:
            row["crop"] = b64encode(row["crop"]).decode()
        if embeddings is not None:
            first = {"id": row.pop("id"), "embedding": embeddings[number]}
            row = first | row  # noqa: PLW2901  # the embedding is the second column
        yield orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
