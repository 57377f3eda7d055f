"""What a JPEG, PNG or WebP file says about itself before a pixel is decoded: format, width and height.

Pillow could tell this too, but its WebP reader allocates the whole canvas on opening, and that is what reading the
header first is to prevent (docs/adr/0003).
"""

import re
import struct
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from arcface_api.errors import ImageDamaged, ImageEmpty, ImageFormatUnsupported
from arcface_api.image.png import SIGNATURE as PNG_SIGNATURE

ALLOWED = "Allowed are JPEG, PNG and WebP, told from the content: convert it, or send the picture's own bytes."


class ImageFormat(StrEnum):
    """The picture formats that are read."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


@dataclass(frozen=True)
class Header:
    """Format and size as announced, in pixels, before EXIF turns the picture upright."""

    format: ImageFormat
    width: int
    height: int
    data_offset: int = 0
    """Behind this byte lies the picture's own data, and no thumbnail's."""


def read_header(content: bytes) -> Header:
    """Read format, width and height; no pixel is decoded.

    Raises:
        ImageEmpty: There are no bytes.
        ImageFormatUnsupported: The content is something else; the message names what.
        ImageDamaged: The header is cut off or announces no pixels.
    """
    if not content:
        raise ImageEmpty("The image is empty (0 bytes). Send the bytes of a JPEG, PNG or WebP file.")
    if content.startswith(b"\xff\xd8\xff"):
        header = Header(ImageFormat.JPEG, *_jpeg_size(content))
    elif content.startswith(PNG_SIGNATURE):
        header = Header(ImageFormat.PNG, *_png_size(content))
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        header = Header(ImageFormat.WEBP, *_webp_size(content))
    else:
        raise ImageFormatUnsupported(f"The file is {_name_content(content)}. {ALLOWED}")
    if header.width == 0 or header.height == 0:
        raise ImageDamaged(
            f"The {header.format} header announces {header.width}x{header.height} pixels. Send at least 1x1."
        )
    return header


def _cut_off(image_format: ImageFormat) -> ImageDamaged:
    return ImageDamaged(f"The {image_format} file ends or breaks inside its header. Send the whole file.")


# A marker is 0xFF and a byte that is neither 0x00 (stuffing) nor 0xFF (filling). Those that carry no length are skipped
# likewise: TEM (01), RST0..7 (D0..D7), SOI (D8). Source: ITU-T T.81, B.1.1.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
# Start-of-frame markers carry the size: C0..CF without DHT (C4), JPG (C8) and DAC (CC). Source: ITU-T T.81, table B.1.
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive, with Huffman or arithmetic coding; not lossless nor hierarchical.
_JPEG_READABLE_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_JPEG_END_OF_IMAGE, _JPEG_START_OF_SCAN = 0xD9, 0xDA
# Cameras write some dozens; a file of nothing but empty segments must not keep a thread busy.
_JPEG_MAX_SEGMENTS = 4096
_JPEG_SCAN = bytes([0xFF, _JPEG_START_OF_SCAN])
_LARGE_BYTES = 1_000_000
"""From here on NumPy counts, ten times as fast; below it would cost more than it saves: it lets go of the interpreter's
lock, and in a busy service waits to have it back."""
JPEG_MAX_SCANS = 100
"""More are refused. Progressive encoders write about ten; a thousand repeated ones cost minutes."""


def _jpeg_size(content: bytes) -> tuple[int, int, int]:
    """Width, height, and where the frame's description begins, behind which the picture's own data lies."""
    position = 2
    for _ in range(_JPEG_MAX_SEGMENTS):
        found = _JPEG_MARKER.search(content, position)
        if found is None:
            break
        marker, segment = found[1][0], found.end()
        if marker in (_JPEG_END_OF_IMAGE, _JPEG_START_OF_SCAN) or segment + 7 > len(content):
            break
        if marker in _JPEG_FRAME_MARKERS:
            precision, height, width = struct.unpack_from(">BHH", content, segment + 2)
            if marker not in _JPEG_READABLE_MARKERS or precision != 8:
                raise ImageFormatUnsupported(
                    f"The file is a JPEG of a kind that is not read (SOF{marker - 0xC0}, {precision} bits). {ALLOWED}"
                )
            return width, height, segment
        position = segment + struct.unpack_from(">H", content, segment)[0]
    raise _cut_off(ImageFormat.JPEG)


def scans(content: bytes, header: Header) -> int:
    """How many scans a JPEG's own picture has, or a few more; each costs the decoder a pass over all its pixels.

    Args:
        content: The file's bytes.
        header: What `read_header` said of them.

    Returns:
        Exact only above `JPEG_MAX_SCANS`, where counting ends with the next one.
    """
    most = _count_scans(content)
    if most <= JPEG_MAX_SCANS:  # nearly always; tables, thumbnails and what follows the picture are counted, too
        return most
    position, found_scans = header.data_offset, 0
    position += struct.unpack_from(">H", content, position)[0]
    while (found := _JPEG_MARKER.search(content, position)) and found.end() + 2 <= len(content):
        if found[1][0] == _JPEG_END_OF_IMAGE:
            break
        found_scans += found[1][0] == _JPEG_START_OF_SCAN
        if found_scans > JPEG_MAX_SCANS:
            break
        position = found.end() + struct.unpack_from(">H", content, found.end())[0]
    return found_scans


def _count_scans(content: bytes) -> int:
    if len(content) < _LARGE_BYTES:
        return content.count(_JPEG_SCAN)
    number = int.from_bytes(_JPEG_SCAN, "little")
    pairs = (np.frombuffer(content, "<u2", (len(content) - offset) // 2, offset) for offset in (0, 1))
    return int(sum(np.count_nonzero(each == number) for each in pairs))


def _png_size(content: bytes) -> tuple[int, int]:
    if len(content) < 24 or content[12:16] != b"IHDR":
        raise _cut_off(ImageFormat.PNG)
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def _webp_size(content: bytes) -> tuple[int, int]:
    """Source: RFC 9649 (VP8X, VP8L) and RFC 6386 section 9.1 (VP8 key frame)."""
    if len(content) < 30:
        raise _cut_off(ImageFormat.WEBP)
    kind = content[12:16]
    if kind == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    if kind == b"VP8L" and content[20] == 0x2F:
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise _cut_off(ImageFormat.WEBP)


_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"\x00\x00\x01\x00", "a Windows icon"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypavis", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyphev", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftyp", "an MP4 or QuickTime file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip-compressed data"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
)

# Compared in lower case, after white space and a byte-order mark.
_TEXT_OPENINGS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG document"),
    (b"<?xml", "an XML document"),
    (b"{", "JSON text"),
    (b"[", "JSON text"),
    (b"data:image/", "a data: URL"),
    (b"/9j/", "Base64 text of a JPEG, not its bytes"),
    (b"ivborw0kggo", "Base64 text of a PNG, not its bytes"),
    (b"uklgr", "Base64 text of a WebP, not its bytes"),
)


def _name_content(content: bytes) -> str:
    """What the bytes most likely are, for the error message."""
    for offset, signature, name in _SIGNATURES:
        if content.startswith(signature, offset):
            return name
    text = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for opening, name in _TEXT_OPENINGS:
        if text.startswith(opening):
            return name
    if text and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return "plain text (with curl, -F file=@face.jpg sends a file, -F file=face.jpg its name)"
    return f"of no known format (it begins with {content[:4].hex(' ')})"
