"""Fuzz what strangers send: does it crash the program, stall it, bloat it, or raise an error that is not declared?

    make fuzz                                          # three minutes, shared by all targets
    make fuzz ARGS='--target upload --seconds 600'
    make fuzz ARGS='--replay build/fuzz/upload-crash-0123abcd'     # one input again
    make fuzz ARGS='--target archive --keep bomb=build/fuzz/archive-crash-0123abcd'     # keep it as a test
    make fuzz ARGS='--minimise'                        # keep the smallest inputs that reach what was reached

Findings are saved, and the exit status is 1. Progress goes to stderr. What was reached stays in build/fuzz, and the
next run goes on from there.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from benchmarks.lib import machine
from fuzz import corpus
from fuzz.target import CURRENT, HANG_SECONDS, run
from fuzz.targets import CHECKS, NAMES, target

_EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s+(\d+)", re.MULTILINE)
_SLOWEST, _PEAK = (
    re.compile(rf"^stat::{name}:\s+(\d+)", re.MULTILINE) for name in ("slowest_unit_time_sec", "peak_rss_mb")
)
_REACHED = re.compile(r"^#\d+\s.* cov: (\d+) ft: (\d+)", re.MULTILINE)
_SAVED = re.compile(r"Test unit written to (\S+)")
_PROGRESS = re.compile(r"^#(\d+)\s.*?(cov: \d+).*?(exec/s: \d+ rss: \w+)")
_PROGRESS_SECONDS = 20.0
_PATIENCE_SECONDS = 300.0
"""For the start and the end of a process on a busy machine."""
MALLOC_CHECKS = "libc_malloc_debug.so.0"
"""glibc's own; other systems have none."""


@dataclass
class Result:
    """What came of one target."""

    executions: int = 0
    seconds: float = 0.0
    reached_edges: int = 0
    peak_rss_mib: int = 0
    slowest_seconds: int = 0
    """By the clock, whole seconds, as libFuzzer measures."""
    findings: list[str] = field(default_factory=list)


