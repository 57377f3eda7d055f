"""What reliability.md shows of faults and stops: measured figures, beside what repairs each fault and what tests it."""

from pathlib import Path
from typing import Any, NamedTuple

from results import read

TESTS = Path(__file__).resolve().parents[1] / "tests"
SEEN = {
    "500 model_failed": "500 `model_failed`",
    "500 embedding_invalid": "500 `embedding_invalid`",
    "503 service_closing": "503 `service_closing`",
    "503 deadline_exceeded": "503 `deadline_exceeded`",
    "408 upload_stalled": "408 `upload_stalled`, for bodies that arrived meanwhile",
    "200 with rows that are marked as failed": "batches: 200, each failed row marked",
    "closed before the answer": "connection closed before the answer",
    "cut off in the answer": "connection closed within the answer",
    "no connection": "no connection",
}
"""What callers saw, as a reader says it."""


class Row(NamedTuple):
    """What a measured fault's row says besides figures."""

    repaired_by: str
    test: str
    """`file::test` below tests/."""


ALONE = "nothing has to: only that batch fails"
SUPERVISOR = "the supervisor starts another worker"
MANAGER = "restart policy"
LIVES_ON = "process/test_faults.py::test_process_lives_on_and_loses_nothing"
REPLACED = "process/test_faults.py::test_process_is_replaced_and_the_other_loses_nothing"
STOPPED = "process/test_faults.py::test_what_waits_in_the_kernel_when_the_service_is_stopped_is_answered"
DISK = "process/test_faults.py::test_worker_is_replaced_whatever_the_disk_does"
HUNG = "process/test_hangs.py::test_worker_that_hangs_is_replaced_and_the_other_loses_nothing"
ROWS = {
    "the model raises an exception": Row(ALONE, LIVES_ON),
    "the GPU has no memory left for a batch": Row(ALONE, LIVES_ON),
    "the model returns NaN": Row(ALONE, LIVES_ON),
    "the model returns zeros": Row(ALONE, LIVES_ON),
    "the model returns a row too many": Row(ALONE, LIVES_ON),
    "the model returns rows that are too short": Row(ALONE, LIVES_ON),
    "a CUDA error after which every call fails": Row(
        "after `ARCFACE_HANG_SECONDS` the worker ends itself; the supervisor starts another",
        "process/test_faults.py::test_model_that_only_fails_is_seen_by_readyz_and_ends_the_process",
    ),
    "an inference does not end": Row(
        "after `ARCFACE_HANG_SECONDS` the worker ends itself; the supervisor starts another", HUNG
    ),
    "the model aborts its process": Row(SUPERVISOR, REPLACED),
    "the model crashes (SIGSEGV)": Row(SUPERVISOR, REPLACED),
    "a worker is killed (SIGKILL)": Row(
        SUPERVISOR, "process/test_workers.py::test_killed_worker_is_replaced_and_the_other_goes_on"
    ),
    "a worker is stopped (SIGSTOP)": Row(
        "after `ARCFACE_HANG_SECONDS` the supervisor kills it and starts another", HUNG
    ),
    "the supervisor is killed (SIGKILL)": Row(
        f"workers answer what they have, and end; {MANAGER}",
        "process/test_workers.py::test_workers_do_not_outlive_a_parent_that_was_killed",
    ),
    "the only process is killed (SIGKILL)": Row(
        MANAGER, "process/test_client_restart.py::test_killed_service_loses_no_picture"
    ),
    "SIGTERM": Row(f"{MANAGER}, if it was not meant", STOPPED),
    "SIGINT": Row(
        f"{MANAGER}, if it was not meant",
        "process/test_workers.py::test_at_the_end_every_worker_answers_what_is_in_flight",
    ),
    "all processes stand still for 20 s": Row(
        "nothing has to: time in which it stood still does not count",
        "process/test_hangs.py::test_a_process_that_was_stopped_for_a_while_does_not_take_its_work_for_hung",
    ),
    "the clock jumps by hours": Row("nothing has to: it is only shown, never used to measure", LIVES_ON),
    "the disk is full": Row(f"{SUPERVISOR}, should one die: neither requests nor a start need a disk", DISK),
    "the disk is read-only": Row("the same", DISK),
    "the model's file changes": Row("nothing has to: the model is in memory", LIVES_ON),
    "the model's file changes, and a worker dies": Row(
        "the other workers serve; the new one refuses the changed file, and starts when it is as before", REPLACED
    ),
    "callers leave at each stage": Row("nothing has to: their work is dropped", LIVES_ON),
    "no file can be opened any more": Row(
        "nothing has to: connections that are open go on, new ones are closed", LIVES_ON
    ),
    "memory ends while pictures are decoded": Row(
        "nothing has to: the picture for which there is no memory is answered with 500 `internal_error`", LIVES_ON
    ),
    "a decoder process is killed": Row(
        "the picture is decoded again, in a new one",
        "process/test_isolation.py::test_decoder_that_was_killed_costs_no_picture",
    ),
}
"""By the names of `benchmarks.questions.faults`."""


