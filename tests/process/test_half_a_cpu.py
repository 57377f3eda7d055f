"""Promise of a service with half a CPU, in a real control group: it uses one thread, and says so."""

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from arcface_api.cpus import CGROUPS
from pictures import picture_bytes
from serving import Run

PERIOD = 100_000
LIMITS = {
    CGROUPS / "cpu": {"cpu.cfs_period_us": f"{PERIOD}", "cpu.cfs_quota_us": f"{PERIOD // 2}"},  # v1
    CGROUPS: {"cpu.max": f"{PERIOD // 2} {PERIOD}"},  # v2
}


@pytest.fixture
def half_a_cpu() -> Iterator[Path]:
    """A group inside one that may use half a CPU."""
    name = f"arcface-api-test-{uuid.uuid4()}"
    for root, limits in LIMITS.items():
        outer, inner = root / name, root / name / "inner"
        try:
            inner.mkdir(parents=True)
            for file, limit in limits.items():
                (outer / file).write_text(limit)
        except OSError:
            with suppress(OSError):
                inner.rmdir()
            with suppress(OSError):
                outer.rmdir()
            continue
        yield inner
        inner.rmdir()
        outer.rmdir()
        return
    pytest.skip("needs control groups that may be written (root outside a container, or in a privileged one)")


def test_half_a_cpu_is_one_thread_and_the_service_says_so(half_a_cpu: Path, run: Run, tiny_recogniser: Path) -> None:
    into_it = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(half_a_cpu / "cgroup.procs")]
    service = run("--pack", tiny_recogniser, within=into_it)
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=100) as client:
        about = client.get("/info").json()
        assert client.post("/embed", files={"file": picture_bytes()}).status_code == 200
    assert half_a_cpu.name in Path(f"/proc/{service.process.pid}/cgroup").read_text()
    assert about["threads"] == about["lanes"] == 1
    assert about["cpus"].startswith(f"1 of {os.cpu_count()} (the quota in {half_a_cpu.parent}/cpu.")
    assert about["cpus"].endswith(" allows 0.5)")
    assert f"CPUs that it may use: {about['cpus']}." in service.log
    assert "1 thread, 1 lane" in service.log
