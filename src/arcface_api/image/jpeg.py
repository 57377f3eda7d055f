"""JPEG: keeps the first picture's tables, frame and scans; reads the orientation.

    SOI │ APP0 JFIF │ APP1 EXIF │ COM │ DQT │ SOF │ DHT │ SOS data … │ EOI │ …
                becomes  SOI │ APP0 JFIF │ DQT │ SOF │ DHT │ SOS data … │ EOI

Of APP0 (JFIF) and APP14 (Adobe), the fields that say what the colours mean stay; thumbnails go. Sources: ITU-T T.81,
annex B; JFIF 1.02; Adobe's technical note 5116.
"""

import re
import struct
from collections.abc import Iterator

from arcface_api.errors import ImageDamaged, ImageFormatUnsupported
from arcface_api.image.container import EXIF_PREFIX, UPRIGHT, Container, ImageFormat, damaged, orientation_in

SIGNATURE = b"\xff\xd8\xff"
MAX_SEGMENTS = 4096
"""Cameras write some dozens; a file of empty segments must not keep a thread busy."""
MAX_SCANS = 100
"""Progressive encoders write about ten. Each costs a pass over all pixels, a thousand cost minutes."""

_SOI = b"\xff\xd8"
_END_OF_IMAGE, _START_OF_SCAN, _APP0, _APP1, _APP14, _COMMENT, _LINES = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE, 0xDC
# A marker is 0xFF and a byte that is neither 0x00 (stuffing) nor 0xFF (filling, of any length).
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# Stuffing and restart markers (D0..D7) do not end a scan's data.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
# Start-of-frame markers: C0..CF without DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive with Huffman coding. Arithmetic coding (C9, CA), which browsers do not read either,
# is left out because its decoder goes on past the end of the data, a thousand decisions a block: 40 kB take 15 s.
_READABLE_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_TABLES = frozenset({0xC4, 0xDB, 0xDD})
_LEFT_OUT = frozenset({*range(0xE0, 0xF0), _COMMENT, _LINES})
_COEFFICIENTS = 64
_ALL_COEFFICIENTS = (1 << _COEFFICIENTS) - 1
_JFIF, _ADOBE = b"\xff\xe0\0\x10", b"\xff\xee\0\x0e"
_JFIF_BYTES, _ADOBE_BYTES = 18, 16
"""What decoders read of them, with marker and length; JFIF's thumbnail follows."""


def take_apart(content: bytes) -> Container:
    """Read a file that begins with `SIGNATURE`.

    Raises:
        ImageDamaged: It is cut short, has a marker where none may be, or more than `MAX_SEGMENTS` or `MAX_SCANS`.
        ImageFormatUnsupported: It is lossless, hierarchical or arithmetically coded, or does not have 8 bits a channel.
    """
    kept: list[bytes] = []
    kept_from = 0  # of a run of segments that stay as they are
    size: tuple[int, int] | None = None
    turned: int | None = None
    scans, channels, is_progressive = 0, 0, False
    sent: dict[int, int] = {}
    for marker, at, end in _segments(content):
        if marker in _LEFT_OUT:
            new = _colour_fields(content, marker, at, end)
            if new is None:
                continue
            kept += (content[kept_from:at], new)
            kept_from = end
            if marker == _APP1 and turned is None and content.startswith(EXIF_PREFIX, at + 4):
                turned = orientation_in(content[at + 4 : end])
        elif marker in _FRAMES and size is None:
            if end - at < 10:
                break
            channels = len(set(content[at + 10 : end : 3]))  # by their identifiers
            is_progressive = marker == 0xC2
            precision, height, width = struct.unpack_from(">BHH", content, at + 4)
            if marker not in _READABLE_FRAMES or precision != 8:
                raise ImageFormatUnsupported(
                    f"The file is a JPEG of a kind that cannot be read (SOF{marker - 0xC0}, {precision} bits). Allowed"
                    " are baseline, extended and progressive JPEG with 8 bits and Huffman coding: save the picture as"
                    " one of these."
                )
            size = width, height
        elif marker == _START_OF_SCAN and size is not None:
            scans += 1
            if scans > MAX_SCANS:
                raise ImageDamaged(
                    f"The JPEG of {size[0]}x{size[1]} pixels has more than {MAX_SCANS} scans, which no encoder writes."
                    " Save the picture again."
                )
            if not _add_scan(sent, content, at, is_progressive=is_progressive):
                break
        elif marker == _END_OF_IMAGE and size is not None and scans:
            last = content[kept_from:end]
            pixel_file = b"".join((*kept, last)) if kept else last
            lacks_scans = len(sent) < channels or any(bits != _ALL_COEFFICIENTS for bits in sent.values())
            return Container(ImageFormat.JPEG, *size, pixel_file, turned or UPRIGHT, lacks_scans=lacks_scans)
        else:
            break
    raise damaged(ImageFormat.JPEG)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of each segment but tables, up to the end of the image or where the file is damaged.

    A scan ends with its compressed data. Bytes between two segments count as a comment.
    """
    at, size, has_scan = len(_SOI), len(content), False
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(content, at)
        if found is None:
            return
        begin = found.start()
        if begin > at:
            if has_scan and content[at:begin].strip(b"\xff"):
                return  # only filling may separate the end of a scan or table from the next marker
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


def _add_scan(sent: dict[int, int], content: bytes, at: int, *, is_progressive: bool) -> bool:
    """Note which coefficients a scan completes, a bit for each by the channel's identifier. False: its head is wrong.

    Source: T.81, B.2.3 and G.1.2.
    """
    channels = content[at + 4]
    head = content[at + 5 : at + 2 + (content[at + 2] << 8 | content[at + 3])]
    if len(head) != 2 * channels + 3:
        return False
    first, last, bits = head[-3:] if is_progressive else (0, _COEFFICIENTS - 1, 0)
    if not bits & 0x0F:  # none of their bits come later
        for channel in head[:-3:2]:
            sent[channel] = sent.get(channel, 0) | ((1 << last + 1) - (1 << first))
    return True


def _colour_fields(content: bytes, marker: int, at: int, end: int) -> bytes | None:
    """What to keep of a segment that is left out but for its colour information. None: it stays as it is."""
    if marker == _APP0 and content.startswith(b"JFIF\0", at + 4) and end - at >= _JFIF_BYTES:
        new = _JFIF + content[at + 4 : at + _JFIF_BYTES - 2] + b"\0\0"  # the thumbnail's width and height
    elif marker == _APP14 and content.startswith(b"Adobe", at + 4) and end - at >= _ADOBE_BYTES:
        new = _ADOBE + content[at + 4 : at + _ADOBE_BYTES]
    else:
        return b""
    return None if content[at:end] == new else new
