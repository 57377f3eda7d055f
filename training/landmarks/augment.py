"""Crops as detectors, cameras and networks make them: one labelled picture into endless training samples.

    Face ──cut──▶ crop + landmarks ──cover, degrade──▶ crop ──views──▶ what the regressor is shown in its passes

The views are made by the very functions that the service uses, so that nothing differs between training and use.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from arcface_api.arrays import Image, Points
from arcface_api.face.geometry import back, moved
from arcface_api.face.landmarks import View, face_view, whole_view
from training.landmarks import light
from training.landmarks.covers import PARTS, covered
from training.landmarks.faces import Face, face_size

SWAPPED = [1, 0, 2, 4, 3]
"""Order of the landmarks in a mirrored picture."""

COVERED = 0.45
"""Of all crops, with a face or without."""


@dataclass(frozen=True)
class Cut:
    """How a crop is cut from a picture."""

    grow: float = 1.0
    """Size of the crop relative to the face box."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Of its centre, in parts of the box's width and height."""
    angle: float = 0.0
    """The picture is turned clockwise by so many degrees about the crop's centre first."""
    stretch: float = 1.0
    """The crop's width grows by this, its height shrinks: more or less is cut, the face keeps its shape."""
    squeeze: float = 1.0
    """The crop is resized so that its pixels are this much wider than high: the face changes its shape."""
    squareness: float = 0.0
    """0: the upright box's shape; 1: the shape of the box around the turned face."""
    side: float | None = None
    """Longer side of the crop, pixels; None: as in the picture."""
    is_mirrored: bool = False
    interpolation: int = cv2.INTER_AREA
    border: int = cv2.BORDER_CONSTANT


def random_cut(rng: Generator) -> Cut:
    """Any crop that the regressor shall manage, and a little more."""
    kind = rng.random()
    if kind < 0.35:
        angle = rng.normal(0, 10)
    elif kind < 0.7:
        angle = rng.uniform(-65, 65)
    else:
        angle = rng.uniform(-180, 180)
    return Cut(
        grow=float(np.exp(rng.uniform(np.log(0.88), np.log(1.95)))),
        shift=(rng.uniform(-0.16, 0.16), rng.uniform(-0.16, 0.16)),
        angle=angle,
        stretch=float(np.exp(rng.uniform(-0.1, 0.1))),
        squareness=rng.choice([0.0, 1.0, rng.random()]),
        squeeze=float(np.exp(rng.uniform(-0.25, 0.25))) if rng.random() < 0.3 else 1.0,
        side=float(np.exp(rng.uniform(np.log(24), np.log(220)))),  # larger ones end as the same views
        is_mirrored=rng.random() < 0.5,
        interpolation=int(rng.choice([cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])),
        border=int(rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT])),
    )


def cut(face: Face, how: Cut, *, as_labelled: bool = False) -> tuple[Image, Points]:
    """A crop and its landmarks, in the crop's pixels; the labels as they are in the file where `as_labelled`."""
    x, y, w, h = face.box
    centre = x + w / 2 + how.shift[0] * w, y + h / 2 + how.shift[1] * h
    turn = np.radians(how.angle)
    cos, sin = abs(np.cos(turn)), abs(np.sin(turn))
    around = w * cos + h * sin, w * sin + h * cos
    width = how.grow * how.stretch * (w + how.squareness * (around[0] - w))
    height = how.grow / how.stretch * (h + how.squareness * (around[1] - h))
    longer = max(width, height)
    side = longer if how.side is None else how.side
    scale = min(1.0, 2 * side / longer)  # warp at no more than twice the final size, then resize
    flip = -1 if how.is_mirrored else 1
    linear = (
        scale * np.array([[flip, 0], [0, 1]]) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    )
    size = max(4, round(width * scale)), max(4, round(height * scale))
    transform = np.column_stack([linear, (np.array(size) - 1) / 2 - linear @ centre])
    if how.angle == 0 and scale == 1 and not how.is_mirrored:
        transform[:, 2] = np.round(transform[:, 2])  # pixels as they are
    crop = cv2.warpAffine(face.image, transform, size, borderMode=how.border)
    points = moved(face.labels if as_labelled else face.points, transform)
    if how.is_mirrored:
        points = points[SWAPPED]
    grow, squeeze = side / longer / scale, np.sqrt(how.squeeze)
    final = max(4, round(size[0] * grow * squeeze)), max(4, round(size[1] * grow / squeeze))
    if final != size:
        crop = cv2.resize(crop, final, interpolation=how.interpolation)
        points = (points + 0.5) * (np.array(final) / size).astype(np.float32) - 0.5
    return crop, points


