"""What `check_covers.py` draws with: a face's own space, curved surfaces in it, lit as the picture is.

    Face ──Frame──▶ u, v, w ──surface, strokes──▶ Layer ──laid_over──▶ picture

Drawn on the whole picture at `FINE` times its size, then averaged down. Shares no code with what training draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from arcface_api.arrays import Image
from training.landmarks.faces import Face, face_size

FINE = 3
"""Pixels drawn, a side, for each pixel of the picture."""
NOSE_PLACE = 0.494
"""Of the nose tip between eyes and mouth; the template's."""
NOSE_DEPTH = 0.48
"""How far the nose tip stands out before the eyes, in eye distances."""
_SHIFT = 4
"""Bits of a pixel's fraction in which OpenCV takes coordinates."""

Floats = NDArray[np.float64]
Colour = Floats
"""(3,) RGB, 0 to 255, in plain white light."""
Texture = Callable[[Floats, Floats], Floats]
"""Place across, -1 to 1, and down, 0 to 1, both (rows, columns), to colours (rows, columns, 3)."""


@dataclass(frozen=True)
class Frame:
    """A face's own space, seen by a camera that is far away.

    u runs to the picture's right in eye distances and v down, both 0 between the eyes, and v is 1 between the corners
    of the mouth; w runs out of the face and is 1 at the nose tip. A face that looks aside has a visible w.
    """

    face: Face

    @cached_property
    def size(self) -> float:
        """Eye distance if the face looked straight ahead, pixels of the layer."""
        return FINE * face_size(self.face.points)

    @cached_property
    def _axes(self) -> tuple[Floats, Floats]:
        left, right, nose, left_mouth, right_mouth = self.face.points.astype(np.float64)
        eyes, mouth = (left + right) / 2, (left_mouth + right_mouth) / 2
        down = mouth - eyes
        return eyes, np.stack([right - left, down, nose - eyes - NOSE_PLACE * down])

    def place(self, places: Floats) -> Floats:
        """Pixels of the layer, (..., 2), of places u, v, w, (..., 3)."""
        origin, axes = self._axes
        return (origin + places @ axes + 0.5) * FINE - 0.5

    @cached_property
    def light(self) -> tuple[float, float]:
        """How bright the face is, 1 where it is well lit, and by how much its right half is brighter than its left."""
        grey = cv2.cvtColor(self.face.image, cv2.COLOR_RGB2GRAY)
        sides = [[(side, v, 0.0) for v in (0.35, 0.5, 0.65)] for side in (-0.55, 0.0, 0.55)]
        places = (self.place(np.array(sides)) / FINE).round().astype(int).clip(2, np.array(grey.shape[::-1]) - 3)
        left, middle, right = (np.mean([grey[y - 2 : y + 3, x - 2 : x + 3].mean() for x, y in row]) for row in places)
        level = float(np.clip((left + middle + right) / 3 / 150, 0.3, 1.25))
        return level, float(np.clip((right - left) / max(left + right, 30), -0.4, 0.4))


def skin_depth(u: Floats, v: Floats) -> Floats:
    """The face's own surface without its nose: w at u and v."""
    return 0.45 - 1.9 * u**2 - 0.12 * np.clip(v - 1.2, 0, 1) ** 2


