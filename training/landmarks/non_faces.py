"""Pictures without a face, on which the regressor must be unsure: synthetic, and cut from pictures beside the face.

    non_face(rng, faces) ──▶ Image

The kinds here are for training. What checks the result (`check_set.py`) draws other kinds.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.random import Generator

from arcface_api.arrays import Image
from training.landmarks.faces import Face

_WORDS = (
    "THE",
    "QUICK",
    "BROWN",
    "fox",
    "jumps",
    "over",
    "0123456789",
    "lazy",
    "dogs,",
    "Invoice",
    "No.",
    "TOTAL",
    "due:",
    "2026",
)


def non_face(rng: Generator, faces: Sequence[Face]) -> Image:
    """A picture of 24 to 160 pixels that shows no face, or less than half of one."""
    from_faces = rng.random() < 0.6
    kinds: tuple[Callable[..., Image], ...] = FROM_FACES if from_faces else DRAWN
    kind = kinds[rng.integers(len(kinds))]
    for _ in range(20):
        picture = kind(rng, faces[rng.integers(len(faces))]) if from_faces else kind(rng)
        if picture is not None:
            return picture
    return noise(rng)


def _blank(rng: Generator) -> Image:
    side = np.exp(rng.uniform(np.log(24), np.log(160), 2) * [1, 0.6] + [0, 0.4 * np.log(60)])
    height, width = np.clip(side, 24, 160).astype(int)
    return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)


# ── synthetic ──────────────────────────────────────────────────────────────────────────────────────────────────────


def flat(rng: Generator) -> Image:
    """One colour, or nearly."""
    picture = _blank(rng)
    if rng.random() < 0.5:
        picture = np.clip(picture + rng.normal(0, rng.uniform(1, 8), picture.shape), 0, 255).astype(np.uint8)
    return picture


def noise(rng: Generator) -> Image:
    """Noise of any grain, grey or coloured."""
    height, width = _blank(rng).shape[:2]
    planes = rng.choice([1, 3])
    grain = np.exp(rng.uniform(0, np.log(20)))
    small = rng.integers(0, 256, (max(2, int(height / grain)), max(2, int(width / grain)), planes), dtype=np.uint8)
    picture = cv2.resize(small, (width, height), interpolation=int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC])))
    return np.broadcast_to(picture.reshape(height, width, planes), (height, width, 3)).copy()


def clouds(rng: Generator) -> Image:
    """Noise of all grains at once, like clouds, stone or foliage."""
    height, width = _blank(rng).shape[:2]
    total = np.zeros((height, width, 3), np.float32)
    roughness = rng.uniform(0.35, 0.8)
    for octave in range(1, 7):
        small = rng.normal(0, 1, (2**octave, 2**octave, 3)).astype(np.float32)
        small += 2 * small.mean(2, keepdims=True)
        total += roughness**octave * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    total = total / (total.std() + 1e-6) * rng.uniform(10, 70) + rng.uniform(0, 255, 3)
    return np.clip(total, 0, 255).astype(np.uint8)


def gradient(rng: Generator) -> Image:
    """One colour passing into another, along a line or around a point."""
    height, width = _blank(rng).shape[:2]
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        ramp = x * np.cos(angle) + y * np.sin(angle)
    else:
        ramp = np.hypot((x - rng.random()) * rng.uniform(0.5, 2), y - rng.random())
    ramp = (ramp - ramp.min()) / np.ptp(ramp)
    first, second = rng.integers(0, 256, (2, 3))
    return (first + ramp[..., None] * (second - first)).astype(np.uint8)


def text(rng: Generator) -> Image:
    """Words."""
    picture = _blank(rng)
    height, width = picture.shape[:2]
    scale = rng.uniform(0.3, 1.5)
    y = 0
    while y < height + 20 * scale:
        words = " ".join(rng.choice(_WORDS, 4))
        place = (int(rng.integers(-20, max(1, width // 2))), int(y))
        font, thickness = int(rng.integers(0, 8)), int(rng.integers(1, 3))
        cv2.putText(picture, words, place, font, scale, rng.integers(0, 256, 3).tolist(), thickness, cv2.LINE_AA)
        y += int(35 * scale * rng.uniform(0.8, 1.5)) + 3
    return picture


def shapes(rng: Generator) -> Image:
    """Circles, bars, lines and triangles."""
    picture = _blank(rng)
    height, width = picture.shape[:2]
    for _ in range(rng.integers(1, 14)):
        colour = rng.integers(0, 256, 3).tolist()
        a, b, c = (rng.random((3, 2)) * (width, height)).astype(int).tolist()
        thickness = int(rng.choice([-1, 1, 2, 4]))
        kind = rng.integers(4)
        if kind == 0:
            cv2.ellipse(picture, a, (b[0] // 3 + 1, b[1] // 3 + 1), rng.uniform(0, 180), 0, 360, colour, thickness)
        elif kind == 1:
            cv2.rectangle(picture, a, b, colour, thickness)
        elif kind == 2:
            cv2.line(picture, a, b, colour, abs(thickness))
        else:
            cv2.polylines(picture, [np.array([a, b, c])], True, colour, abs(thickness))
    return picture


def pattern(rng: Generator) -> Image:
    """Stripes, waves and chequers."""
    height, width = _blank(rng).shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    total = np.ones((height, width))
    for _ in range(rng.integers(1, 3)):
        angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(60)))
        total = total * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + rng.uniform(0, 6))
    if rng.random() < 0.5:
        total = np.sign(total)
    first, second = rng.integers(0, 256, (2, 3))
    return (first + (total[..., None] + 1) / 2 * (second - first)).astype(np.uint8)


# ── cut from pictures, beside the face or without it ───────────────────────────────────────────────────────────────


def background(rng: Generator, face: Face) -> Image | None:
    """A part of the picture that overlaps the face box by little."""
    height, width = face.image.shape[:2]
    side = rng.uniform(30, 130, 2)
    corner = rng.random(2) * ((width, height) - side)
    x, y, w, h = face.box
    overlap = np.minimum(corner + side, (x + w, y + h)) - np.maximum(corner, (x, y))
    if overlap.min() > 0 and overlap.prod() > 0.06 * side.prod():
        return None
    (left, top), (right, bottom) = corner.astype(int), (corner + side).astype(int)
    part = face.image[top:bottom, left:right]
    if part.std() < 3:  # the black margin of some pictures
        return None
    return _resized(part, rng)


def piece_of_face(rng: Generator, face: Face) -> Image | None:
    """A cheek, an eye, hair: not more than one landmark, much enlarged."""
    side = face.box[2] * rng.uniform(0.18, 0.42)
    centre = face.box[:2] + face.box[2:] * rng.uniform(0.0, 1.0, 2)
    inside = (np.abs(face.points - centre) < side / 2 + 3).all(1).sum()
    left, top = (centre - side / 2).astype(int)
    part = face.image[max(0, top) : int(top + side), max(0, left) : int(left + side)]
    if inside > 1 or min(part.shape) < 3 or min(part.shape[:2]) < 10:
        return None
    return _resized(part, rng)


def head_without_face(rng: Generator, face: Face) -> Image | None:
    """The head with its face painted over by its own hair, by skin, or by fog: what the back of a head looks like."""
    image = face.image.copy()
    x, y, w, h = face.box
    mask = np.zeros(image.shape[:2], np.float32)
    centre = (round(x + w / 2), round(y + h * 0.55))
    cv2.ellipse(mask, centre, (round(w * 0.55), round(h * 0.52)), 0, 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), w * 0.05)[..., None]
    kind = rng.random()
    if kind < 0.6:
        top, bottom = max(0, int(y - 0.12 * h)), int(y + 0.12 * h)
        hair = image[top:bottom, max(0, int(x + 0.15 * w)) : int(x + 0.85 * w)]
        if min(hair.shape[:2]) < 4:
            return None
        flipped = np.concatenate([hair, hair[::-1]] * 4)[: int(1.3 * h)]
        fill = cv2.resize(flipped, (image.shape[1], image.shape[0]))
    elif kind < 0.8:
        fill = cv2.resize(cv2.resize(image, (6, 6), interpolation=cv2.INTER_AREA), image.shape[1::-1])
    else:
        fill = np.full_like(image, image[int(y + h / 2), int(x + w / 2)])
    painted = (image * (1 - mask) + fill * mask).astype(np.uint8)
    grow = rng.uniform(0.9, 1.7)
    left, top = max(0, int(x + w / 2 - grow * w / 2)), max(0, int(y + h / 2 - grow * h / 2))
    return _resized(painted[top : int(top + grow * h), left : int(left + grow * w)], rng)


def shuffled(rng: Generator, face: Face) -> Image | None:
    """A face cut into tiles that are shuffled, each turned."""
    x, y, w, h = face.box.astype(int)
    part = face.image[max(0, y) : y + h, max(0, x) : x + w]
    count = int(rng.integers(3, 6))
    step = min(part.shape[:2]) // count
    if step < 8:
        return None
    tiles = [
        np.rot90(part[i * step : (i + 1) * step, j * step : (j + 1) * step], rng.integers(4))
        for i in range(count)
        for j in range(count)
    ]
    order = rng.permutation(len(tiles))
    rows = [np.concatenate([tiles[k] for k in order[i : i + count]], 1) for i in range(0, len(tiles), count)]
    return _resized(np.concatenate(rows), rng)


def _resized(part: Image, rng: Generator) -> Image:
    side = np.exp(rng.uniform(np.log(24), np.log(160)))
    scale = side / max(part.shape[:2])
    turned = np.rot90(part, rng.integers(4)) if rng.random() < 0.3 else part
    size = max(8, round(turned.shape[1] * scale)), max(8, round(turned.shape[0] * scale))
    return cv2.resize(
        np.ascontiguousarray(turned), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )


DRAWN = (flat, noise, noise, clouds, clouds, gradient, text, shapes, pattern)
FROM_FACES = (background, background, background, piece_of_face, head_without_face, head_without_face, shuffled)
