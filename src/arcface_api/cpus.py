"""How many CPUs this process may really use, and what they can do.

ONNX Runtime and OpenCV size their thread pools from the host. In a container with a quota of two CPUs on a 64-core
host that makes 64 threads fight for two CPUs. So threads are always set, from the smaller of affinity and quota.
"""

import math
import os
import platform
from pathlib import Path
from typing import Any

CGROUP_ROOT = Path("/sys/fs/cgroup")
CPU_INFO = Path("/proc/cpuinfo")


def available_cpus(cgroup_root: Path = CGROUP_ROOT) -> int:
    """CPUs this process may use: the smaller of its affinity mask and its cgroup's CPU quota, at least 1.

    A quota of 1.5 CPUs counts as 2: the second thread is throttled half of the time, a single one would waste the half.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _cgroup_quota(cgroup_root)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def cpu_flags(cpu_info: Path = CPU_INFO) -> frozenset[str]:
    """Instruction sets of the CPU as Linux names them on x86 (`amx_bf16` …); empty where it tells none."""
    return frozenset(_cpu_fact("flags", cpu_info).split())


def cpu_name(cpu_info: Path = CPU_INFO) -> str:
    """The CPU's name; empty where the system tells none."""
    return _cpu_fact("model name", cpu_info)


def machine() -> dict[str, Any]:
    """What figures have to name beside them: processor, CPUs, system, Python."""
    return {
        "processor": cpu_name() or platform.processor(),
        "cpus": available_cpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu_fact(wanted: str, cpu_info: Path) -> str:
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return ""
    facts = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in facts if key.strip() == wanted), "")


def _cgroup_quota(root: Path) -> float | None:
    """CPU quota in CPUs, or None without one.

    Inside a container the files of its own group stand at the root. Source: the Linux kernel's admin-guide/cgroup-v2
    (`cpu.max`: "$MAX $PERIOD" in microseconds) and scheduler/sched-bwc (v1: `cpu.cfs_*`, -1 for no quota).
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or something this kernel invented
        return None
    return cpus if cpus > 0 else None
