"""What do callers in flight see of each fault, and how long until all is well again without a person?

    python -m benchmarks.questions.faults --recogniser FILE.onnx --times 20 --output benchmarks/results/faults.json

A real service under load. Each caller knows the right vector of every picture that it sends; every answer is compared
bit by bit. Each fault happens `--times` times. Exit status 1 where an accepted request was lost by a process that
lived, a vector was wrong, or a caller saw what the fault's row does not allow. Needs Linux; the rows about disks need
root, which mounts file systems in memory, and are left out without.

To add a fault, give `FAULTS` a line: what happens, a function that makes it happen, and what callers may see.
"""

import itertools
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import onnx
import psutil
from onnx import numpy_helper

from arcface_api.bench.connection import Address, raw_request
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.checks import at_most, broken_of_kinds
from benchmarks.lib.knowing import (
    CLOSED,
    CUT,
    LEFT,
    MARKED,
    NO_CONNECTION,
    RIGHT,
    WRONG,
    Crowd,
    Ending,
    Known,
    ask_once,
    is_running,
    learnt,
    readdressed,
    requests_of,
)
from benchmarks.lib.recogniser import say
from benchmarks.lib.scene import ReadyWatch, Scene, limit
from benchmarks.lib.service import write_report

CALLERS = 8
PAUSE_SECONDS = 0.02
"""Of each caller between two requests."""
PICTURES = 16
STEADY_ANSWERS = 3
"""Right answers that each caller must have had before the first fault, and after each one."""
PAUSED_SECONDS = 20.0
"""Longer than a hang may take."""
RESTARTED = frozenset({NO_CONNECTION, "503 service_closing"})


@dataclass
class Happened:
    """One fault that has happened."""

    began: float
    ended: float
    """Of a fault that lasts: when its cause was gone. Recovery counts from here."""
    victims: set[int] = field(default_factory=set)
    """Processes that ended by it, or were ended for it."""
    connections: dict[int, set[int]] = field(default_factory=dict)
    """Of each process that served, just before."""
    lost_by_death: bool = False
    """The victims could not answer what they had accepted."""
    closes_from: float = math.inf
    """From then on the victims, which answer what they have accepted, may close connections between two requests."""


Inject = Callable[[Scene], Happened]


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    name: str
    inject: Inject
    allowed: frozenset[str] = frozenset()
    """What callers may see besides right answers."""
    workers: int = 1
    restarts: bool = False
    """It needs a service manager that starts the service again."""
    options: tuple[str, ...] = ()
    disk: bool = False
    """It gets a small file system of its own for its cache and its temporary files"""
    disk_fills: bool = False
    """and for its log."""


# ── how each one is made to happen ─────────────────────────────────────────────────────────────────────────────────


def in_the_model(fault: str, *, is_deadly: bool = False, answers_first: bool = False) -> Inject:
    """Inside ONNX Runtime's `run`, in one batch. `answers_first`: the process ends, but answers all that wait."""

    def inject(scene: Scene) -> Happened:
        connections = scene.connections()
        pid = scene.arm("inference", fault)
        now = time.monotonic()
        victims = {pid} if is_deadly else set()
        closes_from = now + scene.hang_seconds - 1 if answers_first else math.inf
        is_lost = is_deadly and not answers_first
        return Happened(now, now, victims, connections, lost_by_death=is_lost, closes_from=closes_from)

    return inject


def clock(scene: Scene) -> Happened:
    """An hour forward, then two back, then forward again."""
    began = time.monotonic()
    for seconds in (3600, -7200, 3600):
        scene.arm("inference", f"clock {seconds}")
        time.sleep(0.3)
    return Happened(began, time.monotonic())


def signalled(number: int, *, whom: str) -> Inject:
    """A signal to the service's first process, or to a worker."""

    def inject(scene: Scene) -> Happened:
        connections = scene.connections()
        serving = scene.serving()
        pid = scene.process.pid if whom == "service" else serving[0]
        victims = {*serving, pid} if whom == "service" else {pid}
        now = time.monotonic()
        os.kill(pid, number)
        # Without their parent, workers answer what they have, and end.
        is_lost = number == signal.SIGKILL and (whom == "worker" or scene.workers == 1)
        return Happened(now, now, victims, connections, lost_by_death=is_lost, closes_from=now)

    return inject


def paused(scene: Scene) -> Happened:
    """All processes stand still, as in a container that is paused."""
    pids = {scene.process.pid, *scene.serving()}
    began = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSED_SECONDS)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    return Happened(began, time.monotonic())


