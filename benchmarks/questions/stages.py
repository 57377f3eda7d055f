"""Where do one request's time and CPU go?

    python -m benchmarks.questions.stages --faces FOLDER --output benchmarks/results/stages-iresnet100.json

Two questions. *The road*: the service with a model that costs nothing and one inference thread (more of them would spin
while they wait), so that HTTP, decoding and the rest are all there is; the CPU of each part is also measured alone, in
this process. *The lone request*: with the real model, how much longer does one caller wait for HTTP than for the bare
session at batch 1? Interleaved rounds, medians; exit status 1 where that is more than 2 ms.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from arcface_api import wire
from arcface_api.arrays import Features
from arcface_api.bench.connection import Address, raw_request
from arcface_api.image import ImageLimits, decode, stretch
from benchmarks.lib import bare, faces, machine, options, recogniser
from benchmarks.lib.bare import run_bare
from benchmarks.lib.environments import ROOT
from benchmarks.lib.load import closed_loop, embed_request
from benchmarks.lib.networks import linear
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, free_port, own_command, running_service, write_report
from benchmarks.lib.usage import UsageWatch

CLIENTS = (1, 16)
MAX_HTTP_MS = 2.0
"""What HTTP may add to a lone request's time."""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    pictures = faces.load(arguments.faces)
    road = measure_road(pictures, arguments.seconds)
    lone = measure_lone(model, pictures, arguments)
    write_report(
        {
            "benchmark": "stages",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "road": road,
            "lone_request": lone,
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if lone["http_ms"] > MAX_HTTP_MS:
        sys.exit(f"HTTP adds {lone['http_ms']} ms to a lone request; at most {MAX_HTTP_MS} were promised.")


def measure_road(pictures: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """The service on a model that costs nothing: stages, CPU of service and client, and of each part alone."""
    path = ROOT / "build" / "linear.onnx"
    path.parent.mkdir(exist_ok=True)
    onnx.save(linear(112, 112, 512), path)
    port = free_port()
    address = Address("127.0.0.1", port)
    embeds = [embed_request(address, picture) for picture in pictures]
    found: dict[str, Any] = {}
    with running_service(own_command(path, port, "--threads", "1", "--device", "cpu"), port, embeds[0]) as service:
        for clients in CLIENTS:
            say(f"the road: {clients} clients")
            livez = load(service, [raw_request(address, "GET", "/livez")], clients, seconds / 2)
            found[f"{clients} clients"] = {
                **load(service, embeds, clients, seconds),
                "livez_cpu_us": livez["service_cpu_us"],
            }
    alone = parts_alone(path, pictures)
    most = found[f"{max(CLIENTS)} clients"]
    return {
        **found,
        "alone_us": alone,
        "rest_us": round(most["service_cpu_us"] - most["livez_cpu_us"] - sum(alone.values()), 1),
        "note": "rest: reading the form, queue, threads and waking each other; /livez stands for HTTP and framework",
    }


def load(service: Service, requests: Sequence[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """A closed loop, and the CPU that it cost both sides."""
    with UsageWatch(service.pid) as watch:
        report = closed_loop(service.address, requests, clients=clients, seconds=seconds, warm_up_seconds=1)
    if report.failed or report.refused or not report.latency_ms:
        sys.exit(f"Requests failed: {report.failed or report.refused}.")
    stages = {name: stage.mean for name, stage in report.stages_ms.items()}
    if "total" in stages:
        stages["encode and waking"] = round(
            stages["total"] - sum(ms for name, ms in stages.items() if name != "total"), 3
        )
        stages["outside the operation"] = round(report.latency_ms.mean - stages["total"], 3)
    return {
        "requests_per_second": report.served_per_second,
        "p50_ms": report.latency_ms.p50,
        "p99_ms": report.latency_ms.p99,
        "mean_ms": report.latency_ms.mean,
        "mean_stages_ms": stages,
        "mean_batch": report.mean_batch,
        "service_cpu_us": round(watch.cpu_seconds / report.costs["attempts"] * 1e6, 1),
        "client_cpu_us": report.costs["client_cpu_us_per_request"],
    }


def parts_alone(model: Path, pictures: Sequence[bytes]) -> dict[str, float]:
    """CPU of what a request needs, each part alone in a loop: microseconds of this process's CPU for one picture."""
    limits = ImageLimits(max_pixels=50_000_000)
    images = [decode(picture, limits).image for picture in pictures]
    crops = [stretch(image, 112, 112) for image in images]
    run = bare.open_own(model, (1, 8), threads=1)
    rows: Features = run(crops[:8])
    about = {"embedding_shape": [512], "embedding_dim": 512, "model": "linear", "input_size": "112x112"}
    return {
        "decode": _cpu_us(lambda n: decode(pictures[n % len(pictures)], limits)),
        "stretch": _cpu_us(lambda n: stretch(images[n % len(images)], 112, 112)),
        "tensor and model, batch 8": round(_cpu_us(lambda _: run(crops[:8])) / 8, 1),
        "encode": _cpu_us(lambda n: wire.json_bytes({"embedding": rows[n % len(rows)], **about})),
    }


def measure_lone(model: Path, pictures: Sequence[bytes], arguments: argparse.Namespace) -> dict[str, Any]:
    """One caller on the real model, against the bare session at batch 1."""
    port = free_port()
    requests = [embed_request(Address("127.0.0.1", port), picture) for picture in pictures]
    rounds = []
    with running_service(own_command(model, port), port, requests[0]) as service:
        for number in range(arguments.rounds):
            say(f"a lone request: round {number + 1} of {arguments.rounds}")
            batch = run_bare(model, arguments.faces, (1,), arguments.seconds)["batches"][0]
            alone = load(service, requests, 1, arguments.seconds)
            rounds.append(
                {
                    "bare_p50_ms": batch["p50_ms"],
                    "p50_ms": alone["p50_ms"],
                    "http_ms": round(alone["p50_ms"] - batch["p50_ms"], 3),
                    "mean_stages_ms": alone["mean_stages_ms"],
                }
            )
    medians = {key: round(median(of[key] for of in rounds), 3) for key in ("bare_p50_ms", "p50_ms", "http_ms")}
    return {**medians, "http_ms_at_most": MAX_HTTP_MS, "rounds": rounds}


def _cpu_us(call: Callable[[int], object]) -> float:
    """Mean CPU microseconds of a call, given its number."""
    for number in range(50):
        call(number)
    count, begin, end = 0, time.process_time(), time.monotonic() + 1
    while time.monotonic() < end:
        call(count)
        count += 1
    return round((time.process_time() - begin) / count * 1e6, 1)


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="for each load (default 10)")
    recogniser.add_option(parser)
    faces.add_option(parser)
    return parser


if __name__ == "__main__":
    main()
