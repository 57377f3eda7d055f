"""Promises of `resize`: which pictures are reduced, that they stay the same picture, and what `exact` guarantees."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from arcface_api import image
from arcface_api.arrays import Image
from arcface_api.errors import ImageDamaged, ImageTooManyPixels
from arcface_api.face.head_pose import head_pose
from arcface_api.image import ImageLimits
from pictures import decoded_by_opencv, picture_bytes, smooth_picture
from serving import Service
from tiny_models import turned

ANY_SIZE = ImageLimits(max_pixels=10**9)
LARGE = (2003, 1997)
"""(width, height): no multiples of 8."""


def decode(content: bytes, limits: ImageLimits, least_side: int | None = None) -> Image:
    return image.decode(content, limits, least_side).image


def shrunk(picture: NDArray[np.uint8], like: Image) -> NDArray[np.int64]:
    """A picture averaged to another's size: what each pixel of a reduced one should be."""
    small = cv2.resize(picture, like.shape[1::-1], interpolation=cv2.INTER_AREA)
    return small.astype(np.int64)


@pytest.mark.parametrize(
    ("size", "divisor"),
    [
        ((1000, 1000), 1),  # a million pixels are not more than a million
        ((1000, 1001), 4),
        ((2000, 1791), 4),
        ((2000, 1792), 8),
        ((1792, 2000), 8),
        ((9000, 1800), 8),
        ((1201, 895), 2),
        ((1201, 896), 4),
        ((3000, 447), 1),
        ((3000, 448), 2),
        ((9000, 120), 1),
    ],
)
def test_large_jpeg_is_reduced_while_both_sides_allow_it(size: tuple[int, int], divisor: int) -> None:
    width, height = size
    decoded = decode(picture_bytes("JPEG", size), ANY_SIZE, least_side=224)
    assert decoded.shape == (-(-height // divisor), -(-width // divisor), 3)


@pytest.mark.parametrize(
    ("kind", "size", "least_side"),
    [
        ("PNG", LARGE, 224),
        ("WEBP", LARGE, 224),
        ("JPEG", (1000, 1000), 1),
        ("JPEG", LARGE, None),
    ],
)
def test_every_other_picture_has_the_pixels_of_opencv(kind: str, size: tuple[int, int], least_side: int | None) -> None:
    content = picture_bytes(kind, size)
    assert np.array_equal(decode(content, ANY_SIZE, least_side), decoded_by_opencv(content)[..., ::-1])


@pytest.mark.parametrize(("least_side", "divisor"), [(998, 2), (499, 4), (249, 8)])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"subsampling": "4:4:4", "quality": 95}),
        ("RGB", {"subsampling": "4:2:0", "quality": 95}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_reduced_picture_is_the_whole_picture_smaller(
    mode: str, options: dict[str, Any], least_side: int, divisor: int
) -> None:
    content = picture_bytes("JPEG", LARGE, mode, **options)
    reduced = decode(content, ANY_SIZE, least_side)
    assert reduced.dtype == np.uint8
    assert reduced.shape == (-(-1997 // divisor), -(-2003 // divisor), 3)
    assert np.abs(reduced - shrunk(decode(content, ANY_SIZE), reduced)).mean() < 1


def test_reduced_channels_are_in_rgb_order() -> None:
    content = BytesIO()
    Pillow.new("RGB", LARGE, (250, 20, 10)).save(content, "JPEG", quality=100)
    reduced = decode(content.getvalue(), ANY_SIZE, 224)
    assert reduced.shape == (250, 251, 3)
    assert np.abs(reduced.astype(int) - (250, 20, 10)).max() <= 2


@pytest.mark.parametrize("divisor", [2, 4, 8])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_picture_is_turned_upright_by_exif(orientation: int, divisor: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    content = picture_bytes("JPEG", (1600, 800), exif=exif)
    reduced = decode(content, ANY_SIZE, 800 // divisor)
    width, height = (1600, 800) if orientation < 5 else (800, 1600)
    assert reduced.shape == (height // divisor, width // divisor, 3)
    assert np.abs(reduced - shrunk(decode(content, ANY_SIZE), reduced)).mean() < 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.97, 0.999])
@pytest.mark.parametrize("padding", [b"", b"\0" * 5000])
def test_truncated_jpeg_is_damaged_also_when_reduced(options: dict[str, Any], part: float, padding: bytes) -> None:
    content = picture_bytes("JPEG", LARGE, **options)
    with pytest.raises(ImageDamaged, match=r"(?i)whole file"):
        decode(content[: int(len(content) * part)] + padding, ANY_SIZE, 224)


def test_pixel_limit_counts_the_file_s_pixels_not_the_reduced_ones() -> None:
    with pytest.raises(ImageTooManyPixels, match="2003x1997 = 3,999,991 pixels"):
        decode(picture_bytes("JPEG", LARGE), ImageLimits(1_000_000), 224)


# ── through the service ────────────────────────────────────────────────────────────────────────────────────────────


def embed(service: Service, content: bytes, **query: Any) -> dict[str, Any]:
    answer = service.post("/embed", files={"file": content}, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def textured(width: int, height: int) -> bytes:
    """A JPEG with noise, so that reducing it changes the crop."""
    noise = np.random.default_rng(0).integers(0, 64, (height, width, 3), np.uint8)
    content = BytesIO()
    Pillow.fromarray(np.asarray(smooth_picture(width, height)) // 4 * 3 + noise).save(content, "JPEG", quality=92)
    return content.getvalue()


def as_png(content: bytes, flag: int = cv2.IMREAD_COLOR) -> bytes:
    """The pixels that OpenCV decodes, in a file that is never reduced."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    assert picture is not None
    return cv2.imencode(".png", picture)[1].tobytes()


def cosine(one: dict[str, Any], other: dict[str, Any]) -> float:
    a, b = np.array(one["embedding"]), np.array(other["embedding"])
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_exact_gives_the_vector_of_all_pixels_and_auto_one_close_to_it(service: Service) -> None:
    content = textured(1300, 1100)
    exact, auto = embed(service, content, resize="exact"), embed(service, content, resize="auto")
    assert exact["embedding"] == embed(service, as_png(content))["embedding"]
    assert auto["embedding"] != exact["embedding"]
    assert cosine(auto, exact) > 0.999
    assert embed(service, content) == auto


@pytest.mark.parametrize(
    ("pack", "side", "flag"),
    [
        ("tiny_recogniser", 2 * 112 * 8, cv2.IMREAD_REDUCED_COLOR_8),
        ("tiny_recogniser", 2 * 112 * 8 - 1, cv2.IMREAD_REDUCED_COLOR_4),
        ("tiny_pack", 2 * 128 * 8, cv2.IMREAD_REDUCED_COLOR_8),
        ("tiny_pack", 2 * 128 * 8 - 1, cv2.IMREAD_REDUCED_COLOR_4),
    ],
)
def test_auto_keeps_twice_the_side_that_the_loaded_models_see(
    run_service: Callable[..., Service], request: pytest.FixtureRequest, pack: str, side: int, flag: int
) -> None:
    """The recogniser sees 112 pixels; the landmark model 192, of which a margin takes a third."""
    service, content = run_service(request.getfixturevalue(pack)), textured(side, side)
    assert embed(service, content)["embedding"] == embed(service, as_png(content, flag))["embedding"]


def test_jpeg_up_to_a_million_pixels_is_exact_whatever_is_asked(service: Service) -> None:
    content = textured(1250, 800)
    vectors = [embed(service, content, **query)["embedding"] for query in ({}, {"resize": "auto"}, {"resize": "exact"})]
    assert vectors[0] == vectors[1] == vectors[2] == embed(service, as_png(content))["embedding"]


def test_batch_takes_the_same_option(service: Service) -> None:
    content = textured(1300, 1100)
    for resize in ("auto", "exact"):
        answer = service.post("/embed/batch", files=[("files", content)] * 2, params={"resize": resize})
        wanted = embed(service, content, resize=resize)["embedding"]
        assert [result["embedding"] for result in answer.json()["results"]] == [wanted, wanted]


def test_asking_for_attributes_does_not_change_the_embedding(
    run_service: Callable[..., Service], tiny_pack: Path
) -> None:
    """The landmark model needs 256 pixels, the recogniser 224: between them one would reduce more than the other."""
    service, content = run_service(tiny_pack), textured(1900, 1900)
    assert embed(service, content)["embedding"] == embed(service, content, include_attributes=True)["embedding"]


def test_attributes_mean_the_same_of_a_reduced_picture(run_service: Callable[..., Service], tiny_pack: Path) -> None:
    service, content = run_service(tiny_pack), textured(1900, 2400)
    auto, exact = (
        embed(service, content, include_attributes=True, resize=resize)["attributes"] for resize in ("auto", "exact")
    )
    assert abs(auto["age"] - exact["age"]) <= 1
    assert auto["gender"] == exact["gender"]
    assert auto["pose"] == pytest.approx(exact["pose"], abs=0.5)


@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_head_pose_does_not_depend_on_the_picture_s_scale(divisor: int) -> None:
    landmarks = (turned(20, -10, 5) * 900 + 1500).astype(np.float32)
    whole, reduced = head_pose(landmarks), head_pose(landmarks / np.float32(divisor))
    assert (reduced.yaw, reduced.pitch, reduced.roll) == pytest.approx((whole.yaw, whole.pitch, whole.roll), abs=1e-4)


def test_reducing_hardly_moves_real_embeddings(
    run_service: Callable[..., Service], real_recogniser: Path, face_crops: list[Any]
) -> None:
    service = run_service(real_recogniser)
    for face in face_crops[3::10]:  # 250 pixels wide
        picture = decoded_by_opencv(face.content)
        large = cv2.resize(picture, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
        content = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        assert cosine(embed(service, content), embed(service, content, resize="exact")) > 0.99, face.name
