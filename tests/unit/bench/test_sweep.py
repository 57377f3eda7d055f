"""Promises of `arcface-api bench --sweep`: real services are measured, the stated rule decides, nothing is lost."""

import functools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from arcface_api.bench.load import LoadReport, Summary
from arcface_api.bench.measure import Measurement, OnProgress
from arcface_api.bench.sweep import (
    AUTO,
    CONTENDING,
    LATER_ROUNDS,
    MAX_SLOWER_ALONE,
    TIE,
    Candidate,
    Sweep,
    Trial,
    candidates,
)
from arcface_api.cli import bench as bench_command
from arcface_api.errors import MeasurementFailed

pytestmark = pytest.mark.timeout(1200)  # a dozen services are started

COMMAND = [sys.executable, "-m", "arcface_api", "bench", "--sweep"]


def sweep(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, options)], capture_output=True, text=True, timeout=1000, check=False)


def step(clients: int, rate: float, p99: float) -> LoadReport:
    mean = clients * 1000 / rate
    return LoadReport(
        clients=clients,
        seconds=1,
        served=9,
        served_per_second=rate + 5,  # it counts whole batches
        refused={},
        failed={},
        latency_ms=Summary(9, mean, mean, mean, p99, p99),
        stages_ms={},
        mean_batch=1,
        costs={},
    )


def measurement(rate: float, alone: float = 10, *, lanes: int = 1, max_batch: int = 8) -> Measurement:
    service = {"model": "m", "provider": "p", "precision": "float32", "lanes": lanes, "batch_sizes": [1, max_batch]}
    return Measurement(service, None, (step(1, 1000 / alone, alone), step(32, rate, 90)), {"rss_mb": 100.0})


def trial(candidate: Candidate, rate: float, alone: float = 10) -> Trial:
    lanes = 1 if candidate.lanes == AUTO else int(candidate.lanes)
    return Trial(candidate, [measurement(rate, alone, lanes=lanes, max_batch=candidate.max_batch or 8)])


def of(*trials: Trial) -> Sweep:
    found = Sweep({}, {}, 1, None, 1)
    found.trials = list(trials)
    return found


class Machine:
    """Measures nothing: each number of lanes has its rate, from which what was asked for is kept."""

    def __init__(self, rates: Mapping[int, float], lanes_at_most: int = 99, slowdown: float = 1) -> None:
        self.rates, self.lanes_at_most, self.slowdown = rates, lanes_at_most, slowdown
        self.asked: list[tuple[int, int | None]] = []

    def __call__(
        self, options: Mapping[str, str], clients: Sequence[int], seconds: float, on_progress: OnProgress
    ) -> Measurement:
        lanes, size = int(options["lanes"]), options.get("max_batch")
        self.asked.append((lanes, int(size) if size else None))
        if lanes not in self.rates:
            raise MeasurementFailed("The service ended before it could serve.")
        on_progress("1 client", 0)
        on_progress("32 clients", 0.5)
        rate = self.rates[lanes] * (1.2 if size == "16" else 1) / self.slowdown ** len(self.asked)
        return measurement(rate, lanes=min(lanes, self.lanes_at_most), max_batch=int(size or 8))


# ── the candidates ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (1, [(1, AUTO, 1), (1, "1", 1)]),
        (2, [(1, AUTO, 2), (1, "1", 2), (1, "2", 2)]),
        (4, [(1, AUTO, 4), (1, "1", 4), (1, "2", 4), (1, "4", 4), (2, AUTO, 2), (2, "1", 2), (2, "2", 2)]),
    ],
)
def test_few_cpus_have_few_candidates(cpus: int, expected: list[tuple[int, str, int]]) -> None:
    assert [(each.workers, each.lanes, each.threads) for each in candidates({}, cpus)] == expected


@pytest.mark.parametrize("cpus", [16, 64, 256])
def test_many_cpus_have_no_more_than_fifteen_candidates_which_share_all_cpus(cpus: int) -> None:
    found = candidates({}, cpus)
    assert len(found) <= 15
    assert {each.workers * each.threads for each in found} == {cpus}
    assert {each.workers for each in found} == {1, 2, 4}


def test_what_is_given_is_not_varied() -> None:
    found = candidates({"workers": 2, "threads": 3, "lanes": 3, "max_batch": 5}, 16)
    assert found == [Candidate(2, "3", 3, 5)]


