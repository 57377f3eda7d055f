"""kill -9 at any moment leaves no pack or a whole one; two processes at once do not harm each other."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from arcface_api.packs import InstalledPack, PackLocations, pull
from arcface_api.packs.manifest import Source
from packs import file_server as answers
from packs.file_server import FileServer
from packs.small_packs import AGE_GENDER, LANDMARKS, RECOGNISER, archive, sha256, with_sources

CONTENT = archive(prefix="tiny/")
TESTS = Path(__file__).parents[2]


class Puller:
    """Starts processes that pull, and ends those that are left."""

    def __init__(self, locations: PackLocations) -> None:
        self.locations = locations
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, url: str, point: str = "never") -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "packs.pull_in_process",
            str(self.locations.cache_dir),
            url,
            sha256(CONTENT),
            point,
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.processes.append(process)
        return process

    def here(self, url: str) -> InstalledPack:
        packs = with_sources(Source(url, sha256=sha256(CONTENT)))
        return pull("tiny", replace(self.locations, known=packs), accepted_licences=frozenset({"tiny"}))


@pytest.fixture
def puller(locations: PackLocations) -> Iterator[Puller]:
    started = Puller(locations)
    yield started
    for process in started.processes:
        process.kill()
        process.communicate()


def assert_whole(pack: InstalledPack) -> None:
    assert {path.name for path in pack.folder.iterdir()} == {RECOGNISER, AGE_GENDER, LANDMARKS}
    assert all(check.is_good for check in pack.verify())


def assert_none_or_whole(locations: PackLocations) -> bool:
    """The invariant, as `packs list` and InsightFace's layout see it; whether the pack is there."""
    folder = locations.cache_dir / "tiny"
    if not folder.exists():
        return False
    assert {path.name for path in folder.iterdir()} == {RECOGNISER, AGE_GENDER, LANDMARKS}
    return True


@pytest.mark.parametrize(
    ("point", "is_there"),
    [
        ("during the download", False),
        ("during unpacking", False),
        ("before the rename", False),
        ("after the rename", True),
    ],
)
def test_killed_at_any_moment_there_is_no_pack_or_a_whole_one(
    puller: Puller, server: FileServer, locations: PackLocations, point: str, is_there: bool
) -> None:
    url = server.put("/tiny.zip", CONTENT)
    killed = puller.start(url, point)
    _, errors = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, errors
    assert assert_none_or_whole(locations) is is_there
    assert_whole(puller.here(url))
    assert not list(locations.cache_dir.glob(".tiny.*.tmp"))
    assert not list((locations.cache_dir / ".downloads").glob("*.part"))


def test_killed_while_replacing_a_damaged_pack(puller: Puller, server: FileServer, locations: PackLocations) -> None:
    url = server.put("/tiny.zip", CONTENT)
    (puller.here(url).folder / LANDMARKS).unlink()
    killed = puller.start(url, "between the two renames")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert assert_none_or_whole(locations) is False
    assert_whole(puller.here(url))
    assert not list(locations.cache_dir.glob(".tiny.*.old"))


def test_killed_from_outside_while_the_server_stalls_the_next_run_resumes(
    puller: Puller, server: FileServer, locations: PackLocations
) -> None:
    half = len(CONTENT) // 2
    url = server.put("/tiny.zip", answers.stalls(CONTENT, at=half))
    process = puller.start(url)
    part = locations.cache_dir / ".downloads" / f"tiny-{sha256(CONTENT)[:32]}.part"
    wait_until(lambda: part.exists() and part.stat().st_size > half // 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert assert_none_or_whole(locations) is False
    size = part.stat().st_size
    server.put("/tiny.zip", CONTENT)
    assert_whole(puller.here(url))
    assert server.asked[-1] == ("/tiny.zip", size)


def test_of_two_processes_one_downloads_and_the_other_waits_for_it(
    puller: Puller, server: FileServer, locations: PackLocations
) -> None:
    go_on = threading.Event()

    def slowly(request: answers.Request) -> None:
        request.head(200, Content_Length=len(CONTENT))
        request.write(CONTENT[:100_000])
        go_on.wait(100)
        request.write(CONTENT[100_000:])

    url = server.put("/tiny.zip", slowly)
    first = puller.start(url)
    wait_until(lambda: server.count("/tiny.zip") == 1, first)
    second = puller.start(url)
    assert second.stderr is not None
    assert second.stderr.readline() == "Another process is installing tiny; waiting for it.\n"
    go_on.set()
    outputs = [process.communicate() for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] == f"{locations.cache_dir / 'tiny'}\n"
    assert server.count("/tiny.zip") == 1
    assert_whole(puller.here(url))


def test_the_lock_of_a_killed_process_is_free(puller: Puller, server: FileServer) -> None:
    url = server.put("/tiny.zip", answers.stalls(CONTENT, at=1000))
    holder = puller.start(url)
    wait_until(lambda: server.count("/tiny.zip") == 1, holder)
    waiting = puller.start(url)
    assert waiting.stderr is not None
    assert "waiting for it" in waiting.stderr.readline()
    server.put("/tiny.zip", CONTENT)
    holder.kill()
    holder.communicate()
    _, errors = waiting.communicate()
    assert waiting.returncode == 0, errors
    assert_whole(puller.here(url))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for what another process does; the test's own time limit ends it."""
    pause = threading.Event()
    while not condition():
        assert process.poll() is None, process.communicate()
        pause.wait(0.02)
