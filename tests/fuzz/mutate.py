"""Damage that knows the containers of pictures: a pure function of a file and a seed.

A file is split into its chunks or segments, these are damaged, and lengths and checksums are made right again, so that
the damage gets past them; then, at times, bytes of the whole are damaged, too.
"""

import random
import re
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Literal

from containers import png_chunk, webp, webp_chunk

MAX_BYTES = 64_000
"""Of an input; longer ones are cut."""

Parts = list[tuple[bytes, bytes]]
"""Kind and data of each chunk or segment; bytes that are in none have no kind."""

_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 9, 16, 64, 127, 128, 255, 256, 999, 1400, 32_767, 65_535, 65_536, 2**31 - 1, 2**32 - 1)
_ORDERS: tuple[Literal["big", "little"], ...] = ("big", "little")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FRAME_FIELDS = 16
"""Bytes of a WebP frame before its own chunks."""


class Mutator:
    """Damages files, also by what it finds in valid ones."""

    def __init__(self, files: Iterable[bytes]) -> None:
        self._files = list(files)
        self._by_format: dict[str, list[Parts]] = {"PNG": [], "JPEG": [], "WebP": []}
        for content in self._files:
            name = _format(content)
            assert name is not None
            self._by_format[name].append(_SPLIT[name](content))

    def damaged(self, content: bytes, max_bytes: int, seed: int) -> bytes:
        """The file, damaged; a valid one in the place of bytes that are no picture."""
        chance = random.Random(seed)
        name = _format(content)
        if name is None:
            content = chance.choice(self._files)
            name = _format(content) or ""
        files = self._by_format[name]
        parts = _SPLIT[name](content)
        damages_bytes = chance.random() < 0.25
        for _ in range(chance.choice((0, 1, 2) if damages_bytes else (1, 1, 1, 2, 2, 3, 6))):
            if not parts or sum(len(data) for _, data in parts) > max_bytes:
                break
            chance.choice(_DAMAGES)(chance, parts, chance.choice(files))
        content = _JOIN[name](parts)
        if damages_bytes:
            content = damaged_bytes(chance, content, chance.choice(self._files))
        return content[:max_bytes]


# ── containers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _format(content: bytes) -> str | None:
    return {b"\x89P": "PNG", b"\xff\xd8": "JPEG", b"RI": "WebP"}.get(content[:2])


def _split_png(content: bytes) -> Parts:
    parts, position = [], len(_PNG_SIGNATURE)
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if position + 12 + length > len(content):
            break
        parts.append((kind, content[position + 8 : position + 8 + length]))
        position += 12 + length
    return [*parts, (b"", content[position:])]


def _join_png(parts: Parts) -> bytes:
    return _PNG_SIGNATURE + b"".join(png_chunk(kind, data) if kind else data for kind, data in parts)


def _split_jpeg(content: bytes) -> Parts:
    """A scan's data is a part without a kind, as is a second picture behind the first one's end."""
    parts, position = [], 2
    while position + 4 <= len(content) and content[position + 1] != 0xD9:
        kind = content[position + 1 : position + 2]
        (length,) = struct.unpack_from(">H", content, position + 2)
        parts.append((kind, content[position + 4 : position + 2 + length]))
        position += 2 + length
        following = _JPEG_MARKER.search(content, position)
        if following is not None and following.start() > position:
            parts.append((b"", content[position : following.start()]))
            position = following.start()
    return [*parts, (b"\xd9", b""), (b"", content[position + 2 :])]


def _join_jpeg(parts: Parts) -> bytes:
    def segment(kind: bytes, data: bytes) -> bytes:
        if kind in (b"", b"\xd9"):
            return b"\xff" * len(kind) + kind + data
        return b"\xff" + kind[:1] + struct.pack(">H", min(65_535, len(data) + 2)) + data[:65_533]

    return b"\xff\xd8" + b"".join(segment(kind, data) for kind, data in parts)


def _split_webp(content: bytes, position: int = 12) -> Parts:
    parts = []
    while position + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, position)
        parts.append((kind, content[position + 8 : position + 8 + length]))
        position += 8 + length + (length & 1)
    return parts


def _join_webp(parts: Parts) -> bytes:
    return webp(*_webp_chunks(parts))


def _webp_chunks(parts: Parts) -> list[bytes]:
    return [webp_chunk(kind, data) if kind else data for kind, data in parts]


