"""How many CPUs and how much memory this process may use, and what the CPUs can do.

ONNX Runtime and OpenCV size their thread pools from the host: with a quota of 2 CPUs of 64, 64 threads would compete.
"""

import math
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any


def available_cpus(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """The smaller of the affinity mask and the cgroup's CPU quota, at least 1; a quota of 1.5 CPUs counts as 2."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(affinity, math.ceil(_cgroup_quota(cgroup_root) or affinity)))


def memory_limit_bytes(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """The smaller of the machine's memory and the cgroup's limit.

    Inside a container the files of its own group are at the root. Source: the Linux kernel's admin-guide/cgroup-v2
    (`memory.max`: bytes, or "max") and cgroup-v1/memory (`memory.limit_in_bytes`, a huge number for no limit).
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int((cgroup_root / name).read_text()))
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


def _cgroup_quota(root: Path) -> float | None:
    """The quota in CPUs, or None without one.

    Inside a container the files of its own group are at the root. Source: the Linux kernel's admin-guide/cgroup-v2
    (`cpu.max`: "$MAX $PERIOD" in microseconds) and scheduler/sched-bwc (v1: `cpu.cfs_*`, -1 for no quota).
    """
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cpus = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, "max", or a form that is not documented
        return None
    return cpus if cpus > 0 else None
