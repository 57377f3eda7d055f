"""Every form in which a caller may have a picture → the bytes of a file that the service reads."""

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from arcface_api.client.problems import ImageUnreadable

T = TypeVar("T")


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


_Bytes = bytes | bytearray | memoryview
MAX_SHOWN = 200
"""Letters of a path in a sentence: it may be a picture in Base64."""
_ALLOWED = (
    "Allowed are the bytes of a JPEG, PNG or WebP file, its path, the file opened in binary mode, a NumPy array"
    " (h, w, 3) uint8 in RGB order, or a Pillow image."
)
_ORIENTATION = 0x0112  # EXIF's tag; Pillow does not apply it
_UPRIGHT = 1
_MODES_OF_8_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})


def encoded(picture: ImageLike | Picture) -> Encoded | ImageUnreadable:
    """The bytes to send, and the landmarks; or the error of this picture. Reads files, in the calling thread."""
    image = picture.image if isinstance(picture, Picture) else picture
    try:
        return Encoded(_content(image), _landmarks(picture) if isinstance(picture, Picture) else None)
    except ImageUnreadable as error:
        return error
    except Exception as error:  # noqa: BLE001  # whatever a caller's file or object raises concerns this picture alone
        what, advice = f"The {type(image).__name__}", _ALLOWED
        if isinstance(image, str | os.PathLike):
            what, advice = repr(str(image)[:MAX_SHOWN]), "Check the path."
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        unreadable = ImageUnreadable(f"{what} cannot be read: {why}. {advice}")
        unreadable.__cause__ = error
        return unreadable


def several(images: T) -> T:
    """The same; raises TypeError if it is one picture, whose letters, bytes, lines or rows would pass for pictures."""
    is_array = isinstance(images, np.ndarray) and images.ndim in (2, 3)
    if is_array or isinstance(images, _Bytes | str | os.PathLike | Picture) or hasattr(images, "read"):
        raise TypeError(f"embed_many takes several pictures, and got one {type(images).__name__}: put it into a list.")
    return images


def _landmarks(picture: Picture) -> list[list[float]]:
    try:
        return np.asarray(picture.landmarks, np.float64).tolist()  # type: ignore[no-any-return]  # lists of lists
    except (TypeError, ValueError):
        raise ImageUnreadable("The landmarks are no numbers. Send five pairs x, y in pixels of the picture.") from None


def _content(image: Any) -> bytes:
    if isinstance(image, _Bytes):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(os.fsdecode(image)).read_bytes()
    if isinstance(image, np.ndarray):
        return _png(_checked(image))
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        return _png(_pillow_pixels(image))
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, _Bytes):
            kind = type(content).__name__
            raise ImageUnreadable(f"The file object returns {kind}. Open it in binary mode: open(path, 'rb').")
        return bytes(content)
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
    pixels = np.asarray(image.convert("RGB"))  # it is read from its file only now
    orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
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
