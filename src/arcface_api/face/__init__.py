"""From a crop that is not aligned to one that is: pure functions on arrays, which a session's output passes through.

    Image ──view──▶ regressor, twice or more ──▶ Landmarks ─┐
    a caller's points ──check_landmarks──▶ Points ──┴──align──▶ Crop

Everything is sampled from the picture's own pixels, never from a shrunken copy of them, and the second pass sees the
face as if it had been upright from the start.
"""

from arcface_api.face.geometry import (
    back,
    face_box,
    face_size,
    input_template,
    lies_aligned,
    moved,
    scale_of,
    similarity,
)
from arcface_api.face.given import check_landmarks
from arcface_api.face.landmarks import (
    MAX_UNCERTAINTY,
    MIN_FACE_PROBABILITY,
    REGRESSOR_DIM,
    REGRESSOR_INPUT,
    REGRESSOR_PROVENANCE,
    Landmarks,
    View,
    face_view,
    find_landmarks,
    find_landmarks_of_many,
    read_landmarks,
    regressor,
    turned_view,
    view_template,
    whole_view,
)
from arcface_api.face.warp import align

__all__ = [
    "MAX_UNCERTAINTY",
    "MIN_FACE_PROBABILITY",
    "REGRESSOR_DIM",
    "REGRESSOR_INPUT",
    "REGRESSOR_PROVENANCE",
    "Landmarks",
    "View",
    "align",
    "back",
    "check_landmarks",
    "face_box",
    "face_size",
    "face_view",
    "find_landmarks",
    "find_landmarks_of_many",
    "input_template",
    "lies_aligned",
    "moved",
    "read_landmarks",
    "regressor",
    "scale_of",
    "similarity",
    "turned_view",
    "view_template",
    "whole_view",
]
