"""The recogniser without a service: what the model alone can do on this machine.

    python benchmarks/bare.py build/iresnet100.onnx --batch 1 8

One process, one caller, no HTTP: crops in, features out, one batch after the other. Prints JSON.
"""

import argparse
import hashlib
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from platformdirs import user_cache_dir

import faces
from arcface_api.arrays import Crop, Features, InputSpec
from arcface_api.cpus import available_cpus
from arcface_api.session import Cache, ModelContent, Session, SessionConfig, open_session
from arcface_api.settings import Device, Precision

Run = Callable[[Sequence[Crop]], Features]
"""Crops (112, 112, 3) uint8 RGB → features (n, dim) float32."""
ENGINES = ("own", "onnxruntime")
WARM_UP_SECONDS = 1.0


def open_own(model: Path, batch_sizes: Sequence[int], threads: int | None = None) -> Run:
    """The session that our service uses, as it would open it on this machine; `threads` for other than its own."""
    return own_session(model, max(batch_sizes), threads).run


def own_session(
    model: Path, max_batch: int, threads: int | None = None, device: Device = "auto", precision: Precision = "auto"
) -> Session:
    """The service's session for a recogniser file; it remembers in the service's own cache what is fastest here."""
    content = model.read_bytes()
    output = onnx.load_from_string(content).graph.output[0]
    dim = output.type.tensor_type.shape.dim[1].dim_value
    spec = InputSpec(None, 112, 112, 127.5, 127.5)
    loaded = ModelContent(content, hashlib.sha256(content).hexdigest(), spec, dim)
    folder = os.environ.get("ARCFACE_CACHE_DIR") or Path(user_cache_dir("arcface-api")) / "compiled"
    config = SessionConfig(device, precision, threads or available_cpus(), max_batch)
    return open_session(loaded, config, Cache(Path(folder))).session


def open_onnxruntime(model: Path) -> Run:
    """ONNX Runtime as it comes: CPU provider, float32, its own choice of threads. What peers' users write."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(crops: Sequence[Crop]) -> Features:
        tensor = cv2.dnn.blobFromImages(list(crops), 1 / 127.5, (112, 112), (127.5, 127.5, 127.5))
        return session.run(None, {name: tensor})[0]

    return run


def open_engine(name: str, model: Path, batch_sizes: Sequence[int]) -> Run:
    """One of ENGINES."""
    return open_own(model, batch_sizes) if name == "own" else open_onnxruntime(model)


def time_batches(run: Run, crops: Sequence[Crop], batch: int, seconds: float) -> NDArray[np.float64]:
    """Milliseconds of each batch, one after the other; those of a first second are left out."""
    endless = itertools.cycle(crops)
    took = []
    begin = time.perf_counter()
    while (started := time.perf_counter()) < begin + WARM_UP_SECONDS + seconds:
        run([next(endless) for _ in range(batch)])
        if started >= begin + WARM_UP_SECONDS:
            took.append((time.perf_counter() - started) * 1000)
    return np.array(took)


def summary(took_ms: NDArray[np.float64], batch: int) -> dict[str, float]:
    """Rate and latency of one batch size."""
    p50, p99 = np.percentile(took_ms, [50, 99])
    return {
        "batch": batch,
        "faces_per_second": round(batch * 1000 / took_ms.mean(), 3),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "batches": len(took_ms),
    }


def main() -> None:
    """Run the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", choices=ENGINES, default="own")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=10, help="for each batch size")
    faces.add_option(parser)
    arguments = parser.parse_args()
    crops = [faces.decoded(picture) for picture in faces.load(arguments.faces)]
    started = time.perf_counter()
    run = open_engine(arguments.engine, arguments.model, arguments.batch)
    run(crops[:1])
    ready_seconds = time.perf_counter() - started
    batches = [summary(time_batches(run, crops, batch, arguments.seconds), batch) for batch in arguments.batch]
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    json.dump(
        {"engine": arguments.engine, "ready_seconds": round(ready_seconds, 3), "rss_mb": rss_mb, "batches": batches},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
