"""What is worn or held before a face, drawn to check the regressor: of other shapes and colours than those trained on.

    Face ──COVERS[kind](face, rng)──▶ picture

Surfaces in the face's own space (`check_surfaces.py`), so that they turn with it: masks with pleats, seams, straps and
a bulge over the nose; sunglasses with frames, reflections and arms; scarves, hats and fringes; hair, patches and
phones over an eye; hands with fingers. Training's covers (`covers.py`) are flat shapes on the crop.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from arcface_api.arrays import Image
from training.landmarks.check_surfaces import FINE, Colour, Floats, Frame, Layer, Texture, skin_depth
from training.landmarks.faces import Face

Cover = Callable[[Face, Generator], Image]

_SKINS = ("f3dcc6", "e6c1a0", "d2a27c", "b98560", "9a6644", "77492f", "54321f", "3b241a")
_HAIRS = ("16120f", "2a1d15", "45301f", "6d4c2c", "94703f", "c3a15f", "8d8a86", "d8d4cc", "6b2b17")
_CLOTHS = (
    *("dfe8ec", "9cc7dd", "6fa9cf", "8fcfb8", "f0f0ee", "e9b3c2", "1b1b1e", "22262e", "3a3f48"),
    *("29406b", "7a1f2b", "44603c", "8d7b5a", "c9b79c", "5d3b66", "c8452f", "d9a520"),
)


def _rgb(code: str) -> Colour:
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float64)


def _any_of(codes: tuple[str, ...], rng: Generator) -> Colour:
    return (_rgb(str(rng.choice(codes))) + rng.normal(0, 7, 3)).clip(4, 250)


def _grid(rows: int, columns: int) -> tuple[Floats, Floats]:
    """Places across, -1 to 1, and down, 0 to 1, of a grid's corners: (rows + 1, columns + 1) each."""
    down, across = np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(-1, 1, columns + 1), indexing="ij")
    return across, down


def _grain(texture: Texture, rng: Generator, strength: float) -> Texture:
    """Uneven cloth."""
    seed = int(rng.integers(2**31))

    def uneven(across: Floats, down: Floats) -> Floats:
        noise = np.random.default_rng(seed).normal(1, strength, across.shape)
        return texture(across, down) * noise[..., None]

    return uneven


# ── over mouth and nose ────────────────────────────────────────────────────────────────────────────────────────────


def mask(face: Face, rng: Generator) -> Image:
    """A pleated, a moulded or a sewn mask with its straps; one in ten leaves the nose free."""
    layer = Layer(Frame(face))
    style = rng.choice(["pleated", "moulded", "sewn"], p=[0.45, 0.25, 0.3])
    top = rng.uniform(0.6, 0.75) if rng.random() < 0.1 else rng.uniform(0.16, 0.4)
    bottom, side_bottom = rng.uniform(1.6, 1.85), rng.uniform(1.05, 1.35)
    slope, half = rng.uniform(0.05, 0.3), rng.uniform(0.86, 1.02)
    bulge = {"pleated": rng.uniform(0.2, 0.5), "moulded": rng.uniform(0.7, 1.1), "sewn": rng.uniform(0.3, 0.7)}[style]
    across, down = _grid(44, 52)
    upper, lower = top + slope * across**2, bottom - (bottom - side_bottom) * np.abs(across) ** 1.8
    v = upper + (lower - upper) * down
    u = across * half * (1 - rng.uniform(0.08, 0.22) * down**2)
    ridge = np.exp(-((across / rng.uniform(0.25, 0.4)) ** 2)) * np.interp(
        v, [0.1, 0.5, 0.75, 1.7], [0.3, 1.0, 0.8, 0.1]
    )
    tent = (1 - across**2) * np.sin(np.pi * down.clip(0, 1)) * bulge
    w = skin_depth(u, v) + np.maximum(0.62 * ridge, 0.5 * ridge + tent)
    if style == "pleated":
        folds = int(rng.integers(3, 5))
        w += 0.05 * np.abs(np.sin(np.pi * folds * down)) * (1 - 0.5 * across**2)
    texture = _grain(_mask_texture(str(style), rng), rng, rng.uniform(0.005, 0.03))
    strap = _rgb("e8e8e6") + rng.normal(0, 6, 3) if rng.random() < 0.7 else _any_of(_CLOTHS, rng)
    for side in (-1, 1):
        for start, end in ((upper[0, 0] + 0.05, rng.uniform(0.05, 0.2)), (lower[0, 0] - 0.05, rng.uniform(0.5, 0.8))):
            line = np.array(
                [(side * half, start, -1.4), (side * 1.06, (start + end) / 2, -1.9), (side * 1.1, end, -2.4)]
            )
            layer.stroke(line, rng.uniform(0.03, 0.055), strap)
    layer.surface(np.stack([u, v, w], axis=2), texture)
    return layer.laid_over(face.image, rng, shadow=rng.uniform(0.15, 0.4))


