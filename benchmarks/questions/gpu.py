"""How fast is the model alone on an NVIDIA card, and how much of that reaches the callers?

    benchmarks/gpu.sh [OUTPUT.json]                       makes the environment and the model, then runs this:
    python -m benchmarks.questions.gpu build/iresnet100.onnx --output benchmarks/results/gpu.json
    python -m benchmarks.questions.gpu MODEL.onnx --device cpu     a dry run of this script, where there is no such card

The bare session on CUDA, and on TensorRT where it loads, in float32 and float16 at batch 1, 8 and 64; the service on
CUDA in float16, with single requests and with batch requests, by one process and by several: one core reads and
answers fewer pictures than a large card embeds. Interleaved rounds, medians, and the service's throughput as a share of
the bare session's. Whatever would not really run on the card ends the run with a sentence.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcface_api.arrays import Crop
from arcface_api.bench.connection import Address, raw_request
from arcface_api.errors import ArcFaceError
from arcface_api.session import Session
from arcface_api.session.onnx_gpu import CUDA_PROVIDER, TENSORRT_PROVIDER
from arcface_api.settings import Device, Precision
from benchmarks.lib import bare, faces, machine, options, recogniser
from benchmarks.lib.bare import medians
from benchmarks.lib.load import batch_request, closed_loop, embed_request
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, ask, free_port, own_command, running_service, write_report

BATCHES = (1, 8, 64)
MAX_BATCH = max(BATCHES)
WORKERS = (1, 2, 4)
CLIENTS = 64
"""Of single requests, for each worker: as many as fill a batch."""
BATCH_CLIENTS = 8
"""Of batch requests, for each worker: one batch runs, one is prepared, the others are received and decoded."""
START_SECONDS = 900.0


@dataclass(frozen=True)
class Way:
    """One way to run the model."""

    device: Device
    precision: Precision
    provider: str | None
    """What it has to run on; None: whatever (the dry run)."""

    def __str__(self) -> str:
        return f"{self.device} {self.precision}"


CUDA = tuple(Way("cuda", precision, CUDA_PROVIDER) for precision in ("float32", "float16"))
TENSORRT = tuple(Way("tensorrt", precision, TENSORRT_PROVIDER) for precision in ("float32", "float16"))
CPU = (Way("cpu", "float32", None),)


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    has_gpu = arguments.device == "cuda"
    gpus = describe_gpus() if has_gpu else None
    model = recogniser.find(arguments.model)
    ways = CUDA if has_gpu else CPU
    served = ways[-1]
    sessions = {way: open_bare(model, way) for way in ways}
    extra, not_measured = open_tensorrt(model) if has_gpu else ({}, None)
    sessions |= extra
    pictures = faces.load(arguments.faces, MAX_BATCH)
    crops = [faces.decoded(picture) for picture in pictures]
    bare_rounds: dict[Way, list[dict[int, dict[str, Any]]]] = {way: [] for way in sessions}
    service_rounds: dict[int, list[dict[str, dict[str, Any]]]] = {}
    health: dict[int, dict[str, Any]] = {}
    for workers in arguments.workers:
        beside = [served] if service_rounds else list(sessions)  # the others once are enough
        rounds = service_rounds[workers] = []
        with start_service(model, served, workers, pictures[0], arguments.serve_options) as service:
            health[workers] = check_service(service.address, served, pictures)
            for number in range(arguments.rounds):
                for way in beside:
                    say(f"round {number + 1} of {arguments.rounds}: bare session, {way}")
                    bare_rounds[way].append(measure_bare(sessions[way], crops, arguments.seconds))
                say(f"round {number + 1} of {arguments.rounds}: service, {workers} workers")
                rounds.append(measure_service(service.address, workers, pictures, arguments.seconds))
    bare_medians = {str(way): medians(rounds) for way, rounds in bare_rounds.items()}
    service_medians = {workers: medians(rounds) for workers, rounds in service_rounds.items()}
    most = bare_medians[str(served)][MAX_BATCH]["faces_per_second"]
    for loads in service_medians.values():
        for figures in loads.values():
            figures[f"of_bare_at_{MAX_BATCH}"] = round(figures["faces_per_second"] / most, 3)
    all_loads = [load for rounds in service_rounds.values() for loads in rounds for load in loads.values()]
    failed = [load["failed"] for load in all_loads if load["failed"]]
    write_report(
        {
            "benchmark": "gpu",
            "gpus": gpus,
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "bare": bare_medians,
            "tensorrt_not_measured": not_measured,
            "service_by_workers": service_medians,
            "health_by_workers": health,
            "serve_options": arguments.serve_options,
            "failed": failed,
            "all_rounds": {
                "bare": {str(way): rounds for way, rounds in bare_rounds.items()},
                "service_by_workers": service_rounds,
            },
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if failed:
        sys.exit("Requests failed: the figures mean little.")


def describe_gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each card; ends the script where there is none."""
    wanted = ("name", "driver_version", "memory.total")
    command = ["nvidia-smi", f"--query-gpu={','.join(wanted)}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"There is no NVIDIA GPU to measure: {error}. Run this on a machine with a card and its driver.")
    return [dict(zip(wanted, map(str.strip, line.split(",")), strict=True)) for line in found.strip().splitlines()]


def open_bare(model: Path, way: Way) -> Session:
    """The service's own session; ends the script where it would not run as it should."""
    try:
        return _open(model, way)
    except ArcFaceError as error:
        sys.exit(f"{way} cannot be measured: {error}")


def open_tensorrt(model: Path) -> tuple[dict[Way, Session], str | None]:
    """TensorRT's sessions, or why there are none: it is no part of the CUDA environment."""
    try:
        return {way: _open(model, way) for way in TENSORRT}, None
    except ArcFaceError as error:
        say(f"TensorRT is not measured: {error}")
        return {}, str(error)


def _open(model: Path, way: Way) -> Session:
    say(f"opening the bare session, {way} ...")
    session = bare.own_session(model, MAX_BATCH, device=way.device, precision=way.precision)
    if (way.provider or session.provider, way.precision) != (session.provider, session.precision):
        sys.exit(f"{way} was asked for, and {session.provider} in {session.precision} is what would be measured.")
    return session


def measure_bare(session: Session, crops: Sequence[Crop], seconds: float) -> dict[int, dict[str, Any]]:
    """The model alone, at each batch size."""
    return {
        batch: bare.summary(bare.time_batches(session.run, crops, batch, seconds), batch) | {"mean_batch": batch}
        for batch in BATCHES
    }


def start_service(
    model: Path, way: Way, workers: int, picture: bytes, options: Sequence[str]
) -> AbstractContextManager[Service]:
    """A service that takes the model as the bare session of that way does."""
    port = free_port()
    # Each worker has room for all callers, should they all come to it: refusals would be figures of the queue.
    capacity = 2 * BATCH_CLIENTS * workers * MAX_BATCH * workers
    own = ["--device", way.device, "--precision", way.precision, "--max-batch", str(MAX_BATCH)]
    own += ["--workers", str(workers), "--queue-capacity", str(capacity)]
    command = own_command(model, port, *options, *own)
    say(f"starting the service, {workers} workers ...")
    first = embed_request(Address("127.0.0.1", port), picture)
    return running_service(command, port, first, start_seconds=START_SECONDS)


def check_service(address: Address, way: Way, pictures: Sequence[bytes]) -> dict[str, Any]:
    """What `/health` says; ends the script where that is another provider, or a batch request is not served whole."""
    health = json.loads(ask(address, raw_request(address, "GET", "/health"))[1])
    if (way.provider or health["provider"], way.precision) != (health["provider"], health["precision"]):
        sys.exit(f"{way} was asked for, and the service runs on {health['provider']} in {health['precision']}.")
    status, body = ask(address, batch_request(address, pictures))
    results = json.loads(body).get("results", [])
    if sum("embedding" in result for result in results) != len(pictures):
        sys.exit(f"A batch request of {len(pictures)} pictures was answered with {status}: {body[:300]!r}")
    return health


def measure_service(
    address: Address, workers: int, pictures: Sequence[bytes], seconds: float
) -> dict[str, dict[str, Any]]:
    """Single requests, then batch requests."""
    singles = [embed_request(address, picture) for picture in pictures]
    batches = [batch_request(address, pictures)]
    return {
        f"/embed, {CLIENTS * workers} clients": _load(address, singles, CLIENTS * workers, 1, seconds),
        f"/embed/batch, {BATCH_CLIENTS * workers} clients, {len(pictures)} files": _load(
            address, batches, BATCH_CLIENTS * workers, len(pictures), seconds
        ),
    }


def _load(
    address: Address, requests: Sequence[bytes], clients: int, pictures_each: int, seconds: float
) -> dict[str, Any]:
    report = closed_loop(address, requests, clients=clients, seconds=seconds, warm_up_seconds=2)
    latency = report.latency_ms
    return {
        "faces_per_second": round(report.served_per_second * pictures_each, 3),
        "p50_ms": latency.p50 if latency else None,
        "p99_ms": latency.p99 if latency else None,
        "mean_batch": report.mean_batch,
        "client_cpu_us": report.costs["client_cpu_us_per_request"],
        "mean_stages_ms": {name: stage.mean for name, stage in report.stages_ms.items()},
        "failed": report.failed | report.refused,
    }


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run (default cuda)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=WORKERS, help="processes to measure the service with (default 1 2 4)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="for each batch size and each load (default 5)")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
