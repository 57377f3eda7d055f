"""Promises of what shows that long work goes on."""

import io
import logging
from contextlib import redirect_stderr

import pytest

from arcface_api.progress import BarProgress, LoggedProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_each_step_has_a_bar_of_its_own() -> None:
    with redirect_stderr(Terminal()) as terminal, BarProgress() as progress:
        progress("Downloading a.zip", 0, 200)
        progress("Downloading a.zip", 200, 200)
        progress("Unpacking a.onnx", 50, 100)
    first, second, end = terminal.getvalue().split("\n")
    assert first.split("\r")[-1].startswith(f"Downloading a.zip [{'#' * 30}] 100%")
    assert second.startswith(f"\rUnpacking a.onnx [{'#' * 15}{' ' * 15}]  50%")
    assert end == ""


def test_a_labelled_bar_is_one_for_all_steps() -> None:
    with redirect_stderr(Terminal()) as terminal, BarProgress("Measuring") as progress:
        progress("1 client", 0.25)
        progress("4 clients", 0.5)
    drawn = terminal.getvalue().removesuffix("\n").split("\r")[1:]
    assert all(line.startswith("Measuring [") for line in drawn)
    assert [line.rstrip().endswith(step) for line, step in zip(drawn, ("1 client", "4 clients"), strict=True)]


def test_a_bar_is_never_wider_than_the_terminal() -> None:
    with redirect_stderr(Terminal()) as terminal, BarProgress("x" * 100) as progress:
        progress("step", 1, 2)
    assert max(map(len, terminal.getvalue().strip("\r\n").split("\r"))) == 79


def test_an_unknown_total_and_nothing_at_all_are_no_error() -> None:
    with redirect_stderr(Terminal()) as terminal, BarProgress() as progress:
        progress("Downloading", 10_000, None)
        progress("Downloading", 0, 0)
    assert "  0%" in terminal.getvalue()


def test_without_a_terminal_a_bar_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with BarProgress() as progress:
        for done in range(10):
            progress("Downloading a.zip", done, 10)
    assert capsys.readouterr().err == "Downloading a.zip\n"


def test_a_log_has_a_line_for_each_tenth_and_for_64_mib_of_an_unknown_total(caplog: pytest.LogCaptureFixture) -> None:
    progress = LoggedProgress()
    with caplog.at_level(logging.INFO):
        for done in range(101):
            progress("Downloading a.zip", done * 1_000_000, 100_000_000)
        for done in range(129):
            progress("Downloading b.zip", done << 20, None)
    assert caplog.messages[:2] == ["Downloading a.zip: 0 of 100 MB", "Downloading a.zip: 10 of 100 MB"]
    assert caplog.messages[11:] == ["Downloading b.zip: 0 MB", "Downloading b.zip: 67 MB", "Downloading b.zip: 134 MB"]


def test_without_a_terminal_long_work_has_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("arcface_api.progress.time.monotonic", lambda: float(next(clock)))
    with BarProgress("Embedding", line_seconds=10) as progress:
        for done in range(40):
            progress(f"{done} of 100", done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Embedding"
    assert 3 <= len(lines[1:]) <= 8
    assert all(line.startswith("Embedding ") and " s left: " in line for line in lines[1:])


@pytest.mark.parametrize(
    ("seconds", "left"), [(30, "30 s left"), (599, "599 s left"), (1200, "20 min left"), (86_400, "24 h left")]
)
def test_time_left_has_a_unit_that_keeps_it_short(monkeypatch: pytest.MonkeyPatch, seconds: int, left: str) -> None:
    """Half is done after as many seconds as are left; loading the model before that is no measure of it."""
    monkeypatch.setenv("COLUMNS", "200")
    now = 0.0
    monkeypatch.setattr("arcface_api.progress.time.monotonic", lambda: now)
    with redirect_stderr(Terminal()) as terminal, BarProgress("Embedding") as progress:
        progress("loading the model", 0.0, None)
        now = 5000.0
        progress("loading the model", 0.0, None)
        now += seconds
        progress("half", 50, 100)
    assert f"50% {left} " in terminal.getvalue()