def _mask_texture(style: str, rng: Generator) -> Texture:
    base, second = _any_of(_CLOTHS, rng), _any_of(_CLOTHS, rng)
    if style == "pleated" and rng.random() < 0.6:
        base = _rgb(str(rng.choice(_CLOTHS[:5]))) + rng.normal(0, 5, 3)
    folds, pattern = int(rng.integers(3, 5)), rng.choice(["plain", "checks", "dots", "stripes", "flowers"])
    count, tilt = rng.uniform(5, 14), rng.uniform(-0.6, 0.6)
    has_print, print_at, print_size = rng.random() < 0.25, rng.uniform(-0.6, 0.6), rng.uniform(0.1, 0.22)

    def texture(across: Floats, down: Floats) -> Floats:
        colours = np.broadcast_to(base, (*across.shape, 3)).copy()
        x, y = across * 1.2 + tilt * down, down * 1.1 - tilt * across
        if style == "sewn" and pattern != "plain":
            wave = np.sin(np.pi * count * x), np.sin(np.pi * count * y)
            is_second = {
                "checks": (wave[0] > 0) ^ (wave[1] > 0),
                "dots": wave[0] * wave[1] > 0.6,
                "stripes": wave[1] > 0.1,
                "flowers": np.hypot(wave[0], wave[1]) + 0.4 * np.sin(9 * np.arctan2(wave[1], wave[0])) < 0.7,
            }[str(pattern)]
            colours[is_second] = second
        if style == "pleated":  # each fold throws a shadow on what is under it
            place = (down * folds) % 1
            colours *= (1 - 0.22 * np.exp(-place / 0.12) * (down > 0.5 / folds))[..., None]
            colours[down < 0.045] *= 0.92  # the wire over the nose
        if style == "moulded":
            colours[np.abs(across) < 0.012] *= 0.8  # the seam
            colours[(np.abs(down - 0.5 - 0.25 * across**2) < 0.012)] *= 0.9
            colours[np.hypot((across - 0.45) * 1.2, down - 0.5) < 0.14 * (pattern == "dots")] = second  # a valve
        if has_print:
            near = (np.abs(across - print_at) < print_size) & (np.abs(down - 0.45) < print_size * 0.5)
            letters = np.sin(across * 90) + np.sin(down * 40 + across * 30) > 0
            colours[near & letters] = second
        edge = (down < 0.03) | (down > 0.965) | (np.abs(across) > 0.965)
        colours[edge] *= 0.86
        return colours

    return texture


