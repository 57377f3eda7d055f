"""Promises of the log: what callers cause again and again is written a few times a minute, and the rest is counted."""

import logging
from collections.abc import Iterator

import pytest

from arcface_api.api import log_limit
from arcface_api.api.log_limit import LogLimit
from serving import until

MOST = 3


class Kept(logging.Handler):
    """Keeps the lines that are written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    handler.addFilter(LogLimit(handler, MOST))
    logger = logging.getLogger("a.limited")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_each_kind_of_line_has_a_limit_of_its_own(kept: Kept) -> None:
    logger, before = logging.getLogger("a.limited"), LogLimit.dropped_lines
    for number in range(10):
        logger.info("a caller did %d", number)
        logger.error("a caller did %d", number)
        logger.info("another thing: %d", number)
    assert kept.lines == [
        f"{line} {number}"
        for number in range(MOST)
        for line in ("INFO a caller did", "ERROR a caller did", "INFO another thing:")
    ]
    assert LogLimit.dropped_lines - before == 3 * (10 - MOST)


def test_end_of_the_minute_says_how_many_were_left_out_and_begins_another(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_limit, "WINDOW_SECONDS", 0.2)
    logger, sent = logging.getLogger("a.limited"), 0

    def is_said() -> bool:
        nonlocal sent
        sent += 1
        logger.warning("100 %% of %s", sent)
        return any("more like this" in line for line in kept.lines)

    until(is_said)
    said = next(place for place, line in enumerate(kept.lines) if "more like this" in line)
    assert kept.lines[said].startswith("WARNING … ")
    assert kept.lines[said].endswith(" more like this in the last minute: 100 %% of %s")
    left_out = int(kept.lines[said].split()[2].replace(",", ""))
    assert left_out >= 1
    assert said == MOST
    logger.warning("100 %% of %s", "a new minute")
    assert kept.lines[-1] == "WARNING 100 % of a new minute"


def test_access_log_is_complete() -> None:
    handler = Kept()
    limit = LogLimit(handler, MOST)
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "%s", ("GET /",), None)
    assert all(limit.filter(record) for _ in range(100))


def test_texts_that_are_put_together_take_no_memory_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_limit, "MOST_KINDS", 10)
    limit = LogLimit(Kept(), 1)
    for number in range(1_000):
        assert limit.filter(logging.LogRecord("a", logging.INFO, "", 0, f"text {number}", (), None))
    assert len(limit._minutes) <= 10