# ── the rule ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_highest_throughput_is_recommended() -> None:
    trials = [trial(Candidate(1, "1", 4), 100), trial(Candidate(1, "4", 4), 120), trial(Candidate(2, "1", 2), 110)]
    assert of(*trials).recommended is trials[1]


def test_a_setting_that_makes_a_lone_request_slow_is_not_recommended() -> None:
    trials = [trial(Candidate(1, "1", 4), 100), trial(Candidate(1, "4", 4), 120, alone=10 * MAX_SLOWER_ALONE + 0.1)]
    assert of(*trials).recommended is trials[0]
    trials[1] = trial(Candidate(1, "4", 4), 120, alone=10 * MAX_SLOWER_ALONE)
    assert of(*trials).recommended is trials[1]


def test_of_equally_fast_settings_the_one_with_fewer_workers_then_lanes_then_the_default_batch_wins() -> None:
    slower = 100 * TIE + 0.1
    cheapest = trial(Candidate(1, "1", 4), slower)
    others = [
        trial(Candidate(2, "1", 2), 100),
        trial(Candidate(1, "2", 4), slower),
        trial(Candidate(1, "1", 4, max_batch=4), 100),
    ]
    assert of(*others, cheapest).recommended is cheapest
    assert of(*others).recommended is others[2]
    assert of(*others[:2]).recommended is others[1]
    assert of(*others, trial(Candidate(1, "1", 4), 100 * TIE - 0.1)).recommended is others[2]


def test_automatic_lanes_win_where_more_throughput_costs_a_lone_request_too_much() -> None:
    """With AMX: two lanes embed the most, one lane is the fastest alone, and a wide lane beside two has both."""
    trials = [trial(Candidate(1, "1", 2), 97, 17), trial(Candidate(1, "2", 2), 108, 28)]
    assert of(*trials).recommended is trials[0]
    automatic = trial(Candidate(1, AUTO, 2), 107, 17)
    assert of(*trials, automatic).recommended is automatic


def test_the_rate_follows_from_the_latency_because_counts_are_off_by_a_batch_in_each_lane() -> None:
    assert trial(Candidate(1, "1", 4), 100).faces_per_second == pytest.approx(100)
    refusing = trial(Candidate(1, "1", 4), 100)
    refusing.measurements = [
        replace(each, steps=(each.steps[0], replace(each.steps[1], refused={"429": 1})))
        for each in refusing.measurements
    ]
    assert refusing.faces_per_second == 105  # with refusals, not every client waits for an embedding


# ── rounds ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def run(machine: Machine, cpus: int = 4, **fixed: int) -> tuple[Sweep, list[float]]:
    found = Sweep({}, {"workers": 1, **fixed}, cpus, None, 1)
    found.trials = [trial for trial in found.trials if trial.candidate.lanes != AUTO]
    shares: list[float] = []
    found.run(machine, lambda _, share: shares.append(share))
    return found, shares


def test_rounds_are_interleaved_and_the_slow_leave() -> None:
    machine = Machine({1: 100 * CONTENDING - 1, 2: 100, 4: 95})
    run(machine, max_batch=8)
    assert [lanes for lanes, _ in machine.asked] == [1, 2, 4] + [2, 4] * LATER_ROUNDS


def test_smaller_and_larger_batches_are_tried_with_the_best_lanes() -> None:
    machine = Machine({1: 80, 2: 100, 4: 80})
    found, _ = run(machine)
    assert machine.asked[3:] == [(2, None), (2, 4), (2, 16)] * LATER_ROUNDS
    assert found.recommended is not None
    assert found.recommended.settings() == {"workers": "1", "lanes": "2", "threads": "4", "max_batch": "16"}


def test_a_setting_that_has_left_does_not_win_because_the_machine_was_faster_then() -> None:
    found, _ = run(Machine({1: 80, 2: 100, 4: 99}, slowdown=1.05))
    assert found.trials[0].faces_per_second > max(each.faces_per_second for each in found.trials[1:])
    assert found.recommended is not None
    assert (found.recommended.candidate.lanes, found.recommended.max_batch) == ("2", 16)


def test_the_first_round_does_not_count_where_there_are_later_ones() -> None:
    found, _ = run(Machine({1: 800}, slowdown=2), lanes=1, max_batch=8)
    assert len(found.trials[0].measurements) == 1 + LATER_ROUNDS
    assert found.trials[0].faces_per_second == pytest.approx(100)  # after 400 in the first round: 200, 100 and 50


