"""Finds the best number of lanes and workers and the best size of batches on this machine: starts a service with each.

    candidates ─▶ a first round: each is started, and measured with 1 client and with many ─▶ the slow ones leave
        ─▶ more rounds of the others, and of the best with smaller and larger batches ─▶ recommended

A setting is measured as `measure_own` measures: from outside, with what HTTP and decoding cost.

One module, because the rounds decide from each other's figures what is measured next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from arcface_api import __version__
from arcface_api.bench.load import LoadReport
from arcface_api.bench.measure import WARM_UP_SECONDS, Measurement, OnProgress
from arcface_api.cpus import machine
from arcface_api.errors import MeasurementFailed
from arcface_api.session.lanes import candidates as lane_candidates
from arcface_api.wording import counted

LATER_ROUNDS = 3
WORKERS = 1, 2, 4
MIN_CPUS_PER_WORKER = 2
VARIED = ("workers", "lanes", "threads", "max_batch")
"""Settings that are tried, unless they are given."""
AUTO = "auto"
CLIENTS_PER_CPU = 4
MIN_CLIENTS, MAX_CLIENTS = 32, 160
"""Of the load that keeps every lane busy; with more, workers that share the queue's default capacity would refuse."""
START_SECONDS, COMPILE_SECONDS = 5.0, 25.0
"""For the estimate: a start, and what the first with a number of threads and a size of batches takes beside that."""

CONTENDING = 0.85
"""Of the highest throughput in the first round; a setting below it is not measured again."""
TIE = 0.97
"""Of the highest throughput; settings above it count as equally fast, which is about what rounds differ by."""
MAX_SLOWER_ALONE = 1.25
"""How many times the shortest latency of a lone request it may take with the recommended setting."""
RULE = (
    f"Recommended is the setting with the highest throughput under load, of those where a lone request takes at most"
    f" {MAX_SLOWER_ALONE - 1:.0%} longer than with the best. Settings within {1 - TIE:.0%} of it count as equal: the"
    f" fewest workers win, then automatic lanes, then the fewest, then the default size of batches."
)

Measure = Callable[[Mapping[str, str], Sequence[int], float, OnProgress], Measurement]
"""As `measure.measure_own`."""


