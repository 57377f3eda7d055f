"""Promise of docs/tutorial.md: one command leads from faces to a search, and a new picture finds its person."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import pytest

from conftest import LFW
from serving import Service, path_with_programs

pytestmark = pytest.mark.once

EXAMPLE = Path(__file__).parents[2] / "examples" / "pgvector"
PEOPLE = ("Ariel_Sharon", "Colin_Powell", "John_Ashcroft", "Junichiro_Koizumi")


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    """A folder as scikit-learn leaves it when it has downloaded LFW, with the pictures of four people."""
    if not (LFW / "images.tar").exists():
        pytest.skip(f"needs {LFW}: real faces are not part of this project (set ARCFACE_TEST_LFW)")
    home = tmp_path / "scikit-learn" / "lfw_home"
    (home / "lfw_funneled").mkdir(parents=True)
    with tarfile.open(LFW / "images.tar") as images:
        wanted = [member for member in images.getmembers() if member.name.split("/")[0] in PEOPLE]
        images.extractall(home / "lfw_funneled", wanted, filter="data")
    for name in ("pairs.txt", "pairsDevTrain.txt", "pairsDevTest.txt"):
        (home / name).touch()
    return home.parent


@pytest.mark.timeout(600)  # many programs, and PostgreSQL starts with each
def test_scripts_find_the_pictures_of_one_person(
    run_named: Callable[[str], Service], downloaded: Path, tmp_path: Path
) -> None:
    service = run_named("open")
    example = tmp_path / "example"
    shutil.copytree(EXAMPLE, example, ignore=shutil.ignore_patterns("__pycache__"))
    text = (example / "search.py").read_text()
    (example / "search.py").write_text(text.replace("http://localhost:5555", str(service.base_url).rstrip("/")))
    path = path_with_programs(tmp_path / "bin")

    with TemporaryDirectory(prefix="postgres-") as folder:

        def run(*command: str | Path) -> list[str]:
            known = {
                "SCIKIT_LEARN_DATA": str(downloaded),
                "XDG_RUNTIME_DIR": folder,
                "PATH": path,
                "ARCFACE_PACK": "open",
                "ARCFACE_DEVICE": "cpu",
            }
            ran = subprocess.run(
                command, cwd=folder, env=os.environ | known, capture_output=True, text=True, timeout=300, check=False
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout.splitlines()

        said = run(example / "run")
        assert said[0] == "20 pictures of each of 4 people are in the folder faces."
        assert "faces.parquet: 80 rows, 80 stored, 0 with an error left out." in said
        assert "matches.png shows them." in said

        found = run(sys.executable, example / "search.py", "faces/Colin_Powell/01.jpg")[:8]
        assert sum("/Colin_Powell/" in line for line in found) >= 7
        assert "/01.jpg" not in "".join(found)

        member = next(path for path in (downloaded / "lfw_home").rglob("Colin_Powell_02*.jpg"))
        shutil.copy(member, f"{folder}/face.jpg")  # a new picture, which the service embeds
        assert "/Colin_Powell/" in run(sys.executable, example / "search.py", "face.jpg")[0]
        sheet = cv2.imread(f"{folder}/matches.png")
        assert sheet is not None
