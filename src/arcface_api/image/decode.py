"""Bytes to an upright RGB picture, within limits that are checked before decoding.

    bytes ──take_apart──▶ Container ──limits──▶ pixel_file ──OpenCV──▶ pixels ──canvas, orientation──▶ Image

OpenCV never sees a container as it was sent (docs/adr/0003). A large JPEG can be decoded at 1/2, 1/4 or 1/8 of its size
(DCT scaling): of each 8x8 block libjpeg then computes only 4x4, 2x2 or one pixel, which takes less time and memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from arcface_api.arrays import Image
from arcface_api.errors import ImageDamaged, ImageTooManyPixels
from arcface_api.image.container import Container, ImageFormat
from arcface_api.image.decoder_process import REDUCTIONS, decode_pixels
from arcface_api.image.exif import UPRIGHT
from arcface_api.image.formats import take_apart
from arcface_api.image.png import unpacks_to_more_than_pixels

MAX_SIDE_PIXELS = 1_000_000
"""libpng's limit of width and height (`PNG_USER_WIDTH_MAX`)."""


EXACT_UP_TO_PIXELS = 1_000_000
"""Width x height up to which a JPEG is never reduced: detectors' crops are below, and their vectors must not change."""

PixelsOf = Callable[[Container, int], Image | None]
"""Decodes a container's `pixel_file`, a JPEG's with its sides divided by 2, 4 or 8; None where it cannot be decoded."""


@dataclass(frozen=True)
class ImageLimits:
    """What an image may measure."""

    max_pixels: int
    """Width x height."""


class Decoded(NamedTuple):
    """A picture, and by how much it was reduced."""

    image: Image
    """(h, w, 3) uint8, RGB, upright. Reduced n times, a side has 1/n of the file's pixels, rounded up."""
    reduction: float
    """How many of the file's pixels one of the image's is wide."""


def pixels_here(container: Container, divisor: int) -> Image | None:
    """What the decoder makes of a picture, in this process: a `PixelsOf`."""
    return decode_pixels(container.pixel_file, divisor)


def decode(
    content: bytes, limits: ImageLimits, least_side: int | None = None, pixels_of: PixelsOf = pixels_here
) -> Decoded:
    """Decode a JPEG, PNG or WebP file to an upright RGB picture.

    The result is what OpenCV's `IMREAD_COLOR` gives, in RGB order: grayscale, palette and CMYK converted, alpha dropped
    (not blended), 16 bits reduced to 8; then turned as EXIF says. Of an animation or a file of several pictures it is
    the first one; of an animated PNG, the one that viewers without animation show.

    Args:
        content: The file's bytes.
        limits: Checked against the header, before anything is decoded.
        least_side: Pixels. A JPEG of more than `EXACT_UP_TO_PIXELS` is reduced to 1/2, 1/4 or 1/8 as long as neither of
            its sides becomes shorter than this. None: every picture keeps its size.
        pixels_of: What decodes.

    Raises:
        ImageEmpty, ImageFormatUnsupported: As `take_apart`.
        ImageTooManyPixels: The header announces more than `limits.max_pixels`.
        ImageDamaged: The file is truncated or corrupt, or built to cost more than its pixels do; or as `pixels_of`.
    """
    container = take_apart(content)
    _check_size(container, limits)
    if container.format is ImageFormat.PNG and unpacks_to_more_than_pixels(container):
        raise _damaged(container)
    divisor = 1 if least_side is None else _divisor(container, least_side)
    pixels = pixels_of(container, divisor)
    if pixels is None:
        raise _damaged(container)
    stored = _on_canvas(pixels, container, divisor)
    reduction = 1.0 if divisor == 1 else max(container.width, container.height) / max(stored.shape[:2])
    return Decoded(_upright(stored, container.orientation), reduction)


def _on_canvas(pixels: Image, container: Container, divisor: int) -> Image:
    """The whole picture: black where a frame does not cover it."""
    height, width = -(-container.height // divisor), -(-container.width // divisor)
    if pixels.shape == (height, width, 3):
        return pixels
    bottom, right = container.top + pixels.shape[0], container.left + pixels.shape[1]
    if divisor > 1 or bottom > height or right > width:
        raise _damaged(container)
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[container.top : bottom, container.left : right] = pixels
    return canvas


def _upright(stored: Image, orientation: int) -> Image:
    """Undo what EXIF says was done to the picture when it was stored. Source: CIPA DC-008 (EXIF), tag 0x0112."""
    if orientation == UPRIGHT:
        return stored
    if orientation in (5, 6, 7, 8):
        stored = cv2.transpose(stored)  # type: ignore[assignment]  # OpenCV's stub does not know the dtype
    if orientation in (2, 6):
        return cv2.flip(stored, 1)  # type: ignore[return-value]  # as above
    if orientation in (4, 8):
        return cv2.flip(stored, 0)  # type: ignore[return-value]  # as above
    if orientation in (3, 7):
        return cv2.flip(stored, -1)  # type: ignore[return-value]  # as above
    return stored


def _divisor(container: Container, least_side: int) -> int:
    """By what a picture's sides may be divided: 8, 4, 2, or 1."""
    if container.format is not ImageFormat.JPEG or container.width * container.height <= EXACT_UP_TO_PIXELS:
        return 1
    shorter = min(container.width, container.height)
    return next((divisor for divisor in REDUCTIONS if shorter >= least_side * divisor), 1)


def _check_size(container: Container, limits: ImageLimits) -> None:
    if max(container.width, container.height) > MAX_SIDE_PIXELS:
        raise ImageTooManyPixels(
            f"The {container.format} has {container.width}x{container.height} pixels; no side may have more than"
            f" {MAX_SIDE_PIXELS:,}. Send the face crop."
        )
    pixels = container.width * container.height
    if pixels > limits.max_pixels:
        raise ImageTooManyPixels(
            f"The {container.format} has {container.width}x{container.height} = {pixels:,} pixels; at most"
            f" {limits.max_pixels:,} are allowed. Send the face crop, not the whole photo, or make it smaller."
        )


def _damaged(container: Container) -> ImageDamaged:
    return ImageDamaged(
        f"The {container.format} of {container.width}x{container.height} pixels cannot be decoded: it is truncated or"
        " corrupt. Send the whole file."
    )
