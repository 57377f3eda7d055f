"""What happens by bad luck, under load: everyone whose process lives is answered, and nobody gets a wrong vector.

The faults are those of `benchmarks.questions.faults`, which lets each happen many times and measures how long it takes
until all is well; here, those that no other test lets happen, once each. docs/reliability.md names the test of each.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import httpx
import onnx
import pytest

from arcface_api.bench.connection import Address
from arcface_api.image import ImageLimits, decode
from arcface_api.serving.process import HUNG_STATUS
from benchmarks.lib import faces
from benchmarks.lib.checks import broken
from benchmarks.lib.knowing import Known, learnt, requests_of
from benchmarks.lib.scene import INJECTED, Scene
from benchmarks.questions.faults import FAULTS, Fault, scene_of, try_fault
from pictures import picture_bytes
from raw_http import picture, request
from serving import Run
from tiny_models import linear_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="faults are made with Linux's means")

BY_NAME = {fault.name: fault for fault in FAULTS}
LIVES_ON = [fault for fault in FAULTS if fault.workers == 1 and not fault.restarts and not fault.options]
"""Those that the only process survives."""
REPLACED = [BY_NAME[name] for name in ("the model aborts its process", "the model's file changes, and a worker dies")]
DISKS = [fault for fault in FAULTS if fault.disk]
OPTIONS = ("--lanes", "2", "--hang-seconds", "10")


def named(fault: Fault) -> str:
    return fault.name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "model.onnx"
    onnx.save(linear_model(112, 512), path)
    return path


class Served:
    """A service that may meet several faults, one after the other, and requests whose right answers are known."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        address = Address("127.0.0.1", scene.port)
        self.known: list[Known] = learnt(address, requests_of(address, faces.load(None, 8)))

    def meets(self, fault: Fault) -> None:
        measured = try_fault(fault, self.scene, self.known, 1)
        assert not broken(measured["checks"]), measured


@pytest.fixture(scope="module")
def one_process(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scene_of(LIVES_ON[0], model, tmp_path_factory.mktemp("one"), OPTIONS) as scene:
        yield Served(scene)


@pytest.fixture(scope="module")
def two_processes(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """They have a disk of their own, where this may be mounted."""
    folder = tmp_path_factory.mktemp("two")
    with ExitStack() as stack:
        try:
            scene = stack.enter_context(scene_of(replace(DISKS[0], disk_fills=False), model, folder, OPTIONS))
        except (OSError, subprocess.CalledProcessError):  # not root, or in a container that may not
            scene = stack.enter_context(scene_of(REPLACED[0], model, folder, OPTIONS))
        yield Served(scene)


@pytest.mark.parametrize("fault", LIVES_ON, ids=named)
def test_process_lives_on_and_loses_nothing(fault: Fault, one_process: Served) -> None:
    one_process.meets(fault)


@pytest.mark.parametrize("fault", REPLACED, ids=named)
def test_process_is_replaced_and_the_other_loses_nothing(fault: Fault, two_processes: Served) -> None:
    two_processes.meets(fault)


@pytest.mark.parametrize("fault", DISKS, ids=named)
def test_worker_is_replaced_whatever_the_disk_does(fault: Fault, two_processes: Served) -> None:
    if not os.path.ismount(two_processes.scene.disk or "/nowhere"):
        pytest.skip("only root may mount a file system, and not in every container")
    two_processes.meets(fault)


def test_model_that_only_fails_is_seen_by_readyz_and_ends_the_process(
    model: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to send pictures: after the first failure, the service tries its own."""
    monkeypatch.setenv("FAULTS_FOLDER", str(tmp_path))
    command = run("--pack", model, "--hang-seconds", "10", faults=INJECTED)
    url = f"http://127.0.0.1:{command.port}"
    assert httpx.post(f"{url}/embed", files={"file": picture_bytes()}, timeout=100).status_code == 200
    (tmp_path / "inference").write_text("cuda_lost")
    failed = httpx.post(f"{url}/embed", files={"file": picture_bytes()}, timeout=100)
    assert (failed.status_code, failed.json()["code"]) == (500, "model_failed")
    ready = httpx.get(f"{url}/readyz", timeout=100)
    assert ready.status_code == 503, "a success shortly before proves nothing"
    assert httpx.get(f"{url}/livez", timeout=100).status_code == 200
    log = command.end()
    assert command.process.returncode == HUNG_STATUS
    assert f"Ended with status {HUNG_STATUS}: every inference of the model recogniser has failed for 10 s" in log


def test_what_waits_in_the_kernel_when_the_service_is_stopped_is_answered(model: Path, run: Run) -> None:
    """On a new connection, and on one that was used before."""
    command = run("--pack", model)
    with socket.create_connection(("127.0.0.1", command.port), 100) as used, socket.socket() as new:
        used.sendall(request("GET /livez"))
        assert used.recv(4096).startswith(b"HTTP/1.1 200 ")
        os.kill(command.process.pid, signal.SIGSTOP)
        new.settimeout(100)
        new.connect(("127.0.0.1", command.port))
        for link in (used, new):
            link.sendall(picture(picture_bytes()))
        os.kill(command.process.pid, signal.SIGTERM)
        time.sleep(0.5)  # the server's next look for a signal is overdue when it goes on
        os.kill(command.process.pid, signal.SIGCONT)
        for link in (used, new):
            assert link.recv(4096).startswith(b"HTTP/1.1 200 ")
    command.end()
    assert command.process.returncode == 0


def test_lack_of_memory_is_not_blamed_on_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(*_: object) -> None:
        error = cv2.error("Insufficient memory")
        error.code = cv2.Error.StsNoMem
        raise error

    monkeypatch.setattr(cv2, "imdecode", lack)
    with pytest.raises(MemoryError):
        decode(picture_bytes("PNG"), ImageLimits(max_pixels=10**9))
