"""From a file to an upright RGB picture, and from a picture to the crop that a model takes.

    bytes ─take_apart─▶ Container ─limits─▶ pixel_file ─decoder─▶ pixels ─canvas, orientation─▶ Image ─stretch─▶ Crop

No decoder sees a file as it was sent (docs/adr/0003). A large JPEG can be decoded at 1/2, 1/4 or 1/8 of its size (DCT
scaling), which takes less time and memory.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import cv2
import numpy as np

from arcface_api.arrays import Crop, Image
from arcface_api.errors import ImageDamaged, ImageEmpty, ImageFormatUnsupported, ImageTooManyPixels
from arcface_api.image import jpeg, png, webp
from arcface_api.image.container import UPRIGHT, Container, ImageFormat, damaged
from arcface_api.image.decoder_process import REDUCTIONS, Pixels, decode_pixels

MAX_SIDE_PIXELS = 1_000_000
"""libpng's limit of width and height (`PNG_USER_WIDTH_MAX`)."""
EXACT_UP_TO_PIXELS = 1_000_000
"""Width x height up to which a JPEG is never reduced: detectors' crops are smaller and keep their vectors."""
OVERSAMPLING = 2
"""Least pixels of a reduced picture for one of the crop, along each side."""

PixelsOf = Callable[[Container, int], Pixels | None]
"""Decodes a container's `pixel_file`, with a JPEG's sides divided by 1, 2, 4 or 8; None if it cannot be decoded."""