def scarf(face: Face, rng: Generator) -> Image:
    """Knitted or woven, around the neck and up over the mouth, often over the nose."""
    layer = Layer(Frame(face))
    top = rng.uniform(0.3, 0.85)
    across, down = _grid(48, 52)
    phase, lift = rng.uniform(0, 6.3), rng.uniform(0.02, 0.09)
    upper = top + lift * np.sin(across * rng.uniform(2, 5) + phase) - rng.uniform(0, 0.3) * across**2
    v = upper + (2.9 - upper) * down
    u = across * (1.12 + 0.25 * down)
    folds = int(rng.integers(3, 6))
    wave = np.sin(2 * np.pi * folds * (down + rng.uniform(0.02, 0.08) * np.sin(3 * across + phase)) + phase)
    ridge = 0.55 * np.exp(-((across / 0.3) ** 2)) * np.interp(v, [0.2, 0.5, 0.9], [0.5, 1, 0.3])
    w = np.maximum(skin_depth(u, v) + ridge, 0.2 - 1.9 * u**2) + 0.25 + 0.12 * wave
    base, second = _any_of(_CLOTHS[5:], rng), _any_of(_CLOTHS, rng)
    ribs, is_checked, band = rng.uniform(18, 34), rng.random() < 0.4, rng.uniform(0.08, 0.2)

    def texture(across: Floats, down: Floats) -> Floats:
        knit = 1 - 0.16 * (np.sin(np.pi * ribs * (across + 0.15 * down)) > 0.2)
        colours = base * knit[..., None]
        if is_checked:
            colours[(across % (4 * band) < band) | (down % (3 * band) < band * 0.7)] = second
        inner = np.sin(2 * np.pi * folds * down + phase)
        return colours * (1 - 0.28 * (inner < -0.6))[..., None]

    layer.surface(np.stack([u, v, w], axis=2), _grain(texture, rng, 0.04))
    return layer.laid_over(face.image, rng, shadow=rng.uniform(0.2, 0.45))


# ── over the eyes ──────────────────────────────────────────────────────────────────────────────────────────────────


def sunglasses(face: Face, rng: Generator) -> Image:
    """Round, square, drop-shaped or in one piece: dark, graded or mirroring."""
    layer = Layer(Frame(face))
    style = rng.choice(["round", "square", "drop", "shield"], p=[0.2, 0.35, 0.3, 0.15])
    frame_colour = _any_of(("121212", "2b1a10", "5a3a1e", "b8a05a", "b9bcc0", "7c1620", "e8e4dc"), rng)
    half, tall = rng.uniform(0.36, 0.47), rng.uniform(0.28, 0.46)
    power = {"round": 2.0, "square": rng.uniform(4, 7), "drop": 2.4, "shield": 5.0}[str(style)]
    middle, high = rng.uniform(0.5, 0.56), rng.uniform(-0.02, 0.08)
    thick, texture = rng.uniform(0.03, 0.1), _lens(rng)
    for side in (-1, 1):  # the arms first: they pass behind the lenses
        arm = np.array([(side * (middle + half), high - 0.12, -0.7), (side * 1.12, high - 0.1, -3.2)])
        layer.stroke(arm, thick * rng.uniform(0.8, 1.4), frame_colour)
    if style == "shield":
        _lens_piece(layer, (0.0, high + 0.05), (middle + half, tall), (power, False), texture, rng)
    else:
        for side in (-1, 1):
            place, shape = (side * middle, high + 0.08), (power, style == "drop")
            rim = _lens_piece(layer, place, (half, tall), shape, texture, rng)
            if rng.random() < 0.9:
                layer.stroke(rim, thick, frame_colour)
        arch = np.linspace(-1, 1, 9)
        across = np.stack([arch * (middle - half + 0.06), high + 0.02 - 0.1 * (1 - arch**2), 0 * arch + 0.72], axis=1)
        layer.stroke(across, thick * rng.uniform(0.9, 1.8), frame_colour)
        if style == "drop" or rng.random() < 0.2:
            layer.stroke(across + np.array([0, -0.16, 0]), thick, frame_colour)
    return layer.laid_over(face.image, rng, shadow=rng.uniform(0.05, 0.25))


