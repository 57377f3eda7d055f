"""Targets: the readers of containers, and all of the way from a file to a crop."""

from functools import cache

import cv2
import numpy as np

from arcface_api.errors import RequestError
from arcface_api.face.landmarks import whole_view
from arcface_api.image import ImageLimits, decode, letterbox, stretch
from arcface_api.image.container import Container, ImageFormat
from arcface_api.image.decode import take_apart
from arcface_api.image.decoder_process import decode_pixels
from fuzz.mutate import Mutator
from fuzz.seeds import all_seeds
from fuzz.target import Target

LIMITS = ImageLimits(max_pixels=2_000_000)
"""More than what is never reduced; with the service's 50 million, an honest picture takes up to 2 s."""
SIDE, LEAST_SIDE = 112, 100
"""Large JPEGs are reduced."""


def read_container(content: bytes) -> str:
    """`take_apart`, which no decoder slows down, and the promises of what it returns.

    Raises:
        AssertionError: A promise is broken.
    """
    try:
        container = take_apart(content)
    except RequestError as error:
        return type(error).__name__
    _check_pixel_file(content, container)
    return container.format.name


def decode_picture(content: bytes) -> str:
    """`image.decode`, the service's whole way from bytes to pixels, then to crops, and the promises of all of them.

    Raises:
        AssertionError: A promise is broken.
    """
    read_container(content)
    try:
        image = decode(content, LIMITS, LEAST_SIDE).image
    except RequestError as error:
        return type(error).__name__
    assert image.dtype == np.uint8
    assert image.ndim == 3
    container = take_apart(content)
    if container.format is ImageFormat.JPEG:
        _check_pixels(container.pixel_file)
    height, width = image.shape[1::-1] if container.orientation >= 5 else image.shape[:2]
    divisor = round(container.width / width)
    assert (width, height) == (-(-container.width // divisor), -(-container.height // divisor))
    for crop in (stretch(image, SIDE, SIDE), letterbox(image, SIDE, SIDE), whole_view(image).crop):
        assert crop.dtype == np.uint8
    return "decoded"


def _check_pixel_file(content: bytes, container: Container) -> None:
    """It is as small as a file of these pixels can be, and says the same of them."""
    again = take_apart(container.pixel_file)
    assert again.pixel_file == container.pixel_file
    assert len(container.pixel_file) <= len(content) + 1  # a WebP may lack the last byte, of padding
    assert (again.format, again.orientation, again.left, again.top) == (container.format, 1, 0, 0)
    assert container.left + again.width <= container.width
    assert container.top + again.height <= container.height
    if container.left == container.top == 0 and content[12:16] != b"VP8X":  # a frame may be smaller than its animation
        assert (again.width, again.height) == (container.width, container.height)


def _check_pixels(jpeg: bytes) -> None:
    """They are OpenCV's, whichever library decoded them."""
    pixels, wanted = decode_pixels(jpeg, 1), cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None
    assert np.array_equal(pixels.array, wanted)  # type: ignore[arg-type]  # None is not equal


def bare_opencv(content: bytes) -> str:
    """OpenCV with the file as it came: the way that the service no longer goes. Shows that the fuzzer can fail."""
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return "error"
    return "refused" if picture is None else "decoded"


def _seeds() -> list[bytes]:
    return list(all_seeds().values())


@cache
def _mutator() -> Mutator:
    return Mutator(_seeds())


def _damage(content: bytes, max_bytes: int, seed: int) -> bytes:
    return _mutator().damaged(content, max_bytes, seed)


TARGETS = {
    "readers": Target(read_container, _seeds, _damage),
    "decode": Target(decode_picture, _seeds, _damage, checks_blocks=True),
    "opencv": Target(bare_opencv, _seeds, _damage, checks_blocks=True),
}
