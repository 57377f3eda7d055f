"""Bytes to an upright RGB picture, within limits that are checked before decoding.

A large JPEG can be decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling): of each 8x8 block libjpeg then computes only
4x4, 2x2 or one pixel, which takes less time and memory (docs/adr/0003).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from arcface_api.arrays import Image
from arcface_api.errors import ImageDamaged, ImageTooManyPixels
from arcface_api.image.header import JPEG_MAX_SCANS, Header, ImageFormat, read_header, scans
from arcface_api.image.png import for_decoder

# A damaged upload is its sender's news: OpenCV would write lines to this service's stderr for each. (libpng and libjpeg
# inside it still write one.)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


MAX_SIDE_PIXELS = 1_000_000
"""libpng's limit of width and height (`PNG_USER_WIDTH_MAX`)."""


JPEG_END = b"\xff\xd9"
"""The marker that ends a JPEG. Source: ITU-T T.81, table B.1."""


EXACT_UP_TO_PIXELS = 1_000_000
"""Width x height up to which a JPEG is never reduced: detectors' crops are below, and their vectors must not change."""

# Strongest first.
_REDUCTIONS = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)


@dataclass(frozen=True)
class ImageLimits:
    """What an image may measure."""

    max_pixels: int
    """Width x height."""


def decode(content: bytes, limits: ImageLimits, least_side: int | None = None) -> Image:
    """Decode a JPEG, PNG or WebP file to an upright RGB picture.

    The result is what OpenCV's `IMREAD_COLOR` gives, in RGB order: EXIF orientation applied, grayscale, palette and
    CMYK converted, alpha dropped (not blended), 16 bits reduced to 8.

    Args:
        content: The file's bytes.
        limits: Checked against the header, before anything is decoded.
        least_side: Pixels. A JPEG of more than `EXACT_UP_TO_PIXELS` is reduced to 1/2, 1/4 or 1/8 as long as neither of
            its sides becomes shorter than this. None: every picture keeps its size.

    Returns:
        (h, w, 3) uint8, RGB; a reduced picture has 1/n of the file's sides, rounded up.

    Raises:
        ImageEmpty, ImageFormatUnsupported: As `read_header`.
        ImageTooManyPixels: The header announces more than `limits.max_pixels`.
        ImageDamaged: The file is truncated or corrupt, or built to cost more than its pixels do.
    """
    header = read_header(content)
    _check_size(header, limits)
    if header.format is ImageFormat.JPEG:
        _check_jpeg(content, header)
    elif header.format is ImageFormat.PNG:
        content = _checked_png(content, header)
    reduction = None if least_side is None else _reduction(header, least_side)
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), reduction or cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise _damaged(header) from error
    if picture is None:
        raise _damaged(header)
    if reduction is not None:  # OpenCV has reduced flags for BGR only
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)
    return picture  # type: ignore[return-value]  # OpenCV's stub cannot know that IMREAD_COLOR gives uint8


def _reduction(header: Header, least_side: int) -> int | None:
    """OpenCV's flag for the strongest reduction that is allowed; None where none is."""
    if header.format is not ImageFormat.JPEG or header.width * header.height <= EXACT_UP_TO_PIXELS:
        return None
    shorter = min(header.width, header.height)  # so EXIF, which may swap them, changes nothing
    return next((flag for divisor, flag in _REDUCTIONS if shorter >= least_side * divisor), None)


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


def _check_jpeg(content: bytes, header: Header) -> None:
    # A partial download can be padded to its full length, and then decodes to a picture that is grey below.
    if content.rfind(JPEG_END) < header.data_offset:
        raise _damaged(header)
    if scans(content, header) > JPEG_MAX_SCANS:
        raise ImageDamaged(
            f"The JPEG of {header.width}x{header.height} pixels has more than {JPEG_MAX_SCANS} scans, as no camera or"
            " encoder writes it. Save the picture anew."
        )


def _checked_png(content: bytes, header: Header) -> bytes:
    checked = for_decoder(content)
    if checked is None:
        raise _damaged(header)
    return checked


def _damaged(header: Header) -> ImageDamaged:
    return ImageDamaged(
        f"The {header.format} of {header.width}x{header.height} pixels cannot be decoded: it is truncated or corrupt."
        " Send the whole file."
    )