def _lens_piece(
    layer: Layer, centre: tuple[float, float], size: tuple[float, float], shape: tuple[float, bool], texture: Texture,
    rng: Generator,
) -> Floats:  # fmt: skip
    """One lens of half a width and a height; its rim as places. Its shape: how square it is, and whether a drop."""
    (u, v), (power, is_drop) = centre, shape
    angles = np.linspace(0, 2 * np.pi, 49)
    reach = (np.abs(np.cos(angles)) ** power + np.abs(np.sin(angles)) ** power) ** (-1 / power)
    rings = np.linspace(0, 1, 17)[:, None]
    x, y = rings * reach * np.cos(angles), rings * reach * np.sin(angles)
    if is_drop:  # lower and wider towards the cheek
        x, y = x + 0.12 * np.sign(u) * y, y * np.where(y > 0, 1.2, 0.8)
    places = np.stack([u + size[0] * x, v + size[1] * y, np.zeros_like(x)], axis=2)
    places[..., 2] = 0.75 - 1.0 * places[..., 0] ** 2

    def by_place(*_: Floats) -> Floats:
        inner = (x[:-1, :-1] + x[1:, 1:]) / 2, (y[:-1, :-1] + y[1:, 1:]) / 2
        return texture(inner[0], (inner[1] + 1) / 2)

    layer.surface(places, by_place, opacity=rng.uniform(0.8, 1), gloss=rng.uniform(0, 0.5))
    return places[-1]


def _lens(rng: Generator) -> Texture:
    kind = rng.choice(["dark", "graded", "mirror"], p=[0.5, 0.25, 0.25])
    tint = _any_of(("101214", "1c140d", "12200f", "0d1626", "2a0f16"), rng)
    sky, ground = _any_of(("7fb4e6", "f2a65a", "c9d6df", "6fd3c2"), rng), _any_of(("2c2a20", "3c2f22", "20303a"), rng)
    streak, lean, gleam = rng.uniform(-0.7, 0.7), rng.uniform(-0.8, 0.8), rng.uniform(0, 110)

    def texture(across: Floats, down: Floats) -> Floats:
        if kind == "mirror":
            share = (1 / (1 + np.exp((down - 0.5 + 0.1 * across) * 9)))[..., None]
            colours = sky * share + ground * (1 - share)
        else:
            share = down[..., None] ** 1.3 if kind == "graded" else np.zeros((*down.shape, 1))
            colours = tint * (1 - 0.5 * share) + 70 * 0.5 * share
        near = np.exp(-(((across - streak - lean * (down - 0.3)) / 0.16) ** 2)) * (down < 0.6)
        return colours + gleam * near[..., None]

    return texture


# ── over the brows ─────────────────────────────────────────────────────────────────────────────────────────────────


def brows_covered(face: Face, rng: Generator) -> Image:
    """A knitted hat, a cap or a fringe, down to the brows or a little over the eyes."""
    kind = rng.choice(["hat", "cap", "fringe"], p=[0.35, 0.25, 0.4])
    layer = Layer(Frame(face))
    edge = rng.uniform(-0.32, -0.1)
    if kind == "fringe":
        _fringe(layer, edge + 0.12, rng)
        return layer.laid_over(face.image, rng, shadow=rng.uniform(0.1, 0.3))
    across, down = _grid(30, 44)
    sag = rng.uniform(-0.1, 0.15)
    v = edge + sag * across**2 - (1.5 + 0.25 * (1 - across**2)) * (1 - down)
    u = across * 1.22 * np.sqrt(np.clip(1 - ((1 - down) * 0.85) ** 3, 0.05, 1))
    w = skin_depth(u, v) + 0.35 - 0.8 * (1 - down) ** 2
    base, second = _any_of(_CLOTHS[5:], rng), _any_of(_CLOTHS, rng)
    ribs, cuff = rng.uniform(14, 30), rng.uniform(0.7, 0.85) if kind == "hat" else 2.0

    def texture(across: Floats, down: Floats) -> Floats:
        rib = np.sin(np.pi * ribs * across) if kind == "hat" else np.cos(np.pi * 3 * across) ** 8 - 0.3
        colours = (base * (1 - 0.14 * (rib > 0.2))[..., None]).copy()
        colours[down > cuff] = (second if ribs > 22 else base * 0.9) * (1 - 0.1 * (rib > 0.2)[down > cuff, None])
        return colours

    layer.surface(np.stack([u, v, w], axis=2), _grain(texture, rng, 0.03))
    if kind == "cap":
        across, down = _grid(8, 30)
        reach = rng.uniform(0.9, 1.6)
        u = across * (1.0 + 0.08 * down)
        v = edge + 0.02 + (0.12 + 0.1 * reach) * down * (1 - 0.6 * across**2)
        w = skin_depth(across * 0.95, 0 * down) + 0.4 + reach * 1.6 * down * (1 - across**2)
        peak = np.stack([u, v, w], axis=2)
        layer.surface(peak, lambda across, _: np.broadcast_to(base * 0.85, (*across.shape, 3)))
    return layer.laid_over(face.image, rng, shadow=rng.uniform(0.3, 0.6) if kind == "cap" else rng.uniform(0.1, 0.35))


