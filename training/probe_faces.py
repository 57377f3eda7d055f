"""Draws the synthetic faces of the self-test: src/arcface_api/session/probe_faces.png.

    python training/probe_faces.py

They are drawn, because no picture of a person may be in the package, and stored, so that they are the same pixels with
every version of NumPy and OpenCV. A start compares its sessions on them (docs/adr/0009-providers.md).
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

FACES = 8
TARGET = Path(__file__).parents[1] / "src" / "arcface_api" / "session" / "probe_faces.png"

SKINS = ((224, 172, 150), (198, 134, 110), (141, 85, 60), (255, 205, 180))
HAIRS = ((30, 25, 22), (90, 60, 35), (160, 130, 80), (60, 60, 65))
SIDE = 112
"""Pixels of the frame in which faces are drawn; eyes, nose and mouth lie where ArcFace's template has them."""
SUPERSAMPLING = 3


class Canvas:
    """A float picture of `SIDE` x `SIDE` units, on which soft ellipses are drawn."""

    def __init__(self, background: NDArray[np.float64], margin: int = 0) -> None:
        side = (SIDE + 2 * margin) * SUPERSAMPLING
        self.margin = margin
        self.y, self.x = np.mgrid[0:side, 0:side].astype(np.float32) / SUPERSAMPLING - margin
        self.pixels = np.broadcast_to(background.astype(np.float32), (side, side, 3)).copy()

    def blob(  # the dimensions of an ellipse
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        colour: NDArray[np.float64] | tuple[float, ...],
        *,
        edge: float = 1.0,
        opacity: float = 1.0,
    ) -> None:
        """Draw an ellipse whose border is blurred over `edge` pixels."""
        reach = 1 + edge / (2 * min(radii))  # beyond it nothing is covered
        columns, rows = (
            slice(
                max(0, int((middle + self.margin - reach * radius) * SUPERSAMPLING)),
                int((middle + self.margin + reach * radius) * SUPERSAMPLING) + 2,
            )
            for middle, radius in zip(centre, radii, strict=True)
        )
        x, y, pixels = self.x[rows, columns], self.y[rows, columns], self.pixels[rows, columns]
        distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
        cover = np.clip((1 - distance) * min(radii) / edge + 0.5, 0, 1)[..., None] * opacity
        pixels += (np.asarray(colour, np.float32) - pixels) * cover


def draw_face(number: int, margin: int = 0) -> NDArray[np.uint8]:
    """One face, (336, 336, 3) uint8, RGB; the number seeds its colours, proportions and grain.

    With a margin, in pixels of `SIDE` on each side, the picture is larger and shows the whole head.
    """
    random = np.random.default_rng(number)

    def about(value: float, spread: float = 1.5) -> float:
        return value + random.uniform(-spread, spread)

    skin = np.array(SKINS[number % len(SKINS)]) * random.uniform(0.85, 1.05)
    hair = np.array(HAIRS[number // 2 % len(HAIRS)], np.float64)
    canvas = Canvas(random.uniform(40, 220, 3), margin)
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
    grain = cv2.GaussianBlur(random.normal(0, 1, canvas.pixels.shape).astype(np.float32), (0, 0), SUPERSAMPLING)
    return np.clip(canvas.pixels + grain * random.uniform(9, 36), 0, 255).astype(np.uint8)


def main() -> None:
    """Draw the faces, one below the other."""
    faces = np.concatenate([draw_face(number) for number in range(FACES)])
    cv2.imwrite(str(TARGET), faces[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
