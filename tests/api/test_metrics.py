"""Promises of `/metrics`: every answer counts once, stages explain the time, and labels have few values."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_align_route import NO_FACE, png, portrait

from arcface_api.api.metrics import _FILES, EMBED, EMBED_BATCH, FILE_BYTES
from arcface_api.api.observer import COUNT_SECONDS
from arcface_api.serving import metrics_folder
from pictures import picture_bytes
from raw_http import Caller
from serving import Command, Run, Service, descendants, until

PICTURE = picture_bytes()
AFTER_COUNTING_SECONDS = 10 * COUNT_SECONDS
"""Until what one worker answered is seen by the others."""

Scraped = dict[tuple[str, ...], float]
"""By name and the values of the labels, in alphabetical order of their names."""


def scrape(url: str) -> Scraped:
    answer = httpx.get(f"{url}/metrics", timeout=100)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def url_of(service: Service | Command) -> str:
    return str(service.base_url).rstrip("/") if isinstance(service, Service) else f"http://127.0.0.1:{service.port}"


def total(scraped: Scraped, name: str) -> float:
    return sum(value for key, value in scraped.items() if key[0] == name)


# ── counting ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_answer_counts_once_by_route_status_and_code(service: Service) -> None:
    for _ in range(5):
        assert service.post(EMBED, files={"file": PICTURE}).status_code == 200
    assert service.post(EMBED, files={"file": b"no picture"}).status_code == 415
    assert service.post(EMBED, files={"file": PICTURE}, params={"no": 1}).status_code == 422
    batch = [("files", PICTURE), ("files", b"no picture"), ("files", PICTURE)]
    assert service.post(EMBED_BATCH, files=batch).status_code == 200
    assert service.get("/info").status_code == 200
    assert service.get("/somewhere/else").status_code == 404
    assert service.get(EMBED).status_code == 405
    with Caller(service) as caller:
        caller.send(b"NONSENSE\r\n\r\n")
        assert caller.answer().status == 400
    scraped = scrape(url_of(service))
    assert {key[1:]: value for key, value in scraped.items() if key[0] == "arcface_requests_total"} == {
        ("", EMBED, "200"): 5,
        ("image_format_unsupported", EMBED, "415"): 1,
        ("parameter_invalid", EMBED, "422"): 1,
        ("method_not_allowed", EMBED, "405"): 1,
        ("", EMBED_BATCH, "200"): 1,
        ("", "/info", "200"): 1,
        ("not_found", "other", "404"): 1,
        ("request_malformed", "none", "400"): 1,
    }
    assert {key[1]: value for key, value in scraped.items() if key[0] == "arcface_pictures_total" and value} == {
        "embedded": 7,
        "image_format_unsupported": 2,
        "parameter_invalid": 1,
    }
    assert sum(int(key[1]) * value for key, value in scraped.items() if key[0] == "arcface_batches_total") == 7
    assert scraped["arcface_request_seconds_count", EMBED] == 8
    assert scraped["arcface_stage_seconds_count", "inference"] == 7
    assert scraped["arcface_lane_busy_seconds_total",] > 0


def test_alignments_and_warnings_count(service: Service) -> None:
    for picture in (png(portrait()), NO_FACE, NO_FACE):
        assert service.post(EMBED, files={"file": picture}, params={"align": "auto"}).status_code == 200
    scraped = scrape(url_of(service))
    assert scraped["arcface_alignments_total", "auto"] == 1
    assert scraped["arcface_alignments_total", "unsure"] == 2
    assert scraped["arcface_warnings_total", "landmarks_unsure"] == 2


def test_caller_that_leaves_counts_as_such_and_not_as_an_answer(service: Service) -> None:
    assert service.base_url.port is not None
    with socket.create_connection((service.base_url.host, service.base_url.port)) as caller:
        head = (
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\nbegin"
        )
        caller.sendall(head)
        until(lambda: scrape(url_of(service))["arcface_connections",] == 2)
        until(lambda: scrape(url_of(service))["arcface_upload_bytes_inside",] == len(b"begin"))
    scraped = until(
        lambda: found if ("arcface_callers_left_total", EMBED) in (found := scrape(url_of(service))) else {}
    )
    assert scraped["arcface_callers_left_total", EMBED] == 1
    assert ("arcface_request_seconds_count", EMBED) not in scraped
    assert scraped["arcface_upload_bytes_inside",] == 0


# ── times and states ───────────────────────────────────────────────────────────────────────────────────────────────


def test_stages_add_up_to_the_time_of_the_request(service: Service) -> None:
    for _ in range(20):
        service.post(EMBED, files={"file": PICTURE}, params={"align": "auto"})
    scraped = scrape(url_of(service))
    whole = scraped["arcface_request_seconds_sum", EMBED]
    assert total(scraped, "arcface_stage_seconds_sum") == pytest.approx(whole, rel=1e-6)
    stages = {key[1] for key in scraped if key[0] == "arcface_stage_seconds_sum"}
    assert stages == {"receive", "decode", "crop", "queue", "inference", "respond"}


def test_state_is_that_of_the_service(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, queue_capacity=9, max_batch_files=9, threads=2, lanes=2)
    scraped, info = scrape(url_of(service)), service.get("/info").json()
    names = ("fingerprint", "model", "pack", "precision", "provider", "recipe")
    assert scraped["arcface_model_info", *(info[name] for name in names)] == 1
    assert scraped["arcface_pictures_capacity",] == 9
    assert (scraped["arcface_lanes",], scraped["arcface_threads",]) == (2, 2)
    assert scraped["arcface_self_test_cosine",] == info["self_test_cosine"]
    assert scraped["process_resident_memory_bytes",] > 20e6
    assert scraped["process_open_fds",] > 3


def test_openmetrics_is_served_to_those_who_ask(service: Service) -> None:
    answer = service.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_prometheus_finds_nothing_to_improve(service: Service) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian: apt-get install prometheus)")
    service.post(EMBED, files={"file": PICTURE}, params={"align": "auto"})
    service.post(EMBED_BATCH, files=[("files", b"")])
    text = service.get("/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


# ── several workers ────────────────────────────────────────────────────────────────────────────────────────────────


def test_any_worker_reports_all_of_them_also_after_one_was_killed(run: Run, tiny_recogniser: Path) -> None:
    command = run("--workers", "2", "--pack", tiny_recogniser)
    workers, url, sent = command.serving(), url_of(command), 0

    def embed(times: int) -> int:
        for _ in range(times):  # each on a connection of its own, so that both workers get some
            assert httpx.post(f"{url}{EMBED}", files={"file": PICTURE}, timeout=100).status_code == 200
        return times

    sent += embed(30)
    until(lambda: scrape(url)["arcface_requests_total", "", EMBED, "200"] >= sent)
    time.sleep(AFTER_COUNTING_SECONDS)
    for _ in range(4):
        scraped = scrape(url)
        assert scraped["arcface_requests_total", "", EMBED, "200"] == sent
        assert scraped["arcface_pictures_total", "embedded"] == sent
    assert scraped["arcface_lanes",] == 2 * httpx.get(f"{url}/info", timeout=100).json()["lanes"]
    os.kill(workers[0], signal.SIGKILL)
    replaced = until(lambda: now if len(now := command.serving()) == 2 and workers[0] not in now else None)
    sent += embed(30)
    until(lambda: scrape(url)["arcface_requests_total", "", EMBED, "200"] >= sent)
    scraped = scrape(url)
    assert scraped["arcface_requests_total", "", EMBED, "200"] == sent
    assert workers[1] in replaced


def test_each_worker_that_is_replaced_is_one_change_of_the_start_time(run: Run, tiny_recogniser: Path) -> None:
    """Which an alert counts: it must not fall meanwhile to that of an older worker, nor rise with a regular start."""
    began, command = time.time(), run("--workers", "2", "--pack", tiny_recogniser)
    url, seen = url_of(command), list[float]()

    def looks_on_until_both_serve(times: int) -> bool:
        with suppress(httpx.HTTPError):  # the worker that was asked was killed
            seen.append(scrape(url)["process_start_time_seconds",])
        return command.log.count("2 of 2 workers serve") == times

    until(lambda: looks_on_until_both_serve(1))
    for crashes in (1, 2):
        os.kill(command.serving()[-1], signal.SIGKILL)  # at once, before it could look at itself
        until(partial(looks_on_until_both_serve, crashes + 1))
        looks_on_until_both_serve(crashes + 1)
        assert len({*seen}) == crashes + 1
    assert seen == sorted(seen)
    assert began - 1 < seen[0] < seen[-1] < time.time()


def test_workers_that_share_no_folder_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(metrics_folder, "MEMORY", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with ExitStack() as stack:
        assert metrics_folder.make(stack) is None
    assert "set TMPDIR" in caplog.text


def test_memory_of_counts_is_taken_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A full /dev/shm would end every worker by SIGBUS."""
    assert metrics_folder.share(tmp_path, 0, 0.0) is not None
    files = list(tmp_path.iterdir())
    assert files
    assert all(file.stat().st_blocks * 512 >= FILE_BYTES for file in files)

    def has_no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", has_no_room)
    assert metrics_folder.share(tmp_path, 1, 0.0) is None
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert "worker number 1" in caplog.text


def test_files_of_counts_are_those_that_are_taken(run: Run, tiny_recogniser: Path) -> None:
    command = run("--workers", "2", "--pack", tiny_recogniser)
    command.serving()
    folders = {Path(found[1]) for found in map(re.compile("(.*)/counter_0.db").match, opened(command)) if found}
    (folder,) = folders
    assert {file.name.rpartition("_")[0] for file in folder.iterdir()} == set(_FILES)
    assert {file.stat().st_size for file in folder.iterdir()} == {FILE_BYTES}


def opened(command: Command) -> list[str]:
    """What its processes have mapped."""
    pids = descendants(command.process.pid)
    return [mapped.path for pid in pids for mapped in psutil.Process(pid).memory_maps()]


# ── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_label_can_have_values_that_callers_choose(service: Service) -> None:
    before = len(scrape(url_of(service)))
    for number in range(20):
        service.get(f"/{number}")
        service.request(f"VERB{number}", "/embed")
        service.post(EMBED, files={"file": PICTURE}, params={f"option{number}": number})
    scraped = scrape(url_of(service))
    assert len(scraped) - before < 60
    labels = {label for key in scraped for label in key[1:]}
    assert not [label for label in labels if re.search(r"option|VERB|/\d", label)]
