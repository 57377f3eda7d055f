"""How does the service compare? Peers and the bare model in one interleaved run: same model, cores, pictures, clients.

    python -m benchmarks.questions.peers --faces FOLDER --output benchmarks/results/peers-iresnet100.json

In every round each peer is started, sent load by few and by many clients, and stopped before the next one starts;
figures are medians of the rounds. A plot is drawn beside the output. Peers live in environments of their own under
build/peers/.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from arcface_api.bench.connection import Address
from benchmarks.lib import bare, faces, machine, options, recogniser
from benchmarks.lib.candidates import BARE, SERVICES, Peer
from benchmarks.lib.environments import PEERS, ROOT
from benchmarks.lib.load import LoadReport, closed_loop
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import free_port, running_service, write_report
from benchmarks.lib.usage import UsageWatch, pss_bytes, usage_of

BARE_BATCHES = (1, 8)
MIN_COSINE = 0.99
"""Between any two peers' embeddings of one picture; bfloat16 gives 0.999. Less, and they did not do the same work."""
VERSIONS = ("onnxruntime", "openvino", "insightface", "litserve", "mosec", "fastapi", "uvicorn", "numpy")

Round = dict[str, Any]
"""What one peer showed in one round."""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    pictures = faces.load(arguments.faces)
    names = [name for name in [*SERVICES, *BARE] if not arguments.peers or name in arguments.peers]
    for name in names:
        if name in SERVICES:
            say(f"{name}: {SERVICES[name].python}")
    rounds: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(arguments.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:  # nobody is always the first, or always after the same one
            say(f"round {number + 1} of {arguments.rounds}: {name}")
            if name in SERVICES:
                rounds[name].append(serve(SERVICES[name], name, model, pictures, arguments))
            else:
                rounds[name].append(run_bare(BARE[name], model, arguments.faces, arguments.seconds))
        check_same_work({name: of[-1]["embedding"] for name, of in rounds.items() if name in SERVICES})
    report = {
        "benchmark": "peers",
        "recogniser": recogniser.describe(model),
        "faces": faces.describe(arguments.faces),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "peers": {name: medians(name, of) for name, of in rounds.items()},
        "machine": machine.describe(),
    }
    report["ratios"] = ratios(report["peers"])
    write_report(report, arguments.output)
    if arguments.output:
        draw(arguments.output)
    if failed := [
        name for name, of in rounds.items() if any(load["failed"] for r in of for load in r["loads"].values())
    ]:
        sys.exit(f"Requests failed at {', '.join(failed)}: their figures mean little.")


def serve(peer: Peer, name: str, model: Path, pictures: Sequence[bytes], arguments: argparse.Namespace) -> Round:
    """Start a peer, send it load by each number of clients, stop it."""
    port = free_port()
    requests = [peer.request(Address("127.0.0.1", port), picture) for picture in pictures]
    log = ROOT / "build" / "peers" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)  # without a peer that has an environment, nobody has made it
    variables = {"PEER_MODEL": str(model), "PEER_ENGINE": peer.engine}
    loads = {}
    with running_service(
        peer.command(peer.python, model, port), port, requests[0], log=log, variables=variables
    ) as service:
        for clients in arguments.clients:
            with UsageWatch(service.pid) as watch:
                report = closed_loop(
                    service.address,
                    requests,
                    clients=clients,
                    seconds=arguments.seconds,
                    warm_up_seconds=2,
                    timeout_seconds=120,
                )
            loads[str(clients)] = load_figures(report, watch)
        rss, pss = usage_of(service.pid).rss_bytes, pss_bytes(service.pid)
    return {
        "ready_seconds": round(service.ready_seconds, 3),
        "rss_mb": round(rss / 1e6, 1),
        "pss_mb": round(pss / 1e6, 1) if pss else None,
        "loads": loads,
        "embedding": json.loads(service.first_answer)["embedding"],
    }


def load_figures(report: LoadReport, watch: UsageWatch) -> dict[str, Any]:
    """What of a load is compared."""
    latency = report.latency_ms
    return {
        "faces_per_second": report.served_per_second,
        "p50_ms": latency.p50 if latency else None,
        "p99_ms": latency.p99 if latency else None,
        "mean_batch": report.mean_batch,
        "cpu_ms_per_face": round(watch.cpu_seconds * 1000 / max(1, report.costs["attempts"]), 3),
        "served": report.served,
        "failed": report.failed | report.refused,
    }


