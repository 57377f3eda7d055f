"""How many CPUs and how much memory this process may use, and what the CPUs can do.

ONNX Runtime and OpenCV size their thread pools from the host: with a quota of 2 CPUs of 64, 64 threads would compete.
"""

import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class UsableCpus:
    """The CPUs that this process may use."""

    number: int
    """At least 1; a quota of 1.5 CPUs counts as 2."""
    of: int
    """All of the machine's."""
    limits: tuple[str, ...]
    """Why it may not use all of them, all of the time."""

    def __str__(self) -> str:
        """`1 of 2 (its affinity allows 1)`."""
        return f"{self.number} of {self.of}" + (f" ({' and '.join(self.limits)})" if self.limits else "")


def usable_cpus(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> UsableCpus:
    """As the affinity mask and the smallest CPU quota allow."""
    everything = os.cpu_count() or 1
    number = affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everything
    limits = [f"its affinity allows {affinity}"] if affinity < everything else []
    quota, file = _smallest_quota(root, membership)
    if quota < affinity:
        number = max(1, math.ceil(quota))
        limits.append(f"the quota in {file} allows {quota:g}")
    return UsableCpus(number, everything, tuple(limits))


def available_cpus(*groups: Path) -> int:
    """The number of CPUs that this process may use; `groups` as `usable_cpus` takes them."""
    return usable_cpus(*groups).number


def cpu_quota(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """The smallest CPU quota of the control groups, in CPUs; None if there is none."""
    quota, _ = _smallest_quota(root, membership)
    return None if math.isinf(quota) else quota


def task_limit(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int | None:
    """The most processes and threads that the control groups allow (`pids.max`); None if there is no limit."""
    limits = []
    for group in _groups(root, membership, "pids"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int((group / "pids.max").read_text()))
    return min(limits, default=None)


def memory_limit_bytes(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """The smaller of the machine's memory and the smallest limit.

    Source: the Linux kernel's admin-guide/cgroup-v2 (`memory.max`: bytes, or "max") and cgroup-v1/memory
    (`memory.limit_in_bytes`, a huge number for no limit).
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in _groups(root, membership, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # no such file, or "max"
                limits.append(int((group / name).read_text()))
    return min(limits)


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU as Linux names them on x86 (`amx_bf16`, …); empty if unknown."""
    return frozenset(_cpu_info("flags").split())


def cpu_name() -> str:
    """The CPU's name; empty if unknown."""
    return _cpu_info("model name")


def machine() -> dict[str, Any]:
    """What is reported beside measurements: processor, CPUs, system, Python."""
    return {
        "processor": cpu_name() or platform.processor(),
        "cpus": available_cpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu_info(name: str) -> str:
    """The first value with that name in /proc/cpuinfo, which psutil does not read; empty if there is none."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return ""
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _smallest_quota(root: Path, membership: Path) -> tuple[float, Path]:
    """In CPUs, and the file that has it; infinity if there is none.

    Source: the Linux kernel's admin-guide/cgroup-v2 (`cpu.max`: "$MAX $PERIOD" in microseconds) and
    scheduler/sched-bwc (v1: `cpu.cfs_*`, -1 for no quota).
    """
    smallest = math.inf, root
    for group in _groups(root, membership, "cpu"):
        for quota_file, period_file in (("cpu.max", None), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with suppress(OSError, ValueError, ZeroDivisionError):  # no such file, "max", or another form
                stated = (group / quota_file).read_text() + ((group / period_file).read_text() if period_file else "")
                quota, period = map(int, stated.split())
                if quota > 0:
                    smallest = min(smallest, (quota / period, group / quota_file))
    return smallest


def _groups(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups that may limit it, each with all those above it.

    `membership` has "hierarchy:controllers:path" for each hierarchy (cgroups(7)). v2 has one hierarchy, at the root, or
    in `unified` beside those of v1, each in a folder with its controllers' names. Inside a container the path may be
    the host's, of which nothing is there, and its own group's files are at the root.
    """
    top = PurePosixPath("/")
    places = {root: top, root / "unified": top, root / controller: top}
    with suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, stated = line.split(":", 2)
            path = PurePosixPath(stated)
            if not controllers:
                places |= {root: path, root / "unified": path}
            elif controller in controllers.split(","):
                places |= {root / controller: path, root / controllers: path}
    for place, path in places.items():
        inside = [part for part in path.parts if part not in ("/", "..")]
        for depth in range(len(inside), -1, -1):
            yield place.joinpath(*inside[:depth])
