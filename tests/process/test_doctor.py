"""Promises of `arcface-api doctor` as a command: exit statuses, a healthy machine, limits of a real process."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

DOCTOR = [sys.executable, "-m", "arcface_api", "doctor", "--no-network", "--port", "0"]


def doctor(*arguments: str | Path, limit: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it, after a command of the shell that sets a limit."""
    command = ["sh", "-c", f'{limit or ":"} && exec "$@"', "sh", *DOCTOR, *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )


def _finding(done: subprocess.CompletedProcess[str], check: str) -> dict[str, str]:
    """The first finding of a check."""
    found: dict[str, str] = next(each for each in json.loads(done.stdout)["findings"] if each["check"] == check)
    return found


def wrong(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Problems in its JSON, by check."""
    assert "Traceback" not in done.stderr
    return {each["check"]: each["what"] for each in json.loads(done.stdout)["findings"] if each["status"] == "problem"}


def test_healthy_machine_has_no_problem(tiny_recogniser: Path, tmp_path: Path) -> None:
    """The whole examination of this machine, with a model that is really loaded."""
    done = doctor("--pack", tiny_recogniser, "--cache-dir", tmp_path, "--json")
    assert (wrong(done), done.returncode) == ({}, 0)
    assert done.stderr == "Examining\n"
    assert any("loaded in" in each["what"] for each in json.loads(done.stdout)["findings"])


def test_exit_status_is_1_with_a_problem_and_2_for_a_wrong_command() -> None:
    done = doctor("--pack", "open", "--quick", ARCFACE_MODEL_DIR="/models")
    assert done.returncode == 1
    assert "ARCFACE_MODEL_DIR is not a setting and has no effect." in done.stdout
    assert "-> Did you mean ARCFACE_MODELS_DIR?" in done.stdout
    assert doctor("--nonsense").returncode == 2


def test_wrong_setting_is_found_and_the_rest_is_examined() -> None:
    done = doctor("--pack", "open", "--quick", "--json", ARCFACE_WORKERS="many", ARCFACE_CACHE_DIR="/dev/null/x")
    assert set(wrong(done)) == {"settings", "cache"}


def test_limit_of_open_files_is_found() -> None:
    done = doctor("--pack", "open", "--quick", "--json", limit="ulimit -n 700")
    assert wrong(done)["limits"].startswith("700 files may be open, and ARCFACE_MAX_CONNECTIONS=1024 needs 1536")


def test_limit_of_address_space_is_found(tmp_path: Path) -> None:
    """The pack is a file that only seems to have 8 GB."""
    (tmp_path / "antelopev2").mkdir()
    with (tmp_path / "antelopev2" / "glintr100.onnx").open("wb") as file:
        file.truncate(8 * 10**9)
    program = "import json; from arcface_api.doctor import *; from arcface_api.settings import Settings;"
    program += "memory = [check for check in CHECKS if check.name == 'memory'];"
    program += f"print(examine(Subject(given=Settings(models_dir={str(tmp_path)!r})), checks=memory).to_json())"
    command = ["sh", "-c", 'ulimit -v 10000000 && exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert wrong(done)["memory"].startswith("The limit of ulimit -v is 10.2 GB, and the models need about 16.3 GB")


def test_library_that_cannot_be_loaded_is_found_where_no_other_command_starts(tmp_path: Path) -> None:
    """The command line itself imports onnx."""
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "__init__.py").write_text("raise ImportError('libprotobuf.so: cannot open')\n")
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    done = doctor("--json", PYTHONPATH=paths)
    assert done.returncode == 1
    assert "No command of arcface-api can be loaded: ImportError: libprotobuf.so" in wrong(done)["runtime"]
    assert {"check": "cpus", "status": "ok"}.items() <= _finding(done, "cpus").items()  # what needs no onnx is examined


def test_output_survives_a_terminal_without_unicode(tmp_path: Path) -> None:
    done = doctor("--pack", tmp_path / "gesichter-ä.onnx", "--quick", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 1
    assert done.stdout.isascii()
    assert "gesichter-?.onnx" in done.stdout


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_colours_are_for_terminals_that_want_them(no_color: str, *, is_coloured: bool) -> None:
    main, terminal = pty.openpty()
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "40"}
    with subprocess.Popen(
        [*DOCTOR, "--pack", "open", "--quick"], stdout=terminal, stderr=subprocess.PIPE, env=environment
    ):
        os.close(terminal)
        shown = b""
        while True:
            try:
                read = os.read(main, 4096)
            except OSError:  # Linux: the other side was closed
                break
            if not read:
                break
            shown += read
    os.close(main)
    assert (b"\x1b[32mok" in shown) is is_coloured
    assert b"All values are allowed" in shown
