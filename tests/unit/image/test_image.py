"""Promises of `arcface_api.image`: what is read, what is refused, and that size is checked before decoding."""

import contextlib
import itertools
import struct
import tracemalloc
import zlib
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from arcface_api import image
from arcface_api.arrays import Image
from arcface_api.errors import ImageDamaged, ImageEmpty, ImageFormatUnsupported, ImageTooManyPixels, RequestError
from arcface_api.image import ImageLimits, stretch
from arcface_api.image.container import ImageFormat
from arcface_api.image.decode import take_apart
from pictures import decoded_by_opencv, picture_bytes, png_announcing, smooth_picture

ANY_SIZE = ImageLimits(max_pixels=10**9)


def decode(content: bytes, limits: ImageLimits = ANY_SIZE, least_side: int | None = None) -> Image:
    return image.decode(content, limits, least_side).image


FORMATS = {"JPEG": ImageFormat.JPEG, "PNG": ImageFormat.PNG, "WEBP": ImageFormat.WEBP}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (90, 120), (641, 2)])
def test_header_gives_format_and_size(kind: str, size: tuple[int, int]) -> None:
    header = take_apart(picture_bytes(kind, size))
    assert (header.format, header.width, header.height) == (FORMATS[kind], *size)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0" + b"x" * 60_000, "icc_profile": b"\xff\xc0" * 40_000}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*" + b"x" * 100}),
    ],
)
def test_header_is_found_behind_other_segments(kind: str, options: dict[str, Any]) -> None:
    header = take_apart(picture_bytes(kind, (90, 120), **options))
    assert (header.width, header.height) == (90, 120)


def test_webp_with_alpha_announces_its_canvas() -> None:
    header = take_apart(picture_bytes("WEBP", (33, 77), "RGBA"))
    assert (header.width, header.height) == (33, 77)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_turned_upright_by_exif(kind: str, orientation: int) -> None:
    upright = np.asarray(smooth_picture(90, 120))
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}  # what a camera stored: the inverse of what the viewer must do
    stored = smooth_picture(90, 120)
    if orientation in turns:
        stored = stored.transpose(Pillow.Transpose[turns[orientation]])
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    content = BytesIO()
    stored.save(content, kind, exif=exif, quality=95)
    decoded = decode(content.getvalue(), ANY_SIZE)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).mean() < 3


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [
        ("JPEG", "L", 3),
        ("JPEG", "CMYK", 6),
        ("PNG", "L", 1),
        ("PNG", "P", 12),
        ("PNG", "1", 160),
        ("PNG", "LA", 1),
        ("WEBP", "RGB", 5),
    ],
)
def test_other_modes_become_rgb(kind: str, mode: str, tolerance: float) -> None:
    decoded = decode(picture_bytes(kind, mode=mode), ANY_SIZE)
    wanted = np.asarray(smooth_picture(90, 120).convert(mode).convert("RGB")).astype(int)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (120, 90, 3)
    assert np.abs(decoded - wanted).mean() < tolerance


def test_channels_are_in_rgb_order() -> None:
    red = Pillow.new("RGB", (8, 8), (250, 20, 10))
    content = BytesIO()
    red.save(content, "PNG")
    assert decode(content.getvalue(), ANY_SIZE)[4, 4].tolist() == [250, 20, 10]


def test_alpha_is_dropped_not_blended() -> None:
    pixels = np.dstack([np.asarray(smooth_picture(90, 120)), np.zeros((120, 90), np.uint8)])
    content = BytesIO()
    Pillow.fromarray(pixels).save(content, "PNG")
    assert np.array_equal(decode(content.getvalue(), ANY_SIZE), pixels[..., :3])


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(channels: int) -> None:
    eight = np.asarray(smooth_picture(90, 120))[..., :channels]
    written, content = cv2.imencode(".png", eight.astype(np.uint16) * 257)
    assert written
    wanted = eight[..., ::-1] if channels == 3 else np.repeat(eight, 3, axis=-1)
    assert np.array_equal(decode(content.tobytes(), ANY_SIZE), wanted)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_pixels_are_those_of_opencv(kind: str, options: dict[str, Any]) -> None:
    content = picture_bytes(kind, **options)
    assert np.array_equal(decode(content, ANY_SIZE), decoded_by_opencv(content)[..., ::-1])


