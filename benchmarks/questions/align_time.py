"""What do `align=auto` and `include_quality` add to the time of a face?

    python -m benchmarks.questions.align_time --faces FOLDER --output benchmarks/results/align-time-iresnet100.json

One service, asked for the same pictures without and with them, in interleaved rounds of a closed loop with one client
and with many. Time a face is the inverse of throughput; what is added is stated per round, and as their median.
Exit status 1 where one of them adds more than `MAX_ADDED_PERCENT` with many clients. Faces should be real ones: on
others the regressor is unsure, and nothing is aligned (`unsure` counts them).
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from arcface_api.bench.connection import Address, raw_request
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.load import closed_loop, embed_request
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, ask, free_port, own_command, running_service, write_report
from benchmarks.lib.usage import UsageWatch

WAYS = {
    "none": "/embed?align=none",
    "auto": "/embed?align=auto",
    "auto, quality": "/embed?align=auto&include_quality=true",
}
"""What is asked for, and the request that says so; compared with the first."""
CLIENTS = (1, 16)
GROW = 1.2
"""Of LFW's face boxes: with some background around them, as detectors are often set."""
MAX_ADDED_PERCENT = {"auto": 3.5, "auto, quality": 5.0}
"""With many clients."""

Round = dict[str, dict[str, Any]]
"""What each way showed in one round."""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    pictures = faces.load(arguments.faces, grow=GROW)
    port = free_port()
    address = Address("127.0.0.1", port)
    requests = {way: [embed_request(address, picture, path=path) for picture in pictures] for way, path in WAYS.items()}
    command = own_command(model, port, *arguments.serve_options)
    rounds: dict[int, list[Round]] = {clients: [] for clients in CLIENTS}
    with running_service(command, port, requests["auto"][0]) as service:
        health, info = (json.loads(ask(address, raw_request(address, "GET", path))[1]) for path in ("/health", "/info"))
        unsure = sum(bool(json.loads(ask(address, request)[1])["warnings"]) for request in requests["auto"])
        for number in range(arguments.rounds):
            for clients in CLIENTS:
                say(f"round {number + 1} of {arguments.rounds}, clients: {clients}")
                turn = number % len(WAYS)  # nobody is always the first
                order = [*WAYS][turn:] + [*WAYS][:turn]
                rounds[clients].append({way: load(service, requests[way], clients, arguments.seconds) for way in order})
    found = {f"{clients} clients": summary(of) for clients, of in rounds.items()}
    write_report(
        {
            "benchmark": "align_time",
            "recogniser": recogniser.describe(model),
            **{key: health[key] for key in ("provider", "precision", "threads")},
            "regressor_sha256": info["crop"]["regressor_sha256"],
            "faces": f"{faces.describe(arguments.faces)}, boxes x{GROW}",
            "pictures": len(pictures),
            "unsure": unsure,
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            **found,
            "machine": machine.describe(),
        },
        arguments.output,
    )
    for way, most in MAX_ADDED_PERCENT.items():
        added = found[f"{max(CLIENTS)} clients"][way]["added_percent"]
        if added > most:
            sys.exit(f"'{way}' adds {added} % to the time of a face; at most {most} were promised.")


def load(service: Service, requests: Sequence[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """A closed loop, and the CPU that it cost the service."""
    with UsageWatch(service.pid) as watch:
        report = closed_loop(service.address, requests, clients=clients, seconds=seconds, warm_up_seconds=1)
    if report.failed or report.refused or not report.latency_ms:
        sys.exit(f"Requests failed: {report.failed or report.refused}.")
    return {
        "faces_per_second": report.served_per_second,
        "p50_ms": report.latency_ms.p50,
        "crop_ms": report.stages_ms["crop"].mean,
        "cpu_ms": round(watch.cpu_seconds / report.costs["attempts"] * 1000, 3),
    }


def summary(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Each way's medians over the rounds, and what it adds to a face's time beside the first way of the same round."""
    first = next(iter(WAYS))

    def added(of: Mapping[str, Any], way: str) -> float:
        return round(100 * (of[first]["faces_per_second"] / of[way]["faces_per_second"] - 1), 2)

    return {
        way: {
            **{key: round(median(of[way][key] for of in rounds), 3) for key in rounds[0][way]},
            "added_percent": round(median(added(of, way) for of in rounds), 2),
            "added_percent_by_round": [added(of, way) for of in rounds],
            "rounds": [of[way] for of in rounds],
        }
        for way in WAYS
    }


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10, help="for each load (default 10)")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
