"""What is left of a picture's file once its container was taken apart."""

from enum import StrEnum
from typing import NamedTuple

from arcface_api.errors import ImageDamaged


class ImageFormat(StrEnum):
    """The picture formats that are read."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


class Container(NamedTuple):  # made in half the time of a frozen dataclass, for each picture
    """One picture: the bytes that its pixels need, and what its file said about it.

    All sizes are in pixels, as stored, before the orientation is applied.
    """

    format: ImageFormat
    width: int
    height: int
    pixel_file: bytes
    """A file of the same format with nothing but the picture's pixels. A decoder gets this and nothing else."""
    orientation: int = 1
    """EXIF's: 1 (upright) to 8."""
    left: int = 0
    top: int = 0
    """Where the pixels lie on the picture; anywhere but at (0, 0) only in a WebP animation."""


def damaged(image_format: ImageFormat) -> ImageDamaged:
    """The error of a file that ends too early or contradicts itself."""
    return ImageDamaged(f"The {image_format} file cannot be decoded: it is truncated or corrupt. Send the whole file.")
