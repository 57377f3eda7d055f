"""Bad light, movement and cameras, as training sees them: quick imitations on the values of the crop.

What checks the result (`check_light.py`) computes light itself, by other formulas.
"""

import cv2
import numpy as np
from numpy.random import Generator

from arcface_api.arrays import Image

NOISE = np.random.default_rng(0).normal(0, 1, 2**20).astype(np.float32)
"""Drawn once: a fresh draw for each crop would cost more than everything else."""


def noise_like(image: Image, rng: Generator, planes: int) -> np.ndarray:
    """Standard normal, (h, w, planes) float32."""
    count = image.shape[0] * image.shape[1] * planes
    start = rng.integers(len(NOISE) - count)
    return NOISE[start : start + count].reshape(*image.shape[:2], planes)


def dim(image: Image, rng: Generator) -> Image:
    """Too little light, with noise that grows with it: dark, or amplified again."""
    values = image.astype(np.float32) * np.float32(np.exp(rng.uniform(np.log(0.06), np.log(0.5))))
    grain = np.sqrt(values + 1) * noise_like(image, rng, 3) * np.float32(rng.uniform(0.2, 2.0))
    amplified = np.exp(rng.uniform(0, np.log(4)))
    return np.clip((values + grain) * np.float32(amplified), 0, 255).astype(np.uint8)


def hard_shadow(image: Image, rng: Generator) -> Image:
    """An edge, a corner or a band of shadow across the face, sharp or soft."""
    height, width = image.shape[:2]
    shade = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 4)):
        turn = rng.uniform(0, 2 * np.pi)
        centre = rng.uniform(0.2, 0.8, 2) * (width, height)
        along, aside = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        far, deep = 3 * max(height, width), rng.choice([0.1, 0.25, 3.0]) * max(height, width)
        corners = [centre - along * far, centre + along * far, centre + along * far + aside * deep]
        corners.append(centre - along * far + aside * deep)
        cv2.fillConvexPoly(shade, np.round(corners).astype(np.int32), 255)
    reach = max(1, round(max(height, width) * rng.choice([0.01, 0.03, 0.1])))
    light = 1 - cv2.blur(shade, (reach, reach)).astype(np.float32) * np.float32(rng.uniform(0.4, 0.93) / 255)
    return np.clip(image * (np.float32(rng.uniform(0.9, 1.5)) * light)[..., None], 0, 255).astype(np.uint8)


def backlight(image: Image, rng: Generator) -> Image:
    """A bright surrounding and a dark, pale face."""
    height, width = image.shape[:2]
    bright = np.full((height, width), 255, np.uint8)
    centre = (round(width * rng.uniform(0.35, 0.65)), round(height * rng.uniform(0.4, 0.65)))
    axes = (max(1, round(width * rng.uniform(0.3, 0.5))), max(1, round(height * rng.uniform(0.35, 0.6))))
    cv2.ellipse(bright, centre, axes, rng.uniform(-20, 20), 0, 360, 0, -1)
    reach = max(1, round(max(height, width) * rng.uniform(0.02, 0.3)))
    glow = cv2.blur(bright, (reach, reach)).astype(np.float32)[..., None] * np.float32(rng.uniform(0.3, 1.2))
    return np.clip(image * np.float32(rng.uniform(0.15, 0.6)) + glow + rng.uniform(0, 50), 0, 255).astype(np.uint8)


def infrared(image: Image, rng: Generator) -> Image:
    """Grey of any mixture of the colours, brightest in the middle."""
    mixture = rng.uniform(-0.3, 1.4, 3)
    mixture[0] = abs(mixture[0]) + 0.3
    grey = cv2.transform(image, (mixture / max(mixture.sum(), 0.5))[None].astype(np.float32))
    height, width = grey.shape[:2]
    falloff = rng.uniform(0, 1.2)
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    lamp = 1 / (1 + falloff * (x[None] ** 2 + y[:, None] ** 2))
    lit = np.clip(grey * lamp * np.float32(rng.uniform(0.7, 1.6)), 0, 255).astype(np.uint8)
    return cv2.cvtColor(lit, cv2.COLOR_GRAY2RGB)


def cast(image: Image, rng: Generator) -> Image:
    """The colour of lamps, screens and wrong white balance."""
    return cv2.multiply(image, (*np.exp(rng.normal(0, 0.25, 3)).tolist(), 1.0))


def moved(image: Image, rng: Generator) -> Image:
    """Moved in a straight line by up to a seventh of the crop."""
    length = max(3, round(max(image.shape) * rng.uniform(0.02, 0.14)) | 1)
    kernel = np.zeros((length, length), np.float32)
    middle, turn = (length - 1) / 2, rng.uniform(0, np.pi)
    along = middle * np.array([np.cos(turn), np.sin(turn)])
    start, end = np.round(middle - along).astype(int), np.round(middle + along).astype(int)
    cv2.line(kernel, start.tolist(), end.tolist(), 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())
