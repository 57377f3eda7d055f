"""Promises of the command line: one sentence for what is wrong, exit statuses that mean something, a clean stop."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from arcface_api.cli import cli
from arcface_api.settings import Settings


def arcface_api(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "arcface_api", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def test_wrong_setting_is_one_sentence_and_status_2() -> None:
    done = arcface_api("serve", "--port", "http")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: --port='http' is not allowed: .*\n", done.stderr)


def test_missing_pack_is_an_error_that_says_what_to_do_and_status_1(models_dir: Path) -> None:
    done = arcface_api("serve", ARCFACE_MODELS_DIR=str(models_dir), ARCFACE_PORT="0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(models_dir / "antelopev2") in done.stderr
    for remedy in ("packs pull antelopev2 --accept-license", "ARCFACE_PULL=true", "packs import", "--pack /path"):
        assert remedy in done.stderr


def test_error_that_names_a_command_unknown_to_the_shell_says_how_to_run_it_here(
    models_dir: Path, tmp_path: Path
) -> None:
    """In a clone `make serve` runs a command that is on nobody's PATH."""
    settings = {"ARCFACE_MODELS_DIR": str(models_dir), "ARCFACE_PORT": "0"}
    here = f"(Here `arcface-api` is `{sys.executable} -m arcface_api`; in a clone of this project `make packs ARGS="
    assert here in arcface_api("serve", **settings, PATH=str(tmp_path)).stderr
    (tmp_path / "arcface-api").touch(0o755)
    assert here not in arcface_api("serve", **settings, PATH=str(tmp_path)).stderr


def test_nothing_is_downloaded_without_the_licence(models_dir: Path) -> None:
    done = arcface_api("serve", ARCFACE_MODELS_DIR=str(models_dir), ARCFACE_PULL="true", ARCFACE_PORT="0")
    assert done.returncode == 1
    assert "non-commercial research" in done.stderr
    assert "ARCFACE_ACCEPT_LICENSE=antelopev2" in done.stderr
    assert not models_dir.exists()


