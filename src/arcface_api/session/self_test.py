"""The self-test: every session has to reproduce the reference's features of eight synthetic faces before it serves.

    probe crops ─reference─▶ expected features ◀─cosine of each row─ session, in every batch size

Running every batch size also warms it up: no request pays for the first batch of a size. No picture of a person is in
this package, but noise would not do: on it bfloat16 looks five times worse than it is. On these faces, w600k_mbf
returns embeddings as long as on real, aligned ones, and bfloat16 errs by as much (ADR 9).
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from statistics import median
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import Crop, Features
from arcface_api.errors import ModelFailed
from arcface_api.session.onnx_cpu import Session

Item = TypeVar("Item")

PROBES = 8
"""Half are framed like aligned faces, half like loose, stretched boxes: callers send both."""
MIN_COSINE = 0.999
"""Of each probe crop's features to the reference's; bfloat16 on an IResNet100 reaches 0.9997 (docs/precision.md)."""
MAX_SIMILARITY = 0.8
"""Of different probe faces, as the median cosine. ArcFace models that are fed rightly have less, and models fed with
pixels from another range nearly 1 (docs/packs.md)."""
TIMING_SECONDS, TIMING_ROUNDS = 1.0, 10
"""Limits of timing all candidates together; one round is run in any case."""
TIMING_BATCH = 8
"""Largest batch that is timed: CPUs gain almost nothing beyond it."""
PAUSE_SECONDS = 0.01
"""Between two sessions: the threads of the one before spin for a while in case more work comes."""


def probe_crops(height: int, width: int) -> list[Crop]:
    """The synthetic faces at a model's input size: `PROBES` arrays of (height, width, 3) uint8, RGB."""
    crops: list[Any] = []
    for number, face in enumerate(_faces()):
        margin = len(face) // 8 if number % 2 else 0  # a loose box: more at the sides, cut closer above
        framed = cv2.copyMakeBorder(face[margin:], 0, 0, margin, margin, cv2.BORDER_REFLECT)
        crops.append(cv2.resize(framed, (width, height), interpolation=cv2.INTER_AREA))
    return crops


@cache
def _faces() -> NDArray[np.uint8]:
    """The file's faces, (PROBES, side, side, 3) uint8, RGB; training/probe_faces.py draws them."""
    file = np.frombuffer(resources.files("arcface_api").joinpath("session/probe_faces.png").read_bytes(), np.uint8)
    pixels: Any = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)  # the stub says None, which only an unreadable file gives
    faces: NDArray[np.uint8] = pixels.reshape(PROBES, -1, pixels.shape[1], 3)
    return faces


def reference_features(reference: Session, probes: Sequence[Crop]) -> Features:
    """The reference's features of the probe crops, run one by one: (n, dim) float32."""
    return np.concatenate([reference.run([probe]) for probe in probes])


def median_similarity(features: Features) -> float:
    """The median cosine of different probe faces' features, (n, dim): near 1 if a model cannot distinguish them."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if not norms.all():
        return 1.0
    unit = features / norms
    return float(np.median((unit @ unit.T)[np.triu_indices(len(unit), 1)]))


def lowest_cosine(session: Session, probes: Sequence[Crop], expected: Features) -> float:
    """Run n probe crops in every batch size, in all lanes at once; return a row's lowest cosine to `expected`.

    `expected` is (n, dim) float32.

    Raises ModelFailed if the session fails, or returns a row that is not finite or is zero.
    """
    lowest = 1.0
    for size in session.batch_sizes:
        # Every lane has to run every size once: a largest batch needs more than the probe crops.
        numbers = range(max(len(probes) // size, session.lanes))
        runs = [cycled(range(len(probes)), size, start=number * size) for number in numbers]
        with ThreadPoolExecutor(session.lanes) as pool:
            features = list(pool.map(lambda chosen: session.run([probes[index] for index in chosen]), runs))
        for chosen, rows in zip(runs, features, strict=True):
            a = rows.astype(np.float64)
            b = expected[chosen].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
            if not np.isfinite(cosines).all():
                raise ModelFailed(f"It returned features that are not finite, or zero, for a batch of {size}.")
            lowest = min(lowest, float(cosines.min()))
    return lowest


def fastest(sessions: Sequence[Session], probes: Sequence[Crop]) -> Session:
    """The session with the least time per face: the geometric mean of a lone crop's and a batch's.

    They run in turn, so that another process that takes the CPU slows down all of them.
    """
    if len(sessions) == 1:
        return sessions[0]
    seconds: list[dict[int, list[float]]] = [{} for _ in sessions]
    end = time.perf_counter() + TIMING_SECONDS
    for number in range(TIMING_ROUNDS):
        if number and time.perf_counter() > end:
            break
        for session, by_size in zip(sessions, seconds, strict=True):
            largest = max(size for size in session.batch_sizes if size <= TIMING_BATCH)
            time.sleep(PAUSE_SECONDS)
            for size in {1, largest}:
                crops = cycled(probes, size)
                started = time.perf_counter()
                session.run(crops)
                by_size.setdefault(size, []).append((time.perf_counter() - started) / size)
    means = [math.prod(map(median, by_size.values())) ** (1 / len(by_size)) for by_size in seconds]
    return sessions[means.index(min(means))]


def cycled(items: Sequence[Item], size: int, start: int = 0) -> list[Item]:
    """`size` of the items from `start` on, and from the first one again after the last."""
    return [items[(start + offset) % len(items)] for offset in range(size)]
