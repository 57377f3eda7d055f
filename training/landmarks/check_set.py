"""Pictures without a face that check what the regressor says of them: of other kinds than those trained on.

Photographs and scans that scikit-image carries, cut at random, and drawings: landscapes, backs of heads, pages, charts,
mosaics, mazes, skies of stars, walls, scribbles, balls. The two plainest kinds, flat colour and noise, are here too.
"""

import cv2
import numpy as np
from numpy.random import Generator
from skimage import data

from arcface_api.arrays import Image

PER_KIND = 60
PHOTOGRAPHS = (
    "brick", "cell", "chelsea", "clock", "coffee", "coins", "grass", "gravel", "horse", "hubble_deep_field",
    "immunohistochemistry", "microaneurysms", "moon", "page", "retina", "rocket", "text", "stereo_motorcycle",
)  # fmt: skip
"""What scikit-image carries and shows no person; `chelsea` is a cat, of which the face itself is left out."""
CAT_BELOW = 210
"""Row of `chelsea` below which there is no cat's face: that one is fairly called a face."""


def check_set(seed: int) -> dict[str, list[Image]]:
    """Pictures by kind, RGB uint8, 40 to 250 pixels."""
    kinds = {
        "photographs": _photograph,
        "landscapes": _landscape,
        "backs of heads": _back_of_head,
        "pages": _page,
        "charts": _chart,
        "mosaics": _mosaic,
        "mazes": _maze,
        "stars": _stars,
        "walls": _wall,
        "scribbles": _scribble,
        "balls": _balls,
        "noise": _noise,
        "flat colour": _flat,
    }
    rng = np.random.default_rng(seed)
    return {kind: [draw(rng) for _ in range(PER_KIND)] for kind, draw in kinds.items()}


def _size(rng: Generator) -> tuple[int, int]:
    height = int(rng.integers(48, 250))
    return height, int(np.clip(height * rng.uniform(0.6, 1.1), 40, 250))


