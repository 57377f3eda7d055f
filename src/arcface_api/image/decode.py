"""Bytes to an upright RGB picture, within limits that are checked before decoding."""

from dataclasses import dataclass

import cv2
import numpy as np

from arcface_api.arrays import Image
from arcface_api.errors import ImageDamaged, ImageTooManyPixels
from arcface_api.image.header import Header, ImageFormat, read_header

# A damaged upload is its sender's news: OpenCV would write lines to this service's stderr for each. (libpng and libjpeg
# inside it still write one.)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


MAX_SIDE_PIXELS = 1_000_000
"""libpng's limit of width and height (`PNG_USER_WIDTH_MAX`)."""


JPEG_END = b"\xff\xd9"
"""The marker that ends a JPEG. Source: ITU-T T.81, table B.1."""


@dataclass(frozen=True)
class ImageLimits:
    """What an image may measure."""

    max_pixels: int
    """Width x height."""


def decode(content: bytes, limits: ImageLimits) -> Image:
    """Decode a JPEG, PNG or WebP file to an upright RGB picture.

    The result is what OpenCV's `IMREAD_COLOR` gives, in RGB order: EXIF orientation applied, grayscale, palette and
    CMYK converted, alpha dropped (not blended), 16 bits reduced to 8.

    Args:
        content: The file's bytes.
        limits: Checked against the header, before anything is decoded.

    Returns:
        (h, w, 3) uint8, RGB.

    Raises:
        ImageEmpty, ImageFormatUnsupported: As `read_header`.
        ImageTooManyPixels: The header announces more than `limits.max_pixels`.
        ImageDamaged: The file is truncated or corrupt.
    """
    header = read_header(content)
    _check_size(header, limits)
    # A partial download can be padded to its full length, and then decodes to a picture that is grey below.
    if header.format is ImageFormat.JPEG and content.rfind(JPEG_END) < header.data_offset:
        raise _damaged(header)
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise _damaged(header) from error
    if picture is None:
        raise _damaged(header)
    return picture  # type: ignore[return-value]  # OpenCV's stub cannot know that IMREAD_COLOR gives uint8


def _check_size(header: Header, limits: ImageLimits) -> None:
    if max(header.width, header.height) > MAX_SIDE_PIXELS:
        raise ImageTooManyPixels(
            f"The {header.format} has {header.width}x{header.height} pixels; no side may have more than"
            f" {MAX_SIDE_PIXELS:,}. Send the face crop."
        )
    pixels = header.width * header.height
    if pixels > limits.max_pixels:
        raise ImageTooManyPixels(
            f"The {header.format} has {header.width}x{header.height} = {pixels:,} pixels; at most"
            f" {limits.max_pixels:,} are allowed. Send the face crop, not the whole photo, or make it smaller."
        )


def _damaged(header: Header) -> ImageDamaged:
    return ImageDamaged(
        f"The {header.format} of {header.width}x{header.height} pixels cannot be decoded: it is truncated or corrupt."
        " Send the whole file."
    )
