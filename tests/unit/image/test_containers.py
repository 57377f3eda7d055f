"""Promises of taking pictures' files apart: the decoder gets pixels and nothing else, and every picture is upright.

What the decoder gets is held against a list of what may be in it, not against a list of what may not.
"""

import itertools
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from arcface_api.errors import ImageDamaged
from arcface_api.image import ImageLimits, decode
from arcface_api.image.container import EXIF_PREFIX, MAX_EXIF_ENTRIES, orientation_in
from arcface_api.image.decode import take_apart
from arcface_api.session.self_test import probe_crops
from containers import (
    exif,
    frame,
    gray_animation_cleared_to_the_background,
    jpeg_segment,
    png_chunk,
    png_chunks,
    png_with,
    webp,
    webp_chunk,
    webp_extended,
    webp_picture,
)
from pictures import decoded_by_opencv, picture_bytes, smooth_picture
from serving import Service

ANY_SIZE = ImageLimits(max_pixels=10**9)
CASES = Path(__file__).parents[4] / "shared" / "cases"
KINDS = ("JPEG", "PNG", "WEBP")


def decoded(content: bytes) -> NDArray[np.uint8]:
    return decode(content, ANY_SIZE).image


# ── building files ─────────────────────────────────────────────────────────────────────────────────────────────────


def stored(kind: str, value: int, picture: Pillow.Image | None = None, **save: Any) -> bytes:
    """A picture as a camera held so would store it: the inverse of what the viewer must do; without EXIF."""
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    picture = picture or smooth_picture(90, 120)
    if value in turns:
        picture = picture.transpose(Pillow.Transpose[turns[value]])
    content = BytesIO()
    picture.save(content, kind, quality=95, **save)
    return content.getvalue()


XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def with_exif(kind: str, content: bytes, data: bytes, *, behind_xmp: bool) -> bytes:
    """The file with EXIF data and XMP in the places that its format has for them."""
    if kind == "JPEG":
        xmp = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        both = [jpeg_segment(0xE1, EXIF_PREFIX + data.removeprefix(EXIF_PREFIX)), xmp]
        return content[:2] + b"".join(reversed(both) if behind_xmp else both) + content[2:]
    if kind == "PNG":
        xmp = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        chunk = png_chunk(b"eXIf", data)
        return png_with(content, xmp, chunk) if behind_xmp else png_with(content, chunk + xmp)
    both = [webp_chunk(b"EXIF", data), webp_chunk(b"XMP ", XMP)]
    header = take_apart(content)
    return webp_extended(
        header.width, header.height, webp_picture(content), *(reversed(both) if behind_xmp else both), flags=0x0C
    )


# ── upright ────────────────────────────────────────────────────────────────────────────────────────────────────────

