"""Promises of the checks of settings, CPUs, limits and the clock. Open files are in tests/process/test_doctor.py."""

import os
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from packs.file_server import FileServer, Request

from arcface_api.doctor import Places, Subject
from arcface_api.settings import read_usable
from doctor.conftest import control_group, is_well, notes, problems, subject

DAY = 24 * 3600


def test_right_settings_are_well() -> None:
    assert is_well(
        "settings", subject(environment={"ARCFACE_API_SERVICE_HOST": "10.0.0.1"}, accept_license="antelopev2")
    )


def test_wrong_values_are_found_and_the_others_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCFACE_PORT", "http")
    monkeypatch.setenv("ARCFACE_WORKERS", "3")
    settings, wrong = read_usable(device="tpu", threads="2")
    assert (settings.port, settings.device, settings.workers, settings.threads) == (5555, "auto", 3, 2)
    found = problems("settings", Subject(given=settings, wrong_settings=wrong, environment={}))
    assert sorted(found) == ["--device='tpu' is not allowed.", "ARCFACE_PORT='http' is not allowed."]


def test_wrong_file_of_api_keys_is_found(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("archive a-secret")
    (found,) = problems("settings", subject(api_keys_file=tmp_path / "keys"))
    assert "cannot be used" in found
    (tmp_path / "keys").write_text("archive a-secret-that-is-long-enough")
    assert is_well("settings", subject(api_keys_file=tmp_path / "keys"))


def test_misspelt_variable_is_found() -> None:
    found = problems("settings", subject(environment={"ARCFACE_MODEL_DIR": "/models"}))
    assert found == ["ARCFACE_MODEL_DIR is not a setting and has no effect."]


def test_licence_of_no_pack_is_found() -> None:
    found = problems("settings", subject(accept_license="yes,antelopev2"))
    assert found == ["ARCFACE_ACCEPT_LICENSE names yes, which is not a pack."]


# ── CPUs and limits ────────────────────────────────────────────────────────────────────────────────────────────────


def test_more_threads_than_the_quota_are_found(tmp_path: Path) -> None:
    places = control_group(tmp_path / "groups", cpu_max="100000 100000")
    assert problems("cpus", subject(places=places, threads=8, lanes=1)) == [
        "8 threads share 1 CPU and wait for each other, which is slow."
    ]


def test_more_workers_than_cpus_are_found(tmp_path: Path) -> None:
    places = control_group(tmp_path / "groups", cpu_max="100000 100000")
    assert problems("cpus", subject(places=places, workers=4)) == ["4 workers share 1 CPU."]


def test_more_lanes_than_threads_are_noted(tmp_path: Path) -> None:
    places = control_group(tmp_path / "groups", cpu_max="100000 100000")
    assert notes("cpus", subject(places=places, lanes=4)) == [
        "ARCFACE_LANES=4 needs as many threads: with 1 thread there can be only 1 lane."
    ]


def test_quota_of_half_a_cpu_is_noted(tmp_path: Path) -> None:
    places = control_group(tmp_path / "groups", cpu_max="50000 100000")
    assert "The CPU quota is 0.5, and 1 thread may use it" in notes("cpus", subject(places=places, lanes=1))[0]


def test_whole_quota_is_well(tmp_path: Path) -> None:
    assert is_well("cpus", subject(places=control_group(tmp_path / "groups", cpu_max="100000 100000"), lanes=1))


def test_limit_of_threads_is_found(tmp_path: Path) -> None:
    places = control_group(tmp_path / "groups", pids_max="10")
    assert (
        "The control group may have 10 threads, and the service has about"
        in problems("limits", subject(places=places))[0]
    )
    assert is_well("limits", subject(places=control_group(tmp_path / "enough", pids_max="4000")))
    assert is_well("limits", subject(places=control_group(tmp_path / "max", pids_max="max")))


# ── the clock ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_clock_before_the_installation_is_found(tmp_path: Path) -> None:
    module = tmp_path / "__init__.py"
    module.touch()
    assert is_well("clock", subject(places=Places(package=tmp_path)))
    os.utime(module, (time.time() + 30 * DAY,) * 2)
    assert "but this package was installed on" in problems("clock", subject(places=Places(package=tmp_path)))[0]


@pytest.mark.parametrize(("ahead", "says"), [(3600, "60 minutes ahead of"), (-7200, "120 minutes behind")])
def test_clock_far_from_that_of_a_source_is_found(server: FileServer, ahead: int, says: str) -> None:
    def answer(request: Request) -> None:
        stated = formatdate(time.time() - ahead, usegmt=True)
        request.handler.date_time_string = lambda timestamp=None: stated  # type: ignore[method-assign]
        request.head(200, Content_Length=1)
        request.write(b"x")

    server.put("/antelopev2.zip", answer)
    about = subject(pack_mirror=server.url)
    assert says in problems("clock", about)[0]


def test_clock_like_that_of_a_source_is_well(server: FileServer) -> None:
    server.put("/antelopev2.zip", b"x")
    assert is_well("clock", subject(pack_mirror=server.url))
