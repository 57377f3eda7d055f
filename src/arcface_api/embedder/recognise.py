"""The recogniser's queue, and what becomes of a batch: faces still to be found are found together, then all embedded.

    CutFace ─────────────────────────────────────────▶┬──▶ recogniser ──▶ Recognised
    UncutFace ──landmarks, all in one batch──▶ CutFace ┘

A regressor beside a running batch would take a core from it, and all threads of that batch would wait for the one on
that core (docs/adr/0010).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arcface_api.arrays import Embedding
from arcface_api.batching import Batcher
from arcface_api.embedder.aligning import Aligner, CutFace, UncutFace
from arcface_api.embedder.models import Models
from arcface_api.wire import Alignment


@dataclass(frozen=True)
class Recognised:
    """What the recogniser made of one picture."""

    raw: Embedding
    """(dim,) float32, as the model returned it."""
    alignment: Alignment
    crop_ms: float
    """Until the batch's faces had been found and cut, milliseconds."""
    inference_ms: float
    """From then on."""


def recognition_queue(models: Models, aligner: Aligner, capacity: int) -> Batcher[CutFace | UncutFace, Recognised]:
    """The queue of the recogniser. It can hold all that is admitted, and a probe.

    Args:
        models: Loaded.
        aligner: Of the same models.
        capacity: Faces that may be admitted.
    """
    session, spec = models.recogniser.session, models.recogniser.spec
    in_place_of_a_failed_one = np.zeros((spec.height, spec.width, 3), np.uint8)

    def run(faces: Sequence[CutFace | UncutFace]) -> list[Recognised | Exception]:
        started = time.monotonic()
        uncut = [face for face in faces if isinstance(face, UncutFace)]
        cut = iter(aligner.find_and_cut(uncut) if uncut else ())
        crops = [next(cut) if isinstance(face, UncutFace) else face for face in faces]
        cut_at = time.monotonic()
        if not any(isinstance(crop, CutFace) for crop in crops):
            return [crop for crop in crops if isinstance(crop, Exception)]
        pixels = [crop.pixels if isinstance(crop, CutFace) else in_place_of_a_failed_one for crop in crops]
        rows = session.run(pixels)
        crop_ms, inference_ms = (cut_at - started) * 1000, (time.monotonic() - cut_at) * 1000
        return [
            Recognised(row, crop.alignment, crop_ms, inference_ms) if isinstance(crop, CutFace) else crop
            for crop, row in zip(crops, rows, strict=True)
        ]

    return Batcher(run, name="recogniser", sizes=session.batch_sizes, capacity=capacity + 1)