def _fringe(layer: Layer, edge: float, rng: Generator) -> None:
    colour, parting = _hair(layer, rng), rng.uniform(-0.9, 0.9)
    lean, wave = rng.uniform(0, 0.3), rng.uniform(0, 6.3)
    for _ in range(420):
        end = rng.uniform(-1.12, 1.12)
        start = end + (parting - end) * lean
        length = edge + rng.normal(0, 0.06) + 0.06 * np.sin(end * 7 + wave) - 0.1 * end**2
        t = np.linspace(0, 1, 8)
        u = start + (end - start) * t**1.4 + rng.normal(0, 0.02) * np.sin(5 * t)
        v = rng.uniform(-1.7, -1.0) * (1 - t) + length * t
        line = np.stack([u, v, skin_depth(u, v) + 0.25 + 0.15 * np.sin(np.pi * t)], axis=1)
        layer.stroke(line, rng.uniform(0.02, 0.06), colour * rng.uniform(0.65, 1.2))


def _hair(layer: Layer, rng: Generator) -> Colour:
    """That of the picture above the forehead, or another."""
    if rng.random() < 0.4:
        return _any_of(_HAIRS, rng)
    image = layer.frame.face.image
    ((x, y),) = (layer.frame.place(np.array([(0.0, -1.45, 0.0)])) / FINE).astype(int)
    x, y = np.clip(x, 8, image.shape[1] - 9), np.clip(y, 8, image.shape[0] - 9)
    return np.asarray(np.quantile(image[y - 8 : y + 9, x - 8 : x + 9].reshape(-1, 3), 0.4, axis=0) + 4)


# ── over one eye ───────────────────────────────────────────────────────────────────────────────────────────────────


