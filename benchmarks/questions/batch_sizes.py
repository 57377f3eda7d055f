"""How much of the model's speed reaches the callers?

    python -m benchmarks.questions.batch_sizes --faces FOLDER --output benchmarks/results/batch-sizes-iresnet100.json

The bare session at each batch size, with the service's lanes and with one, and the service with ever more clients, in
interleaved rounds; medians, and the service's throughput as a share of the bare session's with the same lanes: at the
mean batch that the service reached, and at batch 8. Fewer clients than lanes cannot keep all of them busy: at their
batch they are compared with the one lane that has all threads.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from arcface_api.bench.connection import Address, raw_request
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.bare import medians, run_bare
from benchmarks.lib.load import closed_loop, embed_request
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, ask, free_port, own_command, running_service, write_report

BATCHES = (1, 2, 4, 8, 16)
CLIENTS = (1, 2, 4, 8, 16, 32)
REFERENCE_BATCH = 8


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    port = free_port()
    requests = [embed_request(Address("127.0.0.1", port), picture) for picture in faces.load(arguments.faces)]
    bare_rounds: list[dict[str, Any]] = []
    one_lane_rounds: list[dict[str, Any]] = []
    service_rounds: list[dict[int, dict[str, Any]]] = []
    with running_service(own_command(model, port, *arguments.serve_options), port, requests[0]) as service:
        about = json.loads(ask(service.address, raw_request(service.address, "GET", "/health"))[1])
        lanes, threads = about["lanes"], about["threads"]

        def bare_session(number: int, lanes: int) -> dict[str, Any]:
            say(f"round {number + 1} of {arguments.rounds}: bare session, lanes: {lanes}")
            return run_bare(model, arguments.faces, BATCHES, arguments.seconds, threads=threads, lanes=lanes)

        for number in range(arguments.rounds):
            bare_rounds.append(bare_session(number, lanes))
            one_lane_rounds.append(bare_session(number, 1) if lanes > 1 else bare_rounds[-1])
            service_rounds.append({})
            for clients in CLIENTS:
                say(f"round {number + 1} of {arguments.rounds}: service, {clients} clients")
                service_rounds[-1][clients] = measure(service, requests, clients, arguments.seconds)
    bare, one_lane = (
        medians([{batch["batch"]: batch for batch in found["batches"]} for found in rounds])
        for rounds in (bare_rounds, one_lane_rounds)
    )
    service_medians = medians(service_rounds)
    for clients, figures in service_medians.items():
        figures.update(shares(figures, one_lane if clients < lanes else bare, bare))
    failed = [load["failed"] for load_round in service_rounds for load in load_round.values() if load["failed"]]
    write_report(
        {
            "benchmark": "batch_sizes",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "lanes": lanes,
            "threads": threads,
            "has_wide_lane": about["has_wide_lane"],
            "bare": bare,
            "bare_one_lane": one_lane,
            "service": service_medians,
            "failed": failed,
            "all_rounds": {"bare": bare_rounds, "bare_one_lane": one_lane_rounds, "service": service_rounds},
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if failed:
        sys.exit("Requests failed: the figures mean little.")


def measure(service: Service, requests: Sequence[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """The service under a closed loop."""
    report = closed_loop(service.address, requests, clients=clients, seconds=seconds, warm_up_seconds=2)
    latency = report.latency_ms
    return {
        "faces_per_second": report.served_per_second,
        "p50_ms": latency.p50 if latency else None,
        "p99_ms": latency.p99 if latency else None,
        "mean_batch": report.mean_batch,
        "failed": report.failed | report.refused,
    }


def shares(service: dict[str, Any], at_batch: dict[int, Any], bare: dict[int, Any]) -> dict[str, float | None]:
    """The service's throughput over that of bare sessions: at the batch it reached (interpolated), and at batch 8."""
    rates = [at_batch[batch]["faces_per_second"] for batch in BATCHES]
    rate, reached = service["faces_per_second"], service["mean_batch"]
    return {
        "of_bare_at_mean_batch": round(float(rate / np.interp(reached, BATCHES, rates)), 3) if reached else None,
        f"of_bare_at_{REFERENCE_BATCH}": round(rate / bare[REFERENCE_BATCH]["faces_per_second"], 3),
    }


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="for each batch size and each load (default 10)")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
