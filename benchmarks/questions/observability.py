"""What do metrics, JSON logs and traces cost, and how much of a caller's time do the metrics explain?

    python -m benchmarks.questions.observability --recogniser edgeface_xs.onnx --faces FOLDER \
        --output benchmarks/results/observability-edgeface.json

One process is switched between the states while it serves: two processes with the same code differ by several per cent
as long as they live. The states are loaded in turn, in an order that changes; each share is of the state without any
of it in the same round, and medians are of all rounds of all processes. In that state requests have no identity
either, and nothing of them is counted. ONNX Runtime and two lanes, so that no trial at start makes the processes
differ. A process takes the traces and drops them.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from arcface_api.bench.connection import Address
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.load import LoadReport, closed_loop, embed_request
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import ROOT, free_port, write_report
from benchmarks.lib.trees import HIDE_OPENVINO, Served, served

CLIENTS = 16
STAGES = ("receive", "decode", "crop", "queue", "inference", "respond")
_SINK = """
import socketserver, sys
class Sink(socketserver.StreamRequestHandler):
    def handle(self):
        while (line := self.rfile.readline()):
            size = 0
            while line.strip():
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
                line = self.rfile.readline()
            self.rfile.read(size)
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
with socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Sink) as server:
    server.serve_forever()
"""


_SWITCH = """
import gc, logging, signal, time
from pathlib import Path

def switch(*_):
    from arcface_api.api import app, observer, request_log, traces
    access = logging.getLogger("uvicorn.access")
    if not kept:
        kept["observer"] = next(each for each in gc.get_objects() if isinstance(each, observer.Observer))
        kept["methods"] = {name: getattr(observer.Observer, name) for name in NOTHING}
        kept["log"] = access.handlers[:], access.propagate
        kept["shares"] = {share: traces.Traces.to_collector(share) for share in (0.01, 1.0)}
    watched, share, has_access_log = STATES[Path(STATE).read_text()]
    for name, method in kept["methods"].items():
        setattr(observer.Observer, name, method if watched else NOTHING[name])
    kept["observer"]._traces = kept["shares"].get(share)
    access.handlers, access.propagate = kept["log"] if has_access_log else ([], False)
    Path(STATE).unlink()

kept = {}
NOTHING = {
    "begin": lambda self, scope: [],
    "has_results": lambda self, scope, results, stages_ms: None,
    "ended": lambda self, path, status, started, scope: None,
}
signal.signal(signal.SIGUSR1, switch)
"""
"""In the service: SIGUSR1 makes the state the one whose name the file has. `STATE` and `STATES` stand before it."""
NOTHING, METRICS = "nothing", "metrics"
STATES: dict[str, tuple[bool, float, bool]] = {
    NOTHING: (False, 0.0, False),
    METRICS: (True, 0.0, False),
    "JSON logs and traces of 1 %": (True, 0.01, False),
    "access log and all traces": (True, 1.0, True),
}
"""Whether requests are observed, the share of them that is traced, and whether each has a line in the log."""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model, pictures = recogniser.find(arguments.recogniser), faces.load(arguments.faces)
    rounds: list[dict[str, float]] = []
    explained: dict[str, list[dict[str, Any]]] = {"1 clients": [], f"{CLIENTS} clients": []}
    with _sink() as sink:
        for number in range(arguments.processes):
            with _running(model, sink) as (service, switch):
                switch(METRICS)
                for clients, found in zip((1, CLIENTS), explained.values(), strict=True):
                    found.append(_explained(service, pictures, clients, arguments.seconds))
                for turn in range(arguments.rounds):
                    say(f"process {number + 1} of {arguments.processes}, round {turn + 1} of {arguments.rounds}")
                    rates = {}
                    for name in sorted(STATES, key=lambda _: random.random()):
                        switch(name)
                        rates[name] = _load(service, pictures, CLIENTS, arguments.seconds).served_per_second
                    rounds.append({name: rates[name] for name in STATES})
    shares = {name: sorted(of[name] / of[NOTHING] for of in rounds) for name in STATES}
    write_report(
        {
            "benchmark": "observability",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "clients": CLIENTS,
            "requests_per_second": {name: round(median(of[name] for of in rounds), 1) for name in STATES},
            "share_of_nothing": {name: round(median(found), 4) for name, found in shares.items()},
            "quartiles": {
                name: [round(each, 4) for each in quantiles(found, n=4)[::2]] for name, found in shares.items()
            },
            "explained": {
                clients: {
                    share: round(median(of[share] for of in found), 4) for share in ("share_of_mean", "share_of_p50")
                }
                | {"processes": found}
                for clients, found in explained.items()
            },
            "asked": {"metrics": 0.99, "JSON logs and traces": 0.98, "explained": 0.95},
            "rounds": rounds,
            "machine": machine.describe(),
        },
        arguments.output,
    )


@contextmanager
def _sink() -> Iterator[int]:
    """The port of a collector of traces that drops them."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", _SINK, str(port)]) as collector:
        yield port
        collector.kill()


