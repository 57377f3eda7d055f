"""Promises of lanes: the same bits in each, as many as are fastest or wanted, and a wide one where memory allows."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from arcface_api.arrays import Crop, Features
from arcface_api.errors import RuntimeUnfit
from arcface_api.session import Cache, LaneConfig, ModelContent, Session, SessionConfig, choose, open_session
from arcface_api.session.lanes import candidates, fastest_lanes, fits, run_lanes, unmeasured_lanes
from arcface_api.session.onnx_cpu import OnnxCpuSession
from arcface_api.session.openvino_cpu import OpenVinoSession
from conftest import FaceCrop
from session.conftest import model_content, random_crops
from session.test_openvino_cpu import faces

SIZES = (1, 2, 4, 8)
CPU_AUTO = SessionConfig("cpu", "auto", 2, None)
GIB = 2.0**30


class Timed:
    """A session whose lanes take this long for a batch; `alone` is the time of a lone crop."""

    provider, precision, threads = "none", "float32", 4
    batch_sizes: tuple[int, ...] = SIZES

    def __init__(self, lanes: int, seconds: float, alone: float) -> None:
        self.lanes, self._seconds, self._alone = lanes, seconds, alone
        self._running = 0
        self._counting = threading.Lock()

    def run(self, crops: Sequence[Crop]) -> Features:
        with self._counting:
            self._running += 1
            has_company = self._running > 1
        time.sleep(self._seconds if has_company or len(crops) > 1 else self._alone)
        with self._counting:
            self._running -= 1
        return np.zeros((len(crops), 1), np.float32)


@pytest.mark.usefixtures("with_openvino")
@pytest.mark.parametrize("kind", ["ONNX Runtime", "float32", "bfloat16"])
def test_vector_of_a_real_crop_is_the_same_bits_alone_in_any_batch_and_in_any_lane(
    real_recogniser: Path, face_crops: list[FaceCrop], cache: Cache, kind: str
) -> None:
    model, crops = model_content(real_recogniser.read_bytes()), faces(face_crops)

    def opened(lanes: int) -> Session:
        if kind == "ONNX Runtime":
            return OnnxCpuSession(model, 2, SIZES, lanes=lanes)
        session = OpenVinoSession(model, kind, 2, SIZES, cache, lanes=lanes)
        session.keep()
        return session

    wide, narrow = opened(1), opened(2)
    alone = np.concatenate([wide.run([crop]) for crop in crops])
    random = np.random.default_rng(0)
    batches: list[list[int]] = []
    for _ in range(2):
        order, at = random.permutation(len(crops)), 0
        while at < len(crops):
            batches.append(list(order[at : at + int(random.choice(SIZES))]))
            at += len(batches[-1])
    batches = [batch for batch in batches if len(batch) in SIZES]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda batch: narrow.run([crops[index] for index in batch]), batches))
    for batch, rows in zip(batches, found, strict=True):
        np.testing.assert_array_equal(rows, alone[batch])


@pytest.mark.usefixtures("with_openvino")
def test_lanes_compute_the_same_after_the_cache_entry_was_released(recogniser: ModelContent, cache: Cache) -> None:
    crops = random_crops(2)
    assert OpenVinoSession(recogniser, "float32", 2, SIZES, cache).keep()
    session = OpenVinoSession(recogniser, "float32", 2, SIZES, cache, lanes=2)
    before = run_lanes(session, crops)
    session.release_stored()
    for rows in [*before, *run_lanes(session, crops)]:
        np.testing.assert_array_equal(rows, before[0])


@pytest.mark.parametrize(("threads", "numbers"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (16, (1, 4, 8, 16))])
def test_lanes_that_are_tried_are_one_a_quarter_half_and_all_of_the_threads(
    threads: int, numbers: tuple[int, ...]
) -> None:
    assert candidates(threads) == numbers


def test_without_a_measurement_there_is_a_lane_for_four_threads() -> None:
    assert [unmeasured_lanes(threads) for threads in (1, 2, 4, 16, 64)] == [1, 1, 1, 4, 16]


def test_memory_limit_decides_what_fits() -> None:
    weights = 130e6  # an IResNet100's in bfloat16
    assert fits(2, weights, 2 * GIB, is_wide_too=True)
    assert not fits(2, weights, 1 * GIB, is_wide_too=True)
    assert not fits(64, weights, 4 * GIB)
    assert fits(64, weights, 8 * GIB)


@pytest.mark.parametrize(
    ("alone", "has_wide_lane", "expected"),
    [
        (0.010, True, 2),  # two lanes answer twice as many
        (0.200, False, 1),  # but without a wide lane, a lone request would take ten times as long
        (0.010, False, 2),
    ],
)
def test_fastest_number_of_lanes_counts_load_and_a_lone_request(
    alone: float, has_wide_lane: bool, expected: int
) -> None:
    sessions = [Timed(1, 0.02, 0.02), Timed(2, 0.02, alone)]
    assert fastest_lanes(sessions, random_crops(1, 4), has_wide_lane=has_wide_lane) == expected


def test_fewer_lanes_are_used_where_more_gain_nothing() -> None:
    sessions = [Timed(1, 0.02, 0.02), Timed(2, 0.05, 0.05)]
    assert fastest_lanes(sessions, random_crops(1, 4), has_wide_lane=True) == 1


@pytest.mark.parametrize("lanes", [1, 2])
def test_lanes_that_are_asked_for_are_used_without_a_wide_one(
    recogniser: ModelContent, cache: Cache, lanes: int
) -> None:
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(lanes))
    assert (chosen.session.lanes, chosen.session.threads, chosen.wide) == (lanes, 2, None)


@pytest.fixture
def two_lanes_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "fastest_lanes", lambda *_, **__: 2)


@pytest.mark.usefixtures("two_lanes_win")
def test_where_memory_allows_there_is_a_wide_lane_too(recogniser: ModelContent, cache: Cache) -> None:
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(None, 8 * GIB))
    assert (chosen.session.lanes, chosen.session.threads) == (2, 2)
    assert chosen.wide is not None
    assert (chosen.wide.lanes, chosen.wide.threads, chosen.wide.batch_sizes) == (1, 2, (1,))
    crops = random_crops(1)
    np.testing.assert_array_equal(chosen.wide.run(crops), chosen.session.run(crops))


@pytest.mark.usefixtures("two_lanes_win")
def test_without_room_in_memory_there_is_no_wide_lane(recogniser: ModelContent, cache: Cache) -> None:
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(None, 0.9 * GIB))
    assert (chosen.session.lanes, chosen.wide) == (2, None)


def test_more_lanes_than_threads_are_not_possible(
    recogniser: ModelContent, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_session(recogniser, CPU_AUTO, cache, LaneConfig(5)).session.lanes == 2
    assert "There are 2 lanes and not 5: each needs a thread" in caplog.text


def test_number_of_lanes_is_found_out_once(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced: list[list[int]] = []

    def race(sessions: Sequence[Session], probes: Sequence[Crop], *, has_wide_lane: bool) -> int:
        assert has_wide_lane
        raced.append([session.lanes for session in sessions])
        return 2

    monkeypatch.setattr(choose, "fastest_lanes", race)
    numbers = [open_session(recogniser, CPU_AUTO, cache, LaneConfig(None)).session.lanes for _ in range(2)]
    assert (numbers, raced) == ([2, 2], [[1, 2]])


def test_where_nothing_can_be_kept_a_rule_decides(recogniser: ModelContent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "fastest_lanes", None)  # it would fail
    config = SessionConfig("cpu", "float32", 8, None)
    chosen = open_session(recogniser, config, Cache(None), LaneConfig(None))
    assert (chosen.session.lanes, chosen.wide) == (2, None)


@pytest.mark.usefixtures("two_lanes_win")
def test_lanes_that_fail_are_not_used_unless_they_were_asked_for(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnnxCpuSession.run

    def run(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        return -real(self, crops) if self.lanes > 1 else real(self, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", run)
    assert open_session(recogniser, CPU_AUTO, cache, LaneConfig(None)).session.lanes == 1
    with pytest.raises(RuntimeUnfit, match="deviates from float32"):
        open_session(recogniser, CPU_AUTO, cache, LaneConfig(2))


@pytest.mark.usefixtures("two_lanes_win")
def test_a_wide_lane_that_computes_other_bits_is_not_used(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnnxCpuSession.run

    def run(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        rows = real(self, crops)
        return np.nextafter(rows, np.float32(np.inf)) if self.lanes == 1 else rows

    monkeypatch.setattr(OnnxCpuSession, "run", run)
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(None))
    assert (chosen.session.lanes, chosen.wide) == (2, None)
