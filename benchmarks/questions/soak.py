"""At 120 % of its capacity for half an hour: is every answer right, and do memory, descriptors and threads stay flat?

    python -m benchmarks.questions.soak --recogniser FILE.onnx --output soak.json --plot soak.png

First the capacity, in a closed loop. Then requests arrive at random, 1.2 times as many, whatever becomes of those
before: single pictures as bodies and in forms, batches, pictures that cannot be read, callers that leave at each stage,
and slow senders. Every vector is compared bit by bit with the one that the service returned while it was left alone.
Exit status 1 where a check does not hold. Needs Linux; the plot needs matplotlib (extra `evaluate`).
"""

import asyncio
import itertools
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

import httpx
import numpy as np
import psutil
import uvloop

from arcface_api.bench.connection import Address
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.checks import Check, at_least, at_most, broken
from benchmarks.lib.knowing import (
    CLOSED,
    CUT,
    LEFT,
    MARKED,
    NO_ANSWER,
    NO_CONNECTION,
    RIGHT,
    WRONG,
    Ending,
    KnowingCaller,
    Known,
    ask_once,
    learnt,
    requests_of,
)
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import free_port, own_command, running_service, write_report

OVERLOAD = 1.2
PICTURES = 32
CAPACITY_CALLERS = 32
CAPACITY_SECONDS = 20.0
MOST_IN_FLIGHT = 4000
"""Of the load itself, whose memory is bounded: beyond it, it would be the limit."""
REUSE_SECONDS = 2.0
"""A connection that was idle for longer is closed: the load comes and goes."""
WARM_UP_SHARE, WARM_UP_SECONDS = 1 / 6, 300.0
"""Of the run, and at most: memory that a load needs once is no leak."""
SAMPLE_SECONDS = 1.0
ROWS = 180
"""Of the result: each is the mean of some samples."""
MOST_RSS_GROWTH = 1.02
MOST_DESCRIPTORS_GROWTH = 1.1
SPARE_DESCRIPTORS = 8
DECLARED = ("429 queue_full", "429 uploads_full", "503 too_many_connections", "503 deadline_exceeded")
"""Refusals by which the service protects itself, and says when to come back. A batch meets them picture by picture."""
FAILURES = ("model_failed", "embedding_invalid", "internal_error")
"""Outcomes of pictures by which the service fails."""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    port = free_port()
    address = Address("127.0.0.1", port)
    requests = requests_of(address, faces.load(arguments.faces, PICTURES))
    seconds = arguments.minutes * 60
    command = own_command(model, port, *arguments.serve_options)
    with running_service(command, port, requests[0].request, log=arguments.log) as service:
        known = learnt(address, requests)
        load = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        with load:
            capacity = load.run(closed(address, known))
            say(f"capacity {capacity:.1f} requests a second; {seconds:g} s at {OVERLOAD:.0%} of it")
            quiet = Sample.of(service.pid, Counter())
            with Watch(service.pid) as watch:
                load.run(offer(address, known, OVERLOAD * capacity, seconds, watch.endings, arguments.seed))
            time.sleep(REUSE_SECONDS)
        after = Sample.of(service.pid, Counter())
        checked = ask_once(address, known[0])[1] == known[0].body
        outcomes = pictures(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text)
    checks = check(watch, quiet, after, seconds) | {
        "pictures_failed": at_most(sum(outcomes.get(code, 0) for code in FAILURES), 0),
        "right_at_the_end": at_least(float(checked), 1),
    }
    report = {
        "benchmark": "soak",
        "recogniser": recogniser.describe(model),
        "faces": faces.describe(arguments.faces),
        "serve_options": arguments.serve_options,
        "minutes": arguments.minutes,
        "capacity_per_second": round(capacity, 1),
        "offered_per_second": round(OVERLOAD * capacity, 1),
        "kinds": dict(Counter(each.kind for each in known)),
        "endings": dict(watch.endings.most_common()),
        "pictures": outcomes,
        "checks": checks,
        "rows": rows(watch.samples),
        "machine": machine.describe(),
    }
    write_report(report, arguments.output)
    if arguments.plot:
        draw(report, arguments.plot)
    if failed := broken(checks):
        sys.exit(f"Does not hold: {', '.join(failed)}.")