_SPLIT: dict[str, Callable[[bytes], Parts]] = {"PNG": _split_png, "JPEG": _split_jpeg, "WebP": _split_webp}
_JOIN: dict[str, Callable[[Parts], bytes]] = {"PNG": _join_png, "JPEG": _join_jpeg, "WebP": _join_webp}


# ── damage ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _drop(chance: random.Random, parts: Parts, other: Parts) -> None:
    del parts[chance.randrange(len(parts))]


def _repeat(chance: random.Random, parts: Parts, other: Parts) -> None:
    kind, data = chance.choice(parts)
    times = min(chance.choice((1, 1, 2, 9, 200)), 1 + MAX_BYTES // (len(data) + 1))
    at = chance.randrange(len(parts))
    parts[at:at] = [(kind, data)] * times


def _swap(chance: random.Random, parts: Parts, other: Parts) -> None:
    one, two = chance.randrange(len(parts)), chance.randrange(len(parts))
    parts[one], parts[two] = parts[two], parts[one]


def _splice(chance: random.Random, parts: Parts, other: Parts) -> None:
    """Insert a part of another file, go on with its end, or take its data for a part of the same kind."""
    begin = chance.randrange(len(other))
    at = chance.randrange(len(parts))
    how = chance.randrange(3)
    if how == 0:
        parts.insert(at, other[begin])
    elif how == 1:
        parts[at:] = other[begin:]
    else:
        kind, data = other[begin]
        parts[:] = [(each, data if each == kind else own) for each, own in parts]


def _rename(chance: random.Random, parts: Parts, other: Parts) -> None:
    at = chance.randrange(len(parts))
    kind = chance.choice(other)[0] if chance.random() < 0.8 else chance.randbytes(len(parts[at][0]))
    parts[at] = kind, parts[at][1]


def _data(chance: random.Random, parts: Parts, other: Parts) -> None:
    """Damage the data of one part, or what is packed or nested in it."""
    at = chance.randrange(len(parts))
    kind, data = parts[at]
    if kind == b"ANMF" and chance.random() < 0.6:
        inside = _split_webp(data, _FRAME_FIELDS)
        if inside:
            chance.choice(_DAMAGES)(chance, inside, other)
            parts[at] = kind, data[:_FRAME_FIELDS] + b"".join(_webp_chunks(inside))
            return
    packed = {b"IDAT": 0, b"fdAT": 4, b"iCCP": data.find(b"\0") + 2, b"zTXt": data.find(b"\0") + 2}.get(kind)
    if packed is not None and chance.random() < 0.7:
        try:
            unpacked = zlib.decompress(data[packed:])
        except zlib.error:
            unpacked = b""
        parts[at] = kind, data[:packed] + zlib.compress(damaged_bytes(chance, unpacked, data), 1)
    else:
        parts[at] = kind, damaged_bytes(chance, data, chance.choice(other)[1])


# Data most often: headers and fields are there.
_DAMAGES: tuple[Callable[[random.Random, Parts, Parts], None], ...] = (
    _drop, _repeat, _swap, _splice, _splice, _rename, _data, _data, _data, _data, _data, _data
)  # fmt: skip


def damaged_bytes(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Change a number, flip bits, cut, repeat, or insert what is in another file."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        # fields stand at the beginning
        at = chance.randrange(min(len(damaged), chance.choice((16, 40, MAX_BYTES))) or 1)
        how = chance.randrange(8)
        if how < 3:
            width, order = chance.choice((1, 2, 3, 4)), chance.choice(_ORDERS)
            number = chance.choice(_NUMBERS)
            if how == 2:
                number = int.from_bytes(damaged[at : at + width], order) + chance.randint(-9, 9)
            damaged[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, order)
        elif how < 5:
            damaged[at : at + 1] = bytes([chance.randrange(256)])
        elif how == 5:
            del damaged[at : at + chance.choice((1, 2, 4, 30, MAX_BYTES))]
        elif how == 6:
            damaged[at:at] = damaged[at : at + chance.choice((1, 4, 30))] * chance.choice((1, 2, 99))
        else:
            begin = chance.randrange(len(other) or 1)
            damaged[at:at] = other[begin : begin + chance.choice((1, 4, 30, 999))]
    return bytes(damaged)
