"""Promise of docs/tutorial.md: its scripts lead from a folder of faces to the pictures of one person."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from conftest import LFW
from serving import Service

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


def test_scripts_find_the_pictures_of_one_person(
    run_named: Callable[[str], Service], downloaded: Path, tmp_path: Path
) -> None:
    service = run_named("open")
    for script in EXAMPLE.glob("*.py"):
        text = script.read_text().replace("http://localhost:5555", str(service.base_url).rstrip("/"))
        (tmp_path / script.name).write_text(text)

    def run(*arguments: str) -> list[str]:
        known = {"SCIKIT_LEARN_DATA": str(downloaded), "XDG_RUNTIME_DIR": str(tmp_path)}
        command = [sys.executable, *arguments]
        ran = subprocess.run(
            command, cwd=tmp_path, env=os.environ | known, capture_output=True, text=True, timeout=300, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()

    assert run("faces.py") == ["20 pictures of each of 4 people are in the folder faces."]
    Path(tmp_path, "faces", "no-picture.png").write_bytes(b"no picture")
    stored = run("store.py", "faces")
    assert stored[-1] == "80 of 81 pictures are stored."
    assert stored[0].startswith("faces/no-picture.png: ")
    assert run("store.py", "faces")[-1] == stored[-1]  # again: nothing twice
    *found, last = run("search.py", "faces/Colin_Powell/01.jpg")
    assert last == "matches.png shows them."
    assert len(found) == 8
    assert sum("/Colin_Powell/" in line for line in found) >= 7
    assert "/01.jpg" not in "".join(found)
    with Image.open(tmp_path / "matches.png") as sheet:
        assert sheet.size == (9 * 160, 180)
