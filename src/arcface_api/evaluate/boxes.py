"""Face boxes: what is cut out of whole photos before they are embedded, where the pictures are no crops yet."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import cv2
import numpy as np

from arcface_api.errors import BoxesInvalid
from arcface_api.image import ImageLimits, decode

COLUMNS = (("x", "y", "width", "height"), ("box_x", "box_y", "box_w", "box_h"))
"""Names that the four numbers may have."""


@dataclass(frozen=True)
class FaceBox:
    """A face in a picture, pixels of the upright picture: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float

    def grown(self, margin: float) -> "FaceBox":
        """`margin` times as wide and as high, about the same centre."""
        width, height = self.width * margin, self.height * margin
        return FaceBox(self.x - (width - self.width) / 2, self.y - (height - self.height) / 2, width, height)


def read_boxes(path: Path) -> dict[str, FaceBox]:
    """Read boxes by the picture's name: a CSV with the columns image and x,y,width,height (or box_x,box_y,box_w,box_h).

    Raises:
        BoxesInvalid: It cannot be read, or a line of it cannot.
    """
    try:
        reader = csv.DictReader(StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BoxesInvalid(f"{path} cannot be read as CSV in UTF-8: {error}. Name a file of face boxes.") from None
    present = reader.fieldnames or []
    columns = next((names for names in COLUMNS if {"image", *names} <= {*present}), None)
    if columns is None:
        raise BoxesInvalid(
            f"{path}: its first line has to name the columns image,{','.join(COLUMNS[0])} or image,"
            f"{','.join(COLUMNS[1])}; it names {', '.join(present) or 'none'}."
        )
    boxes: dict[str, FaceBox] = {}
    for line, row in rows:
        try:
            box = FaceBox(*(float(row[column]) for column in columns))
        except (TypeError, ValueError):  # None where the line is too short
            box = FaceBox(math.nan, math.nan, math.nan, math.nan)
        if not (math.isfinite(box.x + box.y + box.width + box.height) and box.width > 0 and box.height > 0):
            raise BoxesInvalid(
                f"{path}, line {line}: {', '.join(columns)} have to be numbers in pixels, width and height"
                " above 0. Mend the line, or remove it with the picture's pairs."
            )
        boxes[row["image"]] = box
    return boxes


def cutter(boxes: dict[str, FaceBox], margin: float, limits: ImageLimits) -> Callable[[str, bytes], bytes]:
    """A function that cuts out of a picture, by its name, the box grown to `margin` times its size, as PNG.

    It is cut to whole pixels, within the picture, and not squared.
    """

    def cut(name: str, content: bytes) -> bytes:
        image = decode(content, limits).image
        height, width = image.shape[:2]
        box = boxes[name].grown(margin)
        left, top = (max(0, round(side)) for side in (box.x, box.y))
        right, bottom = min(width, round(box.x + box.width)), min(height, round(box.y + box.height))
        if left >= right or top >= bottom:
            raise BoxesInvalid(
                f"Its box {box.x:g}, {box.y:g}, {box.width:g}, {box.height:g} (x, y, width, height) lies outside its"
                f" {width}x{height} pixels."
            )
        crop = cv2.cvtColor(np.ascontiguousarray(image[top:bottom, left:right]), cv2.COLOR_RGB2BGR)
        _, png = cv2.imencode(".png", crop, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return png.tobytes()

    return cut


def check_boxes(path: Path, boxes: dict[str, FaceBox], names: tuple[str, ...]) -> None:
    """See that every picture has its box.

    Raises:
        BoxesInvalid: One has none.
    """
    missing = [name for name in names if name not in boxes]
    if missing:
        raise BoxesInvalid(
            f"{path} has no box for {len(missing):,} of the {len(names):,} pictures that the pairs name, {missing[0]}"
            " among them. Add a line for each; names are spelt as in the pairs."
        )