def test_taken_port_is_reported_before_anything_slow(tiny_recogniser: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = arcface_api("serve", "--pack", tiny_recogniser, "--port", str(port))
    assert done.returncode == 2
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use." in done.stderr


def test_misspelt_variable_is_noticed(tiny_recogniser: Path) -> None:
    done = arcface_api("serve", "--pack", tiny_recogniser / "nothing.onnx", ARCFACE_MODEL_DIR="/models")
    assert "ARCFACE_MODEL_DIR is not a setting and has no effect. Did you mean ARCFACE_MODELS_DIR?" in done.stderr


def test_licence_of_no_pack_is_noticed(tiny_recogniser: Path) -> None:
    done = arcface_api("serve", "--pack", tiny_recogniser / "nothing.onnx", ARCFACE_ACCEPT_LICENSE="yes,antelopev2")
    assert "ARCFACE_ACCEPT_LICENSE names yes, which is not a pack. The packs are antelopev2," in done.stderr
    assert "names antelopev2" not in done.stderr


def test_log_has_health_s_reason(tiny_recogniser: Path, tmp_path: Path) -> None:
    """At every start, not only at the one that found it out."""
    command = [sys.executable, "-m", "arcface_api", "serve", "--pack", str(tiny_recogniser), "--port", "0"]
    for _ in range(2):
        with subprocess.Popen([*command, "--cache-dir", tmp_path], stderr=subprocess.PIPE, text=True) as service:
            assert service.stderr is not None
            log = ""
            while not (found := re.search(r"Listening on (http://[^,\s]+),", log)):
                log += service.stderr.readline()
            reason = httpx.get(f"{found[1]}/health", timeout=30).json()["reason"]
            service.terminate()
            service.stderr.read()
        assert reason is None or f"INFO Why nothing faster is used: {reason}" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_stop_is_no_failure(tiny_recogniser: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "arcface_api", "serve", "--pack", str(tiny_recogniser), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        lines = iter(service.stderr.readline, "")
        url = next(found[1] for line in lines if (found := re.search(r"Listening on (http://\S+),", line)))
        assert httpx.get(f"{url}/readyz", timeout=30).status_code == 200
        service.send_signal(number)
        rest = service.stderr.read()
        assert service.wait(30) == 0
        assert "Traceback" not in rest
        assert "Aborted" not in rest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_stop_while_loading_is_no_failure(tmp_path: Path, number: signal.Signals) -> None:
    """A pipe in the place of the model: opening it waits for a writer that never comes, as a download may."""
    os.mkfifo(tmp_path / "model.onnx")
    command = [sys.executable, "-m", "arcface_api", "serve", "--port", "0", "--log-level", "debug"]
    with subprocess.Popen([*command, "--pack", str(tmp_path / "model.onnx")], stderr=subprocess.PIPE) as service:
        assert service.stderr is not None
        status = Path(f"/proc/{service.pid}/status")
        # the mask of caught signals says when the handlers are there: bit 14 is SIGTERM, the last one to be set
        while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) & 1 << 14:  # type: ignore[index]  # always there
            assert service.poll() is None
        service.send_signal(number)
        assert service.wait(30) == 0
        log = service.stderr.read()
        assert b"Traceback" not in log
        assert b"Aborted" not in log


def test_interrupt_while_modules_load_leaves_no_traceback() -> None:
    """As Ctrl-C in the first second: the command line's modules are found by a finder that is interrupted."""
    program = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, a shell leaves it ignored
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "arcface_api.cli.serve":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupted())
from arcface_api.__main__ import main
main()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_request_that_the_grace_period_cannot_save_gets_a_503(tiny_recogniser: Path) -> None:
    """A caller that is still uploading when it ends gets a 503 with its code, not a broken connection."""
    command = [sys.executable, "-m", "arcface_api", "serve", "--pack", str(tiny_recogniser), "--port", "0"]
    with subprocess.Popen([*command, "--shutdown-grace-seconds", "1"], stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        lines = iter(service.stderr.readline, "")
        port = next(found[1] for line in lines if (found := re.search(r"Listening on \S+:(\d+),", line)))
        with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as caller:
            head = "POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\n"
            caller.sendall(head.encode() + b"\xff\xd8\xff")
            assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
            service.send_signal(signal.SIGTERM)
            received = b"".join(iter(lambda: caller.recv(4096), b""))
        rest = service.stderr.read()
        assert service.wait(30) == 0
    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"service_closing" in received
    assert "Traceback" not in rest


def test_pack_is_imported_listed_found_and_verified(models_dir: Path, tiny_recogniser: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--models-dir", str(models_dir)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "Assumed: " in run("packs", "import", str(tiny_recogniser), "--name", "mine")
    assert f"installed in {models_dir / 'mine'}" in run("packs", "list")
    assert "its licence is not known here; installed" in run("packs", "list")
    assert "recogniser" in run("packs", "where", "--pack", "mine")
    assert "ok   tiny_recogniser.onnx" in run("packs", "verify", "--pack", "mine")


def test_list_names_the_folder_that_is_used(models_dir: Path, tmp_path: Path) -> None:
    """Of two packs with one name, the first in search order."""
    settings = {"ARCFACE_MODELS_DIR": str(models_dir), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    for place in (models_dir, tmp_path / ".insightface" / "models"):
        (place / "buffalo_sc").mkdir(parents=True)
        (place / "buffalo_sc" / "w600k_mbf.onnx").touch()
    listed = arcface_api("packs", "list", **settings).stdout
    assert f"installed in {models_dir / 'buffalo_sc'}" in listed
    assert f"buffalo_sc: {models_dir / 'buffalo_sc'} " in arcface_api("packs", "where", "buffalo_sc", **settings).stdout


def test_damaged_pack_fails_verification(models_dir: Path, tiny_recogniser: Path) -> None:
    options = ["--models-dir", str(models_dir)]
    CliRunner().invoke(cli, ["packs", "import", str(tiny_recogniser), "--name", "mine", *options])
    model = models_dir / "mine" / "tiny_recogniser.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    done = CliRunner().invoke(cli, ["packs", "verify", "--pack", "mine", *options])
    assert done.exit_code == 1
    assert "BAD  tiny_recogniser.onnx" in done.output


def test_every_setting_is_an_option_of_serve() -> None:
    shown = CliRunner().invoke(cli, ["serve", "--help"]).output
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in shown
        assert f"[ARCFACE_{name.upper()}]" in re.sub(r"\s+", " ", shown)


BARE = """
import sys
installed = {*sys.stdlib_module_names, "arcface_api", "numpy", "httpx", "httpcore", "h11", "anyio", "certifi", "idna"}
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in installed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
from arcface_api.__main__ import main
main()
"""
"""The command line where only the package's own dependencies, httpx and numpy, can be imported."""


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_bare_installation_shows_its_version() -> None:
    done = bare("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, arcface_api("--version").stdout, "")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_bare_installation_has_help_that_names_commands_and_extras(arguments: list[str]) -> None:
    done = bare(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for command in cli.commands:
        assert re.search(rf"^  {command}  ", done.stdout, re.MULTILINE)
    assert "pip install 'arcface-api[cpu]'" in done.stdout
    assert "pip install 'arcface-api[cuda]'" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["serve"], ["serve", "--help"], ["packs", "list"], ["nonsense"]])
def test_bare_installation_says_what_a_command_needs(arguments: list[str]) -> None:
    done = bare(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the package click is missing" in done.stderr
    assert "pip install 'arcface-api[cpu]'" in done.stderr
    assert "Traceback" not in done.stderr
