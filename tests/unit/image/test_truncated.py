"""Promises of pictures that were cut short: refused, or decoded with a warning; and no warning of a whole one."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from arcface_api.errors import ImageDamaged
from arcface_api.image import Decoders, ImageLimits, PixelsOf, decode
from conftest import LFW
from containers import png_chunk, png_chunks
from pictures import decoded_by_opencv, picture_bytes
from serving import Service

ANY_SIZE = ImageLimits(max_pixels=10**9)
SOI, SOF2, DHT, SOS, EOI = b"\xff\xd8", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"\xff\xd9"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "4:2:0": ("RGB", {"subsampling": "4:2:0"}),
    "4:2:2": ("RGB", {"subsampling": "4:2:2"}),
    "4:4:4": ("RGB", {"subsampling": "4:4:4", "quality": 98}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
    "progressive": ("RGB", {"progressive": True}),
    "progressive grey": ("L", {"progressive": True, "quality": 95}),
    "progressive CMYK": ("CMYK", {"progressive": True}),
    "restart markers": ("RGB", {"restart_marker_blocks": 3}),
    "progressive, restart markers": ("RGB", {"progressive": True, "restart_marker_blocks": 5}),
}


def photo(kind: str, size: tuple[int, int] = (203, 141)) -> bytes:
    """A picture with detail everywhere."""
    mode, options = KINDS[kind]
    pixels = np.random.default_rng(7).integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), np.uint8)
    content = io.BytesIO()
    Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BICUBIC).convert(mode).save(content, "JPEG", **options)
    return content.getvalue()


def cut(jpeg: bytes, part: float) -> bytes:
    """The beginning, closed by an end marker."""
    data = jpeg.index(SOS) + 14
    return jpeg[: data + int((len(jpeg) - data - 2) * part)].rstrip(b"\xff") + EOI


def with_jfif_9(jpeg: bytes) -> bytes:
    return jpeg.replace(b"JFIF\0\x01", b"JFIF\0\x09", 1)


def with_surplus(jpeg: bytes) -> bytes:
    return jpeg[:-2] + bytes(9) + jpeg[-2:]


def with_baseline_scan_of_another_kind(jpeg: bytes) -> bytes:
    """Some encoders write zeros where T.81 has 0 and 63."""
    return jpeg.replace(b"\x00\x3f\x00", bytes(3), 1)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with closing(Decoders(max_pixels=50_000_000, max_bytes=20_000_000, most_seconds=20)) as decoders:
        yield decoders


@pytest.fixture(params=["in the service", "in a process"])
def pixels_of(request: pytest.FixtureRequest) -> PixelsOf | None:
    return None if request.param == "in the service" else request.getfixturevalue("decoders").pixels


# ── cut short ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("part", [0.02, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("kind", KINDS)
def test_jpeg_cut_short_is_found(kind: str, part: float, pixels_of: PixelsOf | None) -> None:
    truncated = cut(photo(kind), part)
    decoded = decode(truncated, ANY_SIZE, pixels_of=pixels_of)
    assert decoded.is_truncated
    assert np.array_equal(decoded.image, decoded_by_opencv(truncated)[..., ::-1])


@pytest.mark.parametrize("change", [with_jfif_9, with_baseline_scan_of_another_kind])
def test_jpeg_cut_short_is_found_behind_another_warning(change: Callable[[bytes], bytes]) -> None:
    whole = change(photo("4:2:0"))
    assert not decode(whole, ANY_SIZE).is_truncated
    assert decode(cut(whole, 0.6), ANY_SIZE).is_truncated


@pytest.mark.parametrize("kind", ["progressive", "progressive grey"])
def test_progressive_jpeg_that_lacks_a_scan_is_found(kind: str) -> None:
    """libjpeg has no warning for it."""
    content = photo(kind)
    scans = content.count(SOS)
    for _ in range(scans - 1):
        begin = content.rindex(SOS)
        tables = content.rfind(DHT, 0, begin)  # may lie before the scan
        between = content.rfind(SOS, 0, begin)
        content = content[: tables if tables > between else begin] + EOI
        assert decode(content, ANY_SIZE).is_truncated
    assert content.count(SOS) == 1


def test_large_jpeg_cut_short_is_found_when_reduced(pixels_of: PixelsOf | None) -> None:
    content = photo("4:2:0", (1203, 1001))
    whole, truncated = (decode(each, ANY_SIZE, 112, pixels_of) for each in (content, cut(content, 0.5)))
    assert (whole.is_truncated, truncated.is_truncated) == (False, True)
    assert truncated.image.shape == whole.image.shape == (126, 151, 3)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_png_with_less_data_than_pixels_is_refused(part: float) -> None:
    pieces = [(kind, data) for kind, data in png_chunks(picture_bytes("PNG"))]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, data[: int(len(data) * part)] if kind == b"IDAT" else data) for kind, data in pieces
    )
    with pytest.raises(ImageDamaged):
        decode(content, ANY_SIZE)


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_webp_with_less_data_than_pixels_is_refused(part: float, options: dict[str, Any]) -> None:
    content = picture_bytes("WEBP", **options)
    size = int((len(content) - 20) * part) // 2 * 2
    sizes = [(size + 12).to_bytes(4, "little"), size.to_bytes(4, "little")]
    with pytest.raises(ImageDamaged):
        decode(b"RIFF" + sizes[0] + content[8:16] + sizes[1] + content[20 : 20 + size], ANY_SIZE)


# ── whole ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 9), (112, 112), (203, 141)])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_jpeg_has_no_warning_and_opencvs_pixels(kind: str, size: tuple[int, int]) -> None:
    content = photo(kind, size)
    for each in (content, content + b"\0" * 50, content + content):
        decoded = decode(each, ANY_SIZE)
        assert not decoded.is_truncated
        assert np.array_equal(decoded.image, decoded_by_opencv(content)[..., ::-1])


def test_whole_jpeg_with_other_oddities_has_no_warning() -> None:
    """libjpeg warns of each."""
    for change in (with_jfif_9, with_surplus, with_baseline_scan_of_another_kind):
        content = change(photo("4:2:0"))
        decoded = decode(content, ANY_SIZE)
        assert not decoded.is_truncated, change
        assert np.array_equal(decoded.image, decoded_by_opencv(content)[..., ::-1])


@pytest.mark.parametrize("factors", ["0x411111", "0x221111", "0x211111", "0x121111", "0x111111"])
@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("is_progressive", [False, True])
def test_every_sampling_and_reduction_has_opencvs_pixels(factors: str, divisor: int, is_progressive: bool) -> None:
    picture = cv2.resize(np.random.default_rng(3).integers(0, 256, (90, 110, 3), np.uint8), (1205, 1003))
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, int(factors, 16), cv2.IMWRITE_JPEG_PROGRESSIVE, int(is_progressive)]
    content = cv2.imencode(".jpg", picture, options)[1].tobytes()
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flag = flags.get(divisor, cv2.IMREAD_REDUCED_COLOR_8)
    decoded = decode(content, ANY_SIZE, None if divisor == 1 else 1003 // divisor)
    assert not decoded.is_truncated
    wanted = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    assert wanted is not None
    assert np.array_equal(decoded.image[..., ::-1], wanted)


def test_no_face_of_lfw_has_a_warning() -> None:
    if not (LFW / "images.tar").is_file():
        pytest.skip(f"needs {LFW}: real faces are not part of this project (set ARCFACE_TEST_LFW)")
    with tarfile.open(LFW / "images.tar") as images:
        for number, member in enumerate(images):
            file = images.extractfile(member)
            if file is None:
                continue
            content = file.read()
            decoded = decode(content, ANY_SIZE)
            assert not decoded.is_truncated, member.name
            if number % 10 == 0:
                assert np.array_equal(decoded.image, decoded_by_opencv(content)[..., ::-1]), member.name


# ── the answer ─────────────────────────────────────────────────────────────────────────────────────────────────────


def embed(service: Service, content: bytes, **options: str) -> httpx.Response:
    return service.post("/embed", content=content, headers={"Content-Type": "image/jpeg"}, params=options)


def test_answer_warns_without_being_asked(service: Service) -> None:
    """In a header: the body's keys are the contract."""
    whole, truncated = embed(service, photo("4:2:0")), embed(service, cut(photo("4:2:0"), 0.5))
    assert "x-warnings" not in whole.headers
    assert truncated.headers["x-warnings"] == "truncated"
    assert list(truncated.json()) == list(whole.json())


def test_answer_with_quality_has_the_warning_in_its_body(service: Service) -> None:
    answer = embed(service, cut(photo("4:2:0"), 0.5), include_quality="true")
    assert answer.json()["warnings"][-1] == "truncated"
    assert answer.headers["x-warnings"].split(", ") == answer.json()["warnings"]


def test_batch_names_the_pictures_in_a_header(service: Service) -> None:
    whole, truncated = photo("progressive"), cut(photo("progressive"), 0.5)
    files = [("files", content) for content in (truncated, whole, b"no picture", truncated)]
    answer = service.post("/embed/batch", files=files)
    assert answer.headers["x-warnings"] == "truncated=0 3"
    assert all("warnings" not in result for result in answer.json()["results"])
    answer = service.post("/embed/batch", files=files[1:3])
    assert "x-warnings" not in answer.headers
