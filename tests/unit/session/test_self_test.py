"""Promises of `session/self_test.py`: every probe crop in every batch size, on faces that are the same everywhere."""

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcface_api.arrays import Crop, Features
from arcface_api.session import Cache, ModelContent, SessionConfig, is_batch_invariant, open_session, probe_crops
from arcface_api.session.onnx_cpu import OnnxCpuSession


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


class Leaning:
    """A session whose rows are the means of their crops, and lean a little towards the last crop of a batch of four."""

    provider, precision, threads, lanes = "none", "float32", 1, 1
    batch_sizes: tuple[int, ...] = (1, 2, 4)

    def __init__(self, leaning: float) -> None:
        self._leaning = np.float32(leaning)

    def run(self, crops: Sequence[Crop]) -> Features:
        means: Features = np.array([[crop.mean()] for crop in crops], np.float32)
        return means + self._leaning * means[-1] if len(crops) == 4 else means


def test_session_is_batch_invariant_only_if_no_bit_depends_on_company() -> None:
    crops = [np.full((4, 4, 3), 40 + number, np.uint8) for number in range(5)]
    assert is_batch_invariant(Leaning(0), crops)
    assert not is_batch_invariant(Leaning(1e-6), crops)
