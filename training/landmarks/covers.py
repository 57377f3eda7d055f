"""What hides a part of a face, as training sees it: flat shapes with textures, drawn on the crop in a millisecond.

    covered(image, points, rng) ──▶ image, how much of the eyes and of the lower face is hidden

What checks the result (`check_covers.py`) draws other shapes in another way.
"""

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from arcface_api.arrays import TEMPLATE, Image, Points
from arcface_api.face.geometry import back, moved, similarity

Floats = NDArray[np.float64]
Hides = NDArray[np.uint8]
"""(h, w): 0 where the face shows, 255 where it is hidden."""

PARTS = ("eyes", "lower face")
_EYES = ((-0.62, 0), (-0.5, -0.08), (-0.5, 0.08), (-0.38, 0), (0.38, 0), (0.5, -0.08), (0.5, 0.08), (0.62, 0))
_LOWER_FACE = ((-0.35, 0.75), (0, 0.75), (0.35, 0.75), (-0.4, 1), (-0.15, 1), (0.15, 1), (0.4, 1), (0, 1.3), (0.2, 1.2))
_PLACES = np.array([*_EYES, *_LOWER_FACE])
"""Where it is looked whether they are hidden: u, v as in `_Canvas`."""
_SHIFT = 4
TEXTURE_SIDE = 96


class _Canvas:
    """A crop, and the way to its pixels from u, in eye distances from between the eyes, and v, 1 at the mouth."""

    def __init__(self, image: Image, points: Points) -> None:
        self.image, self.hides = image, np.zeros(image.shape[:2], np.uint8)
        left, right = points[0].astype(np.float64), points[1].astype(np.float64)
        self.origin, mouth = (left + right) / 2, (points[3] + points[4]) / 2
        # Half of the way to a face that looks straight ahead: eyes of a face that looks aside are close together.
        straight = back(TEMPLATE[:2], similarity(points, TEMPLATE)).astype(np.float64)
        self.axes = np.stack([(right - left + straight[1] - straight[0]) / 2, mouth - self.origin])
        self.size = float(np.hypot(*self.axes[0]))

    def at(self, places: Floats) -> Floats:
        """Pixels of places u, v: (n, 2)."""
        return self.origin + places @ self.axes

    def shape(self, outline: Floats) -> None:
        """Hide what lies inside places u, v, (n, 2)."""
        cv2.fillPoly(self.hides, [_fixed(self.at(outline))], 255, cv2.LINE_AA, _SHIFT)

    def line(self, places: Floats, width: float) -> None:
        """Hide a line, as wide as so many eye distances."""
        cv2.polylines(
            self.hides, [_fixed(self.at(places))], False, 255, max(1, round(width * self.size)), cv2.LINE_AA, _SHIFT
        )

    def shadowed(self, rng: Generator) -> None:
        """Darken the crop around what is hidden."""
        reach = max(1, round(self.size * rng.uniform(0.05, 0.25)))
        move = np.array([[1, 0, rng.normal(0, reach / 3)], [0, 1, rng.uniform(0, reach)]])
        near = cv2.blur(cv2.warpAffine(self.hides, move, self.hides.shape[::-1]), (reach, reach))
        self.image = cv2.multiply(
            self.image, cv2.merge([255 - cv2.convertScaleAbs(near, alpha=rng.uniform(0.1, 0.6))] * 3), scale=1 / 255
        )

    def painted(self, paint: Image, opacity: float = 1.0) -> None:
        """The crop with `paint` where it is hidden."""
        weight = self.hides.astype(np.float32) * np.float32(opacity / 255)
        self.image = cv2.blendLinear(paint, self.image, weight, 1 - weight)


def _fixed(points: Floats) -> NDArray[np.int32]:
    return (points * 2**_SHIFT).round().astype(np.int32)


def covered(image: Image, points: Points, rng: Generator, kinds: Sequence[int] | None = None) -> tuple[Image, Floats]:
    """The crop with one or two things before the face, and the share, 0 to 1, of each of `PARTS` that is hidden.

    A place outside the crop counts as hidden where the crop's nearest pixel is.
    `kinds` are indices of `KINDS`; without them, they are drawn.
    """
    canvas = _Canvas(image, points)
    if kinds is None:
        kinds = rng.choice(len(KINDS), 2 if rng.random() < 0.12 else 1, p=_WEIGHTS).tolist()
    seen = np.ones(len(_PLACES))
    height, width = image.shape[:2]
    x, y = canvas.at(_PLACES).round().astype(int).T
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    for kind in kinds:
        canvas.hides[:] = 0
        KINDS[kind](canvas, rng)
        seen *= 1 - canvas.hides[y, x] / 255
    return canvas.image, 1 - np.array([seen[: len(_EYES)].mean(), seen[len(_EYES) :].mean()])