def worker_stands_still(scene: Scene) -> Happened:
    """One worker of two is stopped for good."""
    connections, pid = scene.connections(), scene.serving()[0]
    now = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    return Happened(now, now, {pid}, connections, lost_by_death=True)


def few_files(scene: Scene) -> Happened:
    """The process may open four more files, and 50 callers connect."""
    pid = scene.process.pid
    began = time.monotonic()
    limit(pid, resource.RLIMIT_NOFILE, len(list(Path(f"/proc/{pid}/fd").iterdir())) + 4)
    with ExitStack() as stack:
        for _ in range(50):
            link = stack.enter_context(socket.socket())
            link.settimeout(5)
            with suppress(OSError):
                link.connect(("127.0.0.1", scene.port))
        time.sleep(2)
    limit(pid, resource.RLIMIT_NOFILE, None)
    return Happened(began, time.monotonic())


def memory_ends(scene: Scene) -> Happened:
    """The process may take 32 MB more, and two large pictures come, whose pixels need 75 MB each."""
    pid = scene.process.pid
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024
    began = time.monotonic()
    limit(pid, resource.RLIMIT_DATA, used + 32 * 2**20)
    seen = [ask_once(Address("127.0.0.1", scene.port), _large(scene)) for _ in range(2)]
    limit(pid, resource.RLIMIT_DATA, None)
    assert not any(status == 200 for status, _ in seen), "there was enough memory"
    assert not any(b"image_damaged" in body for _, body in seen), f"the picture was blamed: {seen}"
    assert ask_once(Address("127.0.0.1", scene.port), _large(scene))[0] == 200, "a large picture is not served any more"
    return Happened(began, time.monotonic())


def decoder_is_killed(scene: Scene) -> Happened:
    """As the kernel does when memory runs out: decoders ask for it."""
    began = time.monotonic()
    for child in psutil.Process(scene.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if any("decoder_process" in part for part in child.cmdline()):
                child.kill()
    return Happened(began, began)


def disk_is(state: str) -> Inject:
    """The disk is full, or read-only, while a worker has to be replaced."""

    def inject(scene: Scene) -> Happened:
        disk = scene.disk
        assert disk is not None
        began, connections, pid = time.monotonic(), scene.connections(), scene.serving()[0]
        if state == "full":
            with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(65536)):
                    pass
        else:
            _mount("-o", "remount,ro", str(disk))
        os.kill(pid, signal.SIGKILL)
        scene.until(lambda: pid not in scene.serving() and scene.is_complete())
        ended = time.monotonic()
        if state == "full":
            (disk / "filler").unlink()
        else:
            _mount("-o", "remount,rw", str(disk))
        return Happened(began, ended, {pid}, connections, lost_by_death=True)

    return inject


def file_changes(*, worker_dies: bool) -> Inject:
    """Another model takes the place of the file, for a while."""

    def inject(scene: Scene) -> Happened:
        model = Path(scene.process.args[scene.process.args.index("--pack") + 1])  # type: ignore[union-attr, index, call-overload]  # a list of strings
        began, connections, pid = time.monotonic(), scene.connections(), scene.serving()[0]
        kept = model.read_bytes()
        _replace(model, _with_other_weights(kept))
        if worker_dies:
            refused = scene.log_text().count("could not start")
            os.kill(pid, signal.SIGKILL)
            scene.until(lambda: scene.log_text().count("could not start") > refused)
        time.sleep(1)
        _replace(model, kept)
        victims = {pid} if worker_dies else set()
        return Happened(began, time.monotonic(), victims, connections, lost_by_death=worker_dies)

    return inject


