"""Does every hostile request get its refusal, and what do good callers notice meanwhile?

    python -m benchmarks.questions.hostile_requests --faces FOLDER --output benchmarks/results/hostile.json

On a service that it starts: all cases of `lib/hostile_cases` and the slow callers once; then, in rounds, good callers
alone, and beside 500 connections that send a head byte by byte, 500 that ask for documents and read nothing, and one
caller that sends all cases again and again, as fast as they are answered or `--cases-per-second`; at last alone again.
Exit status 1 where a check does not hold.
"""

import argparse
import itertools
import math
import multiprocessing
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import psutil

from arcface_api.bench.connection import Address
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.checks import at_least, at_most, broken, p99
from benchmarks.lib.hostile_callers import known_vectors, outcome_of
from benchmarks.lib.hostile_cases import all_cases
from benchmarks.lib.load import LoadReport, closed_loop, embed_request, progress
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, free_port, own_command, running_service, write_report
from benchmarks.questions.slow_connections import CONNECTIONS, KINDS, slow_callers

MOST_P99 = 2.0
"""Beside hostile callers, of good callers alone before and after: the rounds' median, since other guests of the machine
take it for seconds."""
MOST_RSS = 1.1
"""Afterwards, of before."""
MOST_THREADS = 10
"""More afterwards: of pools that fill when they are first needed."""
SETTLE_SECONDS = 40.0
"""Heads time out after 30 s, and freed memory is returned after 10 s."""
SLOW_KINDS = "head", "reading"

Outcomes = dict[str, Counter[str]]
"""Of each kind of case, how often each outcome came."""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    port = free_port()
    requests = [embed_request(Address("127.0.0.1", port), picture) for picture in faces.load(arguments.faces)]
    with running_service(own_command(model, port, *arguments.serve_options), port, requests[0]) as service:
        say("All cases once")
        vectors = known_vectors(service.address)
        outcomes, wrong = _all_once(service.address, vectors)
        for kind in SLOW_KINDS:
            with slow_callers(service.address, KINDS[kind]):
                pass
        _good_callers(service, requests, arguments)
        time.sleep(SETTLE_SECONDS)
        before = _state(service.pid)
        runs = [_good_callers(service, requests, arguments)]
        cases_beside, peak = 0, before
        for number in range(arguments.rounds):
            say(f"Round {number + 1}: {CONNECTIONS} that send, {CONNECTIONS} that read, and one that sends all cases")
            with (
                slow_callers(service.address, KINDS[SLOW_KINDS[0]]),
                slow_callers(service.address, KINDS[SLOW_KINDS[1]]),
                _attacked(service.address, vectors, arguments.cases_per_second) as attack,
            ):
                runs.append(_good_callers(service, requests, arguments))
                peak = {name: max(value, peak[name]) for name, value in _state(service.pid).items()}
            wrong += attack["wrong"]
            cases_beside += attack["sent"]
            runs.append(_good_callers(service, requests, arguments))
        time.sleep(SETTLE_SECONDS)
        left = _state(service.pid)
        is_same = known_vectors(service.address) == vectors
    lost = sum(sum(report.failed.values()) + sum(report.refused.values()) for report in runs)
    alone, beside = runs[::2], runs[1::2]
    p99s = [p99(report) for report in runs]
    ratios = [2 * p99s[n] / (p99s[n - 1] + p99s[n + 1]) for n in range(1, len(runs), 2)]
    checks = {
        "cases": at_least(sum(sum(counts.values()) for counts in outcomes.values()), 500),
        "wrong_outcomes": at_most(len(wrong), 0),
        "p99_beside": at_most(median(ratios), MOST_P99),
        "not_served": at_most(lost, 0),
        "rss_after": at_most(left["rss_mb"] / before["rss_mb"], MOST_RSS),
        "descriptors_after": at_most(left["descriptors"] - before["descriptors"], 0),
        "threads_after": at_most(left["threads"] - before["threads"], MOST_THREADS),
        "other_vectors_after": at_most(int(not is_same), 0),
    }
    write_report(
        {
            "benchmark": "hostile_requests",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "good_callers": arguments.clients,
            "slow_connections": {"sending": CONNECTIONS, "reading": CONNECTIONS},
            "p99_ms": {"alone": _rounded(p99s[::2]), "beside": _rounded(p99s[1::2])},
            "p99_ratios": _rounded(ratios),
            "served_per_second": {
                name: _rounded(report.served_per_second for report in reports)
                for name, reports in (("alone", alone), ("beside", beside))
            },
            "process": {"before": before, "beside": peak, "after": left},
            "most_cases_per_second": None if math.isinf(arguments.cases_per_second) else arguments.cases_per_second,
            "cases_beside": cases_beside,
            "outcomes": outcomes,
            "wrong": wrong,
            "checks": checks,
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if failed := broken(checks):
        sys.exit(f"Does not hold: {', '.join(failed)}.")


def _all_once(address: Address, vectors: Mapping[str, Sequence[float]]) -> tuple[Outcomes, list[str]]:
    """What came of each case, and those that ended as they must not."""
    outcomes: Outcomes = defaultdict(Counter)
    wrong = []
    for case in all_cases():
        outcome = outcome_of(case, address, vectors)
        outcomes[case.kind][outcome.got] += 1
        if not outcome.is_right:
            wrong.append(f"{case.kind}: {case.name}: {outcome.got}")
    return dict(outcomes), wrong


@contextmanager
def _attacked(address: Address, vectors: Mapping[str, Sequence[float]], per_second: float) -> Iterator[dict[str, Any]]:
    """A process sends all cases again and again; afterwards, how many it sent, and what came out wrong."""
    spawn = multiprocessing.get_context("spawn")
    begun, end, (report, its_end) = spawn.Event(), spawn.Event(), spawn.Pipe(duplex=False)
    process = spawn.Process(target=_attack, args=(address, vectors, per_second, begun, end, its_end), daemon=True)
    process.start()
    begun.wait(200)
    found: dict[str, Any] = {}
    try:
        yield found
    finally:
        end.set()
        found.update(report.recv() if report.poll(200) else {"sent": 0, "wrong": ["the caller hangs"]})
        process.join(20)
        process.kill()


def _attack(
    address: Address, vectors: Mapping[str, Sequence[float]], per_second: float, begun: Any, end: Any, report: Any
) -> None:
    sent, wrong = 0, []
    begun.set()
    began = time.monotonic()
    for case in itertools.cycle(all_cases()):
        if end.wait(max(0.0, began + sent / per_second - time.monotonic())):
            break
        outcome = outcome_of(case, address, vectors)
        sent += 1
        if not outcome.is_right:
            wrong.append(f"{case.kind}: {case.name}: {outcome.got}, beside others")
    report.send({"sent": sent, "wrong": wrong})


def _good_callers(service: Service, requests: Sequence[bytes], arguments: argparse.Namespace) -> LoadReport:
    return closed_loop(
        service.address,
        requests,
        clients=arguments.clients,
        seconds=arguments.seconds,
        warm_up_seconds=2,
        on_progress=progress,
    )


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 2) for value in values]


def _state(pid: int) -> dict[str, Any]:
    process = psutil.Process(pid)
    return {
        "rss_mb": round(process.memory_info().rss / 1e6, 1),
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alone, and beside hostile callers (default 5)")
    parser.add_argument("--cases-per-second", type=float, default=float("inf"), help="default: as fast as answered")
    parser.add_argument("--seconds", type=float, default=12, help="of each run of good callers (default 12)")
    parser.add_argument("--clients", type=int, default=4, help="good callers (default 4)")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
