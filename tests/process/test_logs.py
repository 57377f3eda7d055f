"""Promises of the log: lines for people on a terminal, JSON for programs, and each request can be found in it."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from pictures import picture_bytes
from serving import Command, Run, until

PICTURE = picture_bytes()
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) ")


def entries(command: Command, message: str) -> list[dict[str, Any]]:
    """The JSON lines whose message matches, when there is one."""

    def found() -> list[dict[str, Any]]:
        every = [json.loads(line) for line in command.lines]
        return [entry for entry in every if re.search(message, entry["message"])]

    return until(found)


def embed(command: Command, headers: dict[str, str] | None = None, *, picture: bytes = PICTURE) -> httpx.Response:
    files = {"file": ("Jane Doe.jpg", picture)}
    return httpx.post(f"http://127.0.0.1:{command.port}/embed", files=files, headers=headers, timeout=100)


def test_log_is_an_object_a_line_where_no_person_reads(
    run: Run, tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCFACE_LOG_FORMAT", "auto")
    command = run("--pack", tiny_recogniser, "--access-log")
    headers = {"X-Request-ID": "order-17", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    assert embed(command, headers).status_code == 200
    (entry,) = entries(command, "POST /embed")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])
    assert (
        entry.items()
        >= {
            "level": "info",
            "logger": "uvicorn.access",
            "process": command.process.pid,
            "request_id": "order-17",
            "trace_id": "ab" * 16,
            "method": "POST",
            "path": "/embed",
            "status": 200,
        }.items()
    )
    assert "request_id" not in entries(command, "Listening on")[0]


def test_log_is_text_on_a_terminal(tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCFACE_LOG_FORMAT", "")
    terminal, other_end = os.openpty()
    options = ["--port", "0", "--device", "cpu", "--pack", str(tiny_recogniser)]
    command = [sys.executable, "-m", "arcface_api", "serve", *options]
    with subprocess.Popen(command, stderr=other_end) as process, os.fdopen(terminal) as lines:
        os.close(other_end)
        shown = []
        with suppress(OSError):  # how a terminal ends
            for line in lines:
                shown.append(line)
                if "Listening on" in line:
                    process.terminate()
    assert len(shown) > 3
    assert all(LINE.match(line) for line in shown)


def test_answer_and_log_name_the_request(run: Run, tiny_recogniser: Path) -> None:
    command = run("--pack", tiny_recogniser, "--access-log")
    url = f"http://127.0.0.1:{command.port}"
    given = embed(command, {"X-Request-ID": "a/b:c-1"}).headers["x-request-id"]
    assert given == "a/b:c-1"
    command.logged(r'"POST /embed HTTP/1.1" 200 \(request a/b:c-1\)')
    for unusable in ("x" * 129, 'a"b', "a b", ""):
        assert re.fullmatch("[0-9a-f]{16}", embed(command, {"X-Request-ID": unusable}).headers["x-request-id"])
    answers = [httpx.get(f"{url}/{path}", timeout=100) for path in ("health", "livez", "nothing", "docs")] + [
        embed(command, picture=b"")
    ]
    identities = {answer.headers["x-request-id"] for answer in answers}
    assert len(identities) == len(answers)
    for identity in identities:
        command.logged(rf"\(request {identity}\)")


def test_slow_requests_are_logged_with_their_stages_and_do_not_flood(
    run: Run, tiny_recogniser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCFACE_LOG_FORMAT", "json")
    pause = "from arcface_api.api import request_log\nrequest_log.PAUSE_SECONDS = 600\n"  # longer than all of these
    (tmp_path / "sitecustomize.py").write_text(pause)
    command = run("--pack", tiny_recogniser, "--slow-request-seconds", "0.000001", faults=tmp_path)
    for _ in range(20):
        embed(command)
    (entry, *others) = entries(command, "^Slow")
    assert entry["level"] == "warning"
    assert (entry["route"], entry["status"], entry["not_logged"]) == ("/embed", 200, 0)
    assert set(entry["stages_ms"]) == {"receive", "decode", "crop", "queue", "inference", "respond"}
    assert sum(entry["stages_ms"].values()) == pytest.approx(entry["seconds"] * 1000, abs=1.1)
    assert re.search(
        r"Slow: /embed, status 200, took [\d.]+ s \(receive [\d.]+, .*respond [\d.]+\)\.", entry["message"]
    )
    assert not others
    assert entry["request_id"]


def test_refused_callers_do_not_flood_the_log(run: Run, tiny_recogniser: Path, tmp_path: Path) -> None:
    window = "from arcface_api.api import log_limit\nlog_limit.WINDOW_SECONDS = 600\n"  # longer than this takes
    (tmp_path / "sitecustomize.py").write_text(window)
    command = run("--pack", tiny_recogniser, "--log-lines-per-minute", "8", faults=tmp_path)
    for _ in range(20):
        assert embed(command, {"X-Request-Timeout": "0.000001"}).status_code == 503
    metrics = httpx.get(f"http://127.0.0.1:{command.port}/metrics", timeout=100).text
    assert re.findall(r"(?m)^arcface_log_lines_dropped_total (\S+)$", metrics) == ["12.0"]
    command.logged("Listening")
    assert len(command.logged("INFO deadline_exceeded: ", 8)) == 8


FLOOD = """
import asyncio
from arcface_api.serving.logs import log_to_stderr
from arcface_api.settings import Settings

log_to_stderr(Settings(log_format="text", log_lines_per_minute=3))
loop = asyncio.new_event_loop()
for number in range(100):
    loop.call_exception_handler({"message": f"Exception in callback <bound method {number}>"})
"""


def test_what_the_event_loop_logs_is_limited_although_no_two_lines_are_equal() -> None:
    child = subprocess.run([sys.executable, "-c", FLOOD], capture_output=True, text=True, timeout=100, check=True)
    assert child.stderr.count("Exception in callback") == 3


@pytest.mark.parametrize("is_on", [True, False])
def test_start_says_where_the_page_is(run: Run, tiny_recogniser: Path, *, is_on: bool) -> None:
    command = run("--pack", tiny_recogniser, "--page" if is_on else "--no-page", "--host", "0.0.0.0")
    (port,) = command.logged(r"Listening on http://0\.0\.0\.0:(\d+),")
    command.logged("To try it" if is_on else "Listening")
    command.stop()
    assert (f"To try it, open http://localhost:{port}/ in a browser." in command.log) is is_on


def test_only_a_start_that_has_to_find_out_what_is_fastest_says_so(
    run: Run, tiny_recogniser: Path, tmp_path: Path
) -> None:
    for is_first in (True, False):
        command = run("--pack", tiny_recogniser, "--cache-dir", tmp_path)
        command.logged("Listening")
        command.stop()
        assert ("trying it now, which takes longer" in command.log) is is_first


def test_nothing_of_a_picture_is_logged(run: Run, tiny_recogniser: Path) -> None:
    command = run(
        "--pack", tiny_recogniser, "--access-log", "--log-level", "debug", "--slow-request-seconds", "0.000001"
    )
    assert embed(command).status_code == 200
    assert embed(command, picture=b"GIF89a Jane Doe's face").status_code == 415
    command.logged(r'"POST /embed HTTP/1.1" 415')
    command.stop()
    assert "Jane" not in command.log
    assert "[0." not in command.log
