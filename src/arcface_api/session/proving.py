"""How a session proves itself before a caller meets it, and which of several is the fastest.

    probe faces ─reference─▶ features ◀─cosine of each row─ session, in every batch size

Running every batch size once is also what warms it: the first batch of a size waits for nothing later on.
"""

import math
import time
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from arcface_api.arrays import Crop, Features
from arcface_api.errors import ModelFailed
from arcface_api.session.model import Session

MIN_COSINE = 0.999
"""Of each probe's features to the reference's; bfloat16 on an IResNet100 has 0.9997 (docs/precision.md)."""
RACE_SECONDS, RACE_ROUNDS = 1.0, 10
"""How long candidates are timed against each other at most, all together; one round in any case."""
PAUSE_SECONDS = 0.01
"""Between two sessions: the threads of the one before spin for a while, in case that more work comes."""
RACE_BATCH = 8
"""Largest batch that is timed: on CPUs nearly all that batching gains is in by 8."""


def reference_features(reference: Session, probes: Sequence[Crop]) -> Features:
    """What the reference says of the probes, one by one: (n, dim) float32."""
    return np.concatenate([reference.run([probe]) for probe in probes])


def lowest_cosine(session: Session, probes: Sequence[Crop], expected: Features) -> float:
    """Run every probe in every batch size and compare each row.

    Args:
        session: In whose `batch_sizes` the probes run.
        probes: Crops of the model's input size.
        expected: (n, dim) float32: the reference's features of the probes.

    Returns:
        The lowest cosine of any row to the reference's.

    Raises:
        ModelFailed: The session failed, or returned what is not finite or is zero.
    """
    lowest = 1.0
    for size in session.batch_sizes:
        for start in range(0, len(probes), size):
            chosen = [(start + offset) % len(probes) for offset in range(size)]
            rows = session.run([probes[index] for index in chosen])
            cosines = _cosines(rows, expected[chosen])
            if not np.isfinite(cosines).all():
                raise ModelFailed(f"It returned features that are not finite, or zero, for a batch of {size}.")
            lowest = min(lowest, float(cosines.min()))
    return lowest


def is_batch_invariant(session: Session, crops: Sequence[Crop]) -> bool:
    """Whether each crop's row is the same, bit for bit, alone and in every batch size, at every place of a batch.

    Args:
        session: In whose `batch_sizes` the crops run.
        crops: Of the model's input size.

    Raises:
        ModelFailed: The session failed.
    """
    alone = np.concatenate([session.run([crop]) for crop in crops])
    for size in session.batch_sizes:
        for start in range(len(crops)):
            chosen = [(start + offset) % len(crops) for offset in range(size)]
            if not np.array_equal(session.run([crops[index] for index in chosen]), alone[chosen]):
                return False
    return True


def fastest(sessions: Sequence[Session], probes: Sequence[Crop]) -> Session:
    """The session with the least time a face, as the geometric mean of a lone crop's and a batch's.

    They run in turn, so that another process that takes the CPU meanwhile slows all of them.
    """
    times: list[dict[int, list[float]]] = [{} for _ in sessions]
    end = time.perf_counter() + RACE_SECONDS
    for number in range(RACE_ROUNDS):
        if number and time.perf_counter() > end:
            break
        for session, took in zip(sessions, times, strict=True):
            largest = max(size for size in session.batch_sizes if size <= RACE_BATCH)
            time.sleep(PAUSE_SECONDS)
            for size in {1, largest}:
                took.setdefault(size, []).append(_seconds(session, list(_cycled(probes, size))) / size)
    means = [math.prod(median(took) for took in each.values()) ** (1 / len(each)) for each in times]
    return sessions[means.index(min(means))]


def _seconds(session: Session, crops: Sequence[Crop]) -> float:
    started = time.perf_counter()
    session.run(crops)
    return time.perf_counter() - started


def _cycled(probes: Sequence[Crop], size: int) -> Iterator[Crop]:
    return (probes[index % len(probes)] for index in range(size))


def _cosines(rows: Features, expected: Features) -> Features:
    a, b = rows.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: Features = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines
