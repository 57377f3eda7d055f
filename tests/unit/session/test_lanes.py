"""Promises of lanes: the same bits in each, as many as are fastest or wanted, and a wide one where memory allows."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from arcface_api.arrays import Crop, Features
from arcface_api.errors import ModelFailed, RuntimeUnfit
from arcface_api.session import Cache, LaneConfig, ModelContent, Session, SessionConfig, choose, open_session
from arcface_api.session.lanes import candidates, fastest_lanes, fits, run_lanes, unmeasured_lanes
from arcface_api.session.onnx_cpu import OnnxCpuSession
from arcface_api.session.openvino_cpu import OpenVinoSession
from conftest import FaceCrop, needs_bfloat16
from session.conftest import model_content, random_crops
from session.test_openvino_cpu import faces

SIZES = (1, 2, 4, 8)
CPU_AUTO = SessionConfig("cpu", "auto", 2, None)
GIB = 2.0**30


class Timed:
    """A session whose lanes take this long for a batch."""

    provider, precision, threads = "none", "float32", 4
    batch_sizes: tuple[int, ...] = SIZES

    def __init__(self, lanes: int, seconds: float) -> None:
        self.lanes, self._seconds = lanes, seconds

    def run(self, crops: Sequence[Crop]) -> Features:
        time.sleep(self._seconds)
        return np.zeros((len(crops), 1), np.float32)


@pytest.mark.usefixtures("with_openvino")
@pytest.mark.parametrize("kind", ["ONNX Runtime", "float32", pytest.param("bfloat16", marks=needs_bfloat16)])
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
    assert fits(weights, 2 * GIB, 2, 1)
    assert not fits(weights, 1 * GIB, 2, 1)
    assert not fits(weights, 4 * GIB, 64)
    assert fits(weights, 8 * GIB, 64)


@pytest.mark.parametrize(("seconds_of_two", "expected"), [(0.02, 2), (0.05, 1)])
def test_more_lanes_are_used_where_they_embed_more_faces(seconds_of_two: float, expected: int) -> None:
    sessions = [Timed(1, 0.02), Timed(2, seconds_of_two)]
    assert fastest_lanes(sessions, random_crops(1, 4)) == expected


@pytest.mark.parametrize("lanes", [1, 2])
def test_lanes_that_are_asked_for_are_used_without_a_wide_one(
    recogniser: ModelContent, cache: Cache, lanes: int
) -> None:
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(lanes))
    assert (chosen.session.lanes, chosen.session.threads, chosen.wide) == (lanes, 2, None)


@pytest.fixture
def two_lanes_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "fastest_lanes", lambda *_: 2)


@pytest.mark.usefixtures("two_lanes_win")
def test_where_memory_allows_there_is_a_wide_lane_too(recogniser: ModelContent, cache: Cache) -> None:
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(None, 8 * GIB))
    assert (chosen.session.lanes, chosen.session.threads) == (2, 2)
    assert chosen.wide is not None
    assert (chosen.wide.lanes, chosen.wide.threads, chosen.wide.batch_sizes) == (1, 2, (1,))
    crops = random_crops(1)
    np.testing.assert_array_equal(chosen.wide.run(crops), chosen.session.run(crops))


def test_without_room_in_memory_nothing_is_raced_and_there_is_no_wide_lane(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "fastest_lanes", None)  # it would fail
    monkeypatch.setattr(choose, "unmeasured_lanes", lambda _: 2)
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(None, 0.9 * GIB))
    assert (chosen.session.lanes, chosen.wide) == (2, None)
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(None, 0.5 * GIB))
    assert (chosen.session.lanes, chosen.wide) == (1, None)


@pytest.mark.usefixtures("two_lanes_win")
@pytest.mark.parametrize(("broken", "expected"), [("racer", (1, False)), ("lanes", (1, False)), ("wide", (2, False))])
def test_what_cannot_be_opened_for_more_lanes_keeps_no_service_from_starting(
    recogniser: ModelContent,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
    expected: tuple[int, bool],
) -> None:
    real, opened = OnnxCpuSession.__init__, list[int]()

    def init(
        self: OnnxCpuSession, model: ModelContent, threads: int, sizes: Sequence[int], *, lanes: int = 1, **given: bool
    ) -> None:
        opened.append(lanes)
        if lanes == 2 and (broken == "racer" or (broken == "lanes" and opened.count(2) == 2)):
            raise ModelFailed("there is no memory")
        if broken == "wide" and sizes == (1,):
            raise ModelFailed("there is no memory")
        real(self, model, threads, sizes, lanes=lanes, **given)

    monkeypatch.setattr(OnnxCpuSession, "__init__", init)
    chosen = open_session(recogniser, CPU_AUTO, cache, LaneConfig(None))
    assert (chosen.session.lanes, chosen.wide is not None) == expected
    assert "there is no memory" in caplog.text
    assert chosen.session.run(random_crops(1)).shape == (1, recogniser.output_dim)


def test_services_that_start_together_race_once(recogniser: ModelContent, tmp_path: Path) -> None:
    """Side by side, each race would measure the other."""
    caches = [Cache(tmp_path) for _ in range(2)]
    open_session(recogniser, CPU_AUTO, caches[0])  # the backend is chosen
    inside, races = [0], [0]

    def race(sessions: Sequence[Session], probes: Sequence[Crop]) -> int:
        inside[0] += 1
        races[0] += 1
        time.sleep(0.2)
        assert inside[0] == 1
        inside[0] -= 1
        return 2

    with pytest.MonkeyPatch.context() as patched, ThreadPoolExecutor() as pool:
        patched.setattr(choose, "fastest_lanes", race)
        found = list(pool.map(lambda cache: open_session(recogniser, CPU_AUTO, cache, LaneConfig(None)), caches))
    assert ([chosen.session.lanes for chosen in found], races) == ([2, 2], [1])


def test_more_lanes_than_threads_are_not_possible(
    recogniser: ModelContent, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_session(recogniser, CPU_AUTO, cache, LaneConfig(5)).session.lanes == 2
    assert "There can be only 2 lanes, not 5: each needs a thread" in caplog.text


def test_number_of_lanes_is_found_out_once(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced: list[list[int]] = []

    def race(sessions: Sequence[Session], probes: Sequence[Crop]) -> int:
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
