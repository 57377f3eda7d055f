"""The crops that `alignment.py` sends: a face under each condition, as a file, with its labels."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from arcface_api.arrays import TEMPLATE, Image, Points
from arcface_api.face.geometry import align, moved, similarity
from training.landmarks.conditions import EVERY, Condition
from training.landmarks.faces import Face

ALIGNED = "aligned already"
"""The condition in which nothing is left to do: crops aligned by the labels, from the pixels of LFW's picture."""
NAMES = (*EVERY, ALIGNED)
SEED = 7
"""As in the regressor's model card: its crops, and its pairs."""


@dataclass(frozen=True)
class Sent:
    """One face as it is sent."""

    name: str
    """Of LFW's picture."""
    content: bytes
    """The crop, a PNG or JPEG."""
    framed_content: bytes
    """The crop that holds all labels: the same, unless a label lies outside."""
    labels: list[list[float]]
    """Five points, in pixels of `framed_content`."""

    @property
    def is_framed(self) -> bool:
        """Some label lies outside the crop."""
        return self.framed_content is not self.content


def sent(face: Face, condition: str) -> Sent:
    """A face under a condition; the same every time."""
    content: bytes | None = None
    if condition == ALIGNED:
        crop, labels = align(face.image, face.labels, 112), moved(face.labels, similarity(face.labels, TEMPLATE))
    else:
        how = EVERY[condition]
        sample = how.crop(face, SEED)
        crop, labels = sample.image, sample.labels
        if condition == "JPEG 20":  # the file itself, whose pixels are the sample's
            unspoilt = replace(how, spoil=Condition().spoil).crop(face, SEED).image
            content = _encoded(".jpg", unspoilt, cv2.IMWRITE_JPEG_QUALITY, 20)
    content = content or _png(crop)
    image, in_frame = framed(crop, labels)
    return Sent(face.name, content, content if image is crop else _png(image), in_frame.tolist())


def framed(image: Image, points: Points) -> tuple[Image, Points]:
    """A picture in a black frame just wide enough that all points lie inside, and the points in its pixels.

    Aligned by the points, it gives the same crop as without: what lies beyond a picture counts as black.

    Args:
        image: (h, w, 3) uint8.
        points: (n, 2) float32, pixels.

    Returns:
        The picture itself and the points themselves where all lie inside already.
    """
    last = np.array(image.shape[1::-1]) - 1
    before = np.ceil(np.maximum(0, -points.min(0))).astype(int)
    after = np.ceil(np.maximum(0, points.max(0) - last)).astype(int)
    if not (before.any() or after.any()):
        return image, points
    (left, top), (right, bottom) = before.tolist(), after.tolist()
    framed_image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return framed_image, points + before.astype(np.float32)


def _png(image: Image) -> bytes:
    return _encoded(".png", image, cv2.IMWRITE_PNG_COMPRESSION, 1)


def _encoded(suffix: str, image: Image, *options: int) -> bytes:
    is_written, content = cv2.imencode(suffix, image[..., ::-1], options)
    assert is_written
    return content.tobytes()
