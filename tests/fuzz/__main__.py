"""Fuzz the decoding of pictures: does any file crash it, stall it, take memory without bounds, or raise a wrong error?

    make fuzz [ARGS='--seconds 600 --seed 2']
    make fuzz ARGS='--target opencv'            # what the service no longer does: finds OpenCV's fault within a minute
    make fuzz ARGS='--replay build/fuzz/FILE'   # one input again

The same seed makes the same inputs. Findings are saved, and the exit status is 1. Progress goes to stderr.
"""

import argparse
import ctypes
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.lib import machine
from fuzz.child import MAX_GROWTH_MIB, peak_memory
from fuzz.runner import HANG_SECONDS, UNBOUNDED, Fuzzer
from fuzz.targets import LIMITS, TARGETS

REPEATS = 20
"""Of a replay: what an input breaks may show later."""
MALLOC_CHECKS = "libc_malloc_debug.so.0"
"""glibc's own; other systems have none."""


def main() -> int:
    """Run the command line; 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, default="decode")
    parser.add_argument("--seconds", type=float, help="default: 60, or without end where --executions says when")
    parser.add_argument("--executions", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="folder (default: build/fuzz)")
    parser.add_argument("--output", type=Path, help="write the result as JSON to this file, too")
    parser.add_argument("--replay", type=Path, metavar="FILE")
    options = parser.parse_args()
    check_blocks()
    if options.replay:
        return replay(options.target, options.replay)
    fuzzer = Fuzzer(options.target, options.seed, options.findings)
    seconds = options.seconds or (float("inf") if options.executions else 60)
    fuzzer.run(options.processes, seconds, options.executions or UNBOUNDED)
    slowest_seconds, slowest_number = fuzzer.report.slowest
    growth_mib, growth_number = fuzzer.report.peak_growth
    result = {
        "benchmark": f"fuzz-{options.target}",
        "target": options.target,
        "seed": options.seed,
        "processes": options.processes,
        "executions": fuzzer.report.outcomes.total(),
        "seconds": round(fuzzer.seconds, 1),
        "outcomes": dict(fuzzer.report.outcomes.most_common()),
        "findings": [{"number": each.number, "what": each.what.splitlines()[-1]} for each in fuzzer.findings],
        "slowest": {"cpu_ms": round(slowest_seconds * 1000, 1), "number": slowest_number},
        "peak_growth": {"mib": round(growth_mib, 1), "number": growth_number},
        "limits": {"hang_seconds": HANG_SECONDS, "growth_mib": MAX_GROWTH_MIB, "pixels": LIMITS.max_pixels},
        "machine": machine.describe(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 1 if fuzzer.findings else 0


def check_blocks() -> None:
    """Start this program again with glibc's checks of each block's borders: damage shows at once, not by luck."""
    with suppress(OSError):
        ctypes.CDLL(MALLOC_CHECKS)
        if MALLOC_CHECKS not in os.environ.get("LD_PRELOAD", ""):
            checks = {"LD_PRELOAD": MALLOC_CHECKS, "GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.perturb=165"}
            os.execve(sys.executable, [sys.executable, "-m", "fuzz", *sys.argv[1:]], os.environ | checks)


def replay(target: str, file: Path) -> int:
    """Run one input in this process; 1 where it takes too much time or memory. It may also raise, or kill it."""
    content = file.read_bytes()
    peak_kib = peak_memory()
    before_kib = peak_kib()
    for _ in range(REPEATS):
        began = time.process_time()  # the machine may be busy
        outcome = TARGETS[target](content)
        took = time.process_time() - began
        if took > HANG_SECONDS:
            break
    growth_mib = (peak_kib() - before_kib) / 1024
    print(f"{len(content)} bytes: {outcome} in {took * 1000:.1f} ms, memory grew by {growth_mib:.0f} MiB")
    return int(took > HANG_SECONDS or growth_mib > MAX_GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
