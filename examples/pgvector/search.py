"""Finds the stored pictures that are most similar to each named one, and draws them: `python search.py new.jpg`.

A picture that is not stored is embedded by the service at http://localhost:5555. Without a name it searches
for six stored ones.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import contact_sheet
import psycopg
from database import connect
from thresholds import in_words, known

from arcface_api.client import ArcFaceError, Client

STORED = "SELECT recipe, model, embedding::text FROM faces WHERE id = %s"
SEARCH = """
SELECT id, -(embedding <#> %(wanted)s) AS similarity FROM faces
WHERE recipe = %(recipe)s AND id <> %(id)s
ORDER BY embedding <#> %(wanted)s LIMIT %(count)s
"""


@dataclass
class Wanted:
    """A picture that is searched for."""

    id: str
    recipe: str
    model: str
    wanted: str
    """Its vector, of length 1, as pgvector reads it."""


def main() -> None:
    """Search, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", nargs="*", metavar="PICTURE")
    parser.add_argument(
        "--threshold", type=float, help="the similarity of a match; default: what is known of the model"
    )
    parser.add_argument("--count", type=int, default=8, help="of the most similar ones, for each picture")
    parser.add_argument("--out", type=Path, default=Path("matches.png"))
    arguments = parser.parse_args()
    rows, model = [], ""
    with connect() as connection:
        for picture in arguments.pictures or some_stored(connection):
            wanted = stored(connection, picture) or embedded(picture)
            found = connection.execute(SEARCH, vars(wanted) | {"count": arguments.count}).fetchall()
            if not found:
                sys.exit(f"No other picture is stored with the recipe {wanted.recipe}. Has another model made them?")
            rows.append((wanted.id, found))
            model = wanted.model
        (faces,) = connection.execute("SELECT count(*) FROM faces WHERE recipe = %s", (wanted.recipe,)).fetchone() or (
            0,
        )
    threshold = arguments.threshold or max((similarity for _, similarity in known(model)), default=None)
    for _, found in rows if arguments.pictures else ():
        for path, similarity in found:
            print(f"{similarity:.3f}  {path}")
    print(in_words(model, threshold, faces))
    contact_sheet.draw(arguments.out, rows, threshold)
    print(f"{arguments.out} shows them.")


def some_stored(connection: psycopg.Connection) -> list[str]:
    """Six stored pictures, the same every time."""
    found = connection.execute("SELECT id FROM faces ORDER BY md5(id) LIMIT 6").fetchall()
    return [picture for (picture,) in found] or sys.exit("Nothing is stored yet: python ingest.py faces.parquet")


def stored(connection: psycopg.Connection, picture: str) -> Wanted | None:
    """The picture, if it is stored; of several recipes any one."""
    row = connection.execute(STORED, (picture,)).fetchone()
    return Wanted(picture, *row) if row else None


def embedded(picture: str) -> Wanted:
    """The picture, embedded by the service."""
    try:
        with Client("http://localhost:5555", retry_seconds=0) as client:
            embedding = client.embed(Path(picture), normalize=True)
    except ArcFaceError as error:
        sys.exit(f"{picture} is not stored, and cannot be embedded: {error}")
    return Wanted(picture, embedding.recipe, embedding.model, str(embedding.vector.tolist()))


if __name__ == "__main__":
    main()