@contextmanager
def _running(model: Path, sink: int) -> Iterator[tuple[Served, Callable[[str], None]]]:
    """The service, and what switches it to a state."""
    with TemporaryDirectory() as home:
        state = Path(home, "state")
        hook = f"{HIDE_OPENVINO}STATE, STATES = {str(state)!r}, {STATES!r}\n{_SWITCH}"
        variables = {
            "ARCFACE_LANES": "2",
            "ARCFACE_LOG_FORMAT": "json",
            "ARCFACE_ACCESS_LOG": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink}",
        }
        with served(ROOT / "src", Path(home), str(model), hook=hook, variables=variables) as service:

            def switch(name: str) -> None:
                state.write_text(name)
                os.kill(service.pid, signal.SIGUSR1)
                while state.exists():
                    time.sleep(0.01)

            yield service, switch


def _load(service: Served, pictures: Sequence[bytes], clients: int, seconds: float) -> LoadReport:
    address = Address("127.0.0.1", service.port)
    requests = [embed_request(address, picture) for picture in pictures]
    report = closed_loop(address, requests, clients=clients, seconds=seconds, warm_up_seconds=1)
    if report.failed or report.refused or not report.latency_ms:
        sys.exit(f"Requests failed: {report.failed or report.refused}.")
    return report


def _explained(service: Served, pictures: Sequence[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """The stages' means by `/metrics`, and their sum as a share of the time that the callers measured."""
    say(f"what the stages explain, {clients} clients")
    before = _scrape(service)
    report = _load(service, pictures, clients, seconds)
    after = _scrape(service)
    means = {}
    for stage in STAGES:
        total, count = (
            after[f'arcface_stage_seconds_{kind}{{stage="{stage}"}}']
            - before.get(f'arcface_stage_seconds_{kind}{{stage="{stage}"}}', 0)
            for kind in ("sum", "count")
        )
        means[stage] = total / count * 1000
    assert report.latency_ms is not None
    whole = sum(means.values())
    return {
        "stages_mean_ms": {stage: round(ms, 3) for stage, ms in means.items()},
        "sum_ms": round(whole, 3),
        "caller_mean_ms": report.latency_ms.mean,
        "caller_p50_ms": report.latency_ms.p50,
        "share_of_mean": round(whole / report.latency_ms.mean, 4),
        "share_of_p50": round(whole / report.latency_ms.p50, 4),
    }


def _scrape(service: Served) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics") as answer:
        text = answer.read().decode()
    return {found[1]: float(found[2]) for found in re.finditer(r"^(arcface_\S+) (\S+)$", text, re.MULTILINE)}


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8, help="with each process (default 8)")
    parser.add_argument("--seconds", type=float, default=3, help="for each load (default 3)")
    recogniser.add_option(parser)
    faces.add_option(parser)
    return parser


if __name__ == "__main__":
    main()
