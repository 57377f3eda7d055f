"""Promises of `arcface-api embed` that is killed: started again, it has every input exactly once."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from pyarrow import parquet

from pictures import picture_bytes

KILLS = int(os.environ.get("ARCFACE_TEST_KILLS", "3"))
PICTURES = int(os.environ.get("ARCFACE_TEST_KILLED_PICTURES", "400"))
ANYWHERE = Path(__file__).parents[1] / "killed_anywhere.py"


def make_pictures(folder: Path, number: int) -> None:
    """Different pictures; every 50th is damaged."""
    folder.mkdir()
    for each in range(number):
        content = picture_bytes(size=(20 + each % 97, 20 + each % 89))
        (folder / f"{each:05}.jpg").write_bytes(content[:40] if each % 50 == 7 else content)


def until_it_listens(port: int) -> None:
    """Wait for a service; the test's timeout bounds it."""
    while True:
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)


@pytest.mark.once
@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    "arguments",
    [
        (".parquet",),
        (".npy",),
        (".jsonl",),
        ("/",),
        (".parquet", "--restart"),
        (".npy", "--restart"),
        ("/", "--restart"),
        ("/", "--replace"),
    ],
)
def test_kill_before_any_operation_on_a_file_loses_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    make_pictures(tmp_path / "crops", 5)
    make_pictures(tmp_path / "others", 3)
    command: list[str | Path] = [sys.executable, ANYWHERE, tmp_path, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] > 20


@pytest.mark.once
@pytest.mark.timeout(60 + 120 * KILLS + PICTURES // 4)
def test_kill_at_random_moments_loses_nothing(tmp_path: Path, tiny_recogniser: Path) -> None:
    """ARCFACE_TEST_KILLS=30 ARCFACE_TEST_KILLED_PICTURES=5000 is the long form."""
    make_pictures(tmp_path / "crops", PICTURES)
    command = [sys.executable, "-m", "arcface_api", "embed", "crops", "--pack", str(tiny_recogniser)]
    command += ["--part-rows", "100", "--out"]

    def start(out: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([*command, out], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    began = time.monotonic()
    assert start("expected.parquet").wait() == 0
    seconds = time.monotonic() - began
    expected = parquet.read_table(tmp_path / "expected.parquet")
    assert len(expected) == PICTURES
    rng = random.Random(18)
    kills = jobs = 0
    while kills < KILLS:
        out = f"out-{jobs}.parquet"
        while True:
            job = start(out)
            try:
                status = job.wait(rng.uniform(0.2, seconds) if kills < KILLS else None)
            except subprocess.TimeoutExpired:
                job.send_signal(signal.SIGKILL)
                status = job.wait()
                kills += 1
            if status == 0:
                break
            assert status == -signal.SIGKILL
        jobs += 1
        assert parquet.read_table(tmp_path / out).equals(expected)
        assert not (tmp_path / f"{out}.parts").exists()
    print(f"{kills} kills, {jobs} jobs of {PICTURES} pictures, {seconds:.1f} s each without a kill")  # noqa: T201  # with -s


@pytest.mark.once
@pytest.mark.timeout(60 + 120 * KILLS + PICTURES // 4)
def test_service_that_is_killed_and_restarted_loses_nothing(tmp_path: Path, tiny_recogniser: Path) -> None:
    make_pictures(tmp_path / "crops", PICTURES)
    run = [sys.executable, "-m", "arcface_api"]
    expected = ["embed", "crops", "--pack", str(tiny_recogniser), "--out", "expected.parquet"]
    subprocess.run([*run, *expected], cwd=tmp_path, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rng = random.Random(18)
    kills = jobs = 0

    def serve() -> "subprocess.Popen[bytes]":
        command = [*run, "serve", "--pack", str(tiny_recogniser), "--port", str(port)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    service = serve()
    try:
        while kills < KILLS:
            out = f"out-{jobs}.parquet"
            command = [*run, "embed", "crops", "--url", f"http://127.0.0.1:{port}", "--out", out]
            until_it_listens(port)  # a job waits a minute for a service when it begins, and ten later
            job = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while job.poll() is None and not (tmp_path / f"{out}.parts/job.json").exists():
                time.sleep(0.02)
            while job.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    job.wait(rng.uniform(0, 3))
                if job.poll() is None and kills < KILLS:
                    service.kill()
                    service.wait()
                    kills += 1
                    service = serve()
            assert job.returncode == 0
            jobs += 1
            found, wanted = (parquet.read_table(tmp_path / name) for name in (out, "expected.parquet"))
            assert found.equals(wanted)
    finally:
        service.kill()
        service.wait()
    print(f"{kills} kills of the service, {jobs} jobs of {PICTURES} pictures")  # noqa: T201  # with -s
