"""What of a PNG file is given to the decoder: nothing that announces more than is there, and none of its texts.

    signature │ IHDR │ … │ zTXt │ IDAT │ IEND │ …          becomes          signature │ IHDR │ … │ IDAT │ IEND

The decoder reserves what a chunk announces, up to 4 GB, before it looks whether that comes, and unpacks and keeps every
text: a megabyte of them becomes a gigabyte. It also unpacks picture data to its end, however much of it there is beyond
the pixels.
"""

import struct
import zlib
from collections.abc import Iterable

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 65_536
"""More are refused: encoders write pieces of some kilobytes, and a file of nothing but empty chunks must not keep a
thread busy."""

_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_FRAME_BYTES = 12
"""Length, type and checksum around a chunk's data. Source: PNG specification, section 5.3."""

SURPLUS_FROM_BYTES = 1_000_000
"""Packed picture data up to here is not unpacked here, which takes two thirds of the time that decoding does: it
becomes 1 GB at the most, in two seconds, which is what 50 million honest pixels take."""
_UNPACKED_AT_ONCE = 1024 * 1024
_MOST_BYTES_A_PIXEL = 8
"""Four channels of 16 bits."""


def for_decoder(content: bytes) -> bytes | None:
    """What of a file may be decoded: all of it, or without its texts where it has some.

    Args:
        content: Begins with `SIGNATURE`.

    Returns:
        None where the file is cut short, a chunk announces more than is there, there are more than `MAX_CHUNKS`, or the
        picture data is far more than the pixels need.
    """
    kept: list[bytes] = [SIGNATURE]
    begin = position = len(SIGNATURE)
    has_texts = False
    data: list[memoryview] = []
    for _ in range(MAX_CHUNKS):
        if position + _FRAME_BYTES > len(content):
            return None
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + length + _FRAME_BYTES
        if end > len(content):
            return None
        if kind == b"IDAT":
            data.append(memoryview(content)[position + 8 : end - 4])
        elif kind in _TEXTS:
            kept.append(content[begin:position])
            begin, has_texts = end, True
        position = end
        if kind == b"IEND":
            if sum(map(len, data)) > SURPLUS_FROM_BYTES and _unpacks_to_more(data, _most_bytes(content)):
                return None
            return b"".join([*kept, content[begin:end]]) if has_texts else content
    return None


def _most_bytes(content: bytes) -> int:
    """More than the picture's rows can take unpacked, interlaced or not."""
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    return 2 * (width * _MOST_BYTES_A_PIXEL + 1) * height + 65_536


def _unpacks_to_more(data: Iterable[memoryview], most_bytes: int) -> bool:
    unpacker, unpacked = zlib.decompressobj(), 0
    for part in data:
        packed: bytes | memoryview = part
        while packed and not unpacker.eof:
            try:
                unpacked += len(unpacker.decompress(packed, _UNPACKED_AT_ONCE))
            except zlib.error:
                return False  # the decoder will find it, too
            if unpacked > most_bytes:
                return True
            packed = unpacker.unconsumed_tail
    return False
