"""The files that the user gives: labelled pairs, pictures in a folder or a .tar, face boxes, landmarks.

One module, because all these files share one CSV reader and its error sentences.
"""

import csv
import hashlib
import math
import re
import tarfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from arcface_api.errors import EvaluationError
from arcface_api.evaluate.curve import FOLDS, FoldNumbers, Labels
from arcface_api.wording import counted

PAIR_COLUMNS = ("image_a", "image_b", "same")
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
ANNOTATION_COLUMNS = {
    "box": (("x", "y", "width", "height"), ("box_x", "box_y", "box_w", "box_h")),
    "landmarks": (
        ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5"),
        tuple(f"{name}_{axis}" for name in POINTS for axis in "xy"),
    ),
}
"""In pixels of the upright picture, by either names; the landmarks in the order of `align=landmarks`."""
SHOWN_NAMES = 3
"""Names that a message lists."""

PairRow = tuple[int, str, str, bool]
"""Line number, the names of two pictures, and whether they show the same person."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """n labelled pairs of pictures, in the file's order."""

    pictures: tuple[str, ...]
    """The name of each picture once, in the order in which they first occur."""
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    """(n,) indices into `pictures`, as are those of `left`."""
    same: Labels
    folds: FoldNumbers
    """The sets of LFW's pairs.txt; of a CSV the row, from 0, modulo 10."""
    file: str
    """The file's name, without its folder."""
    sha256: str
    """Of the file, in hex."""


def read_pairs(path: Path) -> Pairs:
    """Read a CSV with `PAIR_COLUMNS`, or LFW's pairs.txt, line by line: each pair takes the memory of three numbers.

    Raises EvaluationError if the file or one of its lines cannot be read, or it lacks pairs of one kind.
    """
    numbers: dict[str, int] = {}
    left, right, same = array("q"), array("q"), array("b")
    lines = _lines(path)
    first = next(lines, "").strip()
    sizes = re.fullmatch(r"(\d+)(?:\s+(\d+))?", first)
    rows = _lfw_pairs(path, lines) if sizes else _csv_pairs(path, chain([first], lines))
    for line, image_a, image_b, is_same in rows:
        if image_a == image_b:
            raise EvaluationError(
                f"{path}, line {line}: {image_a} is compared with itself, which measures nothing. Name two pictures, or"
                " remove the line."
            )
        left.append(numbers.setdefault(image_a, len(numbers)))
        right.append(numbers.setdefault(image_b, len(numbers)))
        same.append(is_same)
    labels = np.array(same, np.bool_)
    folds = np.arange(len(labels)) % FOLDS
    if sizes:
        sets, set_size = (int(sizes[1]), int(sizes[2]) * 2) if sizes[2] else (1, int(sizes[1]) * 2)
        if len(labels) != sets * set_size:
            raise EvaluationError(
                f"{path}: its first line announces {counted(sets * set_size, 'pair')}, and {len(labels):,} came. The"
                " file is truncated, or its first line is wrong."
            )
        if sets > 1:
            folds = np.arange(len(labels)) // max(set_size, 1)
    if not len(labels):
        raise EvaluationError(f"{path} holds no pairs. Add a line for each: the names of two pictures, and 1 or 0.")
    if labels.all() or not labels.any():
        present, absent, label = ("same", "different", 0) if labels[0] else ("different", "same", 1)
        raise EvaluationError(
            f"{path} has only {present}-person pairs ({len(labels):,}). A threshold separates the two kinds: add"
            f" {absent}-person pairs (same = {label})."
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Pairs(
        pictures=tuple(numbers),
        left=np.array(left, np.int64),
        right=np.array(right, np.int64),
        same=labels,
        folds=folds,
        file=path.name,
        sha256=sha256,
    )


def _csv_pairs(path: Path, lines: Iterable[str]) -> Iterator[PairRow]:
    for line, (left, right, same) in _csv_rows(path, lines, (PAIR_COLUMNS,), " LFW's pairs.txt is accepted, too."):
        if not left or not right or same not in ("0", "1"):
            raise EvaluationError(
                f"{path}, line {line}: image_a is {left!r}, image_b {right!r}, same {same!r}. Give the names of two"
                " pictures, and 1 for the same person or 0 for two people."
            )
        yield line, left, right, same == "1"


def _lfw_pairs(path: Path, lines: Iterable[str]) -> Iterator[PairRow]:
    """The rows below a first line that announces their number."""
    for number, line in enumerate(lines, 2):
        match line.split():
            case []:
                continue
            case [name, first, second] if first.isdecimal() and second.isdecimal():
                yield number, _lfw_picture(name, first), _lfw_picture(name, second), True
            case [name, first, other, second] if first.isdecimal() and second.isdecimal():
                yield number, _lfw_picture(name, first), _lfw_picture(other, second), False
            case _:
                raise EvaluationError(
                    f"{path}, line {number}: {line.strip()!r} is not a pair in LFW's format. Give `name number number`"
                    " for the same person, `name number name number` for two people."
                )


def _lfw_picture(name: str, number: str) -> str:
    """Source: LFW's README, "name/name_xxxx.jpg" with the number in four digits."""
    return f"{name}/{name}_{int(number):04d}.jpg"


def read_annotations(path: Path, what: Literal["box", "landmarks"], names: Sequence[str]) -> dict[str, list[float]]:
    """Numbers by picture, in the order of `ANNOTATION_COLUMNS`, from a CSV with these columns and `image`.

    Raises EvaluationError if the file or one of its lines cannot be read, or one of the named pictures has no line.
    """
    alternatives = [("image", *columns) for columns in ANNOTATION_COLUMNS[what]]
    positive = 2 if what == "box" else 0  # the last ones, width and height
    found: dict[str, list[float]] = {}
    for line, (image, *values) in _csv_rows(path, _lines(path), alternatives):
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)) or any(number <= 0 for number in numbers[len(numbers) - positive :]):
            condition = ", width and height above 0" if positive else ""
            raise EvaluationError(
                f"{path}, line {line}: the {len(values)} values of the {what} must be numbers in pixels{condition}."
                " Correct the line, or remove it together with the picture's pairs."
            )
        found[image] = numbers
    missing = [name for name in names if name not in found]
    if missing:
        raise EvaluationError(
            f"{path} has no {what} for {len(missing):,} of the {counted(len(names), 'picture')} that the pairs name,"
            f" among them {missing[0]}. Add a line for each, with the name as in the pairs."
        )
    return found


