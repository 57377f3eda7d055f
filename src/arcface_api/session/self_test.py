"""Faces drawn here, on which a provider proves itself at start: no picture of a person is in this package.

A recogniser's rounding errors on noise say little about faces: there bfloat16 looks five times worse than it is. On
these drawings w600k_mbf gives embeddings as long as on real, aligned faces, and bfloat16 errs by as much (ADR 9).
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import Crop

PROBES = 8
"""Half of them framed like aligned faces, half like loose, squeezed boxes: both are sent."""

_SKINS = ((224, 172, 150), (198, 134, 110), (141, 85, 60), (255, 205, 180))
_HAIRS = ((30, 25, 22), (90, 60, 35), (160, 130, 80), (60, 60, 65))
_SIDE = 112
"""The drawings' own frame, in pixels; the eyes, nose and mouth stand where ArcFace's template has them."""
_SUPERSAMPLING = 3


class _Canvas:
    """A float picture in the drawing's frame, on which soft ellipses are laid."""

    def __init__(self, background: NDArray[np.float64]) -> None:
        side = _SIDE * _SUPERSAMPLING
        self.y, self.x = np.mgrid[0:side, 0:side].astype(np.float32) / _SUPERSAMPLING
        self.pixels = np.broadcast_to(background.astype(np.float32), (side, side, 3)).copy()

    def blob(  # each is a dimension of an ellipse
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        colour: NDArray[np.float64] | tuple[float, ...],
        *,
        edge: float = 1.0,
        opacity: float = 1.0,
    ) -> None:
        """Lay an ellipse on the picture; its border is blurred over `edge` pixels."""
        reach = 1 + edge / (2 * min(radii))  # beyond it nothing is covered
        columns, rows = (
            slice(
                max(0, int((middle - reach * radius) * _SUPERSAMPLING)),
                int((middle + reach * radius) * _SUPERSAMPLING) + 2,
            )
            for middle, radius in zip(centre, radii, strict=True)
        )
        x, y, pixels = self.x[rows, columns], self.y[rows, columns], self.pixels[rows, columns]
        distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
        cover = np.clip((1 - distance) * min(radii) / edge + 0.5, 0, 1)[..., None] * opacity
        pixels += (np.asarray(colour, np.float32) - pixels) * cover


def probe_crops(height: int, width: int) -> list[Crop]:
    """The probes at a model's input size; the same numbers on every machine with the same NumPy and OpenCV.

    Returns:
        `PROBES` arrays of (height, width, 3) uint8, RGB.
    """
    return [_framed(_face(number), number, height, width) for number in range(PROBES)]


@cache
def _face(number: int) -> Crop:
    """One drawn face, (112 * 3, 112 * 3, 3) uint8; drawn once, for the models of all sizes."""
    random = np.random.default_rng(number)

    def about(value: float, spread: float = 1.5) -> float:
        return value + random.uniform(-spread, spread)

    skin = np.array(_SKINS[number % len(_SKINS)]) * random.uniform(0.85, 1.05)
    hair = np.array(_HAIRS[number // 2 % len(_HAIRS)], np.float64)
    canvas = _Canvas(random.uniform(40, 220, 3))
    canvas.blob((about(56), about(50)), (46, 56), hair, edge=3)
    canvas.blob((about(56), about(66)), (about(38, 3), about(52, 3)), skin, edge=3)
    side = random.choice([-1, 1])
    light = 1 + 0.25 * np.clip(side * (canvas.x - 56) / 56 - (canvas.y - 56) / 112, -1, 1)
    canvas.pixels *= light[..., None]
    for x in (about(38.3), about(73.5)):
        y = about(51.6)
        canvas.blob((x, y), (11, 7), skin * 0.7, edge=4, opacity=0.6)
        canvas.blob((x, y), (6.5, about(3.2, 0.8)), (235, 232, 228))
        canvas.blob((x, y), (2.9, 2.9), random.uniform(20, 110, 3))
        canvas.blob((x, y), (1.4, 1.4), (12, 10, 10))
        canvas.blob((x, y - 3.2), (7, 1.1), hair * 0.5, opacity=0.8)
        canvas.blob((x, about(y - 9)), (9, about(1.9, 0.6)), hair * 0.9, edge=1.5, opacity=0.85)
    x, y = about(56), about(71.7)
    canvas.blob((x, y - 8), (3.2, 14), np.minimum(skin * 1.15, 255), edge=4, opacity=0.5)
    canvas.blob((x - 5, y - 4), (2.4, 9), skin * 0.75, edge=3, opacity=0.5)
    for nostril in (x - 3.8, x + 3.8):
        canvas.blob((nostril, y + 2.6), (1.7, 1.0), skin * 0.35)
    mouth = about(92.3)
    canvas.blob((56, mouth), (about(15.5, 2), about(4, 1)), (168, 78, 78), edge=1.5, opacity=0.8)
    canvas.blob((56, mouth), (14.5, 0.8), (70, 25, 25), opacity=0.7)
    grain = cv2.GaussianBlur(random.normal(0, 1, canvas.pixels.shape).astype(np.float32), (0, 0), _SUPERSAMPLING)
    return np.clip(canvas.pixels + grain * random.uniform(9, 36), 0, 255).astype(np.uint8)


def _framed(face: Crop, number: int, height: int, width: int) -> Crop:
    """The drawing cut as an aligned crop, or with a margin at the sides and less of it above: a box, squeezed."""
    if number % 2:
        margin = len(face) // 8
        face = cv2.copyMakeBorder(face[margin:], 0, 0, margin, margin, cv2.BORDER_REFLECT)  # type: ignore[assignment]  # stub says Any dtype
    return cv2.resize(face, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]  # as above
