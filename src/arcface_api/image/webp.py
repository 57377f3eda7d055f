"""WebP: keeps the bitstream of the still picture or of an animation's first frame; reads the orientation.

    RIFF WEBP │ VP8X │ ICCP │ ANIM │ ANMF (ALPH, VP8) … │ EXIF │ XMP
                becomes  RIFF WEBP │ VP8

Transparency in its own chunk (ALPH) changes no colour, so it is left out. Sources: RFC 9649 (container, VP8L), RFC 6386
section 9.1 (VP8 key frame).
"""

import struct
from collections.abc import Iterator

from arcface_api.image.container import UPRIGHT, Container, ImageFormat, damaged, orientation_in

MAX_CHUNKS = 65_536
"""An animation has one for each frame, and EXIF may follow all of them."""

_ANIMATION_FLAG, _EXIF_FLAG = 0x02, 0x08
_ANMF_BYTES = 16  # before the chunks inside a frame: place, size, duration, flags


def take_apart(content: bytes) -> Container:
    """Read a RIFF file of the type WEBP.

    Raises ImageDamaged if it is cut short, its sizes contradict each other, or it has more than `MAX_CHUNKS`.
    """
    end = 8 + int.from_bytes(content[4:8], "little")
    if end > len(content):
        raise damaged(ImageFormat.WEBP)
    chunks = _chunks(content, 12, end)
    kind, begin, length = next(chunks, (b"", 0, 0))
    if kind != b"VP8X":
        width, height = _bitstream_size(content, kind, begin, length)
        return Container(ImageFormat.WEBP, width, height, _pixel_file(content, kind, begin, length))
    if length < 10:
        raise damaged(ImageFormat.WEBP)
    flags, width, height = content[begin], _number(content, begin + 4) + 1, _number(content, begin + 7) + 1
    picture_kinds = (b"ANMF",) if flags & _ANIMATION_FLAG else (b"VP8 ", b"VP8L")
    picture: tuple[bytes, int, int] | None = None
    turned = None if flags & _EXIF_FLAG else UPRIGHT  # without the flag, libwebp sees no EXIF
    for kind, begin, length in chunks:
        if kind in picture_kinds and picture is None:
            picture = kind, begin, length
        elif kind == b"EXIF" and turned is None:
            turned = orientation_in(content[begin : begin + length])
        if picture is not None and turned is not None:
            break
    kind, begin, length = picture or (b"", 0, 0)
    left = top = 0
    size = width, height
    if kind == b"ANMF":  # a frame, which may be smaller than the canvas
        if length < _ANMF_BYTES:
            raise damaged(ImageFormat.WEBP)
        left, top = 2 * _number(content, begin), 2 * _number(content, begin + 3)
        size = _number(content, begin + 6) + 1, _number(content, begin + 9) + 1
        inside = _chunks(content, begin + _ANMF_BYTES, begin + length)
        kind, begin, length = next((found for found in inside if found[0] in (b"VP8 ", b"VP8L")), (b"", 0, 0))
    if _bitstream_size(content, kind, begin, length) != size or left + size[0] > width or top + size[1] > height:
        raise damaged(ImageFormat.WEBP)
    file = _pixel_file(content, kind, begin, length)
    return Container(ImageFormat.WEBP, width, height, file, turned or UPRIGHT, left=left, top=top)


def _chunks(content: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and length of each chunk's data, up to `end`."""
    for _ in range(MAX_CHUNKS):
        if position + 8 > end:
            return
        kind, length = struct.unpack_from("<4sI", content, position)
        begin = position + 8
        if begin + length > end:
            break
        yield kind, begin, length
        position = begin + length + (length & 1)
    raise damaged(ImageFormat.WEBP)


def _bitstream_size(content: bytes, kind: bytes, begin: int, length: int) -> tuple[int, int]:
    if kind == b"VP8L" and length >= 5 and content[begin] == 0x2F:
        bits = int.from_bytes(content[begin + 1 : begin + 5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and length >= 10 and content[begin + 3 : begin + 6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", content, begin + 6)
        return width & 0x3FFF, height & 0x3FFF  # the two upper bits ask for scaling, which decoders ignore
    raise damaged(ImageFormat.WEBP)


def _pixel_file(content: bytes, kind: bytes, begin: int, length: int) -> bytes:
    padding = bytes(length & 1)
    head = struct.pack("<4sI4s4sI", b"RIFF", 12 + length + len(padding), b"WEBP", kind, length)
    return b"".join([head, memoryview(content)[begin : begin + length], padding])


def _number(content: bytes, begin: int) -> int:
    return int.from_bytes(content[begin : begin + 3], "little")
