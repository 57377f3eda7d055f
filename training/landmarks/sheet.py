"""Draw a contact sheet of what the regressor is trained on, or checked with, to look at.

    python -m training.landmarks.sheet LFW_FOLDER training build/training.png
    python -m training.landmarks.sheet LFW_FOLDER checks build/checks.png

A row for each kind, of the same people of the validation part; the landmarks are dots. Keep it out of the repository:
it shows faces of LFW.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from arcface_api.arrays import Image, Points
from training.landmarks import light
from training.landmarks.augment import Cut, cover, cut, degrade, random_cut
from training.landmarks.conditions import HARD, Condition
from training.landmarks.covers import KINDS, covered
from training.landmarks.faces import Face, read_faces

SIDE = 132
LIGHTS = (light.dim, light.hard_shadow, light.backlight, light.infrared, light.cast, light.moved)
Row = Callable[[Face, int], tuple[Image, Points]]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images.tar and labels.csv")
    parser.add_argument("kind", choices=("training", "checks"))
    parser.add_argument("sheet", type=Path, help="PNG to write")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    everyone = read_faces(options.folder, ("validation",))
    chosen = np.random.default_rng(options.seed).permutation(len(everyone))[: options.people]
    rows = (
        _training_rows() if options.kind == "training" else {name: partial(_check, how) for name, how in HARD.items()}
    )
    sheet = [np.hstack([_tile(*draw(everyone[index], options.seed)) for index in chosen]) for draw in rows.values()]
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.sheet), np.vstack(sheet)[..., ::-1])
    print(f"{options.sheet}: from the top: {', '.join(rows)}")


def _training_rows() -> dict[str, Row]:
    covers: dict[str, Row] = {kind.__name__: partial(_cover, index) for index, kind in enumerate(KINDS)}
    lights: dict[str, Row] = {spoil.__name__: partial(_light, spoil) for spoil in LIGHTS}
    return covers | lights | {"all at once": _all}


def _rng(face: Face, seed: int) -> np.random.Generator:
    return np.random.default_rng((seed, *face.name.encode()))


def _cover(index: int, face: Face, seed: int) -> tuple[Image, Points]:
    rng = _rng(face, seed)
    crop, points = cut(face, Cut(grow=1.2, side=SIDE, angle=rng.uniform(-20, 20)))
    return covered(crop, points, rng, (index,))[0], points


def _light(spoil: Callable[[Image, np.random.Generator], Image], face: Face, seed: int) -> tuple[Image, Points]:
    crop, points = cut(face, Cut(grow=1.2, side=SIDE))
    return spoil(crop, _rng(face, seed)), points


def _all(face: Face, seed: int) -> tuple[Image, Points]:
    rng = _rng(face, seed)
    crop, points = cut(face, random_cut(rng))
    return degrade(cover(crop, points, rng)[0], rng), points


def _check(how: Condition, face: Face, seed: int) -> tuple[Image, Points]:
    sample = how.crop(face, seed)
    return sample.image, sample.points


def _tile(image: Image, points: Points) -> Image:
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    shown = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    for point in points:
        cv2.circle(shown, ((point + 0.5) * scale).astype(int).tolist(), 1, (0, 255, 0), -1)
    tile = np.zeros((SIDE + 4, SIDE + 4, 3), np.uint8)
    tile[: shown.shape[0], : shown.shape[1]] = shown
    return tile


if __name__ == "__main__":
    main()