def test_progress_never_goes_back_and_ends_at_all() -> None:
    for slow in (80, 100):  # of which the first leaves early
        _, shares = run(Machine({1: slow, 2: 100, 4: slow}))
        assert shares == sorted(shares)
        assert shares[-1] == 1


def test_a_setting_that_cannot_be_started_is_named_and_the_others_go_on() -> None:
    found, _ = run(Machine({1: 100, 2: 110}))
    failed = [each for each in found.trials if each.failure]
    assert [each.candidate.lanes for each in failed] == ["4"]
    assert "Not measured: 1 worker, 4 lanes. The service ended" in bench_command.sweep_text(found)


def test_a_setting_under_which_requests_fail_is_not_recommended() -> None:
    def fails(*_: object) -> Measurement:
        measured = measurement(100)
        return replace(measured, steps=(measured.steps[0], replace(measured.steps[1], failed={"status 500": 3})))

    with pytest.raises(MeasurementFailed, match=r"With 32 clients requests failed \(3 x status 500\)"):
        Sweep({}, {}, 1, None, 1).run(fails, lambda *_: None)


def test_where_no_setting_can_be_measured_the_reason_is_the_error() -> None:
    with pytest.raises(MeasurementFailed, match=r"No setting could be measured\. The service ended"):
        run(Machine({}))


def test_a_device_with_one_lane_is_not_measured_with_more() -> None:
    machine = Machine({1: 100, 2: 200, 4: 200}, lanes_at_most=1)
    found, _ = run(machine, max_batch=8)
    assert [lanes for lanes, _ in machine.asked] == [1, 2] + [1] * LATER_ROUNDS
    assert found.recommended is not None
    assert found.recommended.candidate.lanes == "1"


# ── the command ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_services_are_measured_and_the_best_setting_is_printed_as_an_environment_file(
    tiny_recogniser: Path, tmp_path: Path
) -> None:
    output = tmp_path / "sweep.json"
    fixed = ("--workers", "1", "--threads", "2", "--max-batch", "8", "--clients", "3")
    done = sweep("--pack", tiny_recogniser, "--seconds", "0.2", *fixed, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "Trying 3 settings with 1 client and with 3, in 4 rounds: at most about " in done.stderr
    figures = json.loads(output.read_text())
    assert figures["is_complete"]
    assert [each["lanes"] for each in figures["trials"]] == [AUTO, "1", "2"]
    for each in figures["trials"]:
        assert 1 <= len(each["rounds"]) <= 1 + LATER_ROUNDS
        assert each["lanes"] in (AUTO, str(each["rounds"][0]["service"]["lanes"]))
        assert [step["clients"] for step in each["rounds"][0]["steps"]] == [1, 3]
        assert each["rss_mb"] > 50
        row = rf"^ +1 +{each['lanes']} +2 +8 +{each['faces_per_second']:.1f} .*{each['rss_mb']:.0f} MB"
        assert re.search(row, done.stdout, re.MULTILINE)
    lines = done.stdout.splitlines()[-4:]
    assert sorted(lines) == sorted(f"ARCFACE_{name.upper()}={value}" for name, value in figures["recommended"].items())
    assert lines[0] == "ARCFACE_WORKERS=1"


def test_ctrl_c_prints_what_was_measured_and_leaves_no_service_behind(tiny_recogniser: Path, tmp_path: Path) -> None:
    output = tmp_path / "sweep.json"
    options = ["--pack", str(tiny_recogniser), "--seconds", "0.2", "--threads", "2", "--lanes", "1"]
    # a test run in the background ignores Ctrl-C, and its children would inherit that
    heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    code = (
        "import os, signal, sys\n"
        "from arcface_api.bench import measure\n"
        "from arcface_api.cli import main\n"
        "measured, count = measure.measure_own, 0\n"
        "def interrupted(*arguments):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == 2:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return measured(*arguments)\n"
        "measure.measure_own = interrupted\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", "--sweep", *options, "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
        preexec_fn=heeds,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "The sweep was ended early: others may be faster." in done.stdout
    assert "ARCFACE_LANES=1" in done.stdout.splitlines()
    figures = json.loads(output.read_text())
    assert (figures["is_complete"], len(figures["trials"][0]["rounds"])) == (False, 1)


def test_a_service_that_runs_elsewhere_cannot_be_swept() -> None:
    done = sweep("--url", "http://localhost:5555")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the settings of a service that runs cannot be changed: leave out --url" in re.sub(r"\s+", " ", done.stderr)
