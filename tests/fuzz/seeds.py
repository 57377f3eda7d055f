"""What the fuzzer starts from: a small valid file of every kind of container, made here."""

import itertools
import random
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from arcface_api.image.container import EXIF_PREFIX
from containers import (
    exif,
    frame,
    jpeg_segment,
    png_chunk,
    png_with,
    webp,
    webp_chunk,
    webp_extended,
    webp_picture,
)
from pictures import picture_bytes, smooth_picture

SIZE = 21, 18
"""Width and height, pixels: small, so that much can be tried, and no multiple of a block."""
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Of each colour type."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass: the first column and row, and the steps between columns and rows."""
_XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
_PROFILE = struct.pack(">I4s", 128, b"lcms") + bytes(120)


def all_seeds() -> dict[str, bytes]:
    """Name to content; the same on every machine with the same Pillow and OpenCV."""
    return dict(itertools.chain(_pngs(), _animated_pngs(), _jpegs(), _webps()))


def png(depth: int, colour: int, size: tuple[int, int] = SIZE, *, is_interlaced: bool = False) -> bytes:
    """A PNG of random pixels, with every filter."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, is_interlaced))
    palette = png_chunk(b"PLTE", (bytes(range(256)) * 3)[: 3 << depth]) if colour == 3 else b""
    data = png_chunk(b"IDAT", zlib.compress(_png_rows(depth, colour, size, is_interlaced=is_interlaced)))
    return b"\x89PNG\r\n\x1a\n" + header + palette + data + png_chunk(b"IEND")


def _png_rows(depth: int, colour: int, size: tuple[int, int], *, is_interlaced: bool = False) -> bytes:
    numbers = random.Random(depth * 8 + colour)
    rows = bytearray()
    for left, top, across, down in _ADAM7 if is_interlaced else ((0, 0, 1, 1),):
        columns = -(-max(0, size[0] - left) // across)
        for _ in range(top, size[1] if columns else top, down):
            rows += bytes([numbers.randrange(5)]) + numbers.randbytes(-(-columns * _CHANNELS[colour] * depth // 8))
    return bytes(rows)


def animated_png(  # each is a property of animations
    depth: int, colour: int, dispose: int, blend: int, *, has_default: bool = True, times: int = 3
) -> bytes:
    """An animation whose second frame is smaller; its default picture is the first frame, or none."""
    plain = png(depth, colour)
    data = zlib.compress(_png_rows(depth, colour, SIZE))
    parts, number = [], itertools.count()
    for index in range(times):
        size, at = ((9, 8), (5, 6)) if index == 1 else (SIZE, (0, 0))
        parts.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", next(number), *size, *at, 1, 10, dispose, blend)))
        if index or not has_default:
            pixels = zlib.compress(_png_rows(depth, colour, size)) if index == 1 else data
            parts.append(png_chunk(b"fdAT", struct.pack(">I", next(number)) + pixels))
    control, first, others = png_chunk(b"acTL", struct.pack(">II", times, 0)), parts[0], b"".join(parts[1:])
    return png_with(plain, control + first, others) if has_default else png_with(plain, control, first + others)


def _pngs() -> Iterator[tuple[str, bytes]]:
    transparency = {0: b"\0\1", 2: bytes(6), 3: b"\0\x80"}
    everything = b"".join(
        [
            png_chunk(b"gAMA", struct.pack(">I", 45_455)),
            png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
            png_chunk(b"iCCP", b"p\0\0" + zlib.compress(_PROFILE)),
            png_chunk(b"cICP", b"\x0c\x0d\0\1"),
            png_chunk(b"pHYs", struct.pack(">IIB", 300, 300, 1)),
            png_chunk(b"tIME", struct.pack(">HBBBBB", 2025, 1, 2, 3, 4, 5)),
            png_chunk(b"tEXt", b"Comment\0text"),
            png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(9000))),
            png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP),
            png_chunk(b"eXIf", exif(6, order=">", entries_before=2)),
        ]
    )
    for colour, depths in PNG_DEPTHS.items():
        for depth, is_interlaced in itertools.product(depths, (False, True)):
            name = f"PNG colour {colour}, {depth} bits{', interlaced' * is_interlaced}"
            content = png(depth, colour, is_interlaced=is_interlaced)
            yield name, content
            if colour in transparency:
                yield f"{name}, tRNS", png_with(content, png_chunk(b"tRNS", transparency[colour]))
    yield "PNG with everything", png_with(png(8, 6), everything)
    yield "PNG with everything behind", png_with(png(16, 2, is_interlaced=True), b"", everything)
    yield "PNG and more behind its end", png(8, 2) + png_chunk(b"tEXt", b"k\0t") + struct.pack(">I4s", 9**9, b"IDAT")
    yield "PNG of many data chunks", _in_pieces(png(8, 2))


def _in_pieces(content: bytes) -> bytes:
    """The picture data of a PNG in chunks of 50 bytes."""
    at = content.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", content, at)
    data = content[at + 8 : at + 8 + length]
    pieces = [png_chunk(b"IDAT", data[begin : begin + 50]) for begin in range(0, length, 50)]
    return content[:at] + b"".join(pieces) + content[at + 12 + length :]


def _animated_pngs() -> Iterator[tuple[str, bytes]]:
    for dispose, blend, has_default in itertools.product(range(3), range(2), (True, False)):
        for depth, colour in ((8, 0), (8, 2), (8, 3), (8, 6), (16, 6), (1, 0)):
            name = f"APNG colour {colour}, {depth} bits, dispose {dispose}, blend {blend}{', default' * has_default}"
            yield name, animated_png(depth, colour, dispose, blend, has_default=has_default)


def _jpegs() -> Iterator[tuple[str, bytes]]:
    for mode, progressive in itertools.product(("RGB", "L", "CMYK"), (False, True)):
        for subsampling in (0, 1, 2) if mode == "RGB" else (0,):
            for options in ({}, {"restart_marker_blocks": 2}, {"optimize": True}):
                name = f"JPEG {mode}, progressive {progressive}, subsampling {subsampling}, {options}"
                yield (
                    name,
                    picture_bytes("JPEG", SIZE, mode, progressive=progressive, subsampling=subsampling, **options),
                )
    for factor in (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440):
        yield (
            f"JPEG sampling {factor:#x}",
            _by_opencv([cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]),
        )
    plain, cmyk = picture_bytes("JPEG", SIZE), picture_bytes("JPEG", SIZE, "CMYK")
    adobe = cmyk.index(b"Adobe")
    yield "JPEG YCCK", cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :]
    yield "JPEG RGB by Adobe", plain[:2] + jpeg_segment(0xEE, b"Adobe\0\x64" + bytes(5)) + plain[2:]
    segments = {
        "EXIF": jpeg_segment(0xE1, EXIF_PREFIX + exif(6, entries_before=3) + picture_bytes("JPEG", (8, 8))),
        "XMP": jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _XMP),
        "ICC": jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + _PROFILE),
        "MPF": jpeg_segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + bytes(60)),
        "COM": jpeg_segment(0xFE, b"a comment with \xff\xd9 in it"),
        "Photoshop": jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM" + bytes(30)),
        "JFXX": jpeg_segment(0xE0, b"JFXX\0\x10" + picture_bytes("JPEG", (8, 8))),
    }
    for name, segment in segments.items():
        yield f"JPEG with {name}", plain[:2] + segment + plain[2:]
    yield "JPEG of two pictures", plain[:2] + b"".join(segments.values()) + plain[2:] + plain
    yield "JPEG to be reduced", picture_bytes("JPEG", (1100, 1000), "L", quality=1, progressive=True)


def _by_opencv(options: list[int]) -> bytes:
    return cv2.imencode(".jpg", np.asarray(smooth_picture(*SIZE)), options)[1].tobytes()


def _webps() -> Iterator[tuple[str, bytes]]:
    opaque = smooth_picture(*SIZE)
    alpha = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0]), np.uint8)
    clear = Pillow.fromarray(np.dstack([np.asarray(opaque), alpha]))
    metadata: dict[str, Any] = {"exif": EXIF_PREFIX + exif(6), "icc_profile": _PROFILE, "xmp": _XMP}
    for has_alpha, lossless, method in itertools.product((False, True), (False, True), (0, 6)):
        picture, options = clear if has_alpha else opaque, {"lossless": lossless, "method": method}
        kind = f"WebP lossless {lossless}, alpha {has_alpha}, method {method}"
        yield kind, _saved(picture, **options)
        yield f"{kind}, metadata", _saved(picture, **options, **metadata)
        others = [picture.rotate(90 * n) for n in (1, 2)]
        yield (
            f"{kind}, animated",
            _saved(picture, save_all=True, append_images=others, duration=9, **options, **metadata),
        )
    for lossless in (False, True):
        inside = webp_picture(picture_bytes("WEBP", (9, 8), lossless=lossless))
        frames = [frame((2 * n, 4), (9, 8), webp_chunk(b"zzzz", b"odd"), inside) for n in range(3)]
        yield (
            f"WebP of frames with offsets, {lossless}",
            webp_extended(*SIZE, webp_chunk(b"ANIM", bytes(6)), *frames, webp_chunk(b"EXIF", exif(8)), flags=0x0A),
        )
    yield "WebP with unknown chunks", webp(webp_picture(picture_bytes("WEBP", SIZE)), webp_chunk(b"zzzz", b"any"))


def _saved(picture: Pillow.Image, **options: Any) -> bytes:
    content = BytesIO()
    picture.save(content, "WEBP", **options)
    return content.getvalue()
