"""What is fuzzed: each takes a file's bytes and says in a word how it ended; anything that it raises is a finding."""

import os
import struct
import time
from collections.abc import Callable

import cv2
import numpy as np

from arcface_api.errors import RequestError
from arcface_api.image import ImageLimits, decode
from arcface_api.image.container import Container, ImageFormat
from arcface_api.image.decode import take_apart
from arcface_api.image.decoder_process import decode_pixels

LIMITS = ImageLimits(max_pixels=2_000_000)
"""More than what is never reduced; with the service's 50 million, an honest picture takes up to 2 s."""
LEAST_SIDE = 100
"""Large JPEGs are reduced."""


def decode_picture(content: bytes) -> str:
    """`image.decode`, the service's whole way from bytes to pixels, and the promises of `take_apart` and of pixels.

    Raises:
        AssertionError: A promise is broken.
    """
    try:
        container = take_apart(content)
    except RequestError:
        pass  # and so must decode say
    else:
        _check_pixel_file(content, container)
    try:
        image = decode(content, LIMITS, LEAST_SIDE).image
    except RequestError as error:
        return type(error).__name__
    assert image.dtype == np.uint8
    assert image.ndim == 3
    if container.format is ImageFormat.JPEG:
        _check_pixels(container.pixel_file)
    height, width = image.shape[1::-1] if container.orientation >= 5 else image.shape[:2]
    divisor = round(container.width / width)
    assert (width, height) == (-(-container.width // divisor), -(-container.height // divisor))
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


def faulty(content: bytes) -> str:
    """Each fault that has to be found, for each kind of PNG with gray and alpha: the fuzzer's own test."""
    depth, is_interlaced = content[24:25], content[28:29] == b"\1"
    if content[25:26] != b"\4":
        return "decoded"
    if depth == b"\x08" and is_interlaced:
        os.abort()
    if depth == b"\x08":
        struct.unpack("I", b"")
    if is_interlaced:
        bytearray(300_000_000)
    deadline = time.process_time() + 3
    while time.process_time() < deadline and not is_interlaced:
        pass
    return "decoded"


TARGETS: dict[str, Callable[[bytes], str]] = {"decode": decode_picture, "opencv": bare_opencv, "faulty": faulty}
