"""Draws the two examples of the page at `/`: one synthetic face of the self-test, straight, and tilted in less light.

    PYTHONPATH=. python training/page_examples.py

No picture of a person may be in the package. One face, so that the page shows what alignment does.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.probe_faces import draw_face

TARGET = Path(__file__).parents[1] / "src" / "arcface_api" / "api" / "page" / "static"
FACE, MARGIN = 3, 24
SIDE = 320


def example(*, degrees: float, light: float) -> NDArray[np.uint8]:
    """The face with some background around it, turned clockwise: (SIDE, SIDE, 3) uint8, RGB."""
    face = draw_face(FACE, MARGIN)
    middle = len(face) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), -degrees, SIDE / len(face) * 1.05)
    turn[:, 2] += SIDE / 2 - middle
    turned = cv2.warpAffine(face, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    return np.clip(turned * light, 0, 255).astype(np.uint8)


def main() -> None:
    """Draw both."""
    pictures = example(degrees=0, light=1), example(degrees=17, light=0.72)
    for number, picture in enumerate(pictures, 1):
        cv2.imwrite(str(TARGET / f"example-{number}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