def test_one_pixel_is_a_picture() -> None:
    image = decode(picture_bytes("PNG", (1, 1)), ANY_SIZE)
    assert image.shape == (1, 1, 3)
    assert (stretch(image, 112, 112) == image[0, 0]).all()


def test_empty_file_is_refused() -> None:
    with pytest.raises(ImageEmpty, match="0 bytes"):
        decode(b"", ANY_SIZE)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"GIF89a" + b"\0" * 50, "GIF"),
        (b"BM" + b"\0" * 50, "BMP"),
        (b"\0\0\0\x1cftypheic", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"%PDF-1.7", "PDF"),
        (b"II*\0" + b"\0" * 20, "TIFF"),
        (b"  <!DOCTYPE HTML><html>", "HTML page"),
        (b'{"image": 1}', "JSON"),
        (b"/9j/4AAQSkZJRg", "Base64"),
        (b"iVBORw0KGgoAAAAN", "Base64"),
        (b"data:image/png;base64,iVBO", "data: URL"),
        (b"hello", "plain text"),
        (b"\x01\x02\x03\x04", "01 02 03 04"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_other_formats_are_named(content: bytes, named: str) -> None:
    with pytest.raises(ImageFormatUnsupported) as raised:
        decode(content, ANY_SIZE)
    assert named in str(raised.value)
    assert "Allowed are JPEG, PNG and WebP" in str(raised.value)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("tenths", range(1, 10))
def test_truncated_file_is_damaged(kind: str, tenths: int) -> None:
    content = picture_bytes(kind, (300, 400))
    with pytest.raises(ImageDamaged, match=r"(?i)whole file"):
        decode(content[: len(content) * tenths // 10], ANY_SIZE)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_short_beginning_is_refused_with_a_sentence(kind: str) -> None:
    content = picture_bytes(kind, (20, 20))
    for length in itertools.chain(range(1, 60), range(60, len(content) - 2, 7)):
        with pytest.raises((ImageDamaged, ImageFormatUnsupported)):
            decode(content[:length], ANY_SIZE)


@pytest.mark.parametrize("padding", [b"\0" * 5000, b"\xff\xd8" * 100])
def test_truncated_jpeg_is_damaged_also_when_padded(padding: bytes) -> None:
    content = picture_bytes("JPEG", (300, 400), exif=b"Exif\0\0" + picture_bytes("JPEG", (9, 9)))
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        decode(content[: len(content) * 2 // 3] + padding, ANY_SIZE)


@pytest.mark.parametrize(
    ("marker", "precision"), [(0xC3, 8), (0xC5, 8), (0xC7, 8), (0xC1, 12), (0xC9, 8), (0xCA, 8), (0xCB, 8)]
)
def test_jpeg_of_another_kind_is_named(marker: int, precision: int) -> None:
    content = bytearray(picture_bytes("JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 1], content[frame + 4] = marker, precision
    with pytest.raises(ImageFormatUnsupported, match=rf"SOF{marker - 0xC0}, {precision} bits"):
        decode(bytes(content), ANY_SIZE)


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2])
def test_size_is_found_in_every_readable_kind_behind_tables(marker: int) -> None:
    content = bytearray(picture_bytes("JPEG", (90, 120)))
    frame = content.index(b"\xff\xc0")
    content[frame + 1] = marker
    table = b"\xff\xc4\x00\x0b" + b"\x08\x01\x01\x01\x01" + b"\0" * 4  # Huffman tables may come first; C4 is no frame
    header = take_apart(bytes(content[:frame]) + table + bytes(content[frame:]))
    assert (header.width, header.height) == (90, 120)


def test_header_ends_where_the_scan_begins() -> None:
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        take_apart(b"\xff\xd8\xff\xda\x00\x02" + b"\xff\xc0\x00\x11\x08\x00\x09\x00\x09" + b"\0" * 20)


def test_scaling_bits_of_webp_are_no_size() -> None:
    content = bytearray(picture_bytes("WEBP", (90, 120)))
    content[27] |= 0x40  # RFC 6386 section 9.1: the upper two bits of 16 ask for scaling
    content[29] |= 0x80
    header = take_apart(bytes(content))
    assert (header.width, header.height) == (90, 120)


def test_opencv_that_raises_is_a_damaged_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object) -> None:
        raise cv2.error("no memory")

    monkeypatch.setattr(cv2, "imdecode", raising)
    with pytest.raises(ImageDamaged):
        decode(picture_bytes("PNG"), ANY_SIZE)


def test_side_longer_than_libpng_reads_is_refused() -> None:
    with pytest.raises(ImageTooManyPixels, match="no side may have more than 1,000,000"):
        decode(png_announcing(1_000_001, 1), ANY_SIZE)


def test_zero_size_is_damaged() -> None:
    with pytest.raises(ImageDamaged, match="0x7 pixels"):
        decode(png_announcing(0, 7), ANY_SIZE)


def test_pixels_are_counted_from_the_header_without_memory() -> None:
    bomb = png_announcing(50_000, 50_000)
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooManyPixels, match="50000x50000 = 2,500,000,000 pixels; at most 50,000,000"):
            decode(bomb, ImageLimits(50_000_000))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_limit_itself_is_allowed() -> None:
    content = picture_bytes("PNG", (30, 40))
    assert decode(content, ImageLimits(1200)).shape == (40, 30, 3)
    with pytest.raises(ImageTooManyPixels):
        decode(content, ImageLimits(1199))


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xd0", b"\xff\xe0\x00\x02", b"\xff\x00", b"\xff\xe0\x00\x00"])
def test_endless_jpeg_segments_are_refused(filler: bytes) -> None:
    with pytest.raises(ImageDamaged):
        take_apart(b"\xff\xd8\xff\xe0\x00\x02" + filler * 2_000_000)


# ── files that are built to cost more than their pixels ────────────────────────────────────────────────────────────


def chunk(kind: bytes, content: bytes = b"", announced: int | None = None) -> bytes:
    """A piece of a PNG file, which may announce another length than it has."""
    length = len(content) if announced is None else announced
    return struct.pack(">I", length) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(content: bytes, chunks: bytes) -> bytes:
    """A PNG with more pieces behind its header."""
    behind_header = 8 + 12 + 13
    return content[:behind_header] + chunks + content[behind_header:]


@pytest.fixture
def seen_by_decoders(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the decoders were given."""
    seen: list[bytes] = []
    imdecode = cv2.imdecode

    def spying(content: Any, flags: int) -> Any:
        seen.append(content.tobytes())
        return imdecode(content, flags)

    def spying_too(jpeg: bytes, *_: Any, **__: Any) -> Any:
        seen.append(jpeg)
        raise ValueError("not decoded")

    monkeypatch.setattr(cv2, "imdecode", spying)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", spying_too)
    return seen


@pytest.mark.parametrize("kind", [b"IDAT", b"PLTE", b"tEXt", b"fdAT", b"eXIf", b"zzZz"])
def test_png_that_announces_more_than_it_has_never_reaches_the_decoder(
    kind: bytes, seen_by_decoders: list[bytes]
) -> None:
    """libpng would reserve, and touch, all of the four gigabytes."""
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        decode(with_chunks(picture_bytes("PNG"), chunk(kind, announced=0xFFFFFF00)), ANY_SIZE)
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        decode(with_chunks(picture_bytes("PNG"), chunk(b"IDAT") * 70_000), ANY_SIZE)
    assert not seen_by_decoders


def test_texts_in_a_png_are_not_unpacked_and_change_nothing(seen_by_decoders: list[bytes]) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    plain = picture_bytes("PNG", exif=exif)
    packed = zlib.compress(b"a" * 7_000_000)
    texts = chunk(b"zTXt", b"k\0\0" + packed) + chunk(b"tEXt", b"k\0t") + chunk(b"iTXt", b"k\0\1\0\0\0" + packed)
    content = with_chunks(plain, texts * 3)
    content = content[:-12] + texts + content[-12:] + b"and something behind the end"
    assert np.array_equal(decode(content, ANY_SIZE), decode(plain, ANY_SIZE))
    without_exif = picture_bytes("PNG")
    assert seen_by_decoders == [without_exif, without_exif]


def test_png_with_far_more_data_than_pixels_never_reaches_the_decoder(seen_by_decoders: list[bytes]) -> None:
    """It would unpack all of it: four megabytes to four gigabytes, for a picture of 40 x 30."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0))
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1_000_000)) for _ in range(1200)) + packer.flush()
    content = (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed[:1000]) + chunk(b"IDAT", packed[1000:]) + chunk(b"IEND")
    )
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        decode(content, ANY_SIZE)
    assert not seen_by_decoders


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_large_png_of_any_kind_is_read(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1600, 3), dtype=np.uint8)
    picture = Pillow.fromarray(noise) if mode != "I;16" else Pillow.fromarray(noise[..., 0].astype(np.uint16) * 257)
    with BytesIO() as file:
        (picture if mode == "I;16" else picture.convert(mode)).save(file, "PNG")
        content = file.getvalue()
    assert len(content) > 1_000_000
    assert np.array_equal(decode(content, ANY_SIZE), decoded_by_opencv(content)[..., ::-1])


