"""Target: from a picture and landmarks, a caller's or the regressor's, to crops, quality and head pose."""

import struct
from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np

from arcface_api.api import json_bodies
from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Crop, Features
from arcface_api.errors import LandmarksInvalid, ModelFailed
from arcface_api.face.geometry import align, check_landmarks, face_box, lies_aligned
from arcface_api.face.landmarks import REGRESSOR_DIM, Landmarks, find_landmarks
from arcface_api.face.quality import Quality, picture_quality
from arcface_api.image import letterbox, stretch
from arcface_api.wire import Align
from fuzz.target import Target

_MAX_PIXELS = 60_000
_PIXELS = np.random.default_rng(0).integers(0, 256, _MAX_PIXELS * 3, np.uint8)
_SIZES = 112, 64, 192, 1
_HEAD = struct.Struct("<HHBB")
"""Width and height, the size of the crop, and whether JSON or the regressor's numbers follow."""


def place_face(content: bytes) -> str:
    """Align by a caller's landmarks, as JSON, or by what a regressor returns, as float32, and measure the quality.

    Raises:
        AssertionError: A crop has another shape, or a number of the quality is not finite.
    """
    head, rest = content[: _HEAD.size].ljust(_HEAD.size, b"\1"), content[_HEAD.size :]
    width, height, size, is_json = _HEAD.unpack(head)
    width = 1 + width % 20_000
    height = 1 + min(height % 20_000, _MAX_PIXELS // width - 1)
    image = _PIXELS[: height * width * 3].reshape(height, width, 3)
    side = _SIZES[size % len(_SIZES)]
    try:
        if is_json % 2:
            points = check_landmarks(json_bodies.landmarks(rest, Align.LANDMARKS), height, width)
            landmarks = Landmarks(points, 0.0, 1.0)
        else:
            landmarks = find_landmarks(image, _Regressor(rest))
    except (LandmarksInvalid, ModelFailed) as error:
        assert str(error)
        return type(error).__name__
    crops = [stretch(image, side, side), letterbox(image, side, side)]
    face = crops[0] if side == TEMPLATE_SIDE else stretch(image, TEMPLATE_SIDE, TEMPLATE_SIDE)
    if landmarks.are_sure:
        points, weights = landmarks.points, landmarks.weights
        crops.append(align(image, points, side, weights=weights))
        lies_aligned(points, TEMPLATE, TEMPLATE_SIDE, height, width, weights=weights)
        face_box(points, weights)
        face = align(image, points, TEMPLATE_SIDE, weights=weights)
    for crop in crops:
        assert crop.shape == (side, side, 3)
        assert crop.dtype == np.uint8
    _check(picture_quality(image, face, landmarks))
    return "placed" if landmarks.are_sure else "unsure"


def _check(quality: Quality) -> None:
    numbers = quality.landmark_confidence, quality.face_size_px, quality.sharpness, quality.brightness, quality.contrast
    assert np.isfinite(numbers).all(), quality


class _Regressor:
    """Returns rows of what was fuzzed, again and again."""

    def __init__(self, content: bytes) -> None:
        whole = np.frombuffer(content[: len(content) // 4 * 4] or bytes(4), "<f4")
        self._rows = cycle(whole)

    def __call__(self, crop: Crop) -> Features:
        return np.fromiter(islice(self._rows, REGRESSOR_DIM), np.float32, REGRESSOR_DIM)


def seeds() -> Iterator[bytes]:
    """Landmarks of both kinds that are sure, and some that are not."""
    relative = TEMPLATE / TEMPLATE_SIDE
    for width, height in ((112, 112), (40, 90), (1500, 1200), (3, 2), (20_000, 1)):
        for size in range(len(_SIZES)):
            points = (relative * (width, height)).round(2).tolist()
            yield _HEAD.pack(width - 1, height - 1, size, 1) + str(points).encode()
            for uncertainty, probability in ((0.01, 0.99), (0.1, 0.9), (0.5, 0.6)):
                row = [*relative.ravel(), *[uncertainty] * 5, 0, 0, uncertainty, probability]
                yield _HEAD.pack(width - 1, height - 1, size, 0) + np.array(row, "<f4").tobytes()


TARGETS = {"faces": Target(place_face, seeds, max_bytes=600)}