def _photograph(rng: Generator) -> Image:
    name = str(rng.choice(PHOTOGRAPHS))
    loaded = getattr(data, name)()
    picture = loaded[0] if isinstance(loaded, tuple) else loaded
    if name == "chelsea":
        picture = picture[CAT_BELOW:]
    if picture.dtype != np.uint8:
        picture = (255 * picture.astype(np.float32) / picture.max()).astype(np.uint8)
    picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)
    side = int(min(picture.shape[:2]) * rng.uniform(0.25, 1))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
    part = np.ascontiguousarray(picture[top : top + side, left : left + int(side * rng.uniform(0.7, 1)), :3])
    height = int(rng.integers(48, 250))
    return cv2.resize(part, (max(8, height * part.shape[1] // part.shape[0]), height), interpolation=cv2.INTER_AREA)


def _landscape(rng: Generator) -> Image:
    """Sky, a sun, ranges of hills, and a field."""
    height, width = _size(rng)
    top, horizon = rng.uniform(60, 255, (2, 3))
    ramp = np.linspace(0, 1, height)[:, None, None]
    picture = np.ascontiguousarray(np.broadcast_to(top + ramp * (horizon - top), (height, width, 3)).astype(np.uint8))
    if rng.random() < 0.5:
        sun = (int(rng.integers(width)), int(rng.integers(height // 2)))
        cv2.circle(picture, sun, int(height * rng.uniform(0.03, 0.1)), (255, 240, 200), -1, cv2.LINE_AA)
    for level in np.sort(rng.uniform(0.3, 0.9, rng.integers(2, 6))):
        line = np.cumsum(rng.normal(0, 1, width)) * rng.uniform(0.3, 1.5) + level * height
        colour = rng.uniform(10, 160, 3) * [0.7, 1, 0.7]
        hill = np.arange(height)[:, None] > line
        picture[hill] = np.clip(colour + rng.normal(0, 10, (int(hill.sum()), 1)), 0, 255)
    return picture


def _back_of_head(rng: Generator) -> Image:
    """Shoulders, neck, ears, and a head full of strands of hair."""
    height, width = _size(rng)
    picture = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    skin = (np.array([225, 180, 150]) * rng.uniform(0.3, 1.05)).clip(0, 255)
    hair = np.array([90, 65, 45]) * rng.uniform(0.1, 2.2) * rng.uniform(0.9, 1.1, 3)
    x, y = width // 2, int(height * rng.uniform(0.4, 0.5))
    a, b = int(width * rng.uniform(0.28, 0.4)), int(height * rng.uniform(0.3, 0.4))
    cv2.ellipse(
        picture,
        (x, int(height * 1.1)),
        (int(a * 1.7), int(height * 0.3)),
        0,
        0,
        360,
        rng.integers(0, 256, 3).tolist(),
        -1,
    )
    cv2.rectangle(picture, (x - a // 2, y), (x + a // 2, int(height * 0.95)), skin.tolist(), -1)
    for side in (-1, 1):
        cv2.ellipse(picture, (x + side * a, y + b // 6), (max(2, a // 6), max(2, b // 4)), 0, 0, 360, skin.tolist(), -1)
    cv2.ellipse(picture, (x, y), (a, b), 0, 0, 360, hair.tolist(), -1, cv2.LINE_AA)
    whorl = np.array([x + rng.normal(0, a / 6), y - b * rng.uniform(0.2, 0.6)])
    for angle in rng.uniform(0, 2 * np.pi, 500):
        end = np.array([x + a * np.cos(angle), y + b * np.sin(angle)])
        start = whorl + (end - whorl) * rng.uniform(0, 0.7)
        stop = start + (end - start) * rng.uniform(0.3, 1)
        shade = np.clip(hair * rng.uniform(0.5, 1.7), 0, 255).tolist()
        cv2.line(picture, start.astype(int).tolist(), stop.astype(int).tolist(), shade, 1, cv2.LINE_AA)
    return picture


def _page(rng: Generator) -> Image:
    """Lines of words as blocks, with headings and a picture's frame."""
    height, width = _size(rng)
    picture = np.full((height, width, 3), rng.integers(200, 256), np.uint8)
    y, step = int(height * 0.05), int(rng.integers(4, 14))
    while y < height:
        x = int(width * 0.06)
        while x < width * 0.94:
            word = int(rng.integers(step, 6 * step))
            colour = int(rng.integers(0, 110))
            cv2.rectangle(picture, (x, y), (min(int(width * 0.94), x + word), y + step // 2), [colour] * 3, -1)
            x += word + step // 2 + 1
        y += step + int(step * rng.choice([0, 0, 0, 1]))
    return picture


def _chart(rng: Generator) -> Image:
    """Bars, a curve, axes."""
    height, width = _size(rng)
    picture = np.full((height, width, 3), 255, np.uint8)
    count = int(rng.integers(3, 15))
    for i in range(count):
        left, right = int(width * (i + 0.2) / count), int(width * (i + 0.8) / count)
        cv2.rectangle(
            picture, (left, int(height * rng.random())), (right, height), rng.integers(0, 256, 3).tolist(), -1
        )
    curve = np.column_stack([np.linspace(0, width, 40), height / 2 + np.cumsum(rng.normal(0, height / 15, 40))])
    cv2.polylines(picture, [curve.astype(np.int32)], False, rng.integers(0, 256, 3).tolist(), 2, cv2.LINE_AA)
    cv2.line(picture, (2, 0), (2, height), (0, 0, 0), 1)
    return picture


def _mosaic(rng: Generator) -> Image:
    """Cells around scattered points."""
    height, width = _size(rng)
    seeds = rng.random((int(rng.integers(5, 60)), 2)) * (height, width)
    y, x = np.mgrid[0:height, 0:width]
    nearest = np.argmin((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, 2)
    return rng.integers(0, 256, (len(seeds), 3), dtype=np.uint8)[nearest]


def _maze(rng: Generator) -> Image:
    """Black and white modules, as in a matrix code."""
    height, width = _size(rng)
    count = int(rng.integers(8, 30))
    modules = (rng.random((count, count)) < 0.5).astype(np.uint8) * 255
    grey = cv2.resize(modules, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.repeat(grey[..., None], 3, 2)


def _stars(rng: Generator) -> Image:
    """Points of light in the dark, some with a halo."""
    height, width = _size(rng)
    picture = np.zeros((height, width, 3), np.uint8)
    for _ in range(int(rng.integers(5, 120))):
        place = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(picture, place, int(rng.integers(0, 4)), rng.integers(100, 256, 3).tolist(), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 3))


def _wall(rng: Generator) -> Image:
    """A house's front: rows of windows, and a door."""
    height, width = _size(rng)
    picture = np.full((height, width, 3), rng.integers(60, 240, 3), np.uint8)
    rows, columns = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    glass, frame = rng.integers(0, 200, 3).tolist(), rng.integers(100, 256, 3).tolist()
    for i in range(rows):
        for j in range(columns):
            left, top = int(width * (j + 0.25) / columns), int(height * (i + 0.25) / rows)
            right, bottom = int(width * (j + 0.75) / columns), int(height * (i + 0.75) / rows)
            cv2.rectangle(picture, (left, top), (right, bottom), glass, -1)
            cv2.rectangle(picture, (left, top), (right, bottom), frame, 2)
    door = (int(width * 0.4), int(height * 0.75)), (int(width * 0.6), height)
    cv2.rectangle(picture, *door, rng.integers(0, 150, 3).tolist(), -1)
    return picture


def _scribble(rng: Generator) -> Image:
    """A pen's smooth path."""
    height, width = _size(rng)
    picture = np.full((height, width, 3), rng.integers(150, 256, 3), np.uint8)
    for _ in range(int(rng.integers(1, 5))):
        path = np.cumsum(np.cumsum(rng.normal(0, 1, (150, 2)), 0), 0)
        path = (path - path.min(0)) / (np.ptp(path, 0) + 1e-9) * (width, height)
        cv2.polylines(
            picture, [path.astype(np.int32)], False, rng.integers(0, 120, 3).tolist(), int(rng.integers(1, 4))
        )
    return picture


def _balls(rng: Generator) -> Image:
    """Shaded balls before a plain ground: fruit, lamps, heads without any feature."""
    height, width = _size(rng)
    picture = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8).astype(np.float64)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(int(rng.integers(1, 4))):
        radius = height * rng.uniform(0.15, 0.45)
        dx, dy = (x - rng.random() * width) / radius, (y - rng.random() * height) / radius
        inside = dx**2 + dy**2 < 1
        depth = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))
        light = np.clip(0.3 + 0.7 * (depth * 0.7 - dx * 0.5 - dy * 0.5), 0, 1)
        picture[inside] = (light[..., None] * rng.uniform(60, 255, 3))[inside]
    return picture.astype(np.uint8)


def _noise(rng: Generator) -> Image:
    return rng.integers(0, 256, (*_size(rng), 3), dtype=np.uint8)


def _flat(rng: Generator) -> Image:
    return np.full((*_size(rng), 3), rng.integers(0, 256, 3), np.uint8)