VARIANTS = list(itertools.product((False, True), ("<", ">"), (3, 4), (b"", EXIF_PREFIX), (False, True)))
OTHER_CODING: dict[str, dict[str, Any]] = {"JPEG": {"progressive": True}, "PNG": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", range(1, 9))
def test_every_writers_exif_turns_the_picture_upright(kind: str, value: int) -> None:
    """Byte order, type, prefix, place: 32 ways to say each of the eight orientations in each format."""
    upright = np.asarray(smooth_picture(90, 120)).astype(int)
    for coding, order, number_type, prefix, behind_xmp in VARIANTS:
        options = OTHER_CODING[kind] if coding else {}
        data = exif(value, order=order, kind=number_type, prefix=prefix, entries_before=3)
        image = decoded(with_exif(kind, stored(kind, value, **options), data, behind_xmp=behind_xmp))
        assert image.shape == upright.shape
        assert np.abs(image - upright).mean() < 3


def test_however_it_is_turned_a_face_has_one_embedding(
    run_service: Callable[..., Service], real_recogniser: Path
) -> None:
    """8 orientations x 3 formats x 32 ways to say them, some of them equal: 512 different files."""
    service = run_service(real_recogniser)
    face = Pillow.fromarray(probe_crops(112, 112)[0])
    files = {
        with_exif(
            kind,
            stored(kind, value, face, **(OTHER_CODING[kind] if coding else {})),
            exif(value, order=order, kind=number_type, prefix=prefix, entries_before=3),
            behind_xmp=behind_xmp,
        )
        for kind, value in itertools.product(KINDS, range(1, 9))
        for coding, order, number_type, prefix, behind_xmp in VARIANTS
    }
    assert len(files) == 512
    of_other_pixels = {decoded(file).tobytes(): file for file in files}  # equal pixels have equal embeddings
    upright = embedding(service, stored("PNG", 1, face))
    assert min(float(upright @ embedding(service, file)) for file in of_other_pixels.values()) >= 0.99


def embedding(service: Service, content: bytes) -> NDArray[np.float64]:
    answer = service.post("/embed", files={"file": content}, params={"normalize": "true"})
    return np.array(answer.raise_for_status().json()["embedding"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        exif(6)[:20],
        exif(0),
        exif(9),
        exif(6, kind=2),
        exif(6, entries_before=MAX_EXIF_ENTRIES),
        b"XX*\0" + exif(6)[4:],
    ],
)
def test_exif_that_says_nothing_leaves_the_picture_as_it_is(kind: str, data: bytes) -> None:
    content = stored(kind, 1)
    assert np.array_equal(decoded(with_exif(kind, content, data, behind_xmp=False)), decoded(content))


def test_the_first_exif_counts() -> None:
    content = stored("PNG", 6)
    twice = png_with(content, png_chunk(b"eXIf", exif(6)), png_chunk(b"eXIf", exif(3)))
    assert decoded(twice).shape == (120, 90, 3)
    assert orientation_in(exif(6)) == 6


def test_exif_of_many_entries_that_point_to_one_long_string_is_not_followed() -> None:
    """65,535 strings of 64 kB each kept a decoder busy for minutes."""
    entry = struct.pack("<HHII", 0x010E, 2, 65_000, 8)
    data = b"II*\0" + struct.pack("<IH", 8, 65_535) + entry * 65_535
    for kind in ("PNG", "WEBP"):
        content = stored(kind, 1)
        assert exif_free(with_exif(kind, content, data, behind_xmp=False)) == exif_free(content)


def exif_free(content: bytes) -> bytes:
    return take_apart(content).pixel_file


# ── nothing but pixels ─────────────────────────────────────────────────────────────────────────────────────────────


def ordinary_png(mode: str, **save: Any) -> bytes:
    return picture_bytes("PNG", (61, 43), mode, **save)


ANCILLARY = {
    b"gAMA": struct.pack(">I", 100_000),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"sRGB": b"\0",
    b"iCCP": b"p\0\0" + zlib.compress(bytes(200)),
    b"cICP": b"\x0c\x0d\0\1",
    b"pHYs": struct.pack(">IIB", 300, 300, 1),
    b"tEXt": b"k\0t",
    b"zTXt": b"k\0\0" + zlib.compress(bytes(10**6)),
    b"acTL": struct.pack(">II", 2, 0),
    b"fcTL": struct.pack(">IIIIIHHBB", 0, 61, 43, 0, 0, 1, 10, 1, 0),
    b"fdAT": struct.pack(">I", 1) + b"x" * 50,
    b"vpAg": b"anything",
}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_of_a_png_the_decoder_gets_header_palette_and_data(mode: str) -> None:
    plain = ordinary_png(mode)
    everything = b"".join(itertools.starmap(png_chunk, ANCILLARY.items()))
    content = png_with(plain, everything, everything) + png_chunk(b"IDAT", b"behind the end") + b"\x7f\xff\xff\xff"
    kept = list(png_chunks(take_apart(content).pixel_file))
    assert {kind for kind, _ in kept} <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
    assert kept == [each for each in png_chunks(plain) if each[0] != b"tRNS"]
    assert np.array_equal(decoded(content), decoded(plain))


@pytest.mark.parametrize(
    ("mode", "transparency"), [("P", bytes(range(256))), ("P", 5), ("L", 100), ("RGB", (0, 0, 0)), ("1", 0)]
)
def test_transparency_of_a_png_changes_no_pixel(mode: str, transparency: object) -> None:
    content = ordinary_png(mode, transparency=transparency)
    assert b"tRNS" in content
    assert np.array_equal(decoded(content), decoded_by_opencv(content)[..., ::-1])


@pytest.mark.parametrize(
    "broken",
    [
        png_with(ordinary_png("RGB"), png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9999, 9999, 8, 2, 0, 0, 0))),
        png_with(ordinary_png("RGB"), png_chunk(b"NEED", b"to be understood")),
        ordinary_png("RGB")[:8] + png_chunk(b"tEXt", b"k\0t") + ordinary_png("RGB")[8:],
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", bytes(12)) + ordinary_png("RGB")[33:],
    ],
    ids=["two headers", "unknown critical chunk", "header not first", "short header"],
)
def test_png_that_is_not_built_as_one_is_damaged(broken: bytes) -> None:
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        decode(broken, ANY_SIZE)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_of_a_jpeg_the_decoder_gets_tables_frame_and_scans(mode: str, options: dict[str, Any]) -> None:
    plain = picture_bytes("JPEG", (61, 43), mode, **options)
    thumbnail = picture_bytes("JPEG", (9, 9))
    extra = b"".join(
        [
            jpeg_segment(0xE0, b"JFXX\0\x10" + thumbnail),
            jpeg_segment(0xE1, EXIF_PREFIX + exif(1) + thumbnail),
            jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(500)),
            jpeg_segment(0xE2, b"MPF\0" + bytes(100)),
            jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM" + bytes(60_000)),
            jpeg_segment(0xFE, b"a comment with \xff\xd9 in it"),
        ]
    )
    content = plain[:2] + extra + plain[2:] + thumbnail + b"\xff\xd9"
    pixel_file = take_apart(content).pixel_file
    assert pixel_file == take_apart(plain).pixel_file
    assert len(pixel_file) <= len(plain)
    assert np.array_equal(decoded(content), decoded_by_opencv(content)[..., ::-1])


