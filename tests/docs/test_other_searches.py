"""Promises of examples/faiss and examples/qdrant: the nearest pictures of the same model, from a real Parquet file."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluate.conftest import write_synthetic_people

pytestmark = pytest.mark.once

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory, tiny_recogniser: Path) -> Path:
    """One file with the rows of two recipes: the pictures as they are, and, called `b/…`, mirrored ones added."""
    folder = tmp_path_factory.mktemp("two-models")
    write_synthetic_people(folder / "a", folder / "pairs.csv")
    (folder / "a" / "no-picture.png").write_bytes(b"no picture")
    (folder / "b").symlink_to("a")
    for name, *options in (("a",), ("b", "--flip")):
        command = [sys.executable, "-m", "arcface_api", "embed", f"{name}/", "--out", f"{name}.parquet"]
        command += ["--pack", str(tiny_recogniser), "--device", "cpu", *options]
        subprocess.run(command, cwd=folder, check=True, timeout=100, capture_output=True)
    pq.write_table(
        pa.concat_tables([pq.read_table(folder / f"{name}.parquet") for name in "ab"]), folder / "all.parquet"
    )
    return folder / "all.parquet"


@pytest.mark.parametrize("name", ["faiss", "qdrant"])
@pytest.mark.parametrize("model", ["a", "b"])
def test_the_other_picture_of_a_person_is_the_nearest_and_models_never_mix(
    two_models: Path, tmp_path: Path, name: str, model: str
) -> None:
    script = EXAMPLES / name / "search.py"
    for _ in range(2):  # again: nothing twice
        done = subprocess.run(
            [sys.executable, "-W", "ignore", script, two_models, f"{model}/P03/1.png"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = [line.split() for line in done.stdout.splitlines()]
        assert len(found) == 8
        assert found[0][1] == f"{model}/P03/2.png"
        assert float(found[0][0]) > float(found[1][0])
        assert all(path.startswith(f"{model}/") for _, path in found)
        assert len({path for _, path in found}) == 8