# ── paint ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _textures() -> list[Hides]:
    """Weaves, stripes, dots, blots and letters in grey, drawn once."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:TEXTURE_SIDE, 0:TEXTURE_SIDE].astype(np.float32)
    textures = []
    for number in range(48):
        kind, period = number % 6, float(np.exp(rng.uniform(np.log(3), np.log(24))))
        if kind == 0:  # plain, with some grain
            texture = 128 + rng.normal(0, rng.uniform(2, 20), x.shape)
        elif kind == 1:
            texture = 127 * (1 + np.sin(2 * np.pi * x / period))
        elif kind == 2:
            texture = 127 * (1 + np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period))
        elif kind == 3:
            coarse = rng.integers(0, 256, (int(96 / period) + 2, int(96 / period) + 2), dtype=np.uint8)
            texture = cv2.resize(coarse, x.shape, interpolation=cv2.INTER_CUBIC).astype(np.float64)
        elif kind == 4:
            texture = 255.0 * (((x // period) + (y // period)) % 2)
        else:
            drawn = np.zeros(x.shape, np.uint8)
            for _ in range(int(rng.integers(1, 5))):
                word = "".join(rng.choice([*"ABEGKNORSTXZ25@#"], int(rng.integers(1, 6))))
                place = (int(rng.integers(-5, 60)), int(rng.integers(15, 95)))
                cv2.putText(drawn, word, place, int(rng.integers(0, 5)), rng.uniform(0.5, 1.8), 255, 2, cv2.LINE_AA)
            texture = drawn.astype(np.float64)
        textures.append(texture.clip(0, 255).astype(np.uint8))
    return textures


@cache
def _strands() -> list[Hides]:
    """Hair that runs down, in grey: thin strands beside each other, some of them bundled."""
    rng = np.random.default_rng(6)
    textures = []
    for _ in range(8):
        fine, coarse = rng.normal(0, 1, TEXTURE_SIDE), np.repeat(rng.normal(0, 1, TEXTURE_SIDE // 8), 8)
        texture = 128 + 35 * fine + rng.uniform(0, 50) * coarse + rng.normal(0, 8, (TEXTURE_SIDE, TEXTURE_SIDE))
        textures.append(texture.clip(0, 255).astype(np.uint8))
    return textures


def _paint(
    canvas: _Canvas, rng: Generator, colour: Floats | None = None, contrast: float = 1.0, *, is_hair: bool = False
) -> Image:
    """A texture in two colours all over the crop, turned and stretched at random, darker to one side."""
    first = _colour(rng) if colour is None else colour
    second = first + contrast * rng.choice([0.05, 0.15, 0.5, 1.0]) * (_colour(rng) - first)
    texture, turn = _textures()[rng.integers(48)], rng.uniform(0, 2 * np.pi)
    if is_hair:
        texture, turn = _strands()[rng.integers(8)], np.arctan2(*canvas.axes[1]) + rng.normal(0, 0.15)
        second = first * rng.uniform(0.3, 0.8)
    height, width = canvas.image.shape[:2]
    scale = TEXTURE_SIDE / canvas.size / rng.uniform(0.8, 2.5)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    move = np.column_stack([linear, rng.uniform(0, TEXTURE_SIDE, 2)])
    grey = cv2.warpAffine(
        texture, move, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    share = np.linspace(0, 1, 256)[:, None]
    paint = cv2.applyColorMap(grey, (first + share * (second - first)).clip(0, 255).astype(np.uint8)[:, None])
    if rng.random() < 0.7:  # darker to one side or to both, as what is round
        across = np.linspace(-1, 1, width, dtype=np.float32) - np.float32(canvas.origin[0] / width * 2 - 1)
        shade = rng.uniform(-0.4, 0.4) * across + rng.uniform(0, 0.6) * across**2
        row = (255 * (1 - shade).clip(0.3, 1)).astype(np.uint8)
        paint = cv2.multiply(paint, np.broadcast_to(row[None, :, None], paint.shape).copy(), scale=1 / 255)
    return paint


def _colour(rng: Generator) -> Floats:
    """Mostly dull, sometimes bright: (3,), 0 to 255."""
    return (rng.uniform(0, 255) + rng.choice([4, 20, 60]) * rng.normal(0, 1, 3)).clip(0, 255)


def _skin(canvas: _Canvas, rng: Generator) -> Floats:
    """The face's own, lighter or darker; or any."""
    if rng.random() < 0.3:
        shade = rng.uniform(40, 240)
        return np.array([shade, shade * rng.uniform(0.6, 0.9), shade * rng.uniform(0.4, 0.8)])
    height, width = canvas.image.shape[:2]
    ((x, y),) = canvas.at(np.array([(rng.choice([-0.45, 0.45]), 0.5)])).round().astype(int)
    return canvas.image[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] * rng.uniform(0.6, 1.3)