def test_jfif_keeps_its_fields_and_loses_its_thumbnail() -> None:
    plain = picture_bytes("JPEG", dpi=(300, 200))
    assert plain[2:4] == b"\xff\xe0"
    fields = plain[6:18]
    with_thumbnail = plain[:2] + jpeg_segment(0xE0, fields + b"\x03\x03" + bytes(27)) + plain[20:]
    assert take_apart(with_thumbnail).pixel_file == take_apart(plain).pixel_file == plain


def test_filling_before_markers_is_no_damage() -> None:
    content = picture_bytes("JPEG", progressive=True)
    scan = content.index(b"\xff\xda")
    second = content.index(b"\xff\xc4", scan)
    filled = content[:scan] + b"\xff" * 5 + content[scan:second] + b"\xff" * 7 + content[second:-2] + b"\xff\xff\xd9"
    assert np.array_equal(decoded(filled), decoded(content))


@pytest.mark.parametrize("marker", [0x01, 0x02, 0xD8, 0xC0, 0xF3])
def test_a_marker_where_a_scan_has_none_is_damage(marker: int) -> None:
    """Decoders fill such a picture with grey from there on, without an error."""
    content = picture_bytes("JPEG", (300, 200))
    middle = (content.index(b"\xff\xda") + len(content)) // 2
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        decode(content[:middle] + bytes([0xFF, marker]) + content[middle:], ANY_SIZE)


def test_of_a_webp_the_decoder_gets_one_bitstream() -> None:
    extra = [webp_chunk(b"EXIF", exif(1)), webp_chunk(b"XMP ", XMP), webp_chunk(b"zzzz", b"any")]
    for lossless in (False, True):
        plain = picture_bytes("WEBP", (61, 43), lossless=lossless)
        profile = webp_chunk(b"ICCP", bytes(300))
        content = webp_extended(61, 43, profile, webp_picture(plain), *extra, flags=0x2C) + b"behind the end"
        assert take_apart(content).pixel_file == plain
        assert np.array_equal(decoded(content), decoded(plain))


@pytest.mark.parametrize("lossless", [False, True])
def test_transparency_of_a_webp_changes_no_pixel(lossless: bool) -> None:
    pixels = np.dstack([np.asarray(smooth_picture(61, 43)), np.random.default_rng(0).integers(0, 256, (43, 61))])
    file = BytesIO()
    Pillow.fromarray(pixels.astype(np.uint8)).save(file, "WEBP", lossless=lossless, exact=True)
    assert np.array_equal(decoded(file.getvalue()), decoded_by_opencv(file.getvalue())[..., ::-1])


@pytest.mark.parametrize("lossless", [False, True])
def test_of_an_animated_webp_the_first_frame_is_read(lossless: bool) -> None:
    first = picture_bytes("WEBP", (61, 43), lossless=lossless)
    other = picture_bytes("WEBP", (20, 20))
    animation = webp_chunk(b"ANIM", bytes(6))
    second = frame((10, 10), (20, 20), webp_picture(other))
    whole = webp_extended(61, 43, animation, frame((0, 0), (61, 43), webp_picture(first)), second, flags=0x02)
    assert take_apart(whole).pixel_file == first
    assert np.array_equal(decoded(whole), decoded(first))
    part = webp_extended(100, 90, animation, frame((10, 20), (61, 43), webp_picture(first)), second, flags=0x02)
    image = decoded(part)
    assert np.array_equal(image[20:63, 10:71], decoded(first))
    assert image.shape == (90, 100, 3)
    image[20:63, 10:71] = 0
    assert not image.any()


