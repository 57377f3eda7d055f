"""Does the service keep its promises at twice the load it can carry?

    python -m benchmarks.questions.overload --faces FOLDER --output benchmarks/results/overload-iresnet100.json

In order, on a service that it starts: capacity (closed loop); two minutes of Poisson arrivals at twice that rate (open
loop, nobody comes back); capacity again; a burst of one and a half times the queue's capacity, where every caller that
is refused comes back after `Retry-After`; twice the rate for 15 s, where they do so too. Exit status 1 where a check
does not hold.

Why the promise "obeyed, Retry-After leads to an answer" is checked on the burst: while new callers go on to arrive at
twice the rate, half of all attempts must be refused, first or second ones. What callers get in the end is reported too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from arcface_api.bench.connection import Address, raw_request
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.checks import Check, at_least, at_most, broken
from benchmarks.lib.load import LoadReport, closed_loop, embed_request, open_loop, poisson_arrivals, progress
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, ask, free_port, own_command, running_service, write_report
from benchmarks.lib.usage import UsageWatch

CLIENTS = 32
"""Enough that a full batch waits while one runs."""
OVERLOAD = 2.0
BURST = 1.5
"""Of the queue's capacity: those refused fit into it when they come back together."""
OBEYING_SECONDS = 15.0

MIN_GOODPUT = 0.95
"""Of capacity."""
MAX_P99 = 1.1
"""Of the time in which a full queue is served at the goodput's rate, which itself varies by some per cent."""
MAX_RSS_GROWTH = 1.02


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    port = free_port()
    requests = [embed_request(Address("127.0.0.1", port), picture) for picture in faces.load(arguments.faces)]
    with running_service(own_command(model, port, *arguments.serve_options), port, requests[0]) as service:
        queue_capacity = read_info(service.address)["limits"]["queue_capacity"]
        before = capacity(service, requests, arguments.capacity_seconds)
        say(f"capacity {before:.1f} a second; {arguments.seconds:g} s at {OVERLOAD:.0%} of it")
        fill_seconds = 5 + 2 * queue_capacity / before
        overload, usage = offer(service, requests, OVERLOAD * before, fill_seconds, arguments.seconds, arguments.seed)
        after = capacity(service, requests, arguments.capacity_seconds)
        say(f"capacity {after:.1f} a second; a burst")
        burst = open_loop(
            service.address,
            requests,
            arrivals=np.zeros(round(BURST * queue_capacity)),
            seconds=1,
            obeys_retry_after=True,
        )
        say(f"{OBEYING_SECONDS:g} s at {OVERLOAD:.0%}, everyone comes back")
        obeying = open_loop(
            service.address,
            requests,
            arrivals=poisson_arrivals(OVERLOAD * before, OBEYING_SECONDS, arguments.seed),
            seconds=OBEYING_SECONDS,
            obeys_retry_after=True,
            on_progress=progress,
        )
    capacity_per_second = (before + after) / 2
    checks = check(overload, usage, burst, capacity_per_second, queue_capacity)
    write_report(
        {
            "benchmark": "overload",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "queue_capacity": queue_capacity,
            "capacity_per_second": {"before": before, "after": after},
            "checks": checks,
            "overload": overload.to_json(),
            "process": usage,
            "burst": burst.to_json(),
            "obeying": obeying.to_json(),
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if failed := broken(checks):
        sys.exit(f"Does not hold: {', '.join(failed)}.")


def capacity(service: Service, requests: Sequence[bytes], seconds: float) -> float:
    """Most that the service serves a second, while nobody is refused."""
    report = closed_loop(
        service.address, requests, clients=CLIENTS, seconds=seconds, warm_up_seconds=3, on_progress=progress
    )
    if report.failed or report.refused or not report.served:
        sys.exit(f"The capacity cannot be measured: failed {report.failed}, refused {report.refused}.")
    return report.served_per_second


def offer(  # each is a fact of the run
    service: Service, requests: Sequence[bytes], rate: float, fill_seconds: float, seconds: float, seed: int
) -> tuple[LoadReport, dict[str, Any]]:
    """Arrivals at a rate; measured once the queue is full. What was seen of the requests, and of the process."""
    with UsageWatch(service.pid) as watch:
        report = open_loop(
            service.address,
            requests,
            arrivals=poisson_arrivals(rate, fill_seconds + seconds, seed),
            seconds=fill_seconds + seconds,
            warm_up_seconds=fill_seconds,
            on_progress=progress,
        )
    return report, watch.summary(report)


def check(
    overload: LoadReport, usage: dict[str, Any], burst: LoadReport, capacity_per_second: float, queue_capacity: int
) -> dict[str, Check]:
    """Each promise: what was measured, what is allowed, whether it holds."""
    goodput = overload.served_per_second
    bound_ms = queue_capacity / goodput * 1000 if goodput else 0.0
    p99 = overload.latency_ms.p99 if overload.latency_ms else None
    retries = burst.retries
    growth = usage["rss_growth"]
    return {
        "goodput_of_capacity": at_least(goodput / capacity_per_second, MIN_GOODPUT),
        "p99_of_a_full_queue": at_most(p99 / bound_ms if p99 and bound_ms else None, MAX_P99),
        "overload_refuses": at_least(overload.refused.get("429", 0), 1),
        "failures": at_most(sum(overload.failed.values()) + sum(burst.failed.values()), 0),
        "refusals_without_retry_after": at_most(
            overload.refusals_without_retry_after + burst.refusals_without_retry_after, 0
        ),
        "obeyed_then_served": at_least(retries.served_at_second_attempt / retries.callers if retries else None, 1.0),
        "rss_growth": at_most(growth, MAX_RSS_GROWTH),
    }


def read_info(address: Address) -> dict[str, Any]:
    """What the service states about itself."""
    _, body = ask(address, raw_request(address, "GET", "/info"))
    return json.loads(body)


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of overload (default 120)")
    parser.add_argument("--capacity-seconds", type=float, default=20, help="of each closed loop (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