def _closed(corners: Floats, rng: Generator, jitter: float) -> Floats:
    """A smooth outline near some corners, each moved a little."""
    corners = corners + rng.normal(0, jitter, corners.shape)
    after, before, next_but_one = np.roll(corners, -1, 0), np.roll(corners, 1, 0), np.roll(corners, -2, 0)
    t = np.array([0, 0.25, 0.5, 0.75])[None, :, None]
    p0, p1, p2, p3 = (each[:, None] for each in (before, corners, after, next_but_one))
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.reshape(-1, 2)


# ── what hides ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _mask(canvas: _Canvas, rng: Generator) -> None:
    bridge, cheek = rng.uniform(0.1, 0.75), rng.uniform(0.25, 0.8)
    side, jaw, chin = rng.uniform(0.7, 1.2), rng.uniform(0.55, 0.95), rng.uniform(1.45, 2.0)
    right = [(0.25, bridge + 0.05), (side, cheek), (side * 0.98, rng.uniform(0.9, 1.2)), (jaw, chin - 0.25)]
    corners = np.array([(0, bridge), *right, (0, chin), *[(-u, v) for u, v in right[::-1]]])
    if rng.random() < 0.7:  # ear loops, or bands around the head
        for end in (-1, 1):
            canvas.line(np.array([(end * side, cheek), (end * 1.3, rng.uniform(-0.3, 0.6))]), rng.uniform(0.02, 0.06))
            canvas.line(np.array([(end * jaw, chin - 0.3), (end * 1.3, rng.uniform(0.3, 1))]), rng.uniform(0.02, 0.06))
    canvas.shape(_closed(corners, rng, 0.04))
    if rng.random() < 0.6:
        canvas.shadowed(rng)
    paint = _paint(canvas, rng, rng.uniform(150, 250, 3) if rng.random() < 0.4 else None)
    for _ in range(rng.integers(0, 4)):
        v = rng.uniform(bridge + 0.1, chin - 0.2)
        fold = np.array([(-side, v), (0, v + rng.uniform(-0.05, 0.15)), (side, v)])
        shade = int(rng.integers(0, 200))
        cv2.polylines(paint, [_fixed(canvas.at(fold))], False, (shade,) * 3, 1, cv2.LINE_AA, _SHIFT)
    canvas.painted(paint)