class Layer:
    """What lies before the face: colours and how much they hide, at `FINE` times the picture's size."""

    def __init__(self, frame: Frame) -> None:
        """Nothing."""
        self.frame = frame
        height, width = frame.face.image.shape[:2]
        self._pixels = np.zeros((height * FINE, width * FINE, 4), np.uint8)  # red, green, blue, how much is hidden

    def surface(self, places: Floats, texture: Texture, *, opacity: float = 1.0, gloss: float = 0.0) -> None:
        """A curved piece: places u, v, w of its grid, (rows, columns, 3), each cell in one colour and lit."""
        rows, columns = places.shape[0] - 1, places.shape[1] - 1
        down, across = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns * 2 - 1)
        colours = texture(across.T, down.T) * self._shade(places, gloss)[..., None]
        paints = np.concatenate([colours.clip(0, 255), np.full((rows, columns, 1), 255 * opacity)], axis=2)
        corners = (self.frame.place(places) * 2**_SHIFT).round().astype(np.int32)
        cells = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=2)
        order = np.argsort(places[:-1, :-1, 2].ravel(), kind="stable")  # the farthest first
        for cell, paint in zip(cells.reshape(-1, 4, 2)[order], paints.reshape(-1, 4)[order].tolist(), strict=True):
            cv2.fillConvexPoly(self._pixels, cell, paint, cv2.LINE_8, _SHIFT)

    def _shade(self, places: Floats, gloss: float) -> Floats:
        """Light on each cell: from before the face and from its brighter side."""
        # The face's own axes, so that its turn does not change the light on it.
        solid = places * [1, 1.15, NOSE_DEPTH]
        along, down = solid[:-1, 1:] - solid[:-1, :-1], solid[1:, :-1] - solid[:-1, :-1]
        normal = np.cross(along, down)
        normal /= np.linalg.norm(normal, axis=2, keepdims=True) + 1e-9
        level, aside = self.frame.light
        towards = np.array([1.8 * aside, -0.45, 1.0])
        facing = (normal @ (towards / np.linalg.norm(towards))).clip(0, 1)
        return level * (0.45 + 0.6 * facing + gloss * facing**24)

    def stroke(self, places: Floats, width: float, colour: Colour) -> None:
        """A line through places u, v, w, (n, 3), as wide as so many eye distances."""
        self.stroke_pixels(self.frame.place(places), width * self.frame.size, colour)

    def stroke_pixels(self, points: Floats, width: float, colour: Colour) -> None:
        """A line through pixels of the layer, (n, 2)."""
        line = [(points * 2**_SHIFT).round().astype(np.int32)]
        cv2.polylines(self._pixels, line, False, self._lit(colour), max(1, round(width)), cv2.LINE_8, _SHIFT)

    def fill_pixels(self, outline: Floats, colour: Colour) -> None:
        """A flat piece with an outline in pixels of the layer, (n, 2)."""
        corners = [(outline * 2**_SHIFT).round().astype(np.int32)]
        cv2.fillPoly(self._pixels, corners, self._lit(colour), cv2.LINE_8, _SHIFT)

    def _lit(self, colour: Colour) -> list[float]:
        return [*(colour * self.frame.light[0]).clip(0, 255).tolist(), 255]

    def laid_over(self, picture: Image, rng: Generator, *, shadow: float) -> Image:
        """The picture with all of this before it, as soft and as grey as itself, and its shadow on the face."""
        height, width = picture.shape[:2]
        # A colour is averaged with what it hides as its weight, or the empty layer's black would come in at the edges.
        layer = cv2.resize(self._pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        drawn = np.where(self._pixels[..., 3] > 0, np.uint8(255), np.uint8(0))
        weight = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        hides, colours = layer[..., 3] / 255, layer[..., :3] / np.maximum(weight, 1 / FINE**2)[..., None]
        if np.ptp(picture.astype(np.int16), axis=2).max() < 12:
            colours = np.repeat(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        noise = rng.normal(0, rng.uniform(0.5, 3), (height, width, 1)).astype(np.float32)
        soft = rng.uniform(0.35, 0.7)
        colours = cv2.GaussianBlur(colours + noise, (0, 0), soft)
        reach = self.frame.size / FINE * rng.uniform(0.04, 0.1)
        move = np.array([[1, 0, rng.normal(0, reach / 2)], [0, 1, reach]])
        dark = cv2.GaussianBlur(cv2.warpAffine(hides, move, (width, height)), (0, 0), 0.3 + reach)[..., None]
        hides = cv2.GaussianBlur(hides, (0, 0), soft)[..., None]
        return (picture * (1 - shadow * dark) * (1 - hides) + colours * hides).clip(0, 255).astype(np.uint8)