def eye_covered(face: Face, rng: Generator) -> Image:
    """Hair that falls over one eye, a patch with its band, or a phone held before it."""
    layer = Layer(Frame(face))
    side = rng.choice([-1, 1])
    kind = rng.choice(["hair", "patch", "phone"], p=[0.5, 0.25, 0.25])
    if kind == "hair":
        colour, root = _hair(layer, rng), rng.uniform(-0.35, 0.1)
        end, wave = rng.uniform(0.7, 1.9), rng.uniform(0, 6.3)
        for _ in range(420):
            t, across = np.linspace(0, 1, 10), rng.random()
            u = side * ((root + across * 1.1) * (1 - t) + (0.2 + across * 0.95) * t + 0.04 * np.sin(5 * t + wave))
            v = rng.uniform(-1.7, -1.2) * (1 - t) + (end + rng.normal(0, 0.18)) * t
            line = np.stack([u, v, skin_depth(u, v) + 0.35], axis=1)
            layer.stroke(line, rng.uniform(0.02, 0.06), colour * rng.uniform(0.65, 1.2))
    elif kind == "patch":
        colour = _any_of(("141414", "e9e2d4", "d8b99a", "4b1d20"), rng)
        band = np.array([(u, -0.05 - 0.45 * side * u, skin_depth(np.array(u), np.array(0.0)) + 0.1)
                         for u in np.linspace(-1.15, 1.15, 12)])  # fmt: skip
        layer.stroke(band, rng.uniform(0.03, 0.09), colour * 0.9)
        angles = np.linspace(0, 2 * np.pi, 40)
        half, tall, power = rng.uniform(0.28, 0.42), rng.uniform(0.26, 0.38), rng.uniform(2, 3.5)
        reach = (np.abs(np.cos(angles)) ** power + np.abs(np.sin(angles)) ** power) ** (-1 / power)
        rings = np.linspace(0, 1, 12)[:, None]
        u, v = side * 0.52 + half * rings * reach * np.cos(angles), 0.03 + tall * rings * reach * np.sin(angles)
        bulge = skin_depth(u, v) + 0.2 + 0.25 * (1 - rings**2)
        layer.surface(np.stack([u, v, bulge], axis=2), lambda across, _: np.broadcast_to(colour, (*across.shape, 3)))
    else:
        _phone(layer, side, rng)
    return layer.laid_over(face.image, rng, shadow=rng.uniform(0.15, 0.45))


def _phone(layer: Layer, side: int, rng: Generator) -> None:
    frame = layer.frame
    body = _any_of(("0f0f12", "e6e6ea", "2d3b55", "c9b8a6", "8c1f2d"), rng)
    is_lying = rng.random() < 0.5
    turn = rng.uniform(-0.4, 0.4) + is_lying * np.pi / 2
    out = 0.5 + 0.55 * is_lying + rng.uniform(0.05, 0.25)  # it reaches to the nose, not to the other eye
    (centre,) = frame.place(np.array([(side * out, rng.uniform(-0.2, 0.15), 1.0)]))
    axes = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))]) * frame.size
    width, height = 0.52 * rng.uniform(0.9, 1.1), 1.1 * rng.uniform(0.9, 1.1)  # half sides: 70 by 150 mm

    def at(x: float, y: float) -> Floats:
        return np.asarray(centre + np.array([x * width, y * height]) @ axes)

    corners = [(-0.9, -1), (0.9, -1), (1, -0.95), (1, 0.95), (0.9, 1), (-0.9, 1), (-1, 0.95), (-1, -0.95), (-0.9, -1)]
    outline = np.array([at(*corner) for corner in corners])
    for inset, shade in ((1.0, 0.7), (0.95, 1.0)):
        layer.fill_pixels(centre + (outline - centre) * inset, body * shade)
    for x, y in ((-0.55, -0.8), (-0.55, -0.62), (-0.2, -0.71)):
        layer.stroke_pixels(np.array([at(x, y), at(x + 0.01, y)]), 0.17 * frame.size, _rgb("08080a"))
    skin = _any_of(_SKINS, rng)
    for y in (0.2, 0.42, 0.64):
        _finger(layer, [at(1.5, y + 0.08), at(1.0, y + 0.04), at(rng.uniform(0.6, 0.75), y)], 0.27, skin)


