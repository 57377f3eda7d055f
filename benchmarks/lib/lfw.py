"""Labelled faces to measure with: crops of LFW's pictures, and how well embeddings tell its people apart.

A folder holds `images.tar` (`Name/Name_0001.jpg` …, 250x250), `labels.csv` (for each picture a face box `box_x, box_y,
box_w, box_h` and five landmarks, in pixels) and `pairs.csv` (`image_a, image_b, same`). Faces stay where they are:
nothing is unpacked or written.
"""

import csv
import tarfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import Crop, Image
from arcface_api.image.resize import stretch

SIDE = 112
FOLDS = 10
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


def read_crops(folder: Path, labels: dict[str, Label]) -> dict[Cut, dict[str, Crop]]:
    """Crops of the labelled pictures, (112, 112, 3) uint8 RGB: by the cut, then by the picture's name."""
    crops: dict[Cut, dict[str, Crop]] = {cut: {} for cut in Cut}
    with tarfile.open(folder / "images.tar") as archive:
        for member in archive:
            label = labels.get(member.name.removeprefix("./"))
            content = archive.extractfile(member) if label else None
            if label is None or content is None:
                continue
            pixels = cv2.imdecode(np.frombuffer(content.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
            name = member.name.removeprefix("./")
            crops[Cut.ALIGNED][name] = align(pixels, label.landmarks)
            crops[Cut.STRETCHED][name] = cut_box(pixels, label.box)
    missing = labels.keys() - crops[Cut.ALIGNED].keys()
    if missing:
        raise SystemExit(f"{folder / 'images.tar'} lacks {len(missing)} labelled pictures, {min(missing)} among them.")
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


def fold_thresholds(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each of ten folds (row modulo 10) the threshold that is best on the other nine, (10,).

    Best is the highest mean of true-positive and true-negative rate; of several such thresholds it is the middle one.
    """
    fold = np.arange(len(same)) % FOLDS
    return np.array([_best_threshold(similarities[fold != own], same[fold != own]) for own in range(FOLDS)])


def balanced_accuracy(
    similarities: NDArray[np.float64], same: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> float:
    """Mean over the folds, each at its threshold, of the mean of true-positive and true-negative rate, in per cent."""
    fold = np.arange(len(same)) % FOLDS
    right = (similarities > thresholds[fold]) == same
    return 100 * float(
        np.mean(
            [(right[same & (fold == own)].mean() + right[~same & (fold == own)].mean()) / 2 for own in range(FOLDS)]
        )
    )


def true_accept_rate(similarities: NDArray[np.float64], same: NDArray[np.bool_], false_accept_rate: float) -> float:
    """Share of same pairs above the lowest threshold that lets no larger share of different pairs pass, in per cent."""
    different = np.sort(similarities[~same])[::-1]
    threshold = different[int(false_accept_rate * len(different))]
    return 100 * float((similarities[same] > threshold).mean())


def _best_threshold(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    order = np.argsort(similarities)
    ordered, positive = similarities[order], same[order]
    # A threshold between two neighbours rejects all up to the lower one.
    rejected_same = np.cumsum(positive)[:-1] / positive.sum()
    rejected_different = np.cumsum(~positive)[:-1] / (~positive).sum()
    balanced = rejected_different - rejected_same
    best = np.flatnonzero(balanced == balanced.max())
    chosen = best[len(best) // 2]
    return float(ordered[chosen] + ordered[chosen + 1]) / 2