def _csv_rows(
    path: Path, lines: Iterable[str], alternatives: Sequence[Sequence[str]], hint: str = ""
) -> Iterator[tuple[int, list[str]]]:
    """Line number and values of each row, in the columns of the first alternative that the header has in full."""
    reader = csv.reader(lines)
    try:
        header = next(reader, [])
        columns = next((each for each in alternatives if {*each} <= {*header}), None)
        if columns is None:
            wanted = " or ".join(",".join(each) for each in alternatives)
            raise EvaluationError(
                f"{path}: its first line must name the columns {wanted}, separated by commas; it names"
                f" {', '.join(header) or 'none'}.{hint}"
            )
        places = [header.index(column) for column in columns]
        for row in reader:
            if row:
                yield reader.line_num, [row[place] if place < len(row) else "" for place in places]
    except csv.Error as error:
        raise EvaluationError(f"{path}, line {reader.line_num}: not CSV ({error}). Correct the line.") from None


def _lines(path: Path) -> Iterator[str]:
    """Lines of UTF-8 text, with or without a byte order mark."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            for number, line in enumerate(text, 1):  # noqa: B007  # used below
                line.encode()  # fails where bytes were not UTF-8
                yield line
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}. Make it readable, or name another.") from None
    except UnicodeEncodeError:
        raise EvaluationError(f"{path}, line {number}: not UTF-8 text. Save the file as CSV in UTF-8.") from None


class Pictures:
    """Files of a folder, or members of a .tar (compressed or not), by name."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Raises EvaluationError if the folder or archive cannot be read, or lacks one of the names."""
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
            raise EvaluationError(
                f"{path} lacks {len(missing):,} of the {counted(len(names), 'picture')} that the pairs name: {shown}."
                " Names are paths below the folder or within the .tar, including the ending, such as A/1.jpg. Add the"
                " pictures, or correct the names."
            )

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Each named picture once, with its bytes; from a .tar in the archive's order, in one pass.

        Raises EvaluationError if one cannot be read.
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
                raise EvaluationError(
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
            raise EvaluationError(
                f"{self._path} cannot be read as a .tar: {reason}. Name a folder of pictures, or a complete .tar."
            ) from None


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")
