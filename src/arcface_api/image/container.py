"""What remains of a picture's file when its container is taken apart, and the orientation in its EXIF data."""

import struct
from enum import StrEnum
from typing import NamedTuple

from arcface_api.errors import ImageDamaged

EXIF_PREFIX = b"Exif\0\0"
"""Precedes the data in a JPEG. Some writers (libvips, and so sharp) also put it into WebP and PNG files."""
UPRIGHT = 1
MAX_EXIF_ENTRIES = 64
"""A camera's first directory has about a dozen, in the order of their tags, and the orientation is among the first."""

_ORIENTATION_TAG = 0x0112
_VALUE_FORMATS = {3: "H", 4: "I"}  # TIFF's types SHORT and LONG
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


class ImageFormat(StrEnum):
    """The picture formats that can be read."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


class Container(NamedTuple):  # takes half as long to make as a frozen dataclass, for each picture
    """The bytes that a picture's pixels need; its size in pixels, as stored; EXIF's orientation, 1 to 8."""

    format: ImageFormat
    width: int
    height: int
    pixel_file: bytes
    """A file of the same format with nothing but the picture's pixels: all that a decoder gets."""
    orientation: int = UPRIGHT
    left: int = 0
    top: int = 0
    """Where the pixels lie on the picture; not (0, 0) only in a WebP animation."""
    lacks_scans: bool = False
    """A JPEG that ends before every coefficient of every channel has come with all its bits."""

    def __str__(self) -> str:
        return f"{self.format} of {self.width}x{self.height} pixels"


def damaged(what: Container | ImageFormat) -> ImageDamaged:
    """The error of a file that ends too early or contradicts itself."""
    name = what if isinstance(what, Container) else f"{what} file"
    return ImageDamaged(f"The {name} cannot be decoded: it is truncated or corrupt. Send the whole file.")


def orientation_in(exif: bytes) -> int:
    """Read the orientation, 1 to 8, from EXIF data with or without `EXIF_PREFIX`; 1 if there is none.

    Only the first directory is read. Sources: TIFF 6.0, section 2; CIPA DC-008 (EXIF), tag 0x0112.
    """
    tiff = exif.removeprefix(EXIF_PREFIX)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return UPRIGHT
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return UPRIGHT
    (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for number in range(min(entries, MAX_EXIF_ENTRIES)):
        entry = directory + 2 + 12 * number
        if entry + 12 > len(tiff):
            break
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == _ORIENTATION_TAG and kind in _VALUE_FORMATS:
            (value,) = struct.unpack_from(f"{order}{_VALUE_FORMATS[kind]}", tiff, entry + 8)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
