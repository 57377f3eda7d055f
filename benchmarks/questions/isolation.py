"""What does it cost to decode in processes of their own? The service with and without, for one caller and for many.

    python -m benchmarks.questions.isolation --recogniser MODEL.onnx --faces FOLDER --output results/isolation.json

In every round both services are started; then they take turns, so that a machine that slows down slows both, and who is
first changes. A turn is one comparison, and figures are medians of all turns. CPU is that of all the service's
processes, and less moved than throughput by what else the machine does. Exit status 1 where the cost is more than
decides for `process` as the default (docs/adr/0012-decoder-process.md).
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from arcface_api.bench.connection import Address
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.load import closed_loop, embed_request
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, free_port, own_command, running_service, write_report
from benchmarks.lib.usage import UsageWatch, pss_bytes

MODES = ("none", "process")
MANY, ALONE = 16, 1
MAX_LOSS = 0.03
"""Of throughput with many clients."""
MAX_ADDED_MS = 0.3
"""To the median latency of a lone client."""

Figures = dict[str, float]
Turn = dict[str, dict[str, Figures]]
"""Of each mode, figures of each load."""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    pictures = faces.load(arguments.faces, grow=arguments.grow)
    turns: list[Turn] = []
    memory: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(arguments.rounds):
        say(f"round {number + 1} of {arguments.rounds}")
        with ExitStack() as running:
            services = {mode: running.enter_context(start(model, mode, pictures[0])) for mode in MODES}
            for turn in range(arguments.turns):
                order = MODES if (number + turn) % 2 else MODES[::-1]
                found: Turn = {mode: {} for mode in MODES}
                for clients in (MANY, ALONE):
                    for mode in order:
                        found[mode][_load(clients)] = load(services[mode], pictures, clients, arguments.seconds)
                turns.append(found)
            for mode, service in services.items():
                memory[mode].append((pss_bytes(service.pid) or 0) / 1e6)
    cost = costs(turns)
    write_report(
        {
            "benchmark": "isolation",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "mean_bytes": round(sum(map(len, pictures)) / len(pictures)),
            "rounds": arguments.rounds,
            "turns_a_round": arguments.turns,
            "seconds": arguments.seconds,
            "cost": cost,
            "modes": {mode: medians([of[mode] for of in turns]) for mode in MODES},
            "pss_mb": {mode: round(median(of), 1) for mode, of in memory.items()},
            "turns": turns,
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if cost["decides_for"] != "process":
        sys.exit("It costs more than allowed for the default: see `cost`.")


def start(model: Path, mode: str, picture: bytes) -> AbstractContextManager[Service]:
    """A service that decodes in this mode."""
    port = free_port()
    first = embed_request(Address("127.0.0.1", port), picture)
    return running_service(own_command(model, port, "--decode-isolation", mode, "--log-level", "error"), port, first)


def load(service: Service, pictures: Sequence[bytes], clients: int, seconds: float) -> Figures:
    """A closed loop, and what it cost the service's processes together."""
    requests = [embed_request(service.address, picture) for picture in pictures]
    with UsageWatch(service.pid) as watch:
        report = closed_loop(service.address, requests, clients=clients, seconds=seconds, warm_up_seconds=1)
    if report.failed or report.refused or report.latency_ms is None:
        sys.exit(f"Requests failed: {report.failed or report.refused}.")
    return {
        "faces_per_second": report.served_per_second,
        "p50_ms": report.latency_ms.p50,
        "p99_ms": report.latency_ms.p99,
        "decode_ms": report.stages_ms["decode"].mean,
        "cpu_us_per_face": round(watch.cpu_seconds / report.costs["attempts"] * 1e6, 1),
    }


def _load(clients: int) -> str:
    return f"{clients} clients" if clients > 1 else "1 client"


def costs(turns: Sequence[Turn]) -> dict[str, Any]:
    """What `process` costs: medians of what each turn says, and the quarters between which half of them lie."""

    def each(load: str, key: str, *, is_ratio: bool) -> list[float]:
        pairs = [(of["none"][load][key], of["process"][load][key]) for of in turns]
        return [round(with_ / without if is_ratio else with_ - without, 4) for without, with_ in pairs]

    throughput = each("16 clients", "faces_per_second", is_ratio=True)
    added = each("1 client", "p50_ms", is_ratio=False)
    cpu_many = each("16 clients", "cpu_us_per_face", is_ratio=False)
    cpu_share = each("16 clients", "cpu_us_per_face", is_ratio=True)
    cpu_alone = each("1 client", "cpu_us_per_face", is_ratio=False)
    is_cheap = median(throughput) >= 1 - MAX_LOSS and median(added) <= MAX_ADDED_MS
    found = {
        "throughput_ratio_16_clients": throughput,
        "added_p50_ms_1_client": added,
        "cpu_ratio_16_clients": cpu_share,
        "added_cpu_us_16_clients": cpu_many,
        "added_cpu_us_1_client": cpu_alone,
    }
    return {
        **{name: round(median(values), 4) for name, values in found.items()},
        "half_of_the_turns_lie_within": {
            name: [round(float(quarter), 4) for quarter in np.quantile(values, (0.25, 0.75))]
            for name, values in found.items()
        },
        "throughput_ratio_at_least": 1 - MAX_LOSS,
        "added_p50_ms_at_most": MAX_ADDED_MS,
        "decides_for": "process" if is_cheap else "none",
    }


def medians(turns: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """The median of every figure of one mode."""
    return {
        load: {key: round(median(of[load][key] for of in turns), 3) for key in figures}
        for load, figures in turns[0].items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    recogniser.add_option(parser)
    parser.add_argument("--rounds", type=int, default=5, help="starts of both services (default 5)")
    parser.add_argument("--turns", type=int, default=4, help="of each in a round (default 4)")
    parser.add_argument("--seconds", type=float, default=4, help="for each load (default 4)")
    parser.add_argument("--grow", type=float, default=1.0, help="LFW's boxes are cut so much larger (default 1)")
    faces.add_option(parser)
    return parser


if __name__ == "__main__":
    main()
