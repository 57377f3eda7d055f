"""Copies the embeddings of Parquet files of `arcface-api embed` into PostgreSQL: `python ingest.py faces.parquet`.

Run again, it stores nothing twice; a file is stored as a whole or not at all. Memory stays the same for files of any
size. Rows with an error are left out and counted.
"""

import argparse
from pathlib import Path

import numpy as np
import psycopg
import pyarrow.parquet as pq
from database import connect, create
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

COLUMNS = ("id", "model", "fingerprint", "recipe", "norm", "embedding")
NEW_PARTITIONS = """
SELECT DISTINCT recipe, fingerprint FROM incoming
WHERE NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'faces'::regclass
                  AND inhrelid = to_regclass(quote_ident('faces_' || recipe)))
"""
# Loaded before it has an index, which is then built as a whole, in a fraction of the time.
CREATE = """
CREATE TABLE {partition} (LIKE faces INCLUDING CONSTRAINTS, CHECK (fingerprint = {fingerprint}));
INSERT INTO {partition} SELECT DISTINCT ON (id) * FROM incoming WHERE recipe = {recipe} ORDER BY id;
ALTER TABLE faces ATTACH PARTITION {partition} FOR VALUES IN ({recipe});
DELETE FROM incoming WHERE recipe = {recipe};
"""
STORE = """
INSERT INTO faces SELECT DISTINCT ON (recipe, id) * FROM incoming ORDER BY recipe, id
ON CONFLICT (recipe, id) DO UPDATE SET norm = excluded.norm, embedding = excluded.embedding
WHERE faces.embedding <> excluded.embedding
"""


def main() -> None:
    """Store each file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.parquet")
    parser.add_argument("--kind", choices=("halfvec", "vector"), default="halfvec", help="2 or 4 bytes a number")
    arguments = parser.parse_args()
    for file in arguments.files:
        with connect() as connection:  # one transaction
            total, stored = ingest(connection, file, arguments.kind)
        print(f"{file}: {total:,} rows, {stored:,} stored, {total - stored:,} with an error left out.")


def ingest(connection: psycopg.Connection, file: Path, kind: str) -> tuple[int, int]:
    """Copy one file; returns how many rows it has, and how many of them have an embedding."""
    parquet = pq.ParquetFile(file)
    dim = parquet.schema_arrow.field("embedding").type.list_size
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('faces'))")  # one file after the other
    create(connection, dim, kind)
    connection.execute("CREATE TEMPORARY TABLE incoming (LIKE faces) ON COMMIT DROP")
    types = ["text", "text", "text", "text", "float4", vector_type(connection, kind)]
    stored = 0
    with connection.cursor().copy(f"COPY incoming ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(types)
        for rows in parquet.iter_batches(columns=list(COLUMNS)):
            batch = rows.filter(rows["embedding"].is_valid())
            stored += len(batch)
            *facts, vectors = (batch[name] for name in COLUMNS)
            matrix = vectors.flatten().to_numpy().reshape(-1, dim).astype(np.float32)
            matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
            for row in zip(*(column.to_pylist() for column in facts), encoded(matrix, kind), strict=True):
                copy.write_row(row)
    for recipe, fingerprint in connection.execute(NEW_PARTITIONS).fetchall():
        values = {"recipe": sql.Literal(recipe), "fingerprint": sql.Literal(fingerprint)}
        connection.execute(sql.SQL(CREATE).format(partition=sql.Identifier(f"faces_{recipe}"), **values))
    connection.execute(STORE)
    # Otherwise the planner believes that a recipe has few rows, and leaves the index unused.
    connection.execute("ANALYZE faces")
    return parquet.metadata.num_rows, stored


class Encoded(bytes):
    """A vector as pgvector's binary form has it."""


class EncodedDumper(Dumper):
    """Sends it as it is."""

    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        """Nothing to do."""
        return obj


def vector_type(connection: psycopg.Connection, kind: str) -> int:
    """The number of pgvector's type in this database, with which `Encoded` may now be sent."""
    info = TypeInfo.fetch(connection, kind)
    assert info is not None
    connection.adapters.register_dumper(Encoded, type("VectorDumper", (EncodedDumper,), {"oid": info.oid}))
    return info.oid


def encoded(matrix: np.ndarray, kind: str) -> list[Encoded]:
    """Each row of (n, dim) in pgvector's binary form: the number of numbers, two unused bytes, the numbers."""
    numbers = matrix.astype(">f2" if kind == "halfvec" else ">f4")
    head = matrix.shape[1].to_bytes(2) + b"\0\0"
    return [Encoded(head + row.tobytes()) for row in numbers]


if __name__ == "__main__":
    main()