# ── the load ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def closed(address: Address, known: Sequence[Known]) -> float:
    """Requests a second that callers get answered who wait for each answer; slow senders are left out."""
    quick = [each for each in known if not each.pause_seconds]
    end = time.monotonic() + CAPACITY_SECONDS
    done = 0

    async def call(number: int) -> None:
        nonlocal done
        caller = KnowingCaller(address)
        for request in itertools.cycle([*quick[number:], *quick[:number]]):
            if time.monotonic() > end:
                break
            ending = await caller.send(request)
            if ending.what not in (RIGHT, LEFT):
                raise SystemExit(f"The capacity cannot be measured: {ending}.")
            done += 1
        caller.close()

    await asyncio.gather(*(call(number) for number in range(CAPACITY_CALLERS)))
    return done / CAPACITY_SECONDS


async def offer(
    address: Address, known: Sequence[Known], rate: float, seconds: float, endings: Counter[str], seed: int
) -> None:
    """Independent callers arrive at a mean rate; what became of their requests is added to `endings`."""
    random = np.random.default_rng(seed)
    idle: list[tuple[KnowingCaller, float]] = []
    in_flight: set[asyncio.Task[None]] = set()

    async def send(request: Known) -> None:
        caller, since = idle.pop() if idle else (KnowingCaller(address), 0.0)
        if time.monotonic() - since > REUSE_SECONDS:
            caller.close()
        ending: Ending = await caller.send(request)
        endings[ending.what] += 1
        if ending.what not in (RIGHT, LEFT, *DECLARED):
            say(f"{ending}")
        idle.append((caller, time.monotonic()))
        while idle and time.monotonic() - idle[0][1] > REUSE_SECONDS:
            idle.pop(0)[0].close()

    due = begin = time.monotonic()
    for request in itertools.cycle(known):
        due += random.exponential(1 / rate)
        if due > begin + seconds:
            break
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if len(in_flight) >= MOST_IN_FLIGHT:
            endings["not sent"] += 1
            continue
        task = asyncio.create_task(send(request))
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    await asyncio.gather(*in_flight)
    for caller, _ in idle:
        caller.close()


# ── what the service uses ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Sample:
    """What the service's processes use at one moment, and what callers have had so far."""

    at: float
    rss_bytes: int
    connections: int
    descriptors: int
    """Without those of connections, whose number is the callers'."""
    threads: int
    endings: Counter[str]

    @classmethod
    def of(cls, pid: int, endings: Counter[str]) -> Self:
        """Of a process and all its descendants."""
        rss = connections = descriptors = threads = 0
        first = psutil.Process(pid)
        for process in [first, *first.children(recursive=True)]:
            with process.oneshot():
                rss += process.memory_info().rss
                descriptors += process.num_fds()
                connections += len(process.net_connections("tcp")) - 1  # which listens
                threads += process.num_threads()
        return cls(time.monotonic(), rss, connections, descriptors - connections, threads, Counter(endings))


def pictures(metrics: str) -> dict[str, int]:
    """How many pictures had each outcome, as the service counts them."""
    found = re.findall(r'(?m)^arcface_pictures_total\{outcome="(\w+)"\} (\S+)$', metrics)
    return {outcome: int(float(number)) for outcome, number in found}


@dataclass
class Watch:
    """Samples the service each second while a block runs."""

    pid: int
    endings: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="watch")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._end.is_set():
            self.samples.append(Sample.of(self.pid, self.endings))
            self._end.wait(SAMPLE_SECONDS)