def _glasses(canvas: _Canvas, rng: Generator) -> None:
    """Dark, tinted or clear lenses of any shape, or one bar."""
    width, height, v = rng.uniform(0.3, 0.5), rng.uniform(0.2, 0.48), rng.uniform(-0.05, 0.12)
    corner = rng.uniform(0.55, 1.0)
    lens = np.array([(-1, 0), (-corner, -corner), (0, -1), (corner, -corner), (1, 0), (corner, corner), (0, 1)])
    lens = np.vstack([lens, [(-corner, corner)]]) * (width, height)
    frame = _paint(canvas, rng, contrast=0.3)
    thickness = rng.uniform(0.03, 0.12)
    if rng.random() < 0.15:
        canvas.shape(np.array([(-1, v - height), (1, v - height), (1, v + height), (-1, v + height)]) * (1.05, 1))
        canvas.painted(frame, rng.uniform(0.75, 1))
        return
    outlines = [_closed(lens + np.array([side * 0.52, v]), rng, 0.02) for side in (-1, 1)]
    for outline in outlines:
        canvas.shape(outline)
    is_dark = rng.random() < 0.75
    tint = _paint(canvas, rng, rng.uniform(0, 70, 3) if rng.random() < 0.7 else None)
    canvas.painted(tint, rng.uniform(0.7, 1) if is_dark else rng.uniform(0, 0.25))
    lenses = canvas.hides if is_dark else np.zeros_like(canvas.hides)
    canvas.hides = np.zeros_like(lenses)
    for outline in outlines:
        canvas.line(np.vstack([outline, outline[:1]]), thickness)
    arch = v - height * rng.uniform(0.1, 0.6)
    canvas.line(np.array([(-0.2, arch), (0.2, arch)]), thickness)
    for side in (-1, 1):
        canvas.line(np.array([(side * (0.5 + width), arch), (side * 1.3, arch + rng.uniform(-0.15, 0.1))]), thickness)
    canvas.painted(frame)
    canvas.hides = np.maximum(canvas.hides, lenses)


def _from_below(canvas: _Canvas, rng: Generator) -> None:
    """A scarf, a collar, a cup, a microphone."""
    half, top = rng.uniform(0.5, 1.6), rng.uniform(0.25, 1.3)
    middle = rng.uniform(-0.3, 0.3)
    upper = [
        (middle + half * t, top + rng.normal(0, 0.08) + rng.uniform(-0.2, 0.2) * abs(t)) for t in (-1, -0.5, 0, 0.5, 1)
    ]
    canvas.shape(_closed(np.array([*upper, (middle + half * 1.2, 3.5), (middle - half * 1.2, 3.5)]), rng, 0.02))
    if rng.random() < 0.5:
        canvas.shadowed(rng)
    canvas.painted(_paint(canvas, rng))


def _from_above(canvas: _Canvas, rng: Generator) -> None:
    """A hat, a helmet or a fringe: with a smooth or a ragged edge, down to the brows, sometimes over the eyes."""
    edge, tilt = rng.uniform(-0.5, -0.08), rng.uniform(-0.15, 0.15)
    if rng.random() < 0.12:
        edge += 0.25
    u = np.linspace(-1.3, 1.3, 14)
    ragged = rng.choice([0.0, 0.02, 0.1])
    v = edge + tilt * u + rng.uniform(-0.15, 0.25) * u**2 + rng.normal(0, 1, len(u)) * ragged
    canvas.shape(np.vstack([np.stack([u, v], axis=1), [(1.6, -3.5), (-1.6, -3.5)]]))
    colour = None
    if ragged and rng.random() < 0.7:  # the picture's own hair
        (place,) = canvas.at(np.array([(rng.uniform(-0.6, 0.6), -1.2)])).round().astype(int)
        x, y = np.clip(place, 0, np.array(canvas.image.shape[1::-1]) - 1)
        colour = canvas.image[y, x] * rng.uniform(0.7, 1.3)
    if rng.random() < 0.5:
        canvas.shadowed(rng)
    is_hair = ragged > 0 and rng.random() < 0.6
    canvas.painted(_paint(canvas, rng, colour, contrast=0.4 if ragged else 1, is_hair=is_hair))


def _over_one_eye(canvas: _Canvas, rng: Generator) -> None:
    """Hair, or a patch."""
    side = rng.choice([-1, 1])
    is_hair = rng.random() < 0.6
    if is_hair:
        inner, outer, end = rng.uniform(-0.1, 0.4), rng.uniform(0.8, 1.5), rng.uniform(0.2, 2.2)
        corners = np.array(
            [(inner - 0.4, -2.5), (outer, -2.5), (outer, end * 0.6), (outer - 0.3, end), (inner, end * 0.4)]
        )
    else:
        reach = rng.uniform(0.2, 0.45, 2)
        corners = (0.5, 0) + reach * np.array([(-1, 0), (0, -1), (1, 0), (0, 1)])
        canvas.line(np.array([(-side * 1.3, rng.uniform(-1, 0.3)), (side * 0.5, 0)]), rng.uniform(0, 0.08))
    canvas.shape(_closed(corners, rng, 0.05) * (side, 1))
    if rng.random() < 0.5:
        canvas.shadowed(rng)
    canvas.painted(_paint(canvas, rng, contrast=0.5, is_hair=is_hair and rng.random() < 0.7))


