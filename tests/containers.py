"""Containers for tests, built piece by piece: chunks, segments and EXIF data as their writers put them."""

import struct
import zlib
from collections.abc import Iterator


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        yield kind, content[position + 8 : position + 8 + length]
        position += 12 + length


def png_with(content: bytes, before_data: bytes = b"", behind_data: bytes = b"") -> bytes:
    """A PNG with more chunks before or behind its picture data."""
    at = content.index(b"IDAT") - 4
    return content[:at] + before_data + content[at:-12] + behind_data + content[-12:]


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(data)) + data


def webp_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) & 1)


def webp(*chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WEBP" + b"".join(chunks)


def webp_extended(width: int, height: int, *chunks: bytes, flags: int = 0) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size), *chunks)


def webp_picture(content: bytes) -> bytes:
    """The bitstream's chunk of a simple WebP file."""
    assert content[12:16] in (b"VP8 ", b"VP8L")
    return content[12:]


def frame(at: tuple[int, int], size: tuple[int, int], *chunks: bytes) -> bytes:
    numbers = (at[0] // 2, at[1] // 2, size[0] - 1, size[1] - 1, 100)
    return webp_chunk(b"ANMF", b"".join(number.to_bytes(3, "little") for number in numbers) + b"\0" + b"".join(chunks))


def exif(value: int, *, order: str = "<", kind: int = 3, entries_before: int = 0, prefix: bytes = b"") -> bytes:
    """EXIF data whose first directory has an orientation behind some other entries."""
    entries = [struct.pack(f"{order}HHII", 0x0100, 4, 1, 7)] * entries_before
    field = struct.pack(f"{order}H2x" if kind == 3 else f"{order}I", value)
    entries.append(struct.pack(f"{order}HHI", 0x0112, kind, 1) + field)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return prefix + magic + struct.pack(f"{order}I", 8) + directory


def gray_animation_cleared_to_the_background() -> bytes:
    """A valid animated PNG by which OpenCV 5.0.0's reader writes beyond its memory."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0))
    data = zlib.compress(bytes(33 * 32))
    control = [png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, 32, 32, 0, 0, 1, 10, 1, 0)) for n in (0, 1)]
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n", header, png_chunk(b"acTL", struct.pack(">II", 2, 0)), control[0],
            png_chunk(b"IDAT", data), control[1], png_chunk(b"fdAT", struct.pack(">I", 2) + data), png_chunk(b"IEND"),
        ]
    )  # fmt: skip
