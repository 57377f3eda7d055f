"""Bad light and movement that check the regressor, computed in linear light as a camera collects it.

    LIGHTS[kind](crop, rng) ──▶ crop

Training (`light.py`) imitates the same on the crop's own values, by other formulas and other amounts.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from arcface_api.arrays import Image

Light = Callable[[Image, Generator], Image]
Linear = NDArray[np.float32]
"""(h, w, 3): 0 dark, 1 white."""


def _linear(image: Image) -> Linear:
    """IEC 61966-2-1."""
    levels = np.linspace(0, 1, 256)
    table = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return table[image]


def _shown(light: Linear) -> Image:
    light = light.clip(0, 1)
    levels = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * levels + 0.5).astype(np.uint8)


def dark_and_noisy(image: Image, rng: Generator) -> Image:
    """3.5 to 5.5 stops too little light, part of it amplified again: photons counted, and the sensor's own noise."""
    photons, read_noise = np.exp(rng.uniform(np.log(25), np.log(120))), rng.uniform(0.5, 2.5)
    tint = np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    counted = rng.poisson(_linear(image) * tint * photons) + rng.normal(0, read_noise, image.shape)
    kept = np.exp2(-rng.uniform(1.5, 3.5))
    return _shown((counted / photons * kept).astype(np.float32))


def motion_blur(image: Image, rng: Generator) -> Image:
    """Moved by 9 % of the longer side in any direction, on a slightly bent path."""
    length, turn, bend = 0.09 * max(image.shape[:2]), rng.uniform(0, np.pi), rng.uniform(-0.15, 0.15)
    light, total = _linear(image), np.zeros(image.shape, np.float32)
    steps = np.linspace(-0.5, 0.5, max(5, round(2 * length)))
    for step in steps:
        along, aside = length * step, length * bend * (4 * step**2 - 1 / 3)
        x, y = along * np.cos(turn) - aside * np.sin(turn), along * np.sin(turn) + aside * np.cos(turn)
        move = np.array([[1, 0, x], [0, 1, y]])
        total += cv2.warpAffine(light, move, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return _shown(total / len(steps))


def backlight(image: Image, rng: Generator) -> Image:
    """A bright sky or window behind: the face is exposed 1.5 to 3 stops too low, and stray light veils it."""
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    beyond = np.hypot(x / rng.uniform(0.75, 0.95), (y - 0.1) / rng.uniform(0.9, 1.1))
    behind = (1 / (1 + np.exp(-(beyond - 1) * rng.uniform(10, 25)))).astype(np.float32)[..., None]
    stray = cv2.GaussianBlur(behind, (0, 0), 0.25 * max(height, width))[..., None] * rng.uniform(0.02, 0.12)
    light = _linear(image)
    sky = np.array([1.0, 1.0, 1.05], np.float32) * rng.uniform(0.8, 1.3)
    return _shown(light * np.exp2(-rng.uniform(1.5, 3)) * (1 - behind) + (0.3 * light + sky) * behind + stray)


def hard_shadow(image: Image, rng: Generator) -> Image:
    """The sun through blinds or leaves, or past an edge: parts of the face get a tenth to a third of the light."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    turn, size = rng.uniform(0, 2 * np.pi), max(height, width)
    across = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn)
    along = (y - 0.5) * np.cos(turn) - (x - 0.5) * np.sin(turn)
    kind = rng.choice(["edge", "blinds", "leaves"])
    if kind == "edge":
        lit = across > 0.15 * np.sin(along * rng.uniform(2, 7)) + rng.uniform(-0.15, 0.15)
    elif kind == "blinds":
        lit = (across * rng.uniform(3, 7)) % 1 > rng.uniform(0.35, 0.6)
    else:
        coarse = rng.normal(0, 1, (int(rng.integers(4, 8)), int(rng.integers(4, 8)))).astype(np.float32)
        lit = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) > rng.uniform(-0.2, 0.3)
    soft = cv2.GaussianBlur(lit.astype(np.float32), (0, 0), size * rng.uniform(0.004, 0.02))[..., None]
    dark = rng.uniform(0.1, 0.33) * np.array([0.9, 1, 1.15], np.float32)
    return _shown(_linear(image) * rng.uniform(1, 1.6) * (dark + (1 - dark) * soft))


def infrared(image: Image, rng: Generator) -> Image:
    """A camera's own infrared lamp at night: grey, bright skin, dark surroundings, pale lips, grain."""
    height, width = image.shape[:2]
    red, green, blue = np.moveaxis(_linear(image), 2, 0)
    grey = 1.5 * red - 0.2 * green - 0.15 * blue + 0.06
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    lamp = np.exp(-((x - rng.uniform(-0.2, 0.2)) ** 2 + (y - rng.uniform(-0.3, 0.2)) ** 2) / rng.uniform(0.5, 1.2))
    light = grey.clip(0, 1.2) * lamp * rng.uniform(0.8, 1.8) + rng.normal(0, rng.uniform(0.004, 0.02), grey.shape)
    return _shown(np.repeat(light.astype(np.float32)[..., None], 3, axis=2))


LIGHTS: dict[str, Light] = {
    "dark and noisy": dark_and_noisy,
    "motion blur 9 %": motion_blur,
    "backlight": backlight,
    "hard shadow": hard_shadow,
    "infrared": infrared,
}