@pytest.mark.parametrize(
    "content",
    [
        webp_extended(100, 43, webp_picture(picture_bytes("WEBP", (61, 43)))),
        webp_extended(61, 43, frame((2, 0), (61, 43), webp_picture(picture_bytes("WEBP", (61, 43)))), flags=0x02),
        webp_extended(61, 43, frame((0, 0), (60, 43), webp_picture(picture_bytes("WEBP", (61, 43)))), flags=0x02),
        webp_extended(61, 43, webp_chunk(b"ANMF", bytes(9)), flags=0x02),
        webp_extended(61, 43, webp_chunk(b"EXIF", exif(1)), flags=0x08),
        webp(webp_chunk(b"VP8X", bytes(4))),
        webp_extended(61, 43, *[webp_chunk(b"zzzz", b"")] * 70_000),
    ],
    ids=["canvas", "beyond canvas", "other size", "short frame", "no picture", "short header", "chunks without end"],
)
def test_webp_that_contradicts_itself_is_damaged(content: bytes) -> None:
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        decode(content, ANY_SIZE)


# ── files that killed the decoder ──────────────────────────────────────────────────────────────────────────────────


MAX_GROWTH_BYTES = 100_000_000


def decode_in_a_child(content: bytes, path: Path) -> str:
    """How decoding ends in a process of its own: the picture's shape, or the error.

    The test fails where the process crashes, or its memory grows by more than `MAX_GROWTH_BYTES`.
    """
    path.write_bytes(content)
    program = (
        "import pathlib, resource, sys\n"
        "from arcface_api.errors import RequestError\n"
        "from arcface_api.image import ImageLimits, decode\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "for _ in range(20):\n"
        "    try: said = decode(pathlib.Path(sys.argv[1]).read_bytes(), ImageLimits(10**8)).image.shape\n"
        "    except RequestError as error: said = type(error).__name__\n"
        "print(peak() - before, said)\n"
    )
    child = subprocess.run([sys.executable, "-c", program, str(path)], check=False, capture_output=True, text=True)
    assert child.returncode == 0, f"ended with {child.returncode}: {child.stderr}"
    growth, said = child.stdout.strip().split(" ", 1)
    assert int(growth) < MAX_GROWTH_BYTES
    return said


def test_animation_that_is_cleared_to_the_background_is_its_first_picture(tmp_path: Path) -> None:
    assert decode_in_a_child(gray_animation_cleared_to_the_background(), tmp_path / "a.png") == "(32, 32, 3)"


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt"])
def test_what_a_png_announces_behind_its_end_is_never_reserved(kind: bytes, tmp_path: Path) -> None:
    header = ordinary_png("RGB")[:33]
    content = header + png_chunk(b"IEND") + struct.pack(">I4s", 2**31 - 1, kind)
    assert decode_in_a_child(content, tmp_path / "a.png") == "ImageDamaged"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("apng_dispose_background.png", r"\(32, 32, 3\)|\(\d+, \d+, 3\)"),
        ("png_after_iend.png", r"\(.*3\)|ImageDamaged"),
    ],
)
def test_files_that_stopped_the_service_are_read_or_refused(name: str, said: str, tmp_path: Path) -> None:
    if not (CASES / name).is_file():
        pytest.skip(f"needs {CASES / name}, which is not part of this project")
    assert re.fullmatch(said, decode_in_a_child((CASES / name).read_bytes(), tmp_path / name))


@pytest.mark.parametrize("name", ["webp_orientation6.webp", "webp_orientation6_exif_prefix.webp"])
def test_webp_of_either_writer_is_upright(name: str) -> None:
    if not (CASES / name).is_file():
        pytest.skip(f"needs {CASES / name}, which is not part of this project")
    upright = decoded((CASES / "upright.png").read_bytes()).astype(int)
    turned = decoded((CASES / name).read_bytes())
    assert turned.shape == upright.shape
    assert np.abs(turned - upright).mean() < 6