def _fingers(canvas: _Canvas, rng: Generator) -> None:
    """Some side by side, from any direction but above, with or without a palm."""
    tip = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.4, 1.5)])
    turn = rng.uniform(-0.4, np.pi + 0.4)  # towards the wrist
    along, aside = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    width, bend = rng.uniform(0.2, 0.4), rng.uniform(-0.3, 0.3)
    skin = _skin(canvas, rng)
    edges = np.zeros_like(canvas.hides)
    for number in range(rng.integers(1, 6)):
        start = tip + aside * number * width * rng.uniform(0.95, 1.2) + along * rng.uniform(0, 0.3)
        joints = [start, start + along * 0.6 + aside * bend * 0.2, start + along * rng.uniform(1.0, 1.4)]
        finger = _fixed(canvas.at(np.array(joints)))
        thick = max(1, round(width * canvas.size))
        cv2.polylines(canvas.hides, [finger], False, 255, thick, cv2.LINE_AA, _SHIFT)
        cv2.polylines(edges, [finger], False, 255, max(1, thick - 2), cv2.LINE_AA, _SHIFT)
    if rng.random() < 0.7:
        palm = tip + along * 1.9 + aside * width
        canvas.shape(_closed(palm + rng.uniform(0.6, 1.0) * np.array([along, aside, -along, -aside]), rng, 0.1))
        canvas.line(np.array([palm, palm + 4 * along]), rng.uniform(0.8, 1.6))
    paint = _paint(canvas, rng, skin, contrast=0.1)
    gaps = (canvas.hides > 0) & (edges < 128)
    if rng.random() < 0.6:  # each finger is round: darker away from its middle
        inside = (edges >= 128).astype(np.uint8)
        middle = (cv2.distanceTransform(inside, cv2.DIST_L2, 3) / (width * canvas.size / 2)).clip(0, 1)
        dark = rng.uniform(0.5, 0.9)
        paint = (paint * np.where(inside, dark + (1 - dark) * middle, 1)[..., None]).astype(np.uint8)
    paint[gaps] = (paint[gaps] * rng.uniform(0.5, 1)).astype(np.uint8)
    if rng.random() < 0.5:
        canvas.shadowed(rng)
    canvas.painted(paint)


def _thing(canvas: _Canvas, rng: Generator) -> None:
    """A phone, a card, a frame: a box anywhere on the face."""
    half = rng.uniform(0.2, 1.1, 2) * (1, 0.8)
    centre, turn = np.array([rng.normal(0, 0.6), rng.normal(0.5, 0.6)]), rng.uniform(0, np.pi)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    canvas.shape(centre + corners @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]))
    if rng.random() < 0.5:
        canvas.shadowed(rng)
    canvas.painted(_paint(canvas, rng))


def _one_side(canvas: _Canvas, rng: Generator) -> None:
    """A door, another head, or the end of the picture: all beyond a line beside the nose."""
    side, u, slope = rng.choice([-1, 1]), rng.uniform(-0.1, 0.9), rng.uniform(-0.3, 0.3)
    canvas.shape(np.array([(u - slope * 4, -4), (6, -4), (6, 6), (u + slope * 4, 6)]) * (side, 1))
    canvas.painted(_paint(canvas, rng, np.zeros(3) if rng.random() < 0.3 else None))


KINDS: tuple[Callable[[_Canvas, Generator], None], ...] = (
    *(_mask, _glasses, _from_below, _from_above, _over_one_eye, _fingers, _thing, _one_side),
)
_WEIGHTS = (0.20, 0.18, 0.08, 0.13, 0.16, 0.14, 0.06, 0.05)


def anywhere(image: Image, rng: Generator) -> Points:
    """Where a face's landmarks could be on a picture without one: (5, 2), so that covers are no sign of a face."""
    height, width = image.shape[:2]
    centre, side = TEMPLATE.mean(0), min(height, width) * rng.uniform(0.5, 1)
    turn = rng.normal(0, 0.5)
    linear = side / 112 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = np.array([width, height]) * rng.uniform(0.35, 0.65, 2) - linear @ centre
    return moved(TEMPLATE, np.column_stack([linear, shift]))
