"""JPEG: the first picture's tables, frame and scans, and the orientation.

    SOI │ APP0 JFIF │ APP1 EXIF │ COM │ DQT │ SOF │ DHT │ SOS data … │ EOI │ …
                becomes  SOI │ APP0 JFIF │ DQT │ SOF │ DHT │ SOS data … │ EOI

Of the segments APP0 (JFIF) and APP14 (Adobe) the fields stay that say what the colours mean; thumbnails go. Source:
ITU-T T.81, annex B; JFIF 1.02; Adobe's technical note 5116.
"""

import re
import struct
from collections.abc import Iterator

from arcface_api.errors import ImageDamaged, ImageFormatUnsupported
from arcface_api.image import exif
from arcface_api.image.container import Container, ImageFormat, damaged

SIGNATURE = b"\xff\xd8\xff"
MAX_SEGMENTS = 4096
"""Cameras write some dozens; a file of nothing but empty segments must not keep a thread busy."""
MAX_SCANS = 100
"""Progressive encoders write about ten; each costs the decoder a pass over all pixels, and a thousand cost minutes."""

_SOI = b"\xff\xd8"
_END_OF_IMAGE, _START_OF_SCAN, _APP0, _APP1, _APP14, _COMMENT, _LINES = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE, 0xDC
# A marker is 0xFF and a byte that is neither 0x00 (stuffing) nor 0xFF (filling, of which there may be any number).
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# A scan's data goes on over stuffing and restart markers (D0..D7).
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
# Start-of-frame markers: C0..CF without DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive, with Huffman coding; not lossless nor hierarchical. Not arithmetic coding (C9, CA)
# either, which browsers do not read: behind the end of the data its decoder goes on making pixels of nothing, at a
# thousand decisions a block, so that 40 kB take 15 s.
_READABLE_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_TABLES = frozenset({0xC4, 0xDB, 0xDD})
_LEFT_OUT = frozenset({*range(0xE0, 0xF0), _COMMENT, _LINES})
_JFIF, _ADOBE = b"\xff\xe0\0\x10", b"\xff\xee\0\x0e"
_JFIF_BYTES, _ADOBE_BYTES = 18, 16
"""What decoders read of the two, marker and length included; behind JFIF's fields comes a thumbnail."""


def take_apart(content: bytes) -> Container:
    """The first picture of a JPEG file.

    Args:
        content: Begins with `SIGNATURE`.

    Raises:
        ImageDamaged: It is cut short, has a marker where none may be, or more than `MAX_SEGMENTS` or `MAX_SCANS`.
        ImageFormatUnsupported: It is lossless, hierarchical, arithmetically coded, or has not 8 bits a channel.
    """
    kept: list[bytes] = []
    kept_from = 0  # of a run of segments that stay as they are
    size: tuple[int, int] | None = None
    turned: int | None = None
    scans = 0
    for marker, at, end in _segments(content):
        if marker in _LEFT_OUT:
            new = _colour_fields(content, marker, at, end)
            if new is None:
                continue
            kept += (content[kept_from:at], new)
            kept_from = end
            if marker == _APP1 and turned is None and content.startswith(exif.PREFIX, at + 4):
                turned = exif.orientation(content[at + 4 : end])
        elif marker in _FRAMES and size is None:
            size = _frame_size(content, marker, at, end)
        elif marker == _START_OF_SCAN and size is not None:
            scans += 1
            if scans > MAX_SCANS:
                raise ImageDamaged(
                    f"The JPEG of {size[0]}x{size[1]} pixels has more than {MAX_SCANS} scans, as no camera or encoder"
                    " writes it. Save the picture again."
                )
        elif marker == _END_OF_IMAGE and size is not None and scans:
            last = content[kept_from:end]
            pixel_file = b"".join((*kept, last)) if kept else last
            return Container(ImageFormat.JPEG, *size, pixel_file, turned or exif.UPRIGHT)
        else:
            break
    raise damaged(ImageFormat.JPEG)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Of each segment but tables: marker, where it stands, and where it ends; a scan ends with the compressed data.

    What stands between two segments is given as a comment, which means nothing either. Stops after the end of the
    image, or where the file breaks.
    """
    at, size, has_scan = len(_SOI), len(content), False
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(content, at)
        if found is None:
            return
        begin = found.start()
        if begin > at:
            if has_scan and content[at:begin].strip(b"\xff"):
                return  # only filling may stand between the end of a scan or table and the next marker
            yield _COMMENT, at, begin
        at, end = begin, begin + 2
        marker = content[at + 1]
        if marker == _END_OF_IMAGE:
            yield marker, at, end
            return
        if marker in _WITHOUT_LENGTH and not has_scan:
            yield _COMMENT, at, end
            at = end
            continue
        if at + 4 > size:
            return
        length = content[end] << 8 | content[end + 1]
        end += length
        if length < 2 or end > size:
            return
        if marker in _TABLES:
            at = end
            continue
        if marker == _START_OF_SCAN:
            end_of_scan = _END_OF_SCAN.search(content, end)
            if end_of_scan is None:
                return
            end, has_scan = end_of_scan.start(), True
        yield marker, at, end
        at = end


def _frame_size(content: bytes, marker: int, at: int, end: int) -> tuple[int, int]:
    """Width and height in a frame's segment."""
    if end - at < 9:
        raise damaged(ImageFormat.JPEG)
    precision, height, width = struct.unpack_from(">BHH", content, at + 4)
    if marker not in _READABLE_FRAMES or precision != 8:
        raise ImageFormatUnsupported(
            f"The file is a JPEG of a kind that is not read (SOF{marker - 0xC0}, {precision} bits). Allowed are"
            " baseline, extended and progressive JPEG with 8 bits and Huffman coding: save the picture as one of these."
        )
    return width, height


def _colour_fields(content: bytes, marker: int, at: int, end: int) -> bytes | None:
    """What is kept of a segment beside tables and scans: what says what the colours mean. None: it stays as it is."""
    if marker == _APP0 and content.startswith(b"JFIF\0", at + 4) and end - at >= _JFIF_BYTES:
        new = _JFIF + content[at + 4 : at + _JFIF_BYTES - 2] + b"\0\0"  # the thumbnail's width and height
    elif marker == _APP14 and content.startswith(b"Adobe", at + 4) and end - at >= _ADOBE_BYTES:
        new = _ADOBE + content[at + 4 : at + _ADOBE_BYTES]
    else:
        return b""
    return None if content[at:end] == new else new