# ── hands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def hand(face: Face, rng: Generator) -> Image:
    """Fingers over the mouth, the chin and a cheek, the nose, or an eye and its brow; the arm comes from below."""
    layer = Layer(Frame(face))
    frame, skin = layer.frame, _any_of(_SKINS, rng)
    side = rng.choice([-1, 1])
    target = rng.choice(["mouth", "chin", "nose", "eye"], p=[0.35, 0.25, 0.15, 0.25])
    u, v, lean = {
        "mouth": (rng.uniform(-0.6, -0.2), rng.uniform(0.8, 1.1), rng.uniform(60, 100)),
        "chin": (rng.uniform(0.15, 0.5), rng.uniform(0.4, 0.8), rng.uniform(10, 45)),
        "nose": (rng.uniform(-0.2, 0.15), rng.uniform(0.35, 0.55), rng.uniform(25, 75)),
        "eye": (rng.uniform(0.3, 0.55), rng.uniform(-0.45, -0.15), rng.uniform(0, 35)),
    }[str(target)]
    (tip,) = frame.place(np.array([(side * u, v, 0.8)]))
    ((origin, below),) = frame.place(np.array([[(0.0, 0.0, 0.0), (0.0, 1.0, 0.0)]]))
    upright = (origin - below) / np.linalg.norm(origin - below)
    turn = np.radians(-side * lean)
    along = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ upright
    aside, size = np.array([-along[1], along[0]]), frame.size * rng.uniform(0.9, 1.1)
    knuckles = tip - along * 1.25 * size
    wrist = knuckles - along * 1.35 * size
    sleeve = _any_of(_CLOTHS, rng)
    layer.stroke_pixels(
        np.array([wrist - along * 2.5 * size, wrist]), 1.15 * size, sleeve if rng.random() < 0.5 else skin
    )
    palm = [knuckles + aside * 0.62 * size, knuckles - aside * 0.62 * size, wrist - aside * 0.45 * size]
    for shade, width in ((0.82, 0.4), (0.95, 0.3)):
        layer.stroke_pixels(np.array([*palm, wrist + aside * 0.45 * size, palm[0]]), width * size, skin * shade)
    layer.fill_pixels(np.array([*palm, wrist + aside * 0.45 * size]), skin * 0.97)
    spread, bend = rng.uniform(0, 0.16), rng.uniform(-0.1, 0.1)
    lengths = np.array([0.88, 1.0, 0.95, 0.74])[:: rng.choice([-1, 1])]
    for number, length in enumerate(lengths):
        place = number - 1.5
        root = knuckles + aside * 0.32 * place * size
        end = root + (along * 1.25 * length + aside * spread * place * 1.2) * size
        knee = (root + end) / 2 + aside * bend * size * 0.5
        _finger(layer, [root - along * 0.2 * size, knee, end], 0.29 * rng.uniform(0.93, 1.05), skin)
    thumb = side * (1 if rng.random() < 0.8 else -1)
    base = wrist + along * 0.5 * size + aside * thumb * 0.5 * size
    _finger(layer, [base, base + (along * 0.45 + aside * thumb * 0.4) * size,
                    base + (along * 0.95 + aside * thumb * rng.uniform(0.3, 0.6)) * size], 0.31, skin)  # fmt: skip
    return layer.laid_over(face.image, rng, shadow=rng.uniform(0.25, 0.5))


def _finger(layer: Layer, points: list[Floats], width: float, skin: Colour) -> None:
    """A bent finger as a rod that is lit from before, with a line at its joint and a nail."""
    joints, size = np.array(points), layer.frame.size
    layer.stroke_pixels(joints, (width + 0.03) * size, skin * 0.72)  # the dark gap to its neighbour
    for share, shade in ((1.0, 0.8), (0.85, 0.9), (0.6, 1.0), (0.3, 1.06)):
        layer.stroke_pixels(joints, width * size * share, skin * shade)
    tip, before = joints[-1], joints[-2]
    along = (tip - before) / np.linalg.norm(tip - before)
    aside = np.array([-along[1], along[0]]) * width * 0.4 * size
    for at in (joints[1], joints[1] + along * width * 0.14 * size):
        layer.stroke_pixels(np.array([at - aside, at + aside]), 0.015 * size, skin * 0.72)
    nail = np.array([tip - along * 0.04 * size, tip + along * 0.06 * size])
    layer.stroke_pixels(nail, width * 0.55 * size, (skin * 0.75 + 60).clip(0, 245))


COVERS: dict[str, Cover] = {
    "mask": mask,
    "scarf": scarf,
    "sunglasses": sunglasses,
    "brows covered": brows_covered,
    "eye covered": eye_covered,
    "hand": hand,
}
