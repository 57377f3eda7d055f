"""The recogniser without a service: the sessions that are compared, and how fast they run batch after batch."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from platformdirs import user_cache_dir

from arcface_api.arrays import Crop, Features, InputSpec
from arcface_api.cpus import available_cpus
from arcface_api.session import Cache, LaneConfig, ModelContent, Session, SessionConfig, open_session
from arcface_api.settings import Device, Precision

Run = Callable[[Sequence[Crop]], Features]
"""Crops (112, 112, 3) uint8 RGB → features (n, dim) float32."""
ENGINES = ("own", "onnxruntime")
WARM_UP_SECONDS = 1.0


def open_own(model: Path, batch_sizes: Sequence[int], threads: int | None = None, lanes: int = 1) -> Run:
    """The session that our service uses, as it would open it on this machine; `threads` for other than its own."""
    return own_session(model, max(batch_sizes), threads, lanes=lanes).run


def own_session(
    model: Path,
    max_batch: int,
    threads: int | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    *,
    lanes: int = 1,
) -> Session:
    """The service's session for a recogniser file; it remembers in the service's own cache what is fastest here."""
    content = model.read_bytes()
    output = onnx.load_from_string(content).graph.output[0]
    dim = output.type.tensor_type.shape.dim[1].dim_value
    spec = InputSpec(None, 112, 112, 127.5, 127.5)
    loaded = ModelContent(content, hashlib.sha256(content).hexdigest(), spec, dim)
    folder = os.environ.get("ARCFACE_CACHE_DIR") or Path(user_cache_dir("arcface-api")) / "compiled"
    config = SessionConfig(device, precision, threads or available_cpus(), max_batch)
    without_wide = LaneConfig(lanes, memory_bytes=0)  # there is no room for a second copy, which nobody would run
    return open_session(loaded, config, Cache(Path(folder)), without_wide).session


def open_onnxruntime(model: Path) -> Run:
    """ONNX Runtime as it comes: CPU provider, float32, its own choice of threads. What peers' users write."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(crops: Sequence[Crop]) -> Features:
        tensor = cv2.dnn.blobFromImages(list(crops), 1 / 127.5, (112, 112), (127.5, 127.5, 127.5))
        return session.run(None, {name: tensor})[0]

    return run


def open_engine(name: str, model: Path, batch_sizes: Sequence[int], threads: int | None = None, lanes: int = 1) -> Run:
    """One of ENGINES; `threads` and `lanes` are for our own."""
    return open_own(model, batch_sizes, threads, lanes) if name == "own" else open_onnxruntime(model)


def time_batches(run: Run, crops: Sequence[Crop], batch: int, seconds: float, *, lanes: int = 1) -> NDArray[np.float64]:
    """Milliseconds of each batch: one after the other in every lane, all lanes at once.

    Those of a first second are left out, and those that end after the last one, when other lanes may be idle.
    """
    begin = time.perf_counter() + WARM_UP_SECONDS
    end = begin + seconds

    def feed(_: int) -> list[float]:
        endless = itertools.cycle(crops)
        took: list[float] = []
        while not took or time.perf_counter() < end:
            started = time.perf_counter()
            run([next(endless) for _ in range(batch)])
            ended = time.perf_counter()
            if started >= begin and (ended <= end or not took):
                took.append((ended - started) * 1000)
        return took

    with ThreadPoolExecutor(lanes) as pool:
        return np.array([ms for took in pool.map(feed, range(lanes)) for ms in took])


def summary(took_ms: NDArray[np.float64], batch: int, *, lanes: int = 1) -> dict[str, float]:
    """Rate of all lanes together, and latency, of one batch size."""
    p50, p99 = np.percentile(took_ms, [50, 99])
    return {
        "batch": batch,
        "faces_per_second": round(lanes * batch * 1000 / took_ms.mean(), 3),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "batches": len(took_ms),
    }


def run_bare(
    model: Path,
    folder: Path | None,
    batches: Sequence[int],
    seconds: float,
    engine: str = "own",
    *,
    threads: int | None = None,
    lanes: int = 1,
) -> dict[str, Any]:
    """What `benchmarks.questions.bare` prints, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.questions.bare", str(model), "--engine", engine]
    command += ["--seconds", str(seconds), "--lanes", str(lanes), "--batch", *map(str, batches)]
    command += ["--threads", str(threads)] if threads else []
    command += ["--faces", str(folder)] if folder else []
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def medians(rounds: Sequence[dict[int, dict[str, Any]]]) -> dict[int, dict[str, Any]]:
    """Over the rounds, of each size's figures; a figure that is unknown in all rounds is None."""
    found: dict[int, dict[str, Any]] = {}
    for size in rounds[0]:
        found[size] = {}
        for key in ("faces_per_second", "p50_ms", "p99_ms", "mean_batch"):
            known = [of[size][key] for of in rounds if of[size].get(key) is not None]
            found[size][key] = round(median(known), 3) if known else None
    return found
