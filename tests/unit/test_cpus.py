"""Promises of `arcface_api.cpus`: threads follow the quota, not the host."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from arcface_api.cpus import memory_limit_bytes, usable_cpus

HOST_CPUS = 64


@pytest.fixture(autouse=True)
def big_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: HOST_CPUS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(HOST_CPUS)), raising=False)


@pytest.mark.parametrize(
    ("cpu_max", "cpus"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),  # half a thread is not to be had: the second one is throttled
        ("50000 100000", 1),
        ("max 100000", HOST_CPUS),
        ("nonsense", HOST_CPUS),
        ("12800000 100000", HOST_CPUS),
    ],
)
def test_quota_of_cgroup_v2_counts(tmp_path: Path, cpu_max: str, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{cpu_max}\n")
    assert usable_cpus(tmp_path).number == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("300000", 3), ("-1", HOST_CPUS)])
def test_quota_of_cgroup_v1_counts(tmp_path: Path, quota: str, cpus: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(tmp_path).number == cpus


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


@dataclass(frozen=True)
class Tree:
    """Control groups, and the path of this process in them."""

    membership: str
    files: dict[str, str]
    cpus: int
    memory: int = 0


TREES = {
    "systemd's CPUQuota of a service": Tree(
        "0::/system.slice/arcface.service",
        {"system.slice/arcface.service/cpu.max": "50000 100000", "system.slice/arcface.service/memory.max": "5000000"},
        cpus=1,
        memory=5_000_000,
    ),
    "of the slice that it is in": Tree(
        "0::/system.slice/arcface.service",
        {
            "system.slice/cpu.max": "200000 100000",
            "system.slice/arcface.service/cpu.max": "max 100000",
            "system.slice/memory.max": "4000000",
            "system.slice/arcface.service/memory.max": "max",
        },
        cpus=2,
        memory=4_000_000,
    ),
    "the smallest along the path": Tree(
        "0::/a/b/c",
        {
            "a/cpu.max": "300000 100000",
            "a/b/cpu.max": "200000 100000",
            "a/b/c/cpu.max": "400000 100000",
            "a/x/cpu.max": "100000 100000",
        },
        cpus=2,
    ),
    "a container with a namespace of its own": Tree("0::/", {"cpu.max": "300000 100000"}, cpus=3),
    "a container that sees the host's path": Tree("0::/docker/0123", {"cpu.max": "300000 100000"}, cpus=3),
    "a namespace below another": Tree("0::/../../jobs/7", {"jobs/7/cpu.max": "200000 100000"}, cpus=2),
    "v1": Tree(
        "11:memory:/m/n\n4:cpu,cpuacct:/c/d\n1:name=systemd:/s",
        {
            "cpu,cpuacct/c/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/c/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/c/d/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/c/d/cpu.cfs_period_us": "100000",
            "memory/m/memory.limit_in_bytes": "3000000",
            "memory/m/n/memory.limit_in_bytes": "9223372036854771712",
        },
        cpus=3,
        memory=3_000_000,
    ),
    "v1 in a container": Tree(
        "4:cpu,cpuacct:/docker/0123",
        {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000", "memory/memory.limit_in_bytes": "7000000"},
        cpus=2,
        memory=7_000_000,
    ),
    "v1 and v2 side by side": Tree(
        "4:cpu:/c\n0::/u",
        {
            "cpu/c/cpu.cfs_quota_us": "400000",
            "cpu/c/cpu.cfs_period_us": "100000",
            "unified/u/cpu.max": "300000 100000",
        },
        cpus=3,
    ),
    "another process's group": Tree("0::/a", {"b/cpu.max": "100000 100000"}, cpus=HOST_CPUS),
    "nonsense": Tree("what is this\n\n", {"cpu.max": "1 0"}, cpus=HOST_CPUS),
}


@pytest.mark.parametrize("name", TREES)
def test_smallest_limit_on_the_way_to_the_root_counts(tmp_path: Path, name: str) -> None:
    tree, root = TREES[name], tmp_path / "cgroup"
    write(tmp_path / "membership", tree.membership)
    for path, content in tree.files.items():
        write(root / path, content)
    assert usable_cpus(root, tmp_path / "membership").number == tree.cpus
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit_bytes(root, tmp_path / "membership") == (tree.memory or machine)


def test_limits_count_where_nothing_states_the_group(tmp_path: Path) -> None:
    write(tmp_path / "cpu.max", "200000 100000")
    assert usable_cpus(tmp_path, tmp_path / "missing").number == 2


def test_affinity_counts_without_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    assert usable_cpus(tmp_path).number == 3


@pytest.mark.parametrize(
    ("quota", "affinity", "said"),
    [
        ("max", 64, "64 of 64"),
        ("6400000", 64, "64 of 64"),
        ("50000", 64, "1 of 64 (the quota in {} allows 0.5)"),
        ("150000", 2, "2 of 64 (its affinity allows 2 and the quota in {} allows 1.5)"),
        ("300000", 2, "2 of 64 (its affinity allows 2)"),
    ],
)
def test_what_limits_the_cpus_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, affinity: int, said: str
) -> None:
    write(tmp_path / "a" / "cpu.max", f"{quota} 100000")
    write(tmp_path / "cpu.max", "max 100000")
    write(tmp_path / "membership", "0::/a/b")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    found = str(usable_cpus(tmp_path, tmp_path / "membership"))
    assert found == said.format(tmp_path / "a" / "cpu.max")


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_memory_limit_of_the_cgroup_counts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("123456789\n")
    assert memory_limit_bytes(tmp_path) == 123456789


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_without_a_limit_the_machine_s_memory_counts(tmp_path: Path, limit: str) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    assert memory_limit_bytes(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
