"""PNG: keeps the default picture's header, palette and data; reads the orientation.

    signature │ IHDR │ acTL │ zTXt │ PLTE │ IDAT … │ fdAT │ eXIf │ IEND │ …
                becomes  signature │ IHDR │ PLTE │ IDAT … │ IEND

Of an animation this is the picture that viewers without animation show. Transparency, colour profiles and gamma change
no pixel that is used here (tested), so they are left out. Source: PNG specification (third edition), section 5.
"""

import struct
import zlib

from arcface_api.image.container import UPRIGHT, Container, ImageFormat, damaged, orientation_in

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 65_536
"""Encoders write pieces of some kilobytes; a file of empty chunks must not keep a thread busy."""
SURPLUS_FROM_BYTES = 1_000_000
"""Smaller files are not checked, which would take two thirds of the time of decoding: they become at most 1 GB, in two
seconds, as long as 50 million honest pixels take."""

_FRAME_BYTES = 12  # length, type and checksum around a chunk's data
_IS_ANCILLARY = 0x20  # bit of a type's first letter: a decoder that does not know the chunk may ignore it
_UNPACKED_AT_ONCE = 1024 * 1024


def take_apart(content: bytes) -> Container:
    """Read a file that begins with `SIGNATURE`.

    Raises ImageDamaged if it is cut short, does not begin with its header, has an unknown chunk that pixels depend on,
    or more than `MAX_CHUNKS`.
    """
    view = memoryview(content)
    kept: list[bytes | memoryview] = [SIGNATURE]
    width = height = 0
    turned: int | None = None
    has_data = False
    position = len(SIGNATURE)
    for number in range(MAX_CHUNKS):
        if position + _FRAME_BYTES > len(content):
            break
        length, kind = struct.unpack_from(">I4s", content, position)
        begin, end = position, position + length + _FRAME_BYTES
        is_header = kind == b"IHDR"
        if end > len(content) or is_header != (number == 0) or (is_header and length != 13):
            break
        position = end
        if is_header:
            width, height = struct.unpack_from(">II", content, begin + 8)
            kept.append(view[begin:end])
        elif kind in (b"IDAT", b"PLTE"):
            kept.append(view[begin:end])
            has_data = has_data or kind == b"IDAT"
        elif kind == b"IEND" and has_data:
            pixel_file = b"".join([*kept, view[begin:end]])
            return Container(ImageFormat.PNG, width, height, pixel_file, turned or UPRIGHT)
        elif kind == b"eXIf" and turned is None:
            turned = orientation_in(content[begin + 8 : end - 4])
        elif not kind[0] & _IS_ANCILLARY:
            break
    raise damaged(ImageFormat.PNG)


def unpacks_to_more_than_pixels(png: Container) -> bool:
    """Whether a file of more than `SURPLUS_FROM_BYTES` holds far more than its pixels need: 4 MB can become 4 GB."""
    file = memoryview(png.pixel_file)
    if len(file) <= SURPLUS_FROM_BYTES:
        return False
    # More than the rows can take, interlaced or not, in four channels of 16 bits.
    most_bytes = 2 * (png.width * 8 + 1) * png.height + 65_536
    unpacker, unpacked, position = zlib.decompressobj(), 0, len(SIGNATURE)
    while position < len(file):
        length, kind = struct.unpack_from(">I4s", file, position)
        packed: bytes | memoryview = file[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
        while packed and not unpacker.eof:
            try:
                unpacked += len(unpacker.decompress(packed, _UNPACKED_AT_ONCE))
            except zlib.error:
                return False  # the decoder finds it, too
            if unpacked > most_bytes:
                return True
            packed = unpacker.unconsumed_tail
        position += length + _FRAME_BYTES
    return False