def callers_leave(scene: Scene) -> Happened:
    """200 callers leave: before the first byte, in the head, behind it, in the body, and while they are served."""
    began = time.monotonic()
    request = _sent(scene, 1000).request
    head = request.index(b"\r\n\r\n") + 4
    for stage in itertools.islice(itertools.cycle((0, 20, head, head + 500, len(request))), 200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", scene.port), timeout=20) as link:
            link.sendall(request[:stage])
    scene.until(lambda: scene.pictures_inside() <= CALLERS * 4)
    return Happened(began, time.monotonic())


FAILS, INVALID = frozenset({"500 model_failed", MARKED}), frozenset({"500 embedding_invalid", MARKED})
CLOSING = frozenset({"503 service_closing", NO_CONNECTION, MARKED})
DIES = frozenset({CLOSED, CUT, NO_CONNECTION})
FAULTS = (
    Fault("the model raises an exception", in_the_model("raise"), FAILS),
    Fault("the GPU has no memory left for a batch", in_the_model("cuda_memory"), FAILS),
    Fault(
        "a CUDA error after which every call fails",
        in_the_model("cuda_lost", is_deadly=True, answers_first=True),
        FAILS | CLOSING,
        workers=2,
    ),
    Fault("the model returns NaN", in_the_model("nan"), INVALID),
    Fault("the model returns zeros", in_the_model("zero"), INVALID),
    Fault("the model returns a row too many", in_the_model("rows"), FAILS),
    Fault("the model returns rows that are too short", in_the_model("shape"), FAILS),
    Fault("an inference does not end", in_the_model("hang", is_deadly=True, answers_first=True), CLOSING, workers=2),
    Fault("the model aborts its process", in_the_model("abort", is_deadly=True), DIES, workers=2),
    Fault("the model crashes (SIGSEGV)", in_the_model("crash", is_deadly=True), DIES, workers=2),
    Fault("a worker is killed (SIGKILL)", signalled(signal.SIGKILL, whom="worker"), DIES, workers=2),
    Fault("a worker is stopped (SIGSTOP)", worker_stands_still, DIES, workers=2),
    Fault(
        "the supervisor is killed (SIGKILL)",
        signalled(signal.SIGKILL, whom="service"),
        RESTARTED,
        workers=2,
        restarts=True,
    ),
    Fault("the only process is killed (SIGKILL)", signalled(signal.SIGKILL, whom="service"), DIES, restarts=True),
    Fault("SIGTERM", signalled(signal.SIGTERM, whom="service"), RESTARTED, restarts=True),
    Fault("SIGINT", signalled(signal.SIGINT, whom="service"), RESTARTED, restarts=True),
    # Of a body that arrives meanwhile, the service cannot know that it came in time.
    Fault("all processes stand still for 20 s", paused, frozenset({"408 upload_stalled"}), workers=2),
    Fault("the clock jumps by hours", clock),
    Fault("the disk is full", disk_is("full"), DIES, workers=2, disk=True, disk_fills=True),
    Fault("the disk is read-only", disk_is("read-only"), DIES, workers=2, disk=True),
    Fault("the model's file changes", file_changes(worker_dies=False)),
    Fault("the model's file changes, and a worker dies", file_changes(worker_dies=True), DIES, workers=2),
    Fault("memory ends while pictures are decoded", memory_ends),
    Fault("callers leave at each stage", callers_leave),
    Fault("no file can be opened any more", few_files, frozenset({NO_CONNECTION})),
    Fault("a decoder process is killed", decoder_is_killed, options=("--decode-isolation", "process")),
)


# ── the run ────────────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    pictures = faces.load(arguments.faces, PICTURES)
    measured: dict[str, Any] = {}
    kept = json.loads(arguments.add_to.read_text(encoding="utf-8"))["faults"] if arguments.add_to else {}
    with TemporaryDirectory() as folder:
        known: list[Known] = []
        for fault in FAULTS:
            if arguments.only and not any(words in fault.name for words in arguments.only):
                continue
            if fault.disk and os.geteuid() != 0:
                say(f"left out, which needs root: {fault.name}")
                continue
            say(f"{arguments.times} times: {fault.name}")
            with scene_of(fault, model, Path(folder), arguments.serve_options) as scene:
                address = Address("127.0.0.1", scene.port)
                requests = requests_of(address, pictures)
                # What the first service answers is right for all that follow.
                known = readdressed(known, requests) if known else learnt(address, requests)
                try:
                    measured[fault.name] = try_fault(fault, scene, known, arguments.times)
                except AssertionError as error:
                    say(str(error))
                    measured[fault.name] = {"error": str(error), "checks": {"happened": at_most(None, 0)}}
                write_report(
                    {
                        "benchmark": "faults",
                        "recogniser": recogniser.describe(model),
                        "faces": faces.describe(arguments.faces),
                        "times": arguments.times,
                        "callers": CALLERS,
                        "faults": kept | measured,
                        "machine": machine.describe(),
                    },
                    arguments.output,
                )
    if failed := broken_of_kinds(measured):
        sys.exit(f"Does not hold: {', '.join(failed)}.")


@contextmanager
def scene_of(fault: Fault, model: Path, folder: Path, more: Sequence[str]) -> Iterator[Scene]:
    """A service that may meet this fault, with a copy of the model."""
    with TemporaryDirectory(dir=folder) as own, ExitStack() as stack:
        disk = Path(own) / "disk"
        disk.mkdir()
        if fault.disk:
            _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk))
            stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
        copy = Path(own) / model.name
        shutil.copyfile(model, copy)
        variables = {"TMPDIR": str(disk), "XDG_CACHE_HOME": str(disk / "cache")}
        given = [*fault.options, *more]
        with Scene(
            copy,
            *given,
            workers=fault.workers,
            restarts=fault.restarts,
            # A file that is being written would keep a file system from becoming read-only.
            log=disk / "log" if fault.disk_fills else None,
            disk=disk,
            variables=variables,
        ) as scene:
            yield scene