def faults_table() -> str:
    """A row for each fault that was measured."""
    lines = [
        "| what happens | times | workers | callers in flight see | `/readyz` meanwhile | what repairs it | well again,"
        " s: median, worst | test |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    faults, order = read("faults.json")["faults"], list(ROWS)
    for name in sorted(faults, key=order.index):
        found, row = faults[name], ROWS[name]
        file, _, test = row.test.partition("::")
        assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8"), f"{row.test} is not there"
        seconds = found["recovery_seconds"]
        lines.append(
            f"| {name} | {found['times']} | {found['workers']} | {_seen(found['callers_saw'])} |"
            f" {_ready(found['readyz'])} |"
            f" {row.repaired_by} | {seconds['median']:.1f}, {seconds['worst']:.1f} | `{file}`: `{test}` |"
        )
    return "\n".join(lines)


def faults_sentence() -> str:
    """How it was measured."""
    report = read("faults.json")
    right = sum(found["right"] for found in report["faults"].values())
    wrong = sum(found["checks"]["wrong"]["value"] for found in report["faults"].values())
    lost = sum(found["checks"]["not_allowed"]["value"] for found in report["faults"].values())
    return (
        f"Each fault happened while {report['callers']} callers sent single pictures, forms,"
        f" batches and bad pictures, some slowly, and some left. {right:,} answers were right, bit by bit; {wrong} were"
        f" wrong; {lost} callers saw something that the table does not allow."
        f" {_machine(report)} [Result](../benchmarks/results/faults.json); `python -m benchmarks.questions.faults`"
        " repeats it."
    )


def soak_sentence() -> str:
    """What callers had, and what the service used, in half an hour of overload."""
    report = read("soak.json")
    endings, checks = report["endings"], report["checks"]
    late = report["pictures"].get("deadline_exceeded", 0)
    return (
        f"{report['minutes']:g} minutes at 120 % of the capacity: {endings['right']:,} answers were right, bit by bit,"
        f" {checks['wrong']['value']} wrong; {endings['429 queue_full']:,} requests were refused (429),"
        f" {endings['left']:,} callers left, and {late:,} pictures of batches came too late (503, in their rows)."
        f" {checks['accepted_and_not_answered']['value']} accepted requests had no answer. Memory at the end was"
        f" {checks['rss_growth']['value']:.3f} of that after the first five minutes; descriptors and threads stayed the"
        f" same. {_machine(report)} [Result](../benchmarks/results/soak.json); `python -m benchmarks.questions.soak`"
        " repeats it."
    )


def stops_table() -> str:
    """A row for each way of serving that was stopped under load."""
    lines = [
        "| served by | stops | accepted requests: answered right | sent just before, on a connection without an answer"
        " so far: answered right | sent later: answered, closed before an answer, refused | exit status 0 | ended"
        " after, s: median, worst |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    report = read("sigterm.json")
    for name, found in report["kinds"].items():
        accepted, new, later = (found[of] for of in ("accepted", "sent_before_on_new_connections", "sent_after"))
        seconds = found["ended_seconds"]
        lines.append(
            f"| {name} | {report['times']} | {accepted.get('right', 0):,} of {sum(accepted.values()):,} |"
            f" {new.get('right', 0):,} of {sum(new.values()):,} | {later.get('right', 0):,},"
            f" {later.get('closed before the answer', 0):,}, {later.get('no connection', 0):,} |"
            f" {found['exit_statuses'].get('0', 0)} of {report['times']} | {seconds['median']}, {seconds['worst']} |"
        )
    return "\n".join(lines)


def _seen(saw: dict[str, int]) -> str:
    return ", ".join(SEEN.get(what, f"`{what}`") for what in saw) or "nothing"


def _ready(readyz: dict[str, int]) -> str:
    statuses = sorted({"no answer" if what.startswith("no") else what[:3] for what in readyz})
    return ", ".join(statuses) or "200"


def _machine(report: dict[str, Any]) -> str:
    return f"({report['recogniser']['name']}, {report['machine']['cpus']} CPUs, {report['machine']['processor']}.)"
