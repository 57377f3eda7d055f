"""Promises of `deploy/`: a real Prometheus scrapes the service, alerts fire in their case, and no panel is empty."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import onnx
import pytest

from arcface_api.api.metrics import EMBED
from pictures import picture_bytes
from serving import Command, Run, free_port, until
from tiny_models import slow_model

pytestmark = pytest.mark.once  # Prometheus decides

ROOT = Path(__file__).parents[2]
RULES, DASHBOARD = ROOT / "deploy" / "prometheus" / "rules.yml", ROOT / "deploy" / "grafana" / "dashboard.json"
PICTURE = picture_bytes()
BLACK = bytes(cv2.imencode(".png", np.zeros((112, 112, 3), np.uint8))[1])

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs Prometheus (Debian: apt-get install prometheus)"
)


class Prometheus:
    """A real one, with the rules of `deploy/` in a hurry: minutes are seconds."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        config = (RULES.parent / "prometheus.yml").read_text()
        config = config.replace("15s", "500ms").replace("localhost:5555", ", ".join(targets))
        (folder / "prometheus.yml").write_text(config)
        rules = re.sub(r"for: \d+[mh]", "for: 0s", RULES.read_text())
        (folder / "rules.yml").write_text(
            rules.replace("[30m]", "[2m]").replace("[5m]", "[6s]").replace("[1h]", "[6s]")
        )
        self._url = f"http://127.0.0.1:{(port := free_port())}/api/v1"
        log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=log,
        )
        log.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression that are numbers."""
        try:
            answer = httpx.get(f"{self._url}/query", params={"query": expression}, timeout=100)
        except httpx.ConnectError:
            return []
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # it starts
            return []
        found = answer.json()
        assert found["status"] == "success", (expression, found)
        return [sample for sample in found["data"]["result"] if sample["value"][1] != "NaN"]

    def firing(self) -> set[str]:
        return {sample["metric"]["alertname"] for sample in self.query('ALERTS{alertstate="firing"}')}


class Load:
    """Callers of every kind, until the end: a picture, or none, with some headers, of each."""

    def __init__(self, service: Command, kinds: Sequence[tuple[bytes, dict[str, str]]]) -> None:
        self._url, self._ends = f"http://127.0.0.1:{service.port}{EMBED}", threading.Event()
        self._threads = [threading.Thread(target=self._send, args=kind) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def _send(self, picture: bytes, headers: dict[str, str]) -> None:
        headers = {"Connection": "close"} | headers  # so that both workers get some of each kind
        with httpx.Client(headers=headers, params={"align": "auto"}, timeout=100) as client:
            while not self._ends.is_set():
                with suppress(httpx.HTTPError):  # the worker was killed
                    client.post(self._url, files={"file": picture})
                time.sleep(0.03)

    def stop(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def busy(run: Run, tmp_path: Path) -> Iterator[Command]:
    """A service of two workers with more callers than it can serve."""
    onnx.save(slow_model(), tmp_path / "slow.onnx")
    limits = "--queue-capacity", "8", "--max-batch-files", "1", "--lanes", "1"
    service = run("--pack", tmp_path / "slow.onnx", "--workers", "2", *limits)
    service.serving()
    load = Load(service, [*[(PICTURE, {})] * 10, (BLACK, {})])
    yield service
    load.stop()


DRIFTS = """
from arcface_api.session.onnx_cpu import OnnxCpuSession

real_run, runs = OnnxCpuSession.run, []

def run(self, crops):
    runs.append(crops)
    features = real_run(self, crops)
    if len(runs) > 500:
        features[:, 0] += 1
    return features

OnnxCpuSession.run = run
"""
"""Vectors go wrong while the service runs: loading and the first self-check take fewer runs."""


@pytest.fixture
def drifting(run: Run, tmp_path: Path, tiny_recogniser: Path) -> Iterator[Command]:
    """A service whose vectors have gone wrong, that is not replaced for it, and whose callers name another one."""
    (tmp_path / "drifts").mkdir()
    (tmp_path / "drifts" / "sitecustomize.py").write_text(DRIFTS)
    seconds = "--self-check-seconds", "0.01", "--hang-seconds", "86400"
    service = run("--pack", tiny_recogniser, *seconds, faults=tmp_path / "drifts")
    load = Load(service, [(PICTURE, {"Host": "another.example"})])
    yield service
    load.stop()


@pytest.fixture
def prometheus(
    busy: Command, drifting: Command, run: Run, tmp_path: Path, tiny_recogniser: Path
) -> Iterator[Prometheus]:
    """It observes the busy service, one with another model and bad callers, one that drifts, and one that is down."""
    other = run("--pack", tiny_recogniser)
    load = Load(other, [(b"no picture", {}), (PICTURE, {"X-Request-Timeout": "0.000001"})])
    (tmp_path / "prometheus").mkdir()
    targets = [f"127.0.0.1:{port}" for port in (busy.port, other.port, drifting.port, free_port())]
    prometheus = Prometheus(tmp_path / "prometheus", targets)
    yield prometheus
    load.stop()
    prometheus.process.terminate()
    prometheus.process.wait()


@needs_prometheus
def test_rules_pass_their_own_tests() -> None:
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "tests.yml"]):
        done = subprocess.run(["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
@pytest.mark.timeout(1500)
def test_no_panel_is_empty_and_alerts_fire_in_their_case(prometheus: Prometheus, busy: Command) -> None:
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text())) - {"ArcfaceCertificateEnds"}  # promtool tests it
    restarting = {"ArcfaceRestarting"}
    later = {"ArcfaceSlow", *restarting}
    until(lambda: prometheus.firing() >= alerts - later)
    queries = panel_queries()
    assert len(queries) > 20
    until(lambda: all(map(prometheus.query, queries)))
    for crashes in range(3):
        assert not restarting & prometheus.firing(), f"fires after {crashes} crashes"
        os.kill(busy.serving()[-1], signal.SIGKILL)
        busy.logged("2 of 2 workers serve", times=crashes + 2)
    until(lambda: restarting <= prometheus.firing())

    def fires_after(number: signal.Signals, alert: str) -> bool:
        worker = busy.serving()[-1]
        os.kill(worker, number)
        time.sleep(3)
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)
        return alert in prometheus.firing()

    until(lambda: fires_after(signal.SIGSTOP, "ArcfaceSlow"))


def panel_queries() -> list[str]:
    """What Grafana would ask for, of all instances."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    values = {"$instance": ".*", "$job": "arcface", "$__rate_interval": "6s"}
    return [re.sub(r"\$\w+", lambda found: values[found[0]], query) for query in queries]


# ── what needs no Prometheus ───────────────────────────────────────────────────────────────────────────────────────


def test_every_alert_waits_and_has_a_section_in_the_runbook() -> None:
    rules, runbook = RULES.read_text(), (ROOT / "docs" / "runbook.md").read_text()
    alerts = re.findall(r"alert: (\w+)(.*?)(?=- alert|\Z)", rules, re.DOTALL)
    assert len(alerts) == rules.count("alert:") > 10
    for name, rule in alerts:
        assert re.search(r"for: \d+[mh]", rule)
        assert f"docs/runbook.md#{name.lower()}\n" in rule
        assert f"\n## {name}\n" in runbook


def test_dashboard_is_whole() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = np.zeros((100, 24), np.bool_)
    for panel in panels:
        place = panel["gridPos"]
        cells = taken[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]]
        assert cells.shape == (place["h"], place["w"]), panel["title"]
        assert not cells.any(), panel["title"]
        cells[:] = True
        assert panel["type"] == "row" or panel["description"]
