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
from arcface_api.session.self_test import cycled

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


def fits(weight_bytes: float, memory_bytes: float, *lanes: int) -> bool:
    """Whether the memory limit leaves room for copies of a model, one for each number of lanes."""
    return BASE_BYTES + len(lanes) * weight_bytes + sum(lanes) * LANE_BYTES <= MEMORY_SHARE * memory_bytes


def run_lanes(session: Session, batch: Sequence[Crop]) -> list[Features]:
    """Run the same batch in every lane at once; returns each lane's (n, dim) float32."""
    with ThreadPoolExecutor(session.lanes) as pool:
        return list(pool.map(session.run, [batch] * session.lanes))


def fastest_lanes(sessions: Sequence[Session], probes: Sequence[Crop]) -> int:
    """The number of lanes of the session that embeds the most faces per second while all its lanes are busy.

    It is the geometric mean of the median seconds for a face in batches of one and in large ones.
    """
    largest = max(size for size in sessions[0].batch_sizes if size <= RACE_BATCH)
    batches = [cycled(probes, size) for size in sorted({1, largest})]
    slice_seconds = RACE_SECONDS / RACE_ROUNDS / len(sessions) / len(batches)
    for session in sessions:
        for batch in batches:
            run_lanes(session, batch)  # the first time takes longer
    seconds: list[list[list[float]]] = [[[] for _ in batches] for _ in sessions]
    end = time.perf_counter() + RACE_SECONDS
    for number in range(RACE_ROUNDS):
        if number and time.perf_counter() > end:
            break
        for session, by_batch in zip(sessions, seconds, strict=True):
            for batch, found in zip(batches, by_batch, strict=True):
                found.append(_seconds_per_face(session, batch, slice_seconds))
    means = [math.prod(map(median, by_batch)) ** (1 / len(batches)) for by_batch in seconds]
    best = 0
    for index, mean in enumerate(means):
        if means[best] / mean >= MIN_GAIN:
            best = index
    return sessions[best].lanes


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