def try_fault(fault: Fault, scene: Scene, known: Sequence[Known], times: int) -> dict[str, Any]:
    """Let a fault happen so many times under load; what was seen, and whether all holds."""
    seconds: list[float] = []
    seen: Counter[str] = Counter()
    ready: Counter[str] = Counter()
    lost: list[str] = []
    with (
        Crowd(Address("127.0.0.1", scene.port), known, CALLERS, pause_seconds=PAUSE_SECONDS) as crowd,
        ReadyWatch(scene) as watch,
    ):
        _steady(scene, crowd)
        for _ in range(times):
            crowd.notable.clear()
            happened = fault.inject(scene)
            well_at = scene.until(lambda: _is_well(scene, happened))  # noqa: B023  # called at once
            _steady(scene, crowd)
            bad = [ending for ending in list(crowd.notable) if ending.what != LEFT]
            last_bad = max((ending.ended for ending in bad), default=0.0)
            serving_again = well_at if happened.victims else 0.0
            seconds.append(max(0.0, last_bad - happened.ended, serving_again - happened.ended))
            seen.update(ending.what for ending in bad)
            ready.update(watch.between(happened.began, max(well_at, last_bad)))
            lost += [_described(ending, happened) for ending in bad if not _is_excused(ending, happened, fault)]
    scene.until(lambda: scene.pictures_inside() == 0)
    return {
        "workers": fault.workers,
        "times": times,
        "needs_restart": fault.restarts,
        "callers_saw": dict(seen.most_common()),
        "right": crowd.endings[RIGHT],
        "readyz": dict(ready.most_common(6)),
        "recovery_seconds": {"median": round(median(seconds), 2), "worst": round(max(seconds), 2)},
        "exit_statuses": dict(Counter(map(str, scene.statuses))),
        "not_allowed": lost[:10],
        "checks": {
            "wrong": at_most(crowd.endings[WRONG], 0),
            "not_allowed": at_most(len(lost), 0),
        },
    }


def _is_well(scene: Scene, happened: Happened) -> bool:
    return not any(is_running(pid) for pid in happened.victims) and scene.is_complete()


def _steady(scene: Scene, crowd: Crowd) -> None:
    """Wait until every caller has had some right answers from now on."""
    before = list(crowd.rights)
    scene.until(lambda: all(now >= then + STEADY_ANSWERS for now, then in zip(crowd.rights, before, strict=True)))


def _is_excused(ending: Ending, happened: Happened, fault: Fault) -> bool:
    """Whether the caller may have seen this."""
    if ending.what in (CLOSED, CUT):
        if happened.lost_by_death:
            survivors = set().union(*(of for pid, of in happened.connections.items() if pid not in happened.victims))
            return ending.local_port not in survivors or ending.connected > happened.began
        is_between = ending.what == CLOSED and ending.sent > happened.closes_from
        # On a connection without a word it may not have been accepted.
        return is_between or (ending.is_first and NO_CONNECTION in fault.allowed)
    return ending.what in fault.allowed


def _described(ending: Ending, happened: Happened) -> str:
    return (
        f"{ending.kind}: {ending.what}; sent {ending.sent - happened.began:.3f} s, ended"
        f" {ending.ended - happened.began:.3f} s after the fault{', the first' if ending.is_first else ''}"
    )


# ── small things ───────────────────────────────────────────────────────────────────────────────────────────────────


def _large(scene: Scene) -> Known:
    return _sent(scene, 5000)


def _sent(scene: Scene, side: int) -> Known:
    """A request with a picture of one colour."""
    address = Address("127.0.0.1", scene.port)
    return Known("large", raw_request(address, "POST", "/embed", _picture(side), {"Content-Type": "image/png"}))


@cache
def _picture(side: int) -> bytes:
    pixels = np.full((side, side, 3), 77, np.uint8)
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def _with_other_weights(content: bytes) -> bytes:
    """A model that loads as well, and returns other vectors."""
    model = onnx.load_from_string(content)
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data) if each.data_type == 1 else 0)
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    changed: bytes = model.SerializeToString()
    return changed


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _parser() -> Any:
    parser = options.parser(__doc__)
    parser.add_argument("--times", type=int, default=3, help="that each fault happens (default 3)")
    parser.add_argument("--only", nargs="*", help="faults whose names contain one of these")
    parser.add_argument("--add-to", type=Path, help="an earlier result, whose other rows are kept")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
