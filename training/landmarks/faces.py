"""Faces with landmarks: a part of LFW and its labels, read from a folder, split by identity.

The folder holds `images.tar` (`Name/Name_0001.jpg`, 250x250) and `labels.csv`: a face box and five landmarks an image,
in pixels, as the median of 32 predictions of Intel's landmarks-regression-retail-0009, and their `spread`: the mean
standard deviation of these predictions divided by the box's width.

The labels lie too far to the right by `LABEL_SHIFT`, whichever way a face looks: a regressor trained on pictures and
their mirror images comes to lie in between, so it disagrees with the labels of pictures by this much to the left, and
with those of mirrored pictures by as much to the right. (Half a pixel of the teacher's 48x48 input: as if predictions
for mirrored crops had been put back one pixel off.) `Face.points` is without this shift, `Face.labels` with it.
"""

import csv
import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import TEMPLATE, Image, Points
from arcface_api.face.geometry import scale_of, similarity

PARTS = {"train": range(76), "validation": range(76, 84), "test": range(84, 100)}
"""Which identities belong to which part, by `bucket_of`."""

MAX_TRAINING_SPREAD = 0.015
"""Labels on which the teacher contradicts itself more are not learned from: about one in a hundred. Other parts keep
them."""

LABEL_SHIFT = 0.5 / 48
"""Of all labels to the right, in parts of the box's width. Measured: 0.0108 and 0.0109 on validation."""

TEMPLATE_EYE_DISTANCE = float(np.hypot(*(TEMPLATE[1] - TEMPLATE[0])))
"""Of an aligned face, pixels of the template: the unit of errors and of uncertainty."""

_POINT_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


@dataclass(frozen=True)
class Face:
    """One picture of LFW with its labels."""

    name: str
    """As in the tar: `Name/Name_0001.jpg`."""
    image: Image
    box: NDArray[np.float64]
    """(4,): x, y, width, height."""
    labels: Points
    """(5, 2), as in the file."""
    points: Points
    """(5, 2), without the labels' shift."""
    spread: float


def face_size(points: Points) -> float:
    """Eye distance that the face would have if it looked straight ahead, in the pixels of `points`.

    Unlike the distance between the eyes it does not vanish for a face that looks aside.

    Raises:
        LandmarksInvalid: As `similarity`.
    """
    return TEMPLATE_EYE_DISTANCE / scale_of(similarity(points, TEMPLATE))


def bucket_of(image_name: str) -> int:
    """0 to 99, the same for every picture of a person and on every machine: the name's SHA-256 modulo 100."""
    person = image_name.split("/", 1)[0]
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:8]) % 100


def part_of(image_name: str) -> str:
    """Which part a picture belongs to: train, validation or test."""
    return next(part for part, buckets in PARTS.items() if bucket_of(image_name) in buckets)


def read_faces(folder: Path, parts: tuple[str, ...]) -> list[Face]:
    """The faces of some parts, in the order of their names."""
    faces = [
        face
        for face in each_face(folder, lambda name: part_of(name) in parts)
        if parts != ("train",) or face.spread <= MAX_TRAINING_SPREAD
    ]
    return sorted(faces, key=lambda face: face.name)


def each_face(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[Face]:
    """The faces whose picture's name is wanted, one after the other, in the order of `images.tar`."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file) if is_wanted(row["image"])}
    with tarfile.open(folder / "images.tar") as archive:
        for member in archive:
            if (row := rows.get(member.name)) is None:
                continue
            content = archive.extractfile(member)
            assert content is not None
            bgr = cv2.imdecode(np.frombuffer(content.read(), np.uint8), cv2.IMREAD_COLOR)
            labels = np.array([[row[f"{point}_{axis}"] for axis in "xy"] for point in _POINT_NAMES], np.float32)
            box = np.array([float(row[f"box_{key}"]) for key in "xywh"])
            points = labels - np.array([LABEL_SHIFT * box[2], 0], np.float32)
            image = np.ascontiguousarray(bgr[..., ::-1])
            yield Face(member.name, image, box, labels, points, float(row["spread"]))
