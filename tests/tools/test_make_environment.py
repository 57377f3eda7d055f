"""Promises of requirements/make-environment, which make runs before most targets: it makes an environment once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "requirements" / "make-environment"
pytestmark = pytest.mark.once  # a shell runs it


def made(clone: Path, python: Path) -> str:
    """What the script prints when it makes `.venv-test` with no packages."""
    script = str(clone / "requirements" / "make-environment")
    command = [script, "--packages-only", ".venv-test", str(python), "lock.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def test_an_active_environment_makes_no_environment_again(tmp_path: Path) -> None:
    # Where a service runs in it, making it again deletes the packages that the service has not loaded yet.
    (tmp_path / "requirements").mkdir()
    shutil.copy(SCRIPT, tmp_path / "requirements")
    (tmp_path / "lock.txt").touch()
    assert "(once; a minute or two)" in made(tmp_path, Path(sys.executable))
    (tmp_path / "active").symlink_to(sys.executable)
    for active in (tmp_path / "active", tmp_path / ".venv-test" / "bin" / "python"):
        assert made(tmp_path, active) == ""
    (tmp_path / "lock.txt").write_text("# changed\n")
    assert "again: Python, a lock or pyproject.toml has changed" in made(tmp_path, active)