@dataclass(frozen=True)
class Candidate:
    """A setting that is tried."""

    workers: int
    lanes: str
    """Of each worker; or `AUTO`, which has a wide lane, too, where memory allows."""
    threads: int
    """Of each worker."""
    max_batch: int | None = None
    """None: the service's default."""

    def options(self) -> dict[str, str]:
        """Settings by name, as on the command line."""
        given = {"workers": self.workers, "lanes": self.lanes, "threads": self.threads, "max_batch": self.max_batch}
        return {name: str(value) for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        batch = "" if self.max_batch is None else f", batches of {self.max_batch}"
        lanes = "automatic lanes" if self.lanes == AUTO else counted(int(self.lanes), "lane")
        return f"{counted(self.workers, 'worker')}, {lanes}{batch}"


@dataclass
class Trial:
    """What was measured of a candidate, a measurement for each round."""

    candidate: Candidate
    measurements: list[Measurement] = field(default_factory=list)
    failure: str | None = None
    """Why it cannot be used."""
    has_left: bool = False
    """After the first round, because it was slow."""

    @property
    def is_measured(self) -> bool:
        """Whether it has figures that count."""
        return bool(self.measurements) and self.failure is None

    @property
    def last(self) -> Sequence[Measurement]:
        """Those that count: not of the first round if there are later ones, which others can be compared with."""
        return self.measurements[-LATER_ROUNDS:]

    @property
    def faces_per_second(self) -> float:
        """Under load."""
        return median(_rate(measured.steps[-1]) for measured in self.last)

    @property
    def alone_p50_ms(self) -> float:
        """Latency of a lone request."""
        return median(measured.steps[0].latency_ms.p50 for measured in self.last if measured.steps[0].latency_ms)

    @property
    def p99_ms(self) -> float:
        """Latency under load."""
        return median(measured.steps[-1].latency_ms.p99 for measured in self.last if measured.steps[-1].latency_ms)

    @property
    def rss_mb(self) -> float:
        """Resident memory of all its processes after the load, in 10^6 bytes."""
        return median(measured.process["rss_mb"] for measured in self.last if measured.process)

    @property
    def max_batch(self) -> int:
        """The size of its largest batches."""
        return int(max(self.measurements[0].service["batch_sizes"]))

    def settings(self) -> dict[str, str]:
        """As measured, by name, with what was the service's default."""
        return {**self.candidate.options(), "max_batch": str(self.max_batch)}

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        names = ("faces_per_second", "alone_p50_ms", "p99_ms", "rss_mb", "max_batch")
        figures = {name: getattr(self, name) for name in names} if self.measurements else {}
        rounds = [measured.to_json() for measured in self.measurements]
        about = {**self.candidate.options(), **figures, "has_left": self.has_left, "failure": self.failure}
        return {**about, "rounds": rounds}


class Sweep:
    """All trials so far; complete after `run`."""

    def __init__(  # what stays the same, what is not varied, and how it is measured
        self, given: Mapping[str, str], fixed: Mapping[str, int], cpus: int, clients: int | None, seconds: float
    ) -> None:
        """Plan it.

        Args:
            given: Settings of every service, by name, as on the command line.
            fixed: Those of VARIED that are not to be varied.
            cpus: That the service may use.
            clients: Of the load; None: some for each CPU.
            seconds: Length of a step.
        """
        self._given, self.seconds = given, seconds
        self.clients = clients or min(max(MIN_CLIENTS, CLIENTS_PER_CPU * cpus), MAX_CLIENTS)
        self.trials = [Trial(candidate) for candidate in candidates(fixed, cpus)]
        self.is_complete = False
        self._tries_batches = "max_batch" not in fixed
        other_sizes = 2 if self._tries_batches else 0
        self._runs, self._most_runs = 0, len(self.trials) + LATER_ROUNDS * (len(self.trials) + other_sizes)
        step_seconds = seconds + min(WARM_UP_SECONDS, seconds / 4)
        first_starts = len({trial.candidate.threads for trial in self.trials}) + other_sizes
        self.most_seconds = self._most_runs * (START_SECONDS + 2 * step_seconds) + first_starts * COMPILE_SECONDS
        """An estimate: nothing leaves early, and no compiled model is in the cache."""

    def run(self, measure: Measure, on_progress: OnProgress) -> None:
        """Measure all candidates.

        Raises:
            MeasurementFailed: No candidate could be measured.
        """
        self._one_round(self.trials, measure, on_progress)
        best = self.recommended
        if best is None:
            raise MeasurementFailed(f"No setting could be measured. {self.trials[0].failure}")
        highest = max(trial.faces_per_second for trial in self.trials if trial.is_measured)
        for trial in self.trials:
            trial.has_left = trial.is_measured and trial.faces_per_second < CONTENDING * highest
        if self._tries_batches:
            sizes = max(1, best.max_batch // 2), best.max_batch * 2
            self.trials += [Trial(replace(best.candidate, max_batch=size)) for size in sizes if size != best.max_batch]
        for _ in range(LATER_ROUNDS):
            self._one_round([trial for trial in self.trials if not trial.has_left], measure, on_progress)
        self.is_complete = True
        on_progress("done", 1)

    @property
    def recommended(self) -> Trial | None:
        """By RULE; None before anything was measured."""
        measured = [trial for trial in self.trials if trial.is_measured and not trial.has_left]
        if not measured:
            return None
        shortest = min(trial.alone_p50_ms for trial in measured)
        quick = [trial for trial in measured if trial.alone_p50_ms <= MAX_SLOWER_ALONE * shortest]
        highest = max(trial.faces_per_second for trial in quick)
        equal = [trial for trial in quick if trial.faces_per_second >= TIE * highest]
        return min(equal, key=_cost)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        best = self.recommended
        return {
            "benchmark": "arcface-api bench --sweep",
            "version": __version__,
            "clients": [1, self.clients],
            "seconds": self.seconds,
            "is_complete": self.is_complete,
            "trials": [trial.to_json() for trial in self.trials],
            "rule": RULE,
            "recommended": best.settings() if best is not None else None,
            "machine": machine(),
        }

    def _one_round(self, trials: Sequence[Trial], measure: Measure, on_progress: OnProgress) -> None:
        """A measurement more of each that can be measured."""
        for trial in trials:

            def of_the_whole(what: str, share: float, trial: Trial = trial) -> None:
                on_progress(f"{trial.candidate}: {what}", (self._runs + share) / self._most_runs)

            if trial.failure is None:
                self._measure(trial, measure, of_the_whole)
            self._runs += 1

    def _measure(self, trial: Trial, measure: Measure, on_progress: OnProgress) -> None:
        options = {**self._given, **trial.candidate.options()}
        try:
            measured = measure(options, (1, self.clients), self.seconds, on_progress)
            measured.check()
        except MeasurementFailed as error:
            trial.failure = str(error)
            return
        lanes = measured.service["lanes"]
        if trial.candidate.lanes in (AUTO, str(lanes)):
            trial.measurements.append(measured)
            return
        for other in self.trials:  # as on a GPU, which has one lane whatever is set
            if other.candidate.lanes != AUTO and int(other.candidate.lanes) > lanes and not other.measurements:
                other.failure = f"The service runs {counted(lanes, 'lane')} here, whatever is set."


def _rate(step: LoadReport) -> float:
    """Faces per second, from the mean latency: in a closed loop, what is inside is throughput times latency (Little).

    In a few seconds, counted answers are off by a batch in each lane.
    """
    if step.refused or step.clients is None or step.latency_ms is None:  # then not every client is inside
        return step.served_per_second
    return step.clients * 1000 / step.latency_ms.mean


def candidates(fixed: Mapping[str, int], cpus: int) -> list[Candidate]:
    """What is tried on so many CPUs: a few numbers of workers, which share them, each with a few numbers of lanes.

    `fixed` are settings that are not varied.
    """
    several = [workers for workers in WORKERS if workers == 1 or cpus >= workers * MIN_CPUS_PER_WORKER]
    found = []
    for workers in [fixed["workers"]] if "workers" in fixed else several:
        threads = fixed.get("threads", max(1, cpus // workers))
        lanes = (fixed["lanes"],) if "lanes" in fixed else (AUTO, *lane_candidates(threads))
        found += [Candidate(workers, str(number), threads, fixed.get("max_batch")) for number in lanes]
    return found


def _cost(trial: Trial) -> tuple[int, int, bool]:
    """What decides between settings that are equally fast."""
    lanes = 0 if trial.candidate.lanes == AUTO else int(trial.candidate.lanes)
    return trial.candidate.workers, lanes, trial.candidate.max_batch is not None
