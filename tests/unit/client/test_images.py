"""Promises of the forms in which a picture may be given: the service gets the same pixels from each."""

import os
import re
import zipfile
from io import BytesIO, StringIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from arcface_api.client import ImageUnreadable, Picture
from arcface_api.client.images import MAX_SHOWN, Encoded, encoded
from pictures import decoded_by_opencv, picture_bytes, smooth_picture

PIXELS = np.asarray(smooth_picture(31, 17))
LANDMARKS = [[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]]


def sent(image: Any) -> Encoded:
    found = encoded(image)
    assert isinstance(found, Encoded)
    return found


class Readable:
    """Not a file, but with the method of one."""

    def __init__(self, read: object) -> None:
        self._read = read

    def read(self) -> object:
        if isinstance(self._read, Exception):
            raise self._read
        return self._read


def damaged_zip_member() -> IO[bytes]:
    stored = BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("face.jpg", b"the picture")
    return zipfile.ZipFile(BytesIO(stored.getvalue().replace(b"the", b"THE"))).open("face.jpg")


def refusal(image: Any) -> str:
    found = encoded(image)
    assert isinstance(found, ImageUnreadable)
    return str(found)


def sent_pixels(image: Any) -> NDArray[np.uint8]:
    """RGB."""
    return decoded_by_opencv(sent(image).content)[..., ::-1]


def test_file_is_sent_as_it_is(tmp_path: Path) -> None:
    content, path = picture_bytes("JPEG"), tmp_path / "face.jpg"
    path.write_bytes(content)
    with path.open("rb") as file:
        (found,) = os.scandir(os.fsencode(tmp_path))
        for image in (content, bytearray(content), memoryview(content), path, str(path), found, file, BytesIO(content)):
            assert sent(image).content == content
    assert sent(Readable(bytearray(content))).content == content


@pytest.mark.parametrize("array", [PIXELS, PIXELS[::-1, ::2], np.asfortranarray(PIXELS), PIXELS[:1, :1]])
def test_array_keeps_its_pixels(array: NDArray[np.uint8]) -> None:
    assert np.array_equal(sent_pixels(array), array)
    assert np.array_equal(np.asarray(Pillow.open(BytesIO(sent(array).content))), array)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_pillow_image_keeps_its_pixels(mode: str) -> None:
    image = smooth_picture(31, 17).convert(mode)
    assert np.array_equal(sent_pixels(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_image_is_turned_upright_as_its_file_would_be(orientation: int) -> None:
    exif, content = Pillow.Exif(), BytesIO()
    exif[0x0112] = orientation
    smooth_picture(31, 17).save(content, "PNG", exif=exif)
    image = Pillow.open(content)
    upright = ImageOps.exif_transpose(image)
    assert np.array_equal(sent_pixels(image), np.asarray(upright))


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((4, 4, 3), np.float32), r"dtype float32.*uint8 in RGB"),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (Pillow.new("I;16", (4, 4)), "mode I;16"),
        (Pillow.new("F", (4, 4)), "mode F"),
        ("nowhere/face.jpg", r"nowhere/face\.jpg.*No such file"),
        (Path("/"), "directory"),
        ("nul\0", "null byte"),
        ("A" * 100_000, f"^'{'A' * MAX_SHOWN}' cannot be read: File name too long"),
        (StringIO("text"), "returns str.*binary mode"),
        (None, "NoneType.*Allowed are"),
        (7, "int.*Allowed are"),
        ([b"1"], "list.*Allowed are"),
        (Picture(b"1", "abc"), "five pairs"),  # type: ignore[arg-type]  # that is the point
    ],
)
def test_what_is_no_picture_is_named(image: Any, sentence: str) -> None:
    assert re.search(sentence, refusal(image))


def test_files_that_fail_while_they_are_read_are_named(tmp_path: Path) -> None:
    closed = BytesIO()
    closed.close()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(picture_bytes("JPEG", (300, 300))[:2000])
    assert "closed file" in refusal(closed)
    assert "Bad CRC-32" in refusal(damaged_zip_member())
    assert "EOFError" in refusal(Readable(EOFError()))
    with cut.open(encoding="utf-8") as text:
        assert "Allowed are" in refusal(text)
    with Pillow.open(cut) as image:
        assert "truncated" in refusal(image)


def test_landmarks_go_with_their_picture() -> None:
    for landmarks in (LANDMARKS, np.array(LANDMARKS, np.float32)):
        assert sent(Picture(b"1", landmarks)).landmarks == LANDMARKS
    assert sent(b"1").landmarks is None
