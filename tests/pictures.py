"""Pictures for tests, made here."""

import struct
import warnings
import zlib
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow


def picture_bytes(kind: str = "JPEG", size: tuple[int, int] = (90, 120), mode: str = "RGB", **save: Any) -> bytes:
    """A smooth colourful picture of `size` (width, height) as a file."""
    content = BytesIO()
    smooth_picture(*size).convert(mode).save(content, kind, **save)
    return content.getvalue()


def smooth_picture(width: int, height: int) -> Pillow.Image:
    """A picture without a symmetry, smooth so that JPEG keeps it."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([x, y**2, (1 - x) * y], axis=-1) * 255
    return Pillow.fromarray(pixels.astype(np.uint8))


def decoded_by_opencv(content: bytes) -> NDArray[np.uint8]:
    """What the reference's callers have: OpenCV's BGR picture."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture.astype(np.uint8, copy=False)


def aligned_by_reference(image: NDArray[np.uint8], points: NDArray[np.float32], size: int = 112) -> NDArray[np.uint8]:
    """InsightFace's aligned crop."""
    from insightface.utils.face_align import norm_crop  # noqa: PLC0415  # takes seconds, which few of its callers need

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it calls what scikit-image has renamed
        return norm_crop(image, points, size)  # type: ignore[no-any-return]  # insightface carries no types


def png_announcing(width: int, height: int) -> bytes:
    """A well-formed PNG whose header announces any size; its pixel data is a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
