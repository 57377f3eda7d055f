"""Every form in which a caller may have a picture → the bytes of a file that the service reads."""

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from arcface_api.client.problems import ImageUnreadable


class SupportsRead(Protocol):
    """A file opened in binary mode, or anything else with such a `read`."""

    def read(self) -> bytes:
        """The bytes from the present position to the end."""


class PillowImage(Protocol):
    """A `PIL.Image.Image`, without Pillow."""

    @property
    def mode(self) -> str:
        """Kind of its pixels."""

    def convert(self, mode: str) -> Any:
        """The same picture in another mode."""

    def getexif(self) -> Any:
        """Tags by their number."""


ImageLike: TypeAlias = (
    bytes | bytearray | memoryview | str | os.PathLike[str] | SupportsRead | NDArray[np.uint8] | PillowImage
)
"""The bytes of a JPEG, PNG or WebP file, its path, the file opened in binary mode, an array (h, w, 3) uint8 in RGB
order, or a Pillow image."""


@dataclass(frozen=True)
class Picture:
    """A picture with the landmarks that `align="landmarks"` uses."""

    image: ImageLike
    landmarks: Sequence[Sequence[float]] | NDArray[Any]
    """Left eye, right eye, nose tip, left and right mouth corner: (5, 2) x, y in pixels of the upright picture."""


class Options(TypedDict, total=False):
    """How to embed; docs/http-api.md#options explains each. What is left out is as the service is set."""

    align: Literal["none", "auto", "landmarks"]
    fit: Literal["stretch", "letterbox"]
    resize: Literal["auto", "exact"]
    normalize: bool
    flip: bool
    include_attributes: bool
    include_quality: bool
    include_landmarks: bool
    include_crop: bool


@dataclass(frozen=True)
class Encoded:
    """A picture as it is sent."""

    content: bytes
    """Of a JPEG, PNG or WebP file."""
    landmarks: list[list[float]] | None = None


_ALLOWED = (
    "Allowed are the bytes of a JPEG, PNG or WebP file, its path, the file opened in binary mode, a NumPy array"
    " (h, w, 3) uint8 in RGB order, or a Pillow image."
)
_ORIENTATION = 0x0112  # EXIF's tag; Pillow does not apply it
_UPRIGHT = 1
_MODES_OF_8_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})


def encoded(picture: ImageLike | Picture) -> Encoded | ImageUnreadable:
    """The bytes to send, and the landmarks; or the error of this picture. Reads files, in the calling thread."""
    try:
        if isinstance(picture, Picture):
            return Encoded(_content(picture.image), _landmarks(picture))
        return Encoded(_content(picture))
    except ImageUnreadable as error:
        return error


def _landmarks(picture: Picture) -> list[list[float]]:
    try:
        return np.asarray(picture.landmarks, np.float64).tolist()  # type: ignore[no-any-return]  # lists of lists
    except (TypeError, ValueError):
        raise ImageUnreadable("The landmarks are no numbers. Send five pairs x, y in pixels of the picture.") from None


def _content(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = getattr(error, "strerror", None) or str(error)
            raise ImageUnreadable(f"{os.fspath(image)!r} cannot be read: {why}. Check the path.") from error
    if isinstance(image, np.ndarray):
        return _png(_checked(image))
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        return _png(_pillow_pixels(image))
    if hasattr(image, "read"):
        try:
            content = image.read()
        except (OSError, ValueError) as error:  # ValueError: it is closed, or its text is not UTF-8
            raise ImageUnreadable(f"The file object cannot be read: {error}. Open it in binary mode.") from error
        if not isinstance(content, bytes):
            raise ImageUnreadable("The file object returns text. Open it in binary mode: open(path, 'rb').")
        return content
    raise ImageUnreadable(f"A picture cannot be made of {type(image).__name__}. {_ALLOWED}")


def _checked(image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageUnreadable(
            f"The array has shape {image.shape} and dtype {image.dtype}. Send (h, w, 3) uint8 in RGB order"
            " (OpenCV's arrays are BGR: image[..., ::-1])."
        )
    return image


def _pillow_pixels(image: PillowImage) -> NDArray[np.uint8]:
    """The upright pixels (h, w, 3) of a Pillow image."""
    if image.mode not in _MODES_OF_8_BITS:  # Pillow would cut their values off at 255
        raise ImageUnreadable(f"The Pillow image has mode {image.mode}. Convert it to 8 bits: RGB or L.")
    try:
        pixels = np.asarray(image.convert("RGB"))
        orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
    except (OSError, SyntaxError, ValueError) as error:  # it is read from its file only now; Pillow raises all of them
        raise ImageUnreadable(f"The Pillow image cannot be read: {error}. Check the file.") from error
    # EXIF 2.32 section 4.6.4 A: which sides of the picture the first row and the first column are.
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return _checked(pixels)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of (h, w, 3) uint8, RGB. Compressed as little as possible, as crops are small."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, width * 3)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
