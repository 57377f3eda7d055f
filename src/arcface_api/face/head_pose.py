"""Head pose in degrees, from 68 landmarks in three dimensions or, coarser, from the five in the picture.

All angles are zero for a face that looks straight into the camera. As seen in the picture (a test draws each):

- yaw: positive turns the face to the picture's right, so the nose moves right;
- pitch: positive turns it up, so the nose moves up;
- roll: positive tilts it clockwise.

The rotation is `roll * yaw * pitch`: pitch is applied first. InsightFace returns the same angles as an unnamed array in
the order pitch, yaw, roll, which is often mixed up; so this module returns names.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import atan2, degrees, hypot

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import TEMPLATE, Features, Points, Transform
from arcface_api.errors import ModelFailed

LANDMARKS_3D = 68
"""The model's last 68 points are the three-dimensional landmarks. Source: InsightFace, `model_zoo/landmark.py`."""
RESOLUTION = 1e-6
"""Of float32 coordinates, relative to the largest. Narrower shapes are rounding errors, not faces."""
FIVE_POINTS: NDArray[np.float64] = np.column_stack([TEMPLATE, [0, 0, 18.8, 4.2, 4.2]])
"""The five landmarks of a face that looks straight ahead: (5, 3); x right, y down, z towards the viewer, pixels of the
template. x and y are the template's, the mean of faces that look into the camera; the depth is that of `mean_shape`,
scaled by the eye distance."""


@dataclass(frozen=True)
class HeadPose:
    """Rotation of a head, in degrees; the module says which way is positive."""

    yaw: float
    pitch: float
    roll: float


@cache
def mean_shape() -> Points:
    """The face that looks straight ahead: (68, 3) float32; x right, y down, z towards the viewer; without unit."""
    with resources.files("arcface_api").joinpath("mean_shape_68.csv").open(encoding="utf-8") as file:
        shape = np.loadtxt(file, np.float32, delimiter=",")
    shape.flags.writeable = False  # every caller gets the same array
    return shape


def landmarks_in_picture(row: Features, size: int, transform: Transform) -> Points:
    """The model's row for one face, (3309,), as (68, 3) float32: x, y in the picture's pixels, z in the same unit.

    In the row, x and y run from -1 to 1 over the model's input, a square of `size` pixels, to which `transform` leads
    from the picture. Not finite if the row is not finite or overflows; `head_pose` refuses such points.
    """
    points = row.reshape(-1, 3)[-LANDMARKS_3D:].astype(np.float32)
    back = cv2.invertAffineTransform(transform)
    with np.errstate(over="ignore", invalid="ignore"):
        points[:, :2] += 1
        points *= size // 2
        points[:, :2] = points[:, :2] @ back[:, :2].T + back[:, 2]
        points[:, 2] = points[:, 2] * np.hypot(back[0, 0], back[0, 1])  # in float64, rounded once, as the reference
    return points


def head_pose(landmarks: Points) -> HeadPose:
    """The rotation from the mean shape to these landmarks, (68, 3): x right, y down, z towards the viewer.

    The first two rows of the least-squares affine map, normalised, and their cross product. Source: InsightFace,
    `utils/transform.py` (`estimate_affine_matrix_3d23d`, `P2sRt`, `matrix2angle`). Raises `ModelFailed` if the
    landmarks are not finite, in one place, or on one line.
    """
    if np.isfinite(landmarks).all():
        homogeneous = np.column_stack([mean_shape(), np.ones(LANDMARKS_3D)])
        affine = np.linalg.lstsq(homogeneous, landmarks.astype(np.float64), rcond=None)[0].T
        right, down = affine[0, :3], affine[1, :3]
        lengths = np.linalg.norm(right), np.linalg.norm(down)
        width = np.linalg.norm(np.cross(right, down)) / (max(lengths) or 1)  # of the parallelogram that they span
        if width > RESOLUTION * np.abs(landmarks[:, :2]).max():
            return _pose(right / lengths[0], down / lengths[1])
    raise ModelFailed("The landmark model returned points from which no head pose can be computed.")


def pose_of_five(points: Points) -> HeadPose:
    """The rotation from `FIVE_POINTS` to these landmarks, (5, 2), seen from far away (weak perspective).

    The rotation nearest to the least-squares affine map, by singular values. It assumes the same proportions for all
    faces, and yaw and pitch depend on the nose alone. Raises `ModelFailed` as `head_pose`.
    """
    shape, seen = FIVE_POINTS - FIVE_POINTS.mean(0), points.astype(np.float64)
    if np.isfinite(seen).all():
        affine = np.linalg.lstsq(shape, seen - seen.mean(0), rcond=None)[0].T
        left, sizes, right = np.linalg.svd(affine, full_matrices=False)
        if sizes[1] > RESOLUTION * max(np.abs(seen).max(), sizes[0]):
            return _pose(*(left @ right))
    raise ModelFailed("No head pose can be computed from the landmarks of this picture.")


def _pose(right: NDArray[np.float64], down: NDArray[np.float64]) -> HeadPose:
    """Euler angles of the rotation with these first two rows."""
    rotation = np.stack([right, down, np.cross(right, down)])
    cos_yaw = hypot(rotation[0, 0], rotation[1, 0])
    yaw = atan2(-rotation[2, 0], cos_yaw)
    if cos_yaw < 1e-6:  # straight aside, pitch and roll turn about the same axis: only their sum is known
        pitch, roll = atan2(-rotation[1, 2], rotation[1, 1]), 0.0
    else:
        pitch, roll = atan2(rotation[2, 1], rotation[2, 2]), atan2(rotation[1, 0], rotation[0, 0])
    return HeadPose(degrees(yaw), degrees(pitch), degrees(roll))
