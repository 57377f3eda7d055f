"""The pictures of an evaluation: read one by one from a folder or a .tar, cut by face boxes, paired with landmarks."""

import csv
import math
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from arcface_api.arrays import Image
from arcface_api.errors import AnnotationsInvalid, PicturesMissing
from arcface_api.face.geometry import align
from arcface_api.image import ImageLimits, decode

BOX_COLUMNS = (("x", "y", "width", "height"), ("box_x", "box_y", "box_w", "box_h"))
"""Left, top, width, height in pixels of the upright picture, by either names."""
LANDMARK_COLUMNS = (
    ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5"),
    tuple(
        f"{point}_{axis}" for point in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"
    ),
)
"""Five points in the order of `align=landmarks`, in pixels of the upright picture, by either names."""
SHOWN_NAMES = 3
"""Names that a message lists."""
THUMBNAIL_SIDE = 96
"""Pixels."""


class Pictures:
    """Files of a folder, or members of a .tar (compressed or not), by name."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Find the named pictures.

        Raises:
            PicturesMissing: The folder or archive cannot be read, or lacks one of the names.
        """
        self._path = path
        self._offsets: dict[str, int] = {}
        """Where a member of the .tar begins; the last one of a name counts, as when the archive is unpacked."""
        if path.is_dir():
            missing = [name for name in names if not (path / name).is_file()]
        else:
            with self._archive() as archive:
                self._offsets = {_name(member): member.offset for member in archive if member.isfile()}
            missing = [name for name in names if name not in self._offsets]
        if missing:
            shown = ", ".join(missing[:SHOWN_NAMES]) + (", …" if len(missing) > SHOWN_NAMES else "")
            raise PicturesMissing(
                f"{path} lacks {len(missing):,} of the {len(names):,} pictures that the pairs name: {shown}. Names are"
                " paths below the folder or within the .tar, including the ending, such as A/1.jpg. Add the pictures,"
                " or correct the names."
            )

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Each named picture once, with its bytes; from a .tar in the archive's order, in one pass.

        Raises:
            PicturesMissing: One cannot be read.
        """
        if not self._path.is_dir():
            wanted = {self._offsets[name] for name in names}
            with self._archive() as archive:
                for member in archive:
                    if member.offset in wanted:
                        yield _name(member), archive.extractfile(member).read()  # type: ignore[union-attr]  # a file
            return
        for name in names:
            try:
                content = (self._path / name).read_bytes()
            except OSError as error:
                raise PicturesMissing(
                    f"{self._path / name} cannot be read: {error.strerror}. Make it readable, or remove its pairs."
                ) from None
            yield name, content

    @contextmanager
    def _archive(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self._path) as archive:
                yield archive
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise PicturesMissing(
                f"{self._path} cannot be read as a .tar: {reason}. Name a folder of pictures, or a complete .tar."
            ) from None


class PreparedPicture(NamedTuple):
    """A picture as it is embedded."""

    content: bytes
    """A JPEG, PNG or WebP file."""
    landmarks: list[list[float]] | None = None
    """Five pairs x, y in its pixels, with `align=landmarks`."""


@dataclass(frozen=True)
class Preparation:
    """What is done to each picture before it is embedded."""

    limits: ImageLimits
    boxes: Mapping[str, Sequence[float]] | None = None
    """Left, top, width, height by the picture's name; None: pictures are face crops already."""
    margin: float = 1.0
    """Each box is cut this many times as wide and as high, about its centre."""
    landmarks: Mapping[str, Sequence[float]] | None = None
    """Ten numbers by the picture's name, in pixels of the whole picture, also where a box is cut."""

    def __call__(self, name: str, content: bytes) -> PreparedPicture:
        """Cut the picture's box to whole pixels, without loss and not squared, and move its landmarks along.

        Raises:
            ArcFaceError: The picture cannot be decoded, or its box or a landmark lies outside.
        """
        points = None if self.landmarks is None else np.reshape(self.landmarks[name], (5, 2))
        if self.boxes is not None:
            image = decode(content, self.limits).image
            left, top, right, bottom = _sides(self.boxes[name], self.margin, image)
            if points is not None:
                points = points - (left, top)
                is_inside = (points >= -0.5) & (points <= (right - left - 0.5, bottom - top - 0.5))
                if not is_inside.all():
                    raise AnnotationsInvalid(
                        f"Landmark {int(is_inside.all(1).argmin()) + 1} of 5 lies outside the face box that is cut."
                        " Choose a larger --margin, or leave out --boxes: landmarks alone determine the crop, too."
                    )
            crop = cv2.cvtColor(np.ascontiguousarray(image[top:bottom, left:right]), cv2.COLOR_RGB2BGR)
            content = cv2.imencode(".png", crop, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        return PreparedPicture(content, None if points is None else points.tolist())

    def thumbnail(self, name: str, content: bytes) -> bytes:
        """The prepared picture as a small JPEG: aligned where it has landmarks, otherwise as it is.

        Raises:
            ArcFaceError: As when it is called.
        """
        prepared = self(name, content)
        image = decode(prepared.content, self.limits).image
        if prepared.landmarks is not None:
            image = align(image, np.array(prepared.landmarks, np.float32), THUMBNAIL_SIDE)
        scale = THUMBNAIL_SIDE / max(image.shape[:2])
        if scale < 1:
            size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _sides(box: Sequence[float], margin: float, image: Image) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the box grown to `margin` times its size, within the picture."""
    width, height = box[2] * margin, box[3] * margin
    x, y = box[0] - (width - box[2]) / 2, box[1] - (height - box[3]) / 2
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(image.shape[1], round(x + width)), min(image.shape[0], round(y + height))
    if left >= right or top >= bottom:
        raise AnnotationsInvalid(
            f"Its box {x:g}, {y:g}, {width:g}, {height:g} (x, y, width, height) lies outside its"
            f" {image.shape[1]}x{image.shape[0]} pixels."
        )
    return left, top, right, bottom


def read_boxes(path: Path, names: Sequence[str]) -> dict[str, list[float]]:
    """Left, top, width, height by picture, from a CSV with the columns image and `BOX_COLUMNS`.

    Raises:
        AnnotationsInvalid: The file or one of its lines cannot be read, or one of the named pictures has no line.
    """
    return _read_numbers(path, names, BOX_COLUMNS, "box", positive=2)


def read_landmarks(path: Path, names: Sequence[str]) -> dict[str, list[float]]:
    """Ten numbers by picture, x and y of five points, from a CSV with the columns image and `LANDMARK_COLUMNS`.

    Raises:
        AnnotationsInvalid: As `read_boxes`.
    """
    return _read_numbers(path, names, LANDMARK_COLUMNS, "landmarks")


def _read_numbers(
    path: Path, names: Sequence[str], alternatives: Sequence[Sequence[str]], what: str, *, positive: int = 0
) -> dict[str, list[float]]:
    """Numbers by picture, of which the last `positive` must be above 0."""
    try:
        reader = csv.DictReader(StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationsInvalid(f"{path} cannot be read as CSV in UTF-8: {error}. Name a CSV with a header.") from None
    present = reader.fieldnames or []
    columns = next((each for each in alternatives if {"image", *each} <= {*present}), None)
    if columns is None:
        wanted = " or ".join(",".join(("image", *each)) for each in alternatives)
        raise AnnotationsInvalid(
            f"{path}: its first line must name the columns {wanted}; it names {', '.join(present) or 'none'}."
        )
    found: dict[str, list[float]] = {}
    for line, row in rows:
        try:
            numbers = [float(row[column]) for column in columns]
        except (TypeError, ValueError):  # None where the line is too short
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)) or any(number <= 0 for number in numbers[len(numbers) - positive :]):
            condition = f", {' and '.join(columns[-positive:])} above 0" if positive else ""
            raise AnnotationsInvalid(
                f"{path}, line {line}: {', '.join(columns)} must be numbers in pixels{condition}. Correct the line, or"
                " remove it together with the picture's pairs."
            )
        found[row["image"]] = numbers
    missing = [name for name in names if name not in found]
    if missing:
        raise AnnotationsInvalid(
            f"{path} has no {what} for {len(missing):,} of the {len(names):,} pictures that the pairs name, among them"
            f" {missing[0]}. Add a line for each, with the name as in the pairs."
        )
    return found


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")
