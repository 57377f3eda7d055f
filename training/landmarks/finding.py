"""The regressor on whole pictures, as the service runs it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime as ort

from arcface_api.arrays import Crop, Features, Image, Tensor, to_tensor
from arcface_api.face.landmarks import REGRESSOR_INPUT, Landmarks, find_landmarks, read_landmarks, whole_view

Run = Callable[[Tensor], Features]


def load(content: bytes | Path) -> Run:
    """Run an ONNX file with two threads on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # some recognisers are a hundred times slower
    source = content if isinstance(content, bytes) else str(content)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: session.run(None, {name: tensor})[0]


def find(run: Run, images: Sequence[Image]) -> list[tuple[Landmarks, Landmarks]]:
    """What the first pass says of each picture, and what the service makes of it."""
    return [(first, found) for first, found, _ in find_with_rows(run, images)]


def find_with_rows(run: Run, images: Sequence[Image]) -> list[tuple[Landmarks, Landmarks, Features]]:
    """As `find`, and the regressor's row from which the service read its landmarks."""
    return [_found(run, image) for image in images]


def _found(run: Run, image: Image) -> tuple[Landmarks, Landmarks, Features]:
    rows: list[Features] = []

    def regress(crop: Crop) -> Features:
        rows.append(run(to_tensor([crop], REGRESSOR_INPUT))[0])
        return rows[-1]

    found = find_landmarks(image, regress)
    first = read_landmarks(rows[0], whole_view(image))
    numbers = [found.eyes_hidden, found.lower_face_hidden, found.face_probability]
    return first, found, next((row for row in rows if row[[15, 16, 18]].tolist() == numbers), rows[-1])
