"""Head pose from landmarks, in degrees and by name: from 68 in three dimensions, or from five in the picture.

    (3309,) row ──landmarks_in_picture──▶ (68, 3) ──head_pose──▶ HeadPose
                                          (5, 2) ──pose_of_five──▶ HeadPose      coarser

Signs, as seen in the picture (a test draws each):

- yaw: positive turns the face towards the picture's right, so the nose moves right;
- pitch: positive turns it up, so the nose moves up;
- roll: positive tilts it clockwise.

All are zero for a face that looks straight at the camera. The rotation is `roll * yaw * pitch`: pitch is applied first.
InsightFace returns the same angles as an unnamed array in the order pitch, yaw, roll: mixing them up is the field's
classic bug, so there is no array here.
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

LANDMARKS = 68
"""The model's last 68 points are the three-dimensional landmarks. Source: InsightFace, `model_zoo/landmark.py`."""

RESOLUTION = 1e-6
"""Of float32 coordinates, relative to the largest: what is narrower is rounding, not a face."""


FIVE_POINTS: NDArray[np.float64] = np.column_stack([TEMPLATE, [0, 0, 18.8, 4.2, 4.2]])
"""The face that looks straight ahead: left eye, right eye, nose tip, left and right mouth corner.

(5, 3) float64; x right, y down, z towards the viewer, pixels of the template. Its x and y are the template's, which is
the mean of faces that look into the camera; its depth is that of `mean_shape`, in eye distances.
"""


@dataclass(frozen=True)
class HeadPose:
    """Rotation of a head, in degrees; the module says which way is positive."""

    yaw: float
    """Left-right."""
    pitch: float
    """Up-down."""
    roll: float
    """Tilt."""


@cache
def mean_shape() -> Points:
    """The face that looks straight ahead: (68, 3) float32; x right, y down, z towards the viewer; without unit."""
    with resources.files("arcface_api").joinpath("mean_shape_68.csv").open(encoding="utf-8") as file:
        shape = np.loadtxt(file, np.float32, delimiter=",")
    shape.flags.writeable = False  # every caller gets the same array
    return shape


def landmarks_in_picture(row: Features, size: int, transform: Transform) -> Points:
    """Read the model's output for one face, in the picture's pixels.

    Args:
        row: (3309,) float32: points x, y, z, where x and y run from -1 to 1 over the model's input.
        size: Side of the model's input, pixels.
        transform: (2, 3), from the picture's pixels to those of the model's input.

    Returns:
        (68, 3) float32: x, y in the picture's pixels, z in the same unit. Not finite where the row is not or overflows;
        `head_pose` refuses such points.
    """
    points = row.reshape(-1, 3)[-LANDMARKS:].astype(np.float32)
    back = cv2.invertAffineTransform(transform)
    with np.errstate(over="ignore", invalid="ignore"):
        points[:, :2] += 1
        points *= size // 2
        points[:, :2] = points[:, :2] @ back[:, :2].T + back[:, 2]
        points[:, 2] = points[:, 2] * np.hypot(back[0, 0], back[0, 1])  # in float64, rounded once, as the reference
    return points


def head_pose(landmarks: Points) -> HeadPose:
    """How the mean face must be turned to become these landmarks.

    Least squares gives the affine map from the mean shape to the landmarks; its first two rows, normalised, and their
    cross product are taken as the rotation. Source: InsightFace, `utils/transform.py` (`estimate_affine_matrix_3d23d`,
    `P2sRt`, `matrix2angle`).

    Args:
        landmarks: (68, 3) float32; x right, y down, z towards the viewer.

    Raises:
        ModelFailed: The landmarks are not finite, or no wider than rounding: all in one place, or on one line.
    """
    if np.isfinite(landmarks).all():
        homogeneous = np.column_stack([mean_shape(), np.ones(LANDMARKS)])
        affine = np.linalg.lstsq(homogeneous, landmarks.astype(np.float64), rcond=None)[0].T
        right, down = affine[0, :3], affine[1, :3]
        lengths = np.linalg.norm(right), np.linalg.norm(down)
        width = np.linalg.norm(np.cross(right, down)) / (max(lengths) or 1)  # of the parallelogram that they span
        if width > RESOLUTION * np.abs(landmarks[:, :2]).max():
            right, down = right / lengths[0], down / lengths[1]
            return _angles(np.stack([right, down, np.cross(right, down)]))
    raise ModelFailed("The landmark model returned points for this picture from which no head pose can be told.")


def pose_of_five(points: Points) -> HeadPose:
    """How `FIVE_POINTS` must be turned to be seen as these landmarks, from far away (weak perspective).

    Least squares gives the affine map from the five points to the landmarks; the nearest rotation, by singular values,
    is the pose. One face's proportions are taken for every face's, and yaw and pitch rest on where the nose lies.

    Args:
        points: (5, 2), the picture's pixels.

    Raises:
        ModelFailed: The landmarks are not finite, or all in one place or on one line.
    """
    shape, seen = FIVE_POINTS - FIVE_POINTS.mean(0), points.astype(np.float64)
    if np.isfinite(seen).all():
        affine = np.linalg.lstsq(shape, seen - seen.mean(0), rcond=None)[0].T
        left, sizes, right = np.linalg.svd(affine, full_matrices=False)
        if sizes[1] > RESOLUTION * max(np.abs(seen).max(), sizes[0]):
            across, down = left @ right
            return _angles(np.stack([across, down, np.cross(across, down)]))
    raise ModelFailed("The landmarks of this picture are such that no head pose can be told from them.")


def _angles(rotation: NDArray[np.float64]) -> HeadPose:
    """Euler angles of a (3, 3) rotation."""
    cos_yaw = hypot(rotation[0, 0], rotation[1, 0])
    yaw = atan2(-rotation[2, 0], cos_yaw)
    if cos_yaw < 1e-6:  # looking straight aside: pitch and roll turn about the same axis, and only their sum is known
        pitch, roll = atan2(-rotation[1, 2], rotation[1, 1]), 0.0
    else:
        pitch, roll = atan2(rotation[2, 1], rotation[2, 2]), atan2(rotation[1, 0], rotation[0, 0])
    return HeadPose(degrees(yaw), degrees(pitch), degrees(roll))
