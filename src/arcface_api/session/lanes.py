"""How many inferences of one model run side by side: its lanes, and how many of them pay on this machine.

One inference on all threads makes every thread wait for the slowest of them after each layer, and whatever else needs a
core stalls all. Lanes share the threads and one copy of the weights, and wait for nobody. Only a lone request is slower
in one lane than on all threads; for it there is a second, wide copy of the model where memory leaves room (ADR 14).
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

from arcface_api.arrays import Crop, Features
from arcface_api.session.onnx_cpu import Session

LANE_BYTES = 48 * 2**20
"""Working memory of one more lane: an IResNet100's in batches of 8 on OpenVINO (measured: 46 MB)."""
BASE_BYTES = 320 * 2**20
"""What the service takes beside weights and lanes."""
MEMORY_SHARE = 0.5
"""Of the memory limit that models may fill; the rest is for pictures, and for compiling at the first start."""
THREADS_PER_LANE = 4
"""Where there is no time to measure: with fewer threads a lone request is slow, with more the threads wait."""
RACE_SECONDS, RACE_ROUNDS = 2.0, 5
"""Of racing all numbers of lanes together; one round is run in any case."""
RACE_BATCH = 8
MIN_GAIN = 1.02
"""What more lanes must gain; below it, fewer take less memory."""


@dataclass(frozen=True)
class LaneConfig:
    """How many lanes a session is to have."""

    lanes: int | None = 1
    """None: the fastest number, and a wide lane where memory allows."""
    memory_bytes: float = math.inf
    """Limit for this process."""


ONE_LANE = LaneConfig()


def candidates(threads: int) -> tuple[int, ...]:
    """The numbers of lanes that are tried on that many threads, ascending: 1, a quarter, half and all of them."""
    return tuple(sorted({1, max(1, threads // 4), max(1, threads // 2), threads}))


def unmeasured_lanes(threads: int) -> int:
    """The number of lanes where none was measured: one for each `THREADS_PER_LANE` threads."""
    return max(1, threads // THREADS_PER_LANE)


def fits(lanes: int, weight_bytes: float, memory_bytes: float, *, is_wide_too: bool = False) -> bool:
    """Whether the memory limit leaves room for that many lanes, and for a wide copy of the model beside them."""
    copies, runs = (2, lanes + 1) if is_wide_too else (1, lanes)
    return BASE_BYTES + copies * weight_bytes + runs * LANE_BYTES <= MEMORY_SHARE * memory_bytes


def run_lanes(session: Session, batch: Sequence[Crop]) -> list[Features]:
    """Run the same batch in every lane at once; returns each lane's (n, dim) float32."""
    with ThreadPoolExecutor(session.lanes) as pool:
        return list(pool.map(session.run, [batch] * session.lanes))


def fastest_lanes(sessions: Sequence[Session], probes: Sequence[Crop], *, has_wide_lane: bool) -> int:
    """The number of lanes of the fastest session, with all lanes busy.

    Without a wide lane, the time of a lone request counts as much as that of a face under load.
    """
    largest = max(size for size in sessions[0].batch_sizes if size <= RACE_BATCH)
    sizes = sorted({1, largest})
    slice_seconds = RACE_SECONDS / RACE_ROUNDS / len(sessions) / (len(sizes) + (not has_wide_lane))
    for session in sessions:
        for size in sizes:
            run_lanes(session, _some(probes, size))  # the first time takes longer
    found: list[dict[str, list[float]]] = [{} for _ in sessions]
    end = time.perf_counter() + RACE_SECONDS
    for number in range(RACE_ROUNDS):
        if number and time.perf_counter() > end:
            break
        for session, seconds in zip(sessions, found, strict=True):
            for size in sizes:
                busy = _seconds_per_face(session, _some(probes, size), slice_seconds)
                seconds.setdefault(f"busy {size}", []).append(busy)
            if not has_wide_lane:
                started = time.perf_counter()
                session.run(probes[:1])
                seconds.setdefault("alone", []).append(time.perf_counter() - started)
    means = [_score(seconds, has_wide_lane=has_wide_lane) for seconds in found]
    best = 0
    for index, mean in enumerate(means):
        if means[best] / mean >= MIN_GAIN:
            best = index
    return sessions[best].lanes


def _some(probes: Sequence[Crop], size: int) -> list[Crop]:
    return [probes[index % len(probes)] for index in range(size)]


def _score(seconds: dict[str, list[float]], *, has_wide_lane: bool) -> float:
    """Geometric mean of the median seconds under load, and of a lone request's with equal weight."""
    busy = [median(values) for name, values in seconds.items() if name != "alone"]
    under_load = math.prod(busy) ** (1 / len(busy))
    return under_load if has_wide_lane else math.sqrt(under_load * median(seconds["alone"]))


def _seconds_per_face(session: Session, crops: Sequence[Crop], seconds: float) -> float:
    """With all lanes busy for at least that long."""

    def rate(_: int) -> float:
        started, batches = time.perf_counter(), 0
        while not batches or time.perf_counter() - started < seconds:
            session.run(crops)
            batches += 1
        return batches * len(crops) / (time.perf_counter() - started)

    with ThreadPoolExecutor(session.lanes) as pool:
        return 1 / sum(pool.map(rate, range(session.lanes)))