def test_animated_png_keeps_its_first_picture(seen_by_decoders: list[bytes]) -> None:
    frames = [smooth_picture(40, 30), Pillow.new("RGB", (40, 30), (255, 0, 0))]
    with BytesIO() as file:
        frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
        content = file.getvalue()
    assert b"acTL" in content
    assert np.array_equal(decode(with_chunks(content, chunk(b"tEXt", b"k\0t")), ANY_SIZE), np.asarray(frames[0]))
    with BytesIO() as file:
        frames[0].save(file, "PNG")
        assert seen_by_decoders == [file.getvalue()]


@pytest.mark.parametrize("least_bytes", [0, 1_000_000])
def test_jpeg_with_scans_without_end_never_reaches_the_decoder(least_bytes: int, seen_by_decoders: list[bytes]) -> None:
    """Each is a pass over all pixels: of a large picture, half a megabyte of them takes minutes."""
    content = picture_bytes("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    scans = content[last:-2] * (1000 + least_bytes // (len(content) - last))
    repeated = content[:-2] + scans + content[-2:]
    with pytest.raises(ImageDamaged, match="has more than 100 scans"):
        decode(repeated, ANY_SIZE)
    hidden = content[:-2] + b"\xff\xfe\x00\x04\xff\xd9" + scans + content[-2:]  # an end that is none
    with pytest.raises(ImageDamaged, match="has more than 100 scans"):
        decode(hidden, ANY_SIZE)
    assert not seen_by_decoders


@pytest.mark.parametrize("times", [1000, 600_000])
def test_what_follows_a_jpeg_is_not_counted_as_its_scans(times: int) -> None:
    """Phones append a film to a photo, in which any two bytes occur."""
    content = picture_bytes("JPEG", progressive=True)
    assert np.array_equal(decode(content + b"\xff\xda" * times, ANY_SIZE), decode(content, ANY_SIZE))


@pytest.mark.parametrize("size", [(24, 30), (112, 112), (112, 80), (500, 700), (1, 900)])
def test_stretch_equals_the_reference_bit_for_bit(size: tuple[int, int]) -> None:
    image = np.asarray(smooth_picture(*size)) ^ np.random.default_rng(0).integers(0, 64, (*size[::-1], 3), np.uint8)
    blob = cv2.dnn.blobFromImages([image[..., ::-1]], 1.0, (112, 112), (0, 0, 0), swapRB=True)
    assert np.array_equal(stretch(image, 112, 112).transpose(2, 0, 1), blob[0])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_picture_or_a_refusal(content: bytes) -> None:
    with contextlib.suppress(RequestError):
        decode(content, ANY_SIZE)


@settings(deadline=None)  # a time limit would be a timed assertion
@given(kind=st.sampled_from(sorted(FORMATS)), data=st.data())
def test_any_damage_is_a_picture_or_a_refusal(kind: str, data: st.DataObject) -> None:
    """Bytes overwritten, removed or repeated anywhere: never another error, never more pixels than allowed."""
    content = bytearray(picture_bytes(kind, (40, 30)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        until = data.draw(st.integers(at, min(len(content), at + 50)))
        content[at:until] = data.draw(st.binary(max_size=8))
    with contextlib.suppress(RequestError):
        assert decode(bytes(content), ImageLimits(10_000)).size <= 3 * 10_000
