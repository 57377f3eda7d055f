"""What does it cost to decode in processes of their own? The service with and without, for one caller and for many.

    python benchmarks/isolation.py --recogniser edgeface_xs.onnx --faces FOLDER --output results/isolation.json

In every round both modes are started, sent load by 16 clients and by one, and stopped; who is first changes. A round is
one comparison, and figures are medians of the rounds. CPU is that of all the service's processes, and less moved than
throughput by what else the machine does. Exit status 1 where the cost is more than decides for `process` as the default
(docs/adr/0012-decoder-process.md).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import faces
import machine
import recogniser
from arcface_api.bench import Address, UsageWatch, closed_loop, embed_request
from recogniser import say
from service import RunningService, free_port, own_command, write_report

MODES = ("none", "process")
MANY, ALONE = 16, 1
MAX_LOSS = 0.03
"""Of throughput with many clients."""
MAX_ADDED_MS = 0.3
"""To the median latency of a lone client."""

Figures = dict[str, float]


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    pictures = faces.load(arguments.faces, grow=arguments.grow)
    rounds: list[dict[str, dict[str, Figures]]] = []
    for number in range(arguments.rounds):
        order = MODES if number % 2 else MODES[::-1]
        say(f"round {number + 1} of {arguments.rounds}: {', then '.join(order)}")
        rounds.append({mode: serve(model, mode, pictures, arguments.seconds) for mode in order})
    cost = costs(rounds)
    write_report(
        {
            "benchmark": "isolation",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "mean_bytes": round(sum(map(len, pictures)) / len(pictures)),
            "seconds": arguments.seconds,
            "cost": cost,
            "modes": {mode: medians([of[mode] for of in rounds]) for mode in MODES},
            "rounds": rounds,
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if cost["decides_for"] != "process":
        sys.exit("It costs more than allowed for the default: see `cost`.")


def serve(model: Path, mode: str, pictures: Sequence[bytes], seconds: float) -> dict[str, Figures]:
    """Start the service, send it load by many clients and by one, stop it."""
    port = free_port()
    requests = [embed_request(Address("127.0.0.1", port), picture) for picture in pictures]
    told = {}
    with RunningService(own_command(model, port, "--decode-isolation", mode), port, requests[0]) as service:
        for clients in (MANY, ALONE):
            with UsageWatch(service.pid) as watch:
                report = closed_loop(service.address, requests, clients=clients, seconds=seconds, warm_up_seconds=2)
            if report.failed or report.refused or report.latency_ms is None:
                sys.exit(f"Requests failed: {report.failed or report.refused}.")
            told[f"{clients} clients" if clients > 1 else "1 client"] = {
                "faces_per_second": report.served_per_second,
                "p50_ms": report.latency_ms.p50,
                "p99_ms": report.latency_ms.p99,
                "decode_ms": report.stages_ms["decode"].mean,
                "cpu_us_per_face": round(watch.cpu_seconds / report.costs["attempts"] * 1e6, 1),
            }
        pss = service.pss_bytes()
    told["memory"] = {"pss_mb": round(pss / 1e6, 1)} if pss else {}
    return told


def costs(rounds: Sequence[dict[str, dict[str, Figures]]]) -> dict[str, Any]:
    """What `process` costs: medians of what each round says, and all that they say."""

    def each(load: str, key: str, *, is_ratio: bool) -> list[float]:
        pairs = [(of["none"][load][key], of["process"][load][key]) for of in rounds]
        return [round(with_ / without if is_ratio else with_ - without, 4) for without, with_ in pairs]

    throughput = each("16 clients", "faces_per_second", is_ratio=True)
    added = each("1 client", "p50_ms", is_ratio=False)
    cpu_many = each("16 clients", "cpu_us_per_face", is_ratio=False)
    cpu_share = each("16 clients", "cpu_us_per_face", is_ratio=True)
    cpu_alone = each("1 client", "cpu_us_per_face", is_ratio=False)
    is_cheap = median(throughput) >= 1 - MAX_LOSS and median(added) <= MAX_ADDED_MS
    return {
        "throughput_ratio_16_clients": median(throughput),
        "throughput_ratio_at_least": 1 - MAX_LOSS,
        "added_p50_ms_1_client": median(added),
        "added_p50_ms_at_most": MAX_ADDED_MS,
        "cpu_ratio_16_clients": median(cpu_share),
        "added_cpu_us_16_clients": median(cpu_many),
        "added_cpu_us_1_client": median(cpu_alone),
        "decides_for": "process" if is_cheap else "none",
        "each_round": {
            "throughput_ratio_16_clients": throughput,
            "added_p50_ms_1_client": added,
            "cpu_ratio_16_clients": cpu_share,
            "added_cpu_us_1_client": cpu_alone,
        },
    }


def medians(rounds: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """The median of every figure of one mode."""
    return {
        load: {key: round(median(of[load][key] for of in rounds), 3) for key in figures}
        for load, figures in rounds[0].items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    recogniser.add_option(parser)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10, help="for each load (default 10)")
    parser.add_argument("--grow", type=float, default=1.0, help="LFW's boxes are cut so much larger (default 1)")
    parser.add_argument("--output", type=Path)
    faces.add_option(parser)
    return parser


if __name__ == "__main__":
    main()
