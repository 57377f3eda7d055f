"""Pictures, labels and pairs of LFW, and crops made of them. Nothing is unpacked or written.

A folder holds `images.tar` (`Name/Name_0001.jpg` …, 250x250), `labels.csv` (for each picture a face box `box_x, box_y,
box_w, box_h` and five landmarks, in pixels) and `pairs.csv` (`image_a, image_b, same`).
"""

import csv
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import Crop, Image
from arcface_api.image import stretch

SIDE = 112
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where the landmarks come to lie in the crop, pixels x, y: `arcface_dst` of insightface/utils/face_align.py."""


class Cut(StrEnum):
    """How a crop is made from a picture."""

    ALIGNED = "aligned"
    STRETCHED = "stretched"


@dataclass(frozen=True)
class Label:
    """Where the face is: box (x, y, w, h) and landmarks (5, 2), in the picture's pixels."""

    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Verification pairs: (n,) names of pictures on either side, (n,) whether both show the same person."""

    left: list[str]
    right: list[str]
    same: NDArray[np.bool_]

    @property
    def pictures(self) -> list[str]:
        """Each picture of a pair once, by name."""
        return sorted({*self.left, *self.right})

    @property
    def people(self) -> set[str]:
        """Everybody who appears in a pair."""
        return {name.split("/")[0] for name in self.pictures}


def is_lfw(folder: Path) -> bool:
    """Whether the folder holds LFW's archive."""
    return (folder / "images.tar").is_file()


def read_labels(folder: Path) -> dict[str, Label]:
    """The labels by the picture's name."""
    labels = {}
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            box = np.array([float(row[f"box_{side}"]) for side in "xywh"])
            landmarks = np.array([[float(row[f"{point}_{axis}"]) for axis in "xy"] for point in LANDMARKS])
            labels[row["image"]] = Label(box, landmarks)
    return labels


def read_pairs(folder: Path) -> Pairs:
    """The pairs, in the file's order, which decides their folds."""
    with (folder / "pairs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Pairs(
        [row["image_a"] for row in rows],
        [row["image_b"] for row in rows],
        np.array([row["same"] == "1" for row in rows]),
    )


def one_of_each_person(names: Iterable[str], count: int) -> list[str]:
    """The last picture of each of `count` people, spread over all of them."""
    people = {name.split("/")[0]: name for name in names}
    return list(people.values())[:: max(1, len(people) // count)][:count]


def read_pictures(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    """The files of the named pictures, in the order of the names.

    Raises:
        SystemExit: The archive lacks some.
    """
    found: dict[str, bytes | None] = dict.fromkeys(names)
    with tarfile.open(folder / "images.tar") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            content = archive.extractfile(member) if name in found else None
            if content is not None:
                found[name] = content.read()
    pictures = {name: content for name, content in found.items() if content is not None}
    if missing := found.keys() - pictures.keys():
        raise SystemExit(f"{folder / 'images.tar'} lacks {len(missing)} pictures, {min(missing)} among them.")
    return pictures


def decoded(content: bytes) -> Image:
    """A file's pixels, (h, w, 3) uint8 RGB."""
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def read_crops(folder: Path, labels: dict[str, Label]) -> dict[Cut, dict[str, Crop]]:
    """Crops of the labelled pictures, (112, 112, 3) uint8 RGB: by the cut, then by the picture's name."""
    crops: dict[Cut, dict[str, Crop]] = {cut: {} for cut in Cut}
    for name, content in read_pictures(folder, labels).items():
        pixels = decoded(content)
        crops[Cut.ALIGNED][name] = align(pixels, labels[name].landmarks)
        crops[Cut.STRETCHED][name] = cut_box(pixels, labels[name].box)
    return crops


def align(image: Image, landmarks: NDArray[np.float64]) -> Crop:
    """Move the landmarks onto the template by the similarity transform of least squares; black beyond the picture."""
    # As complex numbers a similarity is z -> a z + b, and least squares is a line through the points.
    source, target = (points[:, 0] + 1j * points[:, 1] for points in (landmarks, TEMPLATE))
    centred = source - source.mean()
    a = np.vdot(centred, target - target.mean()) / np.vdot(centred, centred)
    b = target.mean() - a * source.mean()
    transform = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return cv2.warpAffine(image, transform, (SIDE, SIDE))


def cut_box(image: Image, box: NDArray[np.float64]) -> Crop:
    """Cut out the box, to whole pixels and within the picture, and stretch it."""
    height, width = image.shape[:2]
    left, top = np.rint(np.maximum(box[:2], 0)).astype(int)
    right, bottom = np.rint(np.minimum(box[:2] + box[2:], (width, height))).astype(int)
    return stretch(np.ascontiguousarray(image[top:bottom, left:right]), SIDE, SIDE)


def cut_grown(image: Image, box: NDArray[np.float64], grow: float) -> tuple[Image, tuple[int, int]]:
    """Cut out the box, made `grow` times as large about its centre, within the picture; and where its corner lies."""
    margin = (grow - 1) / 2
    x, y, w, h = box
    left, top, width, height = map(round, (x - margin * w, y - margin * h, grow * w, grow * h))
    corner = max(0, left), max(0, top)
    return image[corner[1] : top + height, corner[0] : left + width], corner
