"""Promises about a process whose vectors stay wrong: it ends, another one takes its place, and the others serve on."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from arcface_api.serving.process import HUNG_STATUS
from pictures import picture_bytes
from serving import PATIENT_END, Run, is_running, until

PICTURE = picture_bytes()

FAULTS = """
import os
from arcface_api.embedder import self_check
from arcface_api.session.onnx_cpu import OnnxCpuSession

real_run, self_check.AGAIN_SECONDS = OnnxCpuSession.run, 0.05

def run(self, crops):
    features = real_run(self, crops)
    if os.path.exists(f"{WRONG}/{os.getpid()}"):
        features[:, 3] += 1e-3
    return features

OnnxCpuSession.run = run
"""
"""Wrong vectors of the processes for which there is a file."""


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCFACE_SELF_CHECK_SECONDS", "0.1")
    monkeypatch.setenv("ARCFACE_SELF_CHECK_BUSY_SECONDS", "0.1")
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"WRONG = {str(folder)!r}\n{FAULTS}{PATIENT_END}")
    return folder


def embed(port: int) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}/embed", files={"file": PICTURE}, timeout=100)


def checks(port: int, result: str) -> float:
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=100).text
    return float(metrics.partition(f'arcface_self_checks_total{{result="{result}"}} ')[2].split()[0])


def test_process_whose_vectors_stay_wrong_ends(run: Run, tiny_recogniser: Path, faults: Path) -> None:
    command = run("--pack", tiny_recogniser, "--hang-seconds", "2", faults=faults)
    until(lambda: checks(command.port, "passed") > 0)
    (faults / str(command.process.pid)).touch()
    log = command.end()
    assert command.process.returncode == HUNG_STATUS
    assert "The vectors have drifted, and no caller gets one: probe picture " in log
    assert f"Ended with status {HUNG_STATUS}: the vectors have drifted: probe picture " in log
    assert "Traceback" not in log


def test_drift_that_passes_ends_nothing(run: Run, tiny_recogniser: Path, faults: Path) -> None:
    command = run("--pack", tiny_recogniser, "--hang-seconds", "600", faults=faults)
    until(lambda: checks(command.port, "passed") > 0)
    right = embed(command.port).json()
    (faults / str(command.process.pid)).touch()
    until(lambda: embed(command.port).status_code == 503)
    (faults / str(command.process.pid)).unlink()
    until(lambda: embed(command.port).status_code == 200)
    assert embed(command.port).json() == right
    command.logged("Callers get vectors again")


def test_worker_whose_vectors_stay_wrong_is_replaced_and_the_other_serves_on(
    run: Run, tiny_recogniser: Path, faults: Path
) -> None:
    command = run("--pack", tiny_recogniser, "--workers", "2", "--hang-seconds", "5", faults=faults)
    wrong, other = command.serving()
    right = embed(command.port).json()["embedding"]
    until(lambda: checks(command.port, "passed") > 6)  # so both have first answers
    (faults / str(wrong)).touch()
    until(lambda: embed(command.port).json().get("code") == "vectors_drifted")  # the kernel chooses the worker
    answers = []
    while is_running(wrong):
        try:
            answers.append(embed(command.port))
        except httpx.TransportError:  # its connections end with the worker
            continue
    served = [answer.json()["embedding"] for answer in answers if answer.status_code == 200]
    assert served, "the other one serves on"
    assert all(np.array_equal(vector, right) for vector in served)
    assert {a.json()["code"] for a in answers if a.status_code != 200} <= {"vectors_drifted", "service_closing"}
    command.logged(f"Worker {wrong} ended with status {HUNG_STATUS}. A new one starts in 0 s")
    assert other in command.serving()