def run_bare(engine: str, model: Path, folder: Path | None, seconds: float) -> Round:
    """The model in a loop, in a process of its own."""
    result = bare.run_bare(model, folder, BARE_BATCHES, seconds, engine)
    loads = {f"batch {batch['batch']}": {**batch, "failed": {}} for batch in result["batches"]}
    return {"ready_seconds": result["ready_seconds"], "rss_mb": result["rss_mb"], "pss_mb": None, "loads": loads}


def check_same_work(embeddings: dict[str, list[float]]) -> None:
    """All embeddings of the first picture must agree, or the comparison is void."""
    name, reference = next(iter(embeddings.items()), ("", []))
    for other, embedding in embeddings.items():
        cosine = np.dot(reference, embedding) / (np.linalg.norm(reference) * np.linalg.norm(embedding))
        if not cosine >= MIN_COSINE:
            sys.exit(f"{name} and {other} give different embeddings of one picture (cosine {cosine:.4f}).")


def medians(name: str, rounds: Sequence[Round]) -> dict[str, Any]:
    """The median of every figure over the rounds, and the rounds."""

    def of(key: str, values: Sequence[dict[str, Any]]) -> float | None:
        known = [value[key] for value in values if value.get(key) is not None]
        return round(median(known), 3) if known else None

    figures = ("faces_per_second", "p50_ms", "p99_ms", "mean_batch", "cpu_ms_per_face")
    loads = {
        load: {key: value for key in figures if (value := of(key, [r["loads"][load] for r in rounds])) is not None}
        for load in rounds[0]["loads"]
    }
    peer = SERVICES.get(name)
    return {
        "about": peer.about if peer else "the model in a loop, without a service",
        "engine": peer.engine if peer else BARE[name],
        "versions": _versions(peer.python if peer else sys.executable),
        **{key: of(key, rounds) for key in ("ready_seconds", "rss_mb", "pss_mb")},
        "loads": loads,
        "rounds": [{key: value for key, value in r.items() if key != "embedding"} for r in rounds],
    }


def ratios(peers: dict[str, Any]) -> dict[str, Any]:
    """How many times better this service is than each peer; above 1 is better, except memory, where less is."""
    own = peers.get("arcface-api")
    if own is None:
        return {}
    result = {}
    for name, peer in peers.items():
        if name == "arcface-api" or name not in SERVICES:
            continue
        loads = {}
        for clients, mine in own["loads"].items():
            theirs = peer["loads"][clients]
            loads[f"{clients} clients"] = {
                "throughput": _ratio(mine.get("faces_per_second"), theirs.get("faces_per_second")),
                "p50": _ratio(theirs.get("p50_ms"), mine.get("p50_ms")),
                "p99": _ratio(theirs.get("p99_ms"), mine.get("p99_ms")),
            }
        result[name] = {**loads, "rss": _ratio(own["rss_mb"], peer["rss_mb"])}
    if "bare" in peers:
        for load, figures in peers["bare"]["loads"].items():
            many = max(mine["faces_per_second"] for mine in own["loads"].values())
            result[f"bare, {load}"] = {"throughput": _ratio(many, figures["faces_per_second"])}
    return result


def _ratio(one: float | None, other: float | None) -> float | None:
    """None where either is missing: a peer that served nothing must not cost the others their figures."""
    return round(one / other, 3) if one is not None and other else None


def draw(report: Path) -> None:
    """A plot beside the report; it needs matplotlib (extra `evaluate`)."""
    subprocess.run([sys.executable, str(PEERS / "plot.py"), report, report.with_suffix(".png")], check=True)


def _versions(python: str) -> dict[str, str]:
    code = (
        "import json, sys; from importlib.metadata import distributions;"
        "print(json.dumps({d.name.lower(): d.version for d in distributions()}))"
    )
    found = json.loads(subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {name: found[name] for name in VERSIONS if name in found}


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    recogniser.add_option(parser)
    parser.add_argument("--peers", nargs="+", choices=[*SERVICES, *BARE], help="only these")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="for each load (default 20)")
    faces.add_option(parser)
    return parser


if __name__ == "__main__":
    main()
