"""From a picture and a similarity to a square crop, sampled from the picture's own pixels.

OpenCV's bilinear warp reads four pixels for each it writes, so a picture that shrinks to less than half would lose the
rest. Here whole blocks of pixels are averaged first.
"""

from math import ceil, floor

import cv2
import numpy as np

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Crop, Image, Points, Transform
from arcface_api.face.geometry import back, scale_of, similarity


def align(image: Image, points: Points, size: int, template: Points | None = None) -> Crop:
    """The crop in which the landmarks lie where the template has them, as nearly as a similarity can bring them.

    Equal to InsightFace's `norm_crop`, except where the picture has to shrink to half or less: there the pixels that
    one pixel of the crop covers are averaged first, where `norm_crop` would skip most of them.

    Args:
        image: (h, w, 3) uint8, RGB.
        points: (5, 2), the picture's pixels.
        size: Side of the crop, pixels.
        template: (5, 2), the crop's pixels; None: `TEMPLATE`, scaled to the crop.

    Returns:
        (size, size, 3) uint8, RGB; black beyond the picture.

    Raises:
        LandmarksInvalid: As `similarity` does.
    """
    if template is None:
        template = (TEMPLATE.astype(np.float64) * (size / TEMPLATE_SIDE)).astype(np.float32)
    return sample(image, similarity(points, template), size, 0.0)


def sample(image: Image, transform: Transform, size: int, border: float) -> Crop:
    """Warp to (size, size, 3), bilinear; where whole blocks of pixels become one, their mean is what is warped."""
    block = floor(1 / scale_of(transform) + 1e-6)
    if block >= 2:
        image, transform = _reduced(image, transform, size, block)
    crop = cv2.warpAffine(image, transform, (size, size), borderValue=(border, border, border))
    return crop.astype(np.uint8, copy=False)


def _reduced(image: Image, transform: Transform, size: int, block: int) -> tuple[Image, Transform]:
    """What the warp will read of the picture, each `block` x `block` pixels as their mean, and its transform."""
    height, width = image.shape[:2]
    corners = back(np.array([[-1, -1], [size, -1], [size, size], [-1, size]], np.float32), transform)
    left, top = (max(0, floor(edge) // block * block) for edge in corners.min(0))
    right, bottom = (
        min(limit, ceil(edge) + block) for edge, limit in zip(corners.max(0), (width, height), strict=True)
    )
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    if part.size == 0:  # the face lies beyond the picture altogether
        return image[:1, :1], transform
    # no block reaches beyond a picture that is narrower: padding a line of pixels to squares could take gigabytes
    rows, columns = (min(block, side) for side in part.shape[:2])
    missing_rows, missing_columns = -part.shape[0] % rows, -part.shape[1] % columns
    whole = cv2.copyMakeBorder(part, 0, missing_rows, 0, missing_columns, cv2.BORDER_REPLICATE)
    reduced = cv2.resize(whole, (whole.shape[1] // columns, whole.shape[0] // rows), interpolation=cv2.INTER_AREA)
    # a reduced pixel's centre lies in the middle of its block
    to_image = np.array([[columns, 0, left + (columns - 1) / 2], [0, rows, top + (rows - 1) / 2], [0, 0, 1]])
    return reduced.astype(np.uint8, copy=False), transform @ to_image
