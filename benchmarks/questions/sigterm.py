"""Is every accepted request answered when the service is stopped under full load, and does it end in time?

    python -m benchmarks.questions.sigterm --recogniser FILE.onnx --times 50 --output benchmarks/results/sigterm.json

SIGTERM, so many times, to a service with one process and to one with two, while callers saturate it: each compares
every vector with the one it knows. Exit status 1 where a check does not hold. Needs Linux.

A request was accepted when the service had answered on its connection before, and its last byte was sent before the
signal. One that was sent later may be answered, refused, or find its connection closed, but before the first byte of an
answer. Those on new connections that were sent just before the signal are counted apart: whether the service had taken
them out of the kernel's queue yet, nobody outside can know.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from typing import Any

from arcface_api.bench.connection import Address
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.checks import at_least, at_most, broken_of_kinds
from benchmarks.lib.knowing import (
    CLOSED,
    LEFT,
    NO_CONNECTION,
    RIGHT,
    Crowd,
    Ending,
    Known,
    learnt,
    readdressed,
    requests_of,
)
from benchmarks.lib.recogniser import say
from benchmarks.lib.scene import Scene
from benchmarks.lib.service import write_report

CALLERS = 16
PICTURES = 16
LOAD_SECONDS = 1.0
"""Before the signal."""
GRACE_SECONDS = 15
AFTER_SECONDS = 0.3
"""That callers go on after the end."""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    pictures = faces.load(arguments.faces, PICTURES)
    known: list[Known] = []
    measured: dict[str, Any] = {}
    for workers in arguments.workers:
        rounds = []
        for number in range(arguments.times):
            given = ("--shutdown-grace-seconds", str(GRACE_SECONDS), *arguments.serve_options)
            with Scene(model, *given, workers=workers) as scene:
                address = Address("127.0.0.1", scene.port)
                requests = requests_of(address, pictures)
                known = readdressed(known, requests) if known else learnt(address, requests)
                rounds.append(stop_under_load(scene, address, known))
            say(f"{workers}: {number + 1} of {arguments.times}: {rounds[-1]}")
        measured[f"{workers} process{'es' if workers > 1 else ''}"] = summary(rounds)
    failed = broken_of_kinds(measured)
    write_report(
        {
            "benchmark": "sigterm",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "callers": CALLERS,
            "times": arguments.times,
            "grace_seconds": GRACE_SECONDS,
            "kinds": measured,
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if failed:
        sys.exit(f"Does not hold: {', '.join(failed)}.")


def stop_under_load(scene: Scene, address: Address, known: Sequence[Known]) -> dict[str, Any]:
    """One stop; what became of the requests that it met, by when they were sent."""
    endings: list[Ending] = []
    with Crowd(address, known, CALLERS, on_ending=endings.append, pause_seconds=0.0) as crowd:
        scene.until(lambda: min(crowd.rights) >= 3)
        time.sleep(LOAD_SECONDS)
        per_second = sum(crowd.rights)
        signalled = time.monotonic()
        os.kill(scene.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            scene.process.wait(GRACE_SECONDS + 30)
        ended = time.monotonic()
        time.sleep(AFTER_SECONDS)
    met = [ending for ending in endings if ending.ended >= signalled and ending.what != LEFT]
    before = [ending for ending in met if ending.sent < signalled]
    return {
        "status": scene.process.poll(),
        "ended_seconds": round(ended - signalled, 2),
        "right_before": per_second,
        "accepted": Counter(ending.what for ending in before if not ending.is_first),
        "sent_before_on_new_connections": Counter(ending.what for ending in before if ending.is_first),
        "sent_after": Counter(ending.what for ending in met if ending.sent >= signalled),
    }


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All stops of one kind together."""
    total: dict[str, Counter[str]] = {
        name: sum((each[name] for each in rounds), Counter())
        for name in ("accepted", "sent_before_on_new_connections", "sent_after")
    }
    seconds = [each["ended_seconds"] for each in rounds]
    clean = (RIGHT, CLOSED, NO_CONNECTION, "503 service_closing")
    return {
        "right_before": sum(each["right_before"] for each in rounds),
        **{name: dict(of.most_common()) for name, of in total.items()},
        "exit_statuses": dict(Counter(str(each["status"]) for each in rounds)),
        "ended_seconds": {"median": round(median(seconds), 2), "worst": max(seconds)},
        "checks": {
            "accepted_and_answered_right": at_least(total["accepted"][RIGHT] / max(1, total["accepted"].total()), 1.0),
            "new_connections_without_an_answer": at_most(
                total["sent_before_on_new_connections"].total() - total["sent_before_on_new_connections"][RIGHT], 0
            ),
            "later_ones_not_answered_nor_refused": at_most(
                total["sent_after"].total() - sum(total["sent_after"][what] for what in clean), 0
            ),
            "exits_other_than_0": at_most(sum(each["status"] != 0 for each in rounds), 0),
            "longest_seconds": at_most(max(seconds), GRACE_SECONDS),
        },
    }


def _parser() -> Any:
    parser = options.parser(__doc__)
    parser.add_argument("--times", type=int, default=50, help="that each service is stopped (default 50)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="processes (default: 1, then 2)")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