def cover(image: Image, points: Points, rng: Generator) -> tuple[Image, NDArray[np.float64]]:
    """Something before nearly every second face, and how much of each of `covers.PARTS` it hides: (2,), 0 to 1."""
    return covered(image, points, rng) if rng.random() < COVERED else (image, np.zeros(len(PARTS)))


def degrade(image: Image, rng: Generator) -> Image:
    """What light, lenses, sensors, hands and codecs do to a picture; every fifth stays as it is."""
    if rng.random() < 0.2:
        return image
    steps = (
        (0.60, _exposed),
        (0.12, _shaded),
        (0.12, light.hard_shadow),
        (0.06, light.backlight),
        (0.08, light.cast),
        (0.06, light.infrared),
        (0.27, _grey),
        (0.06, light.moved),
        (0.25, _blurred),
        (0.12, light.dim),
        (0.25, _noisy),
        (0.40, _compressed),
    )
    for probability, step in steps:
        if rng.random() < probability:
            image = step(image, rng)
    return image


def views(crop: Image, points: Points, rng: Generator) -> list[tuple[View, Points]]:
    """What the regressor sees of a crop in a first and a second pass, and the landmarks in each view's sides.

    The first pass's error is imitated: mostly small, now and then so large that the second pass must cope with it.
    """
    jitter = rng.choice([0.5, 1.0, 2.5], p=[0.4, 0.45, 0.15])
    guess = jittered(points, jitter, rng)
    return [(view, moved(points, view.transform) / 64) for view in (whole_view(crop), face_view(crop, guess))]


def jittered(points: Points, amount: float, rng: Generator) -> Points:
    """Landmarks as a first pass may give them: turned, scaled, shifted, and each a little off."""
    size = face_size(points)
    turn, grow = amount * rng.normal(0, 0.06), np.exp(amount * rng.normal(0, 0.06))
    linear = grow * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = points.mean(0)
    shift = amount * size * rng.normal(0, 0.06, 2) + amount * size * rng.normal(0, 0.02, points.shape)
    return ((points - centre) @ linear.T + centre + shift).astype(np.float32)


# ── degradations ───────────────────────────────────────────────────────────────────────────────────────────────────


def _exposed(image: Image, rng: Generator) -> Image:
    """Brightness, contrast, gamma and colour cast, as one table a channel."""
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    gamma = np.exp(rng.uniform(-0.7, 0.7)) * np.exp(rng.normal(0, 0.06, 3))
    contrast, brightness = np.exp(rng.uniform(-0.7, 0.4)), rng.uniform(-0.25, 0.25)
    table = (levels**gamma - 0.5) * contrast + 0.5 + brightness
    return cv2.LUT(image, np.clip(table * 255, 0, 255).astype(np.uint8)[None])


def _shaded(image: Image, rng: Generator) -> Image:
    """Light from one side."""
    height, width = image.shape[:2]
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.2)
    ramp = np.linspace(-1, 1, width) * np.cos(angle) + np.linspace(-1, 1, height)[:, None] * np.sin(angle)
    shade = np.clip(1 + strength * ramp[..., None], 0.1, 2).astype(np.float32)
    return np.clip(image * shade, 0, 255).astype(np.uint8)


def _grey(image: Image, rng: Generator) -> Image:
    del rng
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _blurred(image: Image, rng: Generator) -> Image:
    """Out of focus or moved, by up to a twentieth of the crop."""
    reach = max(image.shape) * np.exp(rng.uniform(np.log(0.004), np.log(0.03)))
    if rng.random() < 0.6:
        return cv2.GaussianBlur(image, (0, 0), max(0.3, reach))
    length = max(3, round(2.5 * reach) | 1)
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    along = (length - 1) / 2 * np.array([np.cos(angle), np.sin(angle)])
    middle = (length - 1) / 2
    start, end = np.round(middle - along).astype(int), np.round(middle + along).astype(int)
    cv2.line(kernel, start.tolist(), end.tolist(), 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def _noisy(image: Image, rng: Generator) -> Image:
    strength = np.exp(rng.uniform(np.log(2), np.log(22)))
    planes = 3 if rng.random() < 0.6 else 1
    return np.clip(image + strength * light.noise_like(image, rng, planes), 0, 255).astype(np.uint8)


def _compressed(image: Image, rng: Generator) -> Image:
    quality = int(rng.integers(6, 90))
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)  # channels stay in the order given


__all__ = ["Cut", "back", "cover", "cut", "degrade", "jittered", "random_cut", "views"]