# The offset of a signature, and what a file with it is.
_SIGNATURES: tuple[tuple[int, bytes | tuple[bytes, ...], str], ...] = (
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (0, (b"II*\x00", b"MM\x00*"), "a TIFF image"),
    (0, b"\x00\x00\x01\x00", "a Windows icon"),
    (0, b"8BPS", "a Photoshop file"),
    (0, (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (0, (b"\xff\x0a", b"\x00\x00\x00\x0cJXL "), "a JPEG XL image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip-compressed data"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
)
# Any of its brands says what an ISO media file is. Newer phones write another major one than heic (ISO/IEC 23008-12).
_BRANDS = (
    ({b"avif", b"avis"}, "an AVIF image"),
    ({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}, "a HEIC/HEIF image"),
    ({b"mif1", b"msf1", b"mif2"}, "a HEIF image"),
)
_BRANDS_BYTES = 512
"""More than any file's list of brands takes."""
# What reading as text, in any encoding, makes of the first bytes of a JPEG, PNG or WebP. EF BF BD stands for a byte
# that is no text, FF FE begins UTF-16 (PowerShell's `>`). PNG's signature has line ends, to show changes of them.
_READ_AS_TEXT = re.compile(
    rb"\xef\xbf\xbd|\xff\xfe|\xc3\xbf\xc3\x98\xc3\xbf|.{0,3}PNG\r*\n\x1a|.{0,16}(?:JFIF|Exif)\0|RIFF.{0,16}WEBP",
    re.DOTALL,
)
# Compared in lower case, after white space and a byte-order mark.
_TEXT_OPENINGS: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    ((b"<!doctype html", b"<html"), "an HTML page"),
    (b"<svg", "an SVG document"),
    (b"<?xml", "an XML document"),
    (b"[object ", "the name of a JavaScript object, not its bytes"),
    ((rb"b'\xff\xd8", rb"b'\x89png", rb'b"\xff\xd8', rb'b"\x89png'), "Python's text of a bytes object, not the bytes"),
    ((b"{", b"["), "JSON text, which is read if its Content-Type is application/json"),
    (b"data:image/", "a data: URL"),
    (b"/9j/", "Base64 text of a JPEG, not its bytes"),
    (b"ivborw0kggo", "Base64 text of a PNG, not its bytes"),
    (b"uklgr", "Base64 text of a WebP, not its bytes"),
)


@dataclass(frozen=True)
class ImageLimits:
    """The most pixels, width x height, that an image may have."""

    max_pixels: int


class Resize(StrEnum):
    """Whether a large JPEG may be decoded at a fraction of its size (`auto`), or never (`exact`)."""

    AUTO = "auto"
    EXACT = "exact"


class Decoded(NamedTuple):
    """A picture, (h, w, 3) uint8, RGB, upright."""

    image: Image
    reduction: float
    """The width of one of its pixels, in pixels of the file."""
    is_truncated: bool
    """Some of its data are missing, although the file has an end."""


def decode(
    content: bytes, limits: ImageLimits, least_side: int | None = None, pixels_of: PixelsOf | None = None
) -> Decoded:
    """Decode a JPEG, PNG or WebP file to an upright RGB picture, in this process or with `pixels_of`.

    The result is what OpenCV's `IMREAD_COLOR` gives, in RGB order: grayscale, palette and CMYK converted, alpha dropped
    (not blended), 16 bits reduced to 8; then turned as EXIF says. Of several pictures in a file it is the first one; of
    an animated PNG, the one that viewers without animation show. With `least_side`, a JPEG of more than
    `EXACT_UP_TO_PIXELS` is reduced to 1/2, 1/4 or 1/8 (rounded up) as long as neither side becomes shorter than that.

    Raises:
        ImageEmpty, ImageFormatUnsupported: As `take_apart`.
        ImageTooManyPixels: The header announces more than `limits.max_pixels`.
        ImageDamaged: The file is truncated or corrupt, or built to cost more than its pixels do; or as `pixels_of`.
    """
    container = take_apart(content)
    width, height = container.width, container.height
    if max(width, height) > MAX_SIDE_PIXELS:
        raise ImageTooManyPixels(
            f"The {container} is too large: no side may have more than {MAX_SIDE_PIXELS:,}. Send the face crop."
        )
    if width * height > limits.max_pixels:
        raise ImageTooManyPixels(
            f"The {container.format} has {width}x{height} = {width * height:,} pixels; at most {limits.max_pixels:,}"
            " are allowed. Send the face crop, not the whole photo, or make it smaller."
        )
    if container.format is ImageFormat.PNG and png.unpacks_to_more_than_pixels(container):
        raise damaged(container)
    divisor = 1
    if least_side is not None and container.format is ImageFormat.JPEG and width * height > EXACT_UP_TO_PIXELS:
        divisor = next((divisor for divisor in REDUCTIONS if min(width, height) >= least_side * divisor), 1)
    decoded = pixels_of(container, divisor) if pixels_of else decode_pixels(container.pixel_file, divisor)
    if decoded is None:
        raise damaged(container)
    pixels = decoded.array
    if pixels.shape != (-(-height // divisor), -(-width // divisor), 3):
        if divisor > 1:
            raise damaged(container)
        pixels = _on_canvas(pixels, container)
    reduction = 1.0 if divisor == 1 else max(width, height) / max(pixels.shape[:2])
    if container.orientation != UPRIGHT:
        pixels = _upright(pixels, container.orientation)
    return Decoded(pixels, reduction, decoded.lack_data or container.lacks_scans)


def take_apart(content: bytes) -> Container:
    """Recognise a picture's format by its content, and keep of its file what the pixels need; decodes nothing.

    Raises:
        ImageEmpty: There are no bytes.
        ImageFormatUnsupported: The content is something else; the message names what.
        ImageDamaged: The file is cut off, contradicts itself, or announces no pixels.
    """
    if not content:
        raise ImageEmpty("The image is empty (0 bytes). Send the bytes of a JPEG, PNG or WebP file.")
    if content.startswith(jpeg.SIGNATURE):
        container = jpeg.take_apart(content)
    elif content.startswith(png.SIGNATURE):
        container = png.take_apart(content)
    elif content.startswith(b"RIFF") and content.startswith(b"WEBP", 8):
        container = webp.take_apart(content)
    else:
        raise ImageFormatUnsupported(
            f"The file is {_name_content(content)}. Allowed are JPEG, PNG and WebP, recognised by their content:"
            " convert it, or send the picture's own bytes."
        )
    if container.width == 0 or container.height == 0:
        raise ImageDamaged(
            f"The {container.format} header announces {container.width}x{container.height} pixels. Send at least 1x1."
        )
    return container


def stretch(image: Image, height: int, width: int) -> Crop:
    """Stretch a (h, w, 3) image to `height` x `width` pixels; one of that size is returned itself.

    Bilinear without anti-aliasing, bit for bit as `cv2.dnn.blobFromImages`, through which InsightFace's `get_feat` sees
    a crop: stored vectors were made from these pixels.
    """
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]  # stub says Any dtype


def letterbox(image: Image, height: int, width: int) -> Crop:
    """As `stretch`, but keep the picture's shape: centred, black around it. Shrinking averages pixels."""
    if image.shape[:2] == (height, width):
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_height, inner_width = (max(1, round(side * scale)) for side in image.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    inner = cv2.resize(image, (inner_width, inner_height), interpolation=interpolation)
    crop[top : top + inner_height, left : left + inner_width] = inner
    return crop


def _name_content(content: bytes) -> str:
    for offset, signature, name in _SIGNATURES:
        if content.startswith(signature, offset):
            return name
    if content.startswith(b"ftyp", 4):
        end = min(int.from_bytes(content[:4]), _BRANDS_BYTES)
        brands = {content[8:12], *(content[at : at + 4] for at in range(16, end, 4))}
        return next((name for known, name in _BRANDS if known & brands), "an MP4 or QuickTime file")
    if _READ_AS_TEXT.match(content):
        return (
            "a picture whose bytes were read as text, which destroys it: open the file in binary mode, as open(path,"
            " 'rb') does in Python"
        )
    text = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for opening, name in _TEXT_OPENINGS:
        if text.startswith(opening):
            return name
    if text and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return "plain text (with curl, -F file=@face.jpg sends a file, -F file=face.jpg its name)"
    return f"of no known format (it begins with {content[:4].hex(' ')})"


def _on_canvas(pixels: Image, container: Container) -> Image:
    """The whole picture: black where a frame does not cover it."""
    bottom, right = container.top + pixels.shape[0], container.left + pixels.shape[1]
    if bottom > container.height or right > container.width:
        raise damaged(container)
    canvas = np.zeros((container.height, container.width, 3), np.uint8)
    canvas[container.top : bottom, container.left : right] = pixels
    return canvas


def _upright(stored: Image, orientation: int) -> Image:
    """Turn and flip the stored picture as EXIF says. Source: CIPA DC-008 (EXIF), tag 0x0112."""
    if orientation in (5, 6, 7, 8):
        stored = cv2.transpose(stored)  # type: ignore[assignment]  # OpenCV's stub does not know the dtype
    flips = {2: 1, 6: 1, 4: 0, 8: 0, 3: -1, 7: -1}  # 1: left and right, 0: top and bottom, -1: both
    if orientation in flips:
        stored = cv2.flip(stored, flips[orientation])  # type: ignore[assignment]  # as above
    return stored
