"""The recogniser's queue: faces of a batch that are not cut yet are found together, then all are embedded.

A regressor beside a running batch would take a core from it, and all its threads would wait for the one on that core;
so faces are found between two batches (docs/adr/0010).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from arcface_api.arrays import Embedding
from arcface_api.batching import Batched, Batcher, both
from arcface_api.embedder.models import Model
from arcface_api.embedder.prepare import CutFace, Preparer, UncutFace
from arcface_api.embedder.request import EmbedOptions
from arcface_api.wire import Alignment


@dataclass(frozen=True)
class Recognition:
    """The recogniser's result for one face."""

    raw: Embedding
    """(dim,) float32, as the model returned it."""
    alignment: Alignment
    crop_ms: float
    """Milliseconds until the faces of the batch had been found and cut."""
    inference_ms: float
    """Milliseconds from then on."""


def recognition_queue(model: Model, preparer: Preparer, capacity: int) -> Batcher[CutFace | UncutFace, Recognition]:
    """The queue of the recogniser `model`, for `capacity` faces and a probe; `preparer` cuts what is not cut yet."""
    session, spec = model.session, model.spec
    blank = np.zeros((spec.height, spec.width, 3), np.uint8)

    def run(faces: Sequence[CutFace | UncutFace]) -> list[Recognition | Exception]:
        started = time.monotonic()
        uncut = [face for face in faces if isinstance(face, UncutFace)]
        found = iter(preparer.find_and_cut(uncut) if uncut else ())
        cut = [next(found) if isinstance(face, UncutFace) else face for face in faces]
        cut_at = time.monotonic()
        if len(uncut) == len(faces) and all(isinstance(each, Exception) for each in cut):
            return [each for each in cut if isinstance(each, Exception)]
        rows = session.run([each.pixels if isinstance(each, CutFace) else blank for each in cut])
        crop_ms, inference_ms = (cut_at - started) * 1000, (time.monotonic() - cut_at) * 1000
        return [
            Recognition(row, each.alignment, crop_ms, inference_ms) if isinstance(each, CutFace) else each
            for each, row in zip(cut, rows, strict=True)
        ]

    return Batcher(run, name="recogniser", sizes=session.batch_sizes, capacity=capacity + 1)


async def recognise_with_mirror_image(
    queue: Batcher[CutFace | UncutFace, Recognition], face: CutFace, options: EmbedOptions
) -> Batched[Recognition]:
    """The sum of the raw embeddings of a face and of its mirror image."""
    mirror_image = CutFace(np.ascontiguousarray(face.pixels[:, ::-1]), face.alignment)
    one, other = await both(
        queue.submit(face, deadline=options.deadline, is_bulk=options.is_bulk),
        queue.submit(mirror_image, deadline=options.deadline, is_bulk=options.is_bulk),
    )
    inference_ms = max(one.row.inference_ms, other.row.inference_ms)
    return replace(one, row=replace(one.row, raw=one.row.raw + other.row.raw, inference_ms=inference_ms))
