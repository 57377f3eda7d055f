"""Promises of the command line: one sentence for what is wrong, exit statuses that mean something, a clean stop."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from arcface_api.cli import cli
from arcface_api.errors import ModelFailed
from arcface_api.serving.process import refusal
from arcface_api.settings import Settings
from serving import PATIENT_END, Run, free_port, until
from tiny_models import linear_model


def arcface_api(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "arcface_api", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
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


def test_report_and_help_say_how_a_command_unknown_to_the_shell_is_called_here(
    models_dir: Path, tmp_path: Path
) -> None:
    """As in `make doctor`."""
    command = ("doctor", "--quick", "--no-network", "--models-dir", models_dir, "--port", "0")
    here = f"(Here `arcface-api` is `{sys.executable} -m arcface_api`;"
    assert here in arcface_api(*command, PATH=str(tmp_path)).stdout
    assert f"Usage: {sys.executable} -m arcface_api packs" in arcface_api("packs", "-h", PATH=str(tmp_path)).stdout
    (tmp_path / "arcface-api").touch(0o755)
    assert here not in arcface_api(*command, PATH=str(tmp_path)).stdout
    assert "Usage: arcface-api packs" in arcface_api("packs", "-h", PATH=str(tmp_path)).stdout


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


def test_key_of_a_caller_is_no_protection(tiny_recogniser: Path) -> None:
    done = arcface_api("serve", "--pack", tiny_recogniser / "nothing.onnx", ARCFACE_API_KEY="a-key-that-commands-send")
    assert "ARCFACE_API_KEY has no effect" in done.stderr
    assert "Everybody may call" in done.stderr
    assert "a-key-that" not in done.stderr


def test_wrong_file_of_api_keys_is_a_wrong_setting(tiny_recogniser: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("archive too-short")
    done = arcface_api("serve", "--pack", tiny_recogniser, "--port", "0", "--api-keys-file", tmp_path / "keys")
    assert done.returncode == 2
    assert "the key in line 1 has fewer than 16 characters" in done.stderr
    assert "too-short" not in done.stderr
    assert "Traceback" not in done.stderr


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
            reason = httpx.get(f"{found[1]}/health", timeout=100).json()["reason"]
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
        assert httpx.get(f"{url}/readyz", timeout=100).status_code == 200
        service.send_signal(number)
        rest = service.stderr.read()
        assert service.wait(100) == 0
        assert "Traceback" not in rest
        assert "Aborted" not in rest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_stop_while_loading_is_no_failure(tmp_path: Path, number: signal.Signals) -> None:
    """It downloads its pack from a server that never answers."""
    command = [sys.executable, "-m", "arcface_api", "serve", "--port", "0", "--log-level", "debug", "--pull"]
    command += ["--accept-license", "antelopev2", "--models-dir", str(tmp_path), "--pack-mirror"]
    with ExitStack() as at_end:
        silent = at_end.enter_context(socket.create_server(("127.0.0.1", 0)))
        command.append(f"http://127.0.0.1:{silent.getsockname()[1]}")
        service = at_end.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE))
        assert service.stderr is not None
        status = Path(f"/proc/{service.pid}/status")
        # the mask of caught signals says when the handlers are there: bit 14 is SIGTERM, the last one to be set
        while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) & 1 << 14:  # type: ignore[index]  # always there
            assert service.poll() is None
        service.send_signal(number)
        assert service.wait(100) == 0
        log = service.stderr.read()
        assert b"Traceback" not in log
        assert b"Aborted" not in log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_thread_that_the_system_refuses_is_a_sentence(
    run: Run, tiny_recogniser: Path, tmp_path: Path, workers: str
) -> None:
    """As where a container may have few (`--pids-limit`)."""
    refuse = 'def refuse(*given, **named): raise RuntimeError("can\'t start new thread")\n'
    names = ("_start_new_thread", "_start_joinable_thread")  # of Pythons up to 3.12, and of later ones
    refusals = "".join(f"threading.{name} = refuse\n" for name in names)
    (tmp_path / "sitecustomize.py").write_text(f"import threading\n{refuse}{refusals}")
    log = (service := run("--pack", tiny_recogniser, "--workers", workers, faults=tmp_path)).end()
    assert service.process.returncode == 1
    assert "Error: This system refuses what the service needs: can't start new thread. Raise its limits" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "needs: memory."),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError(errno.ENOENT, "No such file"), None),
        (RuntimeError("a defect"), None),
    ],
)
def test_defect_is_not_taken_for_a_refusal(error: Exception, said: str | None) -> None:
    found = refusal(error)
    assert found is None if said is None else said in str(found)


def test_library_that_cannot_be_loaded_is_a_sentence(tiny_recogniser: Path, tmp_path: Path) -> None:
    """As where memory is limited, or a system's library is missing."""
    (tmp_path / "cv2.py").write_text("raise ImportError('libx.so: failed to map segment from shared object')")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = arcface_api("serve", "--pack", tiny_recogniser, "--port", "0", PYTHONPATH=paths)
    assert done.returncode == 1
    assert "Error: A library cannot be loaded: libx.so: failed to map segment" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("files", "workers"),
    [
        ("<&- >&- 2>&-", "1"),  # their numbers go to other files then, and closing these ended the process
        (">/dev/full 2>/dev/full", "2"),  # what could not be written kept workers from starting
    ],
    ids=["closed", "full"],
)
def test_service_serves_and_stops_whatever_its_standard_files_are(
    tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch, files: str, workers: str
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    port = free_port()
    command = [sys.executable, "-m", "arcface_api", "serve", "--pack", str(tiny_recogniser), "--port", str(port)]
    with subprocess.Popen(["sh", "-c", f'exec "$@" {files}', "sh", *command, "--workers", workers]) as service:

        def is_ready() -> bool:
            assert service.poll() is None
            with suppress(httpx.ConnectError):
                return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=100).status_code == 200
            return False

        until(is_ready)
        service.terminate()
        assert service.wait(100) == 0


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
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_request_that_the_grace_period_cannot_save_gets_a_503(
    tiny_recogniser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that is still uploading when it ends gets a 503 with its code, not a broken connection."""
    (tmp_path / "sitecustomize.py").write_text(PATIENT_END)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", paths)
    command = [sys.executable, "-m", "arcface_api", "serve", "--pack", str(tiny_recogniser), "--port", "0"]
    with subprocess.Popen([*command, "--shutdown-grace-seconds", "1"], stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        lines = iter(service.stderr.readline, "")
        port = next(found[1] for line in lines if (found := re.search(r"Listening on \S+:(\d+),", line)))
        with socket.create_connection(("127.0.0.1", int(port)), timeout=100) as caller:
            head = "POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\n"
            caller.sendall(head.encode() + b"\xff\xd8\xff")
            assert httpx.get(f"http://127.0.0.1:{port}/livez", timeout=100).status_code == 200
            service.send_signal(signal.SIGTERM)
            received = b"".join(iter(lambda: caller.recv(4096), b""))
        rest = service.stderr.read()
        assert service.wait(100) == 0
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


def test_import_says_how_well_a_recogniser_distinguishes_faces(models_dir: Path, real_recogniser: Path) -> None:
    """As the service does at start, which is too late to find a model's right feed."""
    command = ["packs", "import", "--models-dir", str(models_dir)]
    done = CliRunner().invoke(cli, [*command, str(real_recogniser), "--name", "good"])
    assert "Measured: different synthetic faces have a median cosine of 0.6" in done.output
    assert "`arcface-api packs check`" in done.output
    folder = models_dir / "good"
    stated = (folder / "pack.toml").read_text().replace("mean = 127.5", "mean = 0").replace("std = 127.5", "std = 1")
    (folder / "pack.toml").write_text(stated)
    done = CliRunner().invoke(cli, [*command, str(folder), "--name", "bad"])
    assert "Warning: The recogniser hardly distinguishes faces" in done.output
    assert "Fed otherwise: (pixel - " in done.output
    assert (models_dir / "bad").is_dir()


def test_a_recogniser_that_cannot_be_run_is_not_installed(models_dir: Path, tmp_path: Path) -> None:
    model = linear_model(112, 512)
    onnx.save(model, tmp_path / "good.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((7, 7), np.float32), "weights"))
    onnx.save(model, tmp_path / "bad.onnx")
    command = ["packs", "import", "--models-dir", str(models_dir), "--name", "mine"]
    done = CliRunner().invoke(cli, [*command, str(tmp_path / "bad.onnx")])
    assert isinstance(done.exception, ModelFailed)
    assert str(done.exception).startswith("bad.onnx cannot be run, so it is not installed: ")
    assert not (models_dir / "mine").exists()
    assert CliRunner().invoke(cli, [*command, str(tmp_path / "good.onnx")]).exit_code == 0


def test_what_is_assumed_is_logged_at_every_start(run: Run, models_dir: Path, tiny_recogniser: Path) -> None:
    CliRunner().invoke(
        cli, ["packs", "import", str(tiny_recogniser), "--name", "mine", "--models-dir", str(models_dir)]
    )
    service = run("--pack", "mine", "--models-dir", models_dir)
    service.logged(r"WARNING .*Assumed: tiny_recogniser\.onnx is fed its colour planes in the order red, green, blue")


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
        assert re.search(rf"\[ARCFACE_{name.upper()}(; default: [^\]]+)?\]", re.sub(r"\s+", " ", shown))


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
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, timeout=300, check=False
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


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--quick"]])
def test_bare_installation_is_examined_by_doctor(arguments: list[str]) -> None:
    done = bare("doctor", *arguments)
    assert (done.returncode, done.stderr) == (1, "")
    assert "Only the bare package is installed" in done.stdout
    assert "Could not be checked: the package" in done.stdout
    assert "after the installation" in done.stdout  # the clock needs no package
    assert "pip install 'arcface-api[cpu]'" in done.stdout