def check(watch: Watch, quiet: Sample, after: Sample, seconds: float) -> dict[str, Check]:
    """Each promise: what was measured, what is allowed, whether it holds."""
    warm_up = min(WARM_UP_SECONDS, seconds * WARM_UP_SHARE)
    begin = watch.samples[0].at
    steady = [sample for sample in watch.samples if begin + warm_up <= sample.at <= begin + seconds]
    tenth = max(1, len(steady) // 10)

    def growth(of: str) -> float:
        values = [getattr(sample, of) for sample in steady]
        return float(median(values[-tenth:]) / median(values[:tenth]))

    endings = watch.endings
    errors = sum(count for what, count in endings.items() if what[:1] == "5" and what not in DECLARED)
    known = {RIGHT, LEFT, MARKED, WRONG, CLOSED, CUT, NO_ANSWER, NO_CONNECTION, "not sent", *DECLARED}
    return {
        "wrong": at_most(endings[WRONG], 0),
        "server_errors_not_declared": at_most(errors, 0),
        "accepted_and_not_answered": at_most(sum(endings[what] for what in (CLOSED, CUT, NO_ANSWER)), 0),
        "not_connected": at_most(endings[NO_CONNECTION], 0),
        "other_answers": at_most(sum(of for what, of in endings.items() if what not in known) - errors, 0),
        "refuses": at_least(sum(endings[what] for what in DECLARED), 1),
        "not_sent": at_most(endings["not sent"], 0),
        "rss_growth": at_most(growth("rss_bytes"), MOST_RSS_GROWTH),
        "threads_growth": at_most(growth("threads"), 1.0),
        "descriptors_growth": at_most(growth("descriptors"), MOST_DESCRIPTORS_GROWTH),
        "descriptors_left_over": at_most(after.descriptors - quiet.descriptors, SPARE_DESCRIPTORS),
    }


def rows(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """The run as at most `ROWS` rows: rates a second since the row before, and what was used."""
    step = -(-len(samples) // ROWS)
    chosen = samples[::step]
    found = []
    for before, now in itertools.pairwise(chosen):
        seconds = now.at - before.at
        refused = sum(now.endings[what] - before.endings[what] for what in DECLARED)
        found.append(
            {
                "minute": round((now.at - samples[0].at) / 60, 3),
                "right_per_second": round((now.endings[RIGHT] - before.endings[RIGHT]) / seconds, 1),
                "refused_per_second": round(refused / seconds, 1),
                "rss_mb": round(now.rss_bytes / 1e6, 1),
                "connections": now.connections,
                "descriptors": now.descriptors,
                "threads": now.threads,
            }
        )
    return found


def draw(report: dict[str, Any], path: Path) -> None:
    """The run over time."""
    import matplotlib as mpl  # noqa: PLC0415  # not everyone who measures has it

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    minutes = [row["minute"] for row in report["rows"]]
    figure, axes = plt.subplots(3, 1, figsize=(9, 7.5), sharex=True, layout="constrained")
    lines = (
        (("right_per_second", "answered right", "#0b5fa5"), ("refused_per_second", "refused (429)", "#d1495b")),
        (("rss_mb", "resident memory", "#0b5fa5"),),
        (
            ("connections", "connections", "#d1495b"),
            ("descriptors", "other descriptors", "#0b5fa5"),
            ("threads", "threads", "#8a8a8a"),
        ),
    )
    for place, names, unit in zip(axes, lines, ("requests a second", "MB", "number"), strict=True):
        for key, label, colour in names:
            place.plot(minutes, [row[key] for row in report["rows"]], color=colour, label=label)
        place.set_ylabel(unit)
        place.set_ylim(0, 1.3 * place.get_ylim()[1])  # room for the legend
        place.grid(alpha=0.3)
        place.legend(loc="upper right", frameon=False, ncols=3)
        place.spines[["top", "right"]].set_visible(False)
    axes[0].set_title(
        f"{report['minutes']:g} minutes at {OVERLOAD:.0%} of the capacity, {report['recogniser']['name']}", loc="left"
    )
    axes[-1].set_xlabel("minutes")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _parser() -> Any:
    parser = options.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="of overload (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--plot", type=Path, help="also draw the run, PNG, to this file")
    parser.add_argument("--log", type=Path, help="the service's output, instead of standard error")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
