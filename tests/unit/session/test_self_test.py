"""Promises of `session/self_test.py`: every probe crop in every batch size, on faces that are the same everywhere."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcface_api.arrays import Features
from arcface_api.session import Cache, ModelContent, SessionConfig, open_session
from arcface_api.session.onnx_cpu import OnnxCpuSession
from arcface_api.session.self_test import probe_crops


@pytest.mark.parametrize("most", [1, 3, 8])
def test_every_probe_is_proved_in_every_batch_size(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    ran: list[int] = []
    real = OnnxCpuSession.run

    def counted(self: OnnxCpuSession, crops: Any) -> Features:
        ran.append(len(crops))
        return real(self, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", counted)
    session = open_session(recogniser, SessionConfig("cpu", "float32", 1, most), cache).session
    for size in session.batch_sizes:
        assert ran.count(size) * size >= 8


def test_stored_faces_are_what_the_script_draws() -> None:
    """But for rounding: drawing them depends on the versions of NumPy and OpenCV, which is why they are stored."""
    script = runpy.run_path(str(Path(__file__).parents[3] / "training" / "probe_faces.py"))
    aligned = probe_crops(script["SIDE"] * script["SUPERSAMPLING"], script["SIDE"] * script["SUPERSAMPLING"])[::2]
    for number, crop in enumerate(aligned):
        drawn = script["draw_face"](2 * number)
        np.testing.assert_allclose(crop.astype(int), drawn.astype(int), atol=2)
