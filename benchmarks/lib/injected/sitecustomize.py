"""Python runs this first in each process of a service under test: it does once what a file in FAULTS_FOLDER names.

A fault happens where it would: inside ONNX Runtime's `run`, under everything that is ours. The process that meets it
renames the file, `inference` to `inference.PID`, so that it happens in one process and one batch.
"""

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

_folder = Path(os.environ["FAULTS_FOLDER"])
_lasting: list[str] = []
"""Faults that stay until the process ends."""
_clock_offset = [0.0]


def _claimed(place: str) -> str:
    """The fault that happens here now; empty if there is none."""
    try:
        mine = (_folder / place).rename(_folder / f"{place}.{os.getpid()}")
    except OSError:
        return _lasting[0] if _lasting else ""
    return mine.read_text(encoding="utf-8")


def _happen(fault: str) -> None:
    """What happens before the model runs."""
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, RuntimeException  # noqa: PLC0415

    kind, _, argument = fault.partition(" ")
    if kind == "raise":
        raise RuntimeError("a fault")
    if kind == "cuda_memory":  # in ONNX Runtime's words
        raise RuntimeException("Failed to allocate memory for requested buffer of size 25165824")
    if kind == "cuda_lost":
        _lasting[:] = [fault]
        raise EPFail(
            "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=cudaDeviceSynchronize()"
        )
    if kind == "hang":
        time.sleep(1e6)
    if kind == "abort":
        os.abort()
    if kind == "crash":
        ctypes.string_at(0)
    if kind == "clock":
        _clock_offset[0] += float(argument)


def _spoilt(fault: str, features: Any) -> Any:
    """What is returned instead of a model's features, (n, dim)."""
    import numpy as np  # noqa: PLC0415

    if fault == "nan":
        return np.full_like(features, np.nan)
    if fault == "zero":
        return np.zeros_like(features)
    if fault == "rows":
        return np.concatenate([features, features[:1]])
    if fault == "shape":
        return features[:, :-1]
    return features


def _install() -> None:
    import onnxruntime  # noqa: PLC0415

    from arcface_api.serving import supervisor  # noqa: PLC0415
    from arcface_api.session import openvino_cpu  # noqa: PLC0415

    supervisor.LONGEST_PAUSE_SECONDS = 1  # each death counts as the first one in a while

    openvino_cpu.is_openvino_installed = lambda: False  # so that ONNX Runtime runs the model
    real = onnxruntime.InferenceSession.run

    def run(self: Any, names: Any, feed: Any, *options: Any) -> Any:
        # The landmark regressor has a session, too.
        fault = _claimed("inference") if next(iter(feed.values())).shape[-1] == 112 else ""
        if fault:
            _happen(fault)
        (features,) = real(self, names, feed, *options)
        return [_spoilt(fault, features)]

    onnxruntime.InferenceSession.run = run
    real_time, real_time_ns = time.time, time.time_ns
    time.time = lambda: real_time() + _clock_offset[0]
    time.time_ns = lambda: real_time_ns() + int(_clock_offset[0] * 1e9)


if not any("decoder_process" in argument for argument in sys.orig_argv):
    _install()