def main() -> int:
    """Run the command line; 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--target", choices=NAMES, action="append", help=f"default: all but {' and '.join(sorted(CHECKS))}"
    )
    parser.add_argument("--seconds", type=float, default=180, help="for all targets together (default: 180)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: CPUs)")
    parser.add_argument("--seed", type=int, default=0, help="default: another one each time")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="of findings, and of what was reached")
    parser.add_argument("--output", type=Path, help="add the result as JSON to what this file has")
    parser.add_argument("--minimise", action="store_true")
    parser.add_argument("--replay", type=Path, metavar="FILE")
    parser.add_argument("--keep", metavar="NAME=FILE")
    options = parser.parse_args()
    targets = options.target or [name for name in NAMES if name not in CHECKS]
    if options.replay:
        name = options.target[0] if options.target else options.replay.name.partition("-")[0]
        if target(name).checks_blocks:  # by luck of the memory's layout: as when it was found
            again = command(name, str(options.replay))
            return int(subprocess.run(again, check=False, env=environment(name, options.folder)).returncode != 0)
        print(run(target(name), options.replay.read_bytes()))
        return 0
    if options.keep:
        name, _, path = options.keep.partition("=")
        corpus.keep_finding(targets[0], name, Path(path).read_bytes())
        return 0
    if options.minimise:
        for name in targets:
            minimise(name, options.folder)
        return 0
    jobs = min(options.jobs, len(targets))
    seconds = max(1, round(options.seconds * jobs / len(targets)))
    with ThreadPoolExecutor(jobs) as pool:
        fuzzed = pool.map(partial(fuzz, seconds=seconds, seed=options.seed, folder=options.folder), targets)
        results = dict(zip(targets, fuzzed, strict=True))
    text = json.dumps(report(results, options.output), indent=2) + "\n"
    print(text, end="")
    if options.output:
        options.output.write_text(text)
    return int(any(result.findings for result in results.values()))


def fuzz(name: str, *, seconds: int, seed: int, folder: Path) -> Result:
    """Fuzz one target in a process of its own, up to its first finding."""
    reached = prepared(name, folder)
    _current(name, folder).unlink(missing_ok=True)  # of an earlier run
    began = shown = time.monotonic()
    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={folder}/{name}-", str(reached)]
    said: list[str] = []
    with subprocess.Popen(
        command(name, *options), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace",
        env=environment(name, folder),
    ) as process:  # fmt: skip
        too_long = threading.Timer(seconds + _PATIENCE_SECONDS, process.kill)
        too_long.start()
        for line in process.stderr or ():
            progress = _PROGRESS.match(line)
            if not progress or not said:
                said.append(line)
            else:
                said[0] = line
            if progress and time.monotonic() - shown > _PROGRESS_SECONDS:
                shown = time.monotonic()
                print(f"{name}: {int(progress[1]):,} executions, {progress[2]}, {progress[3]}", file=sys.stderr)
        too_long.cancel()
    text = "".join(said)
    result = Result(seconds=round(time.monotonic() - began, 1))
    result.executions, result.peak_rss_mib, result.slowest_seconds = (
        int(found[1]) if (found := pattern.search(text)) else 0 for pattern in (_EXECUTIONS, _PEAK, _SLOWEST)
    )
    if not result.executions and (progress := _PROGRESS.match(text)):  # it crashed
        result.executions = int(progress[1])
    result.reached_edges = max((int(edges) for edges, _ in _REACHED.findall(text)), default=0)
    if process.returncode:
        saved = saved_input(name, text, folder)
        result.findings.append(saved or f"it ended with {process.returncode}")
        again = f"  again: make fuzz ARGS='--replay {saved}'\n" if saved else ""
        print(f"FOUND in {name}, after {result.executions:,} executions:\n{text[-4000:]}\n{again}", file=sys.stderr)
    print(f"{name}: {result.executions:,} executions in {result.seconds:.0f} s", file=sys.stderr)
    return result


def saved_input(name: str, text: str, folder: Path) -> str | None:
    """The file with the input that ended a process which printed `text`; None if nobody kept it."""
    if saved := _SAVED.search(text):
        return saved[1]
    current = _current(name, folder)
    if not current.exists():
        return None
    crash = folder / f"{name}-crash-{sha256(current.read_bytes()).hexdigest()}"
    return str(current.replace(crash))


def _current(name: str, folder: Path) -> Path:
    return folder / f"{name}-current"


def prepared(name: str, folder: Path) -> Path:
    """The folder of what was reached, with the seeds and what is kept."""
    reached = folder / "reached" / name
    reached.mkdir(parents=True, exist_ok=True)
    for content in (*target(name).seeds(), *corpus.kept(name).values()):
        (reached / sha256(content).hexdigest()).write_bytes(content)
    return reached


def minimise(name: str, folder: Path) -> None:
    """Keep the smallest inputs that reach what those of the last runs reached."""
    smallest = folder / "smallest" / name
    shutil.rmtree(smallest, ignore_errors=True)
    smallest.mkdir(parents=True)
    merge = command(name, "-merge=1", str(smallest), str(folder / "reached" / name))
    subprocess.run(merge, check=True, capture_output=True, env=environment(name, folder))
    count = corpus.keep(name, [file.read_bytes() for file in smallest.iterdir()])
    print(f"{name}: {count} inputs kept", file=sys.stderr)


def command(name: str, *options: str) -> list[str]:
    """What fuzzes one target."""
    return [sys.executable, "-m", "fuzz.child", name, *options]


def environment(name: str, folder: Path) -> dict[str, str]:
    """This process's, with glibc's checks of each block's borders: damage shows at once, not by luck."""
    if not target(name).checks_blocks:
        return dict(os.environ)
    return os.environ | {
        CURRENT: str(_current(name, folder).absolute()),
        "LD_PRELOAD": MALLOC_CHECKS,
        "GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.perturb=165",
    }


def report(results: dict[str, Result], earlier: Path | None) -> dict[str, object]:
    """The result as JSON; it is added to that of the file, if the packages are the same."""
    described = machine.describe()
    targets = {name: asdict(result) for name, result in results.items()}
    if earlier is not None and earlier.is_file():
        before = json.loads(earlier.read_text())
        if before["machine"]["packages"] == described["packages"]:
            for name, result in before["targets"].items():
                now = targets.setdefault(name, result)
                if now is not result:
                    now["executions"] += result["executions"]
                    now["findings"] = [*result["findings"], *now["findings"]]
                    now["seconds"] = round(now["seconds"] + result["seconds"], 1)
                    for most in ("reached_edges", "peak_rss_mib", "slowest_seconds"):
                        now[most] = max(now[most], result[most])
    return {
        "benchmark": "fuzz",
        "executions": sum(result["executions"] for result in targets.values()),
        "targets": dict(sorted(targets.items())),
        "limits": {
            "hang_cpu_seconds": HANG_SECONDS,
            "growth_mib": {name: target(name).growth_mib for name in sorted(targets)},
        },
        "machine": described,
    }


if __name__ == "__main__":
    sys.exit(main())
