"""Face crops spoilt in known ways and to any degree: what `quality.py` measures with.

    Face ──cut like a detector's box──▶ crop ──spoil──▶ Spoilt

A new degree is drawn for each picture, evenly over a range that runs from nothing to beyond use, so that limits
can be read off anywhere in it. `masked` and `in sunglasses` have no degree.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator

from arcface_api.arrays import Image, Points
from arcface_api.face.quality import face_shape
from training.landmarks.augment import Cut, cut
from training.landmarks.check_covers import COVERS
from training.landmarks.faces import Face

BOXES = (1.0, 1.2, 1.5)
"""A crop's size relative to the face box."""


@dataclass(frozen=True)
class Spoilt:
    """A crop and where its landmarks are, in its pixels."""

    image: Image
    points: Points


Way = Callable[[Face, float, Generator], Spoilt]


def clean(face: Face, grow: float, rng: Generator) -> Spoilt:
    """The crop as the picture has it."""
    del rng
    return _crop(face, Cut(grow=grow))


def shrunk(face: Face, grow: float, rng: Generator) -> Spoilt:
    """The face with 10 to 130 pixels along the side of the aligned crop's square."""
    shape = face_shape(face.points)
    assert shape is not None, face.name
    pixels = _between(10, 130, rng)
    return _crop(face, Cut(grow=grow, side=max(face.box[2:]) * grow * pixels / shape.size_px))


def out_of_focus(face: Face, grow: float, rng: Generator) -> Spoilt:
    """Gaussian blur of 0.5 to 10 pixels where the face has about 130."""
    spoilt = clean(face, grow, rng)
    return Spoilt(cv2.GaussianBlur(spoilt.image, (0, 0), _between(0.5, 10, rng)), spoilt.points)


def moved(face: Face, grow: float, rng: Generator) -> Spoilt:
    """Moved in a straight line, by 2 to 40 pixels where the face has about 130."""
    spoilt = clean(face, grow, rng)
    length, angle = _between(2, 40, rng), rng.uniform(0, np.pi)
    fine = 8  # the line is drawn so many times finer than the pixels
    side = max(3, round(length) | 1)
    reach = length * fine / 2 * np.array([np.cos(angle), np.sin(angle)])
    middle = (side * fine - 1) / 2
    kernel = np.zeros((side * fine, side * fine), np.float32)
    ends = [np.round(middle + end).astype(int).tolist() for end in (-reach, reach)]
    cv2.line(kernel, *ends, 1.0, fine)
    kernel = cv2.resize(kernel, (side, side), interpolation=cv2.INTER_AREA)
    return Spoilt(cv2.filter2D(spoilt.image, -1, kernel / kernel.sum()), spoilt.points)


def darkened(face: Face, grow: float, rng: Generator) -> Spoilt:
    """0 to 9 stops less light, in 8 bits as before; a camera would add noise."""
    spoilt = clean(face, grow, rng)
    return Spoilt(_exposed(spoilt.image, -rng.uniform(0, 9)), spoilt.points)


def overexposed(face: Face, grow: float, rng: Generator) -> Spoilt:
    """0 to 5 stops more light, clipped."""
    spoilt = clean(face, grow, rng)
    return Spoilt(_exposed(spoilt.image, rng.uniform(0, 5)), spoilt.points)


def squeezed(face: Face, grow: float, rng: Generator) -> Spoilt:
    """The face itself made narrower or wider, to 4.5 times."""
    return _crop(face, Cut(grow=grow, squeeze=_between(1 / 4.5, 4.5, rng)))


def cut_long(face: Face, grow: float, rng: Generator) -> Spoilt:
    """More cut on two sides and less on the others, so that stretching it squeezes the face."""
    return _crop(face, Cut(grow=grow, stretch=_between(0.5, 2, rng)))


def rotated(face: Face, grow: float, rng: Generator) -> Spoilt:
    """By any angle in the plane."""
    return _crop(face, Cut(grow=grow, angle=rng.uniform(-180, 180)))


def covered(face: Face, grow: float, rng: Generator) -> Spoilt:
    """An ellipse of one colour somewhere on the face, up to all of it."""
    spoilt = clean(face, grow, rng)
    eyes = float(np.linalg.norm(spoilt.points[1] - spoilt.points[0]))
    centre = spoilt.points.mean(0) + rng.normal(0, 0.4 * eyes, 2)
    slimness = rng.uniform(0.7, 1.4)
    axes = 1.4 * eyes * np.sqrt(rng.random()) * np.array([slimness, 1 / slimness])
    image = spoilt.image.copy()
    where = np.round(centre).astype(int).tolist(), np.round(axes).astype(int).tolist(), rng.uniform(0, 180)
    cv2.ellipse(image, *where, 0, 360, rng.integers(0, 256, 3).tolist(), -1)
    return Spoilt(image, spoilt.points)


def masked(face: Face, grow: float, rng: Generator) -> Spoilt:
    """A mask over nose, mouth and chin."""
    return clean(replace(face, image=COVERS["mask"](face, rng)), grow, rng)


def in_sunglasses(face: Face, grow: float, rng: Generator) -> Spoilt:
    """Dark glasses."""
    return clean(replace(face, image=COVERS["sunglasses"](face, rng)), grow, rng)


WAYS: dict[str, Way] = {
    "clean": clean,
    "shrunk": shrunk,
    "out of focus": out_of_focus,
    "moved": moved,
    "darkened": darkened,
    "overexposed": overexposed,
    "squeezed": squeezed,
    "rotated": rotated,
    "covered": covered,
    "masked": masked,
    "in sunglasses": in_sunglasses,
    "cut long": cut_long,
}
NEVER_ALIGNED = ("cut long",)
"""Embedded as `align=none` does, stretched: alignment would undo what is asked here."""


def spoil(face: Face, way: str, turn: int) -> Spoilt:
    """One crop of a face; the same for the same face, way and turn."""
    rng = np.random.default_rng((turn, *face.name.encode(), *way.encode()))
    return WAYS[way](face, float(rng.choice(BOXES)), rng)


def _between(low: float, high: float, rng: Generator) -> float:
    """Even in the logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _crop(face: Face, how: Cut) -> Spoilt:
    image, points = cut(face, how)
    return Spoilt(np.ascontiguousarray(image), points)


def _exposed(image: Image, stops: float) -> Image:
    """So many stops more light: in linear light, back to sRGB (IEC 61966-2-1), clipped, 8 bits."""
    levels = np.linspace(0, 1, 256)
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4) * 2.0**stops
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return cv2.LUT(image, np.round(255 * np.clip(shown, 0, 1)).astype(np.uint8))
