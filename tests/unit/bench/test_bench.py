"""Promises of `arcface-api bench`: a real service measured, all of it plotted, one sentence for what is wrong."""

import contextlib
import functools
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from arcface_api.bench import measure
from arcface_api.bench.connection import Address, raw_request
from arcface_api.bench.load import LoadReport, Summary, closed_loop
from arcface_api.bench.measure import Measurement
from arcface_api.cli import bench as bench_command
from arcface_api.errors import MeasurementFailed
from benchmarks.lib.load import batch_request
from pictures import picture_bytes
from scripted_server import ScriptedServer, answer
from serving import Service, free_port

CLIENTS = (1, 3)


def bench(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "arcface_api", "bench", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def quickly(*options: str | Path) -> subprocess.CompletedProcess[str]:
    steps = [option for count in CLIENTS for option in ("--clients", str(count))]
    return bench("--seconds", "0.4", *steps, *options)


def processes_of(pack: Path) -> list[Path]:
    """Of the system, those whose command line names a pack."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(pack).encode() in (process / "cmdline").read_bytes():
                found.append(process)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def serving(pack: Path) -> bool:
    """Whether a service of that pack was started; not only forked, as which it still carries its parent's name."""
    for process in processes_of(pack):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"\0serve\0" in (process / "cmdline").read_bytes():
                return True
    return False


@pytest.fixture(scope="module")
def a_report(tiny_recogniser: Path) -> LoadReport:
    with ScriptedServer(serves_all) as server:
        return closed_loop(server.address, [raw_request(server.address, "POST", "/")], clients=1, seconds=0.1)


async def serves_all(_: int) -> bytes:
    return answer()


def measurement(report: LoadReport, *steps: tuple[int, float, float, float], **service: object) -> Measurement:
    about = {
        "status": "ok",
        "pack": "mine",
        "model": "mine<&>",
        "provider": "OpenVINO",
        "precision": "bfloat16",
        "threads": 2,
        "batch_sizes": [1, 8],
        "self_test_cosine": 0.99966,
        "reason": None,
        **service,
    }
    rows = [
        replace(
            report,
            clients=clients,
            served_per_second=rate,
            latency_ms=Summary(9, p50, p50, p50, p99, p99),
            mean_batch=2.5,
        )
        for clients, rate, p50, p99 in steps
    ]
    return Measurement(about, None, tuple(rows))


# ── a service of its own, and one that runs ────────────────────────────────────────────────────────────────────────


def test_a_service_is_started_measured_and_stopped(tiny_recogniser: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    done = quickly("--pack", tiny_recogniser, "--threads", "1", "--precision", "float32", "--output", output)
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert [step["clients"] for step in figures["steps"]] == list(CLIENTS)
    assert all(step["served"] > 0 and step["failed"] == {} and step["mean_batch"] >= 1 for step in figures["steps"])
    assert (figures["service"]["model"], figures["service"]["threads"]) == ("tiny_recogniser", 1)
    assert figures["process"]["rss_mb"] > 50
    assert figures["machine"]["cpus"] >= 1
    for step in figures["steps"]:
        assert re.search(rf"^ *{step['clients']} +{step['served_per_second']:.1f} ", done.stdout, re.MULTILINE)
    assert f"tiny_recogniser on {figures['service']['provider']} in float32, 1 thread," in done.stdout
    assert f"cosine {figures['service']['self_test_cosine']:.5f}" in done.stdout
    assert str(output.with_suffix(".svg")) in done.stdout
    assert ET.fromstring(output.with_suffix(".svg").read_text()).tag == "{http://www.w3.org/2000/svg}svg"
    assert processes_of(tiny_recogniser) == []


def test_a_service_that_runs_is_measured_where_it_is(service: Service) -> None:
    done = quickly("--url", str(service.base_url))
    assert done.returncode == 0, done.stderr
    assert "tiny_recogniser on CPUExecutionProvider in float32" in done.stdout
    assert "in memory" not in done.stdout  # it may be on another machine


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_service_stays_behind(tiny_recogniser: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "arcface_api", "bench", "--pack", str(tiny_recogniser)]
    # a test run in the background ignores Ctrl-C, and its children would inherit that
    heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeds) as running:  # noqa: PLW1509  # one system call
        while not serving(tiny_recogniser):
            time.sleep(0.01)
            assert running.poll() is None
        running.send_signal(number)
        assert running.stderr is not None
        assert "Traceback" not in running.stderr.read()
        assert running.wait(100) == 1
    assert processes_of(tiny_recogniser) == []


# ── what is wrong, in a sentence ───────────────────────────────────────────────────────────────────────────────────


def test_nothing_behind_the_url_is_one_sentence_and_status_1() -> None:
    port = free_port()
    done = quickly("--url", f"http://127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (1, "")
    figures = f"Error: Nothing answers at http://127.0.0.1:{port}: Connection refused. Start the service there,"
    assert figures in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("said", [answer(), answer(404), b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_something_else_behind_the_url_is_refused(said: bytes) -> None:
    async def script(_: int) -> bytes:
        return said

    with ScriptedServer(script) as server, pytest.raises(MeasurementFailed, match="is not arcface-api"):
        measure.measure(server.address, CLIENTS, 0.1, lambda _, __: None)


def test_a_service_that_cannot_be_started_says_why(tiny_recogniser: Path) -> None:
    done = quickly("--pack", tiny_recogniser, "--device", "tensorrt")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Error: The service ended before it could serve. device=tensorrt was asked for, but " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--url", "ftp://a"], "http://host:port"),
        (["--url", "http://a", "--device", "cpu"], "leave out the other options"),
        (["--output", "figures.txt"], "has to end in .json"),
        (["--output", "/no such folder/figures.json"], "a folder that exists"),
        (["--device", "gpu"], "'tensorrt'"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_measured(options: list[str], sentence: str) -> None:
    done = bench(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Measuring" not in done.stderr


def test_figures_beside_failures_are_no_success(a_report: LoadReport) -> None:
    measured = measurement(a_report, (1, 100, 10, 12))
    measured.check()
    failing = replace(a_report, failed={"status 500": 3})
    with pytest.raises(MeasurementFailed, match=r"With 1 client requests failed \(3 x status 500\)"):
        measurement(failing, (1, 100, 10, 12)).check()


def test_a_service_that_serves_nobody_is_no_measurement(service: Service) -> None:
    refuses = answer(429, Retry_After="1")

    async def script(number: int) -> bytes:
        return health if number == 0 else refuses

    body = service.get("/health").content
    health = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    figures = r"With 1 client no request was served: \d+ x refused with 429"
    with ScriptedServer(script) as server, pytest.raises(MeasurementFailed, match=figures):
        measure.measure(server.address, [1], 0.1, lambda _, __: None)


# ── the plot and the table ─────────────────────────────────────────────────────────────────────────────────────────


def test_without_matplotlib_the_figures_are_written_and_the_remedy_is_named(
    a_report: LoadReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    output = tmp_path / "bench.json"
    assert "arcface-api[evaluate]" in bench_command.write(measurement(a_report, (1, 100, 10, 12)), output)
    assert json.loads(output.read_text())["steps"][0]["served_per_second"] == 100
    assert not output.with_suffix(".svg").exists()


def test_what_cannot_be_written_is_one_sentence(a_report: LoadReport, tmp_path: Path) -> None:
    with pytest.raises(MeasurementFailed, match=r"cannot be written: .* Name another --output"):
        bench_command.write(measurement(a_report, (1, 100, 10, 12)), tmp_path / "missing" / "bench.json")


def test_the_table_says_why_it_is_not_faster_and_who_was_refused(a_report: LoadReport) -> None:
    refusing = replace(a_report, refused={"429": 7})
    lines = bench_command.text(
        measurement(refusing, (1, 50, 10, 12), (9, 100, 1234, 2345), reason="no AMX")
    ).splitlines()
    assert "not faster because: no AMX" in lines
    bars = [line.count("█") for line in lines if "█" in line]
    assert bars == [12, 24]
    assert any("1234 ms" in line and "2345 ms" in line and line.split()[-1] == "2.5" for line in lines)
    assert sum("refused with 429 or 503: 7 requests." in line for line in lines) == 2


# ── batch requests ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_request_brings_every_picture(service: Service) -> None:
    pictures = [picture_bytes(size=(40 + n, 60)) for n in range(5)]
    address = Address.of(str(service.base_url))
    report = closed_loop(address, [batch_request(address, pictures)], clients=2, seconds=0.3)
    assert report.failed == {}
    assert report.served > 0
    request = batch_request(address, pictures)
    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
    figures = service.post("/embed/batch", content=body, headers={"Content-Type": headers["Content-Type"]}).json()
    assert int(headers["Content-Length"]) == len(body)
    singles = [service.post("/embed", files={"file": picture}).json()["embedding"] for picture in pictures]
    assert [result["embedding"] for result in figures["results"]] == singles
