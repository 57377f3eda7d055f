"""The regressor on whole pictures, as the service runs it: twice, the second time on the face upright."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from arcface_api.alignment import REGRESSOR_INPUT, Landmarks, View, face_view, read_landmarks, whole_view
from arcface_api.arrays import Features, Image, Tensor, to_tensor

Run = Callable[[Tensor], Features]
BATCH = 64


def load(content: bytes | Path) -> Run:
    """Run an ONNX file with two threads on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # some recognisers are a hundred times slower
    source = content if isinstance(content, bytes) else str(content)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0]


def two_passes(run: Run, images: Sequence[Image]) -> list[tuple[Landmarks, Landmarks]]:
    """What the first and the second pass say of each picture."""
    first = _read(run, [whole_view(image) for image in images])
    views = [face_view(image, landmarks.points) for image, landmarks in zip(images, first, strict=True)]
    return list(zip(first, _read(run, views), strict=True))


def _read(run: Run, views: Sequence[View]) -> list[Landmarks]:
    rows: list[Features] = []
    for start in range(0, len(views), BATCH):
        crops = [view.crop for view in views[start : start + BATCH]]
        rows.extend(run(to_tensor(crops, REGRESSOR_INPUT)))
    return [read_landmarks(np.asarray(row), view) for row, view in zip(rows, views, strict=True)]
