"""Reads labelled pairs of pictures: a CSV with the columns image_a, image_b, same (1 or 0), or LFW's own pairs.txt."""

import csv
import hashlib
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from arcface_api.errors import PairsInvalid
from arcface_api.evaluate.curve import FOLDS, FoldNumbers, Labels

COLUMNS = ("image_a", "image_b", "same")
_LABELS = {"1": True, "0": False}

Row = tuple[int, str, str, bool]
"""Line number, the names of two pictures, and whether they show the same person."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """n labelled pairs of pictures, in the file's order."""

    pictures: tuple[str, ...]
    """The name of each picture once, in the order in which they first occur."""
    left: NDArray[np.int64]
    """(n,) indices into `pictures`."""
    right: NDArray[np.int64]
    """(n,) indices into `pictures`."""
    same: Labels
    folds: FoldNumbers
    """The sets of LFW's pairs.txt; of a CSV the row, from 0, modulo 10."""
    file: str
    """The file's name, without its folder."""
    sha256: str
    """Of the file, in hex."""


def read_pairs(path: Path) -> Pairs:
    """Read a file of pairs line by line: millions of pairs take the memory of three numbers each.

    Raises:
        PairsInvalid: The file or one of its lines cannot be read, or it lacks pairs of one kind.
    """
    numbers: dict[str, int] = {}
    left, right, same = array("q"), array("q"), array("b")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with path.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline().strip()
            sizes = re.fullmatch(r"(\d+)(?:\s+(\d+))?", first)
            rows = _lfw_rows(path, text) if sizes else _csv_rows(path, first, text)
            for line, image_a, image_b, is_same in rows:
                if image_a == image_b:
                    raise PairsInvalid(
                        f"{path}, line {line}: {image_a} is compared with itself, which measures nothing. Name two"
                        " pictures, or remove the line."
                    )
                left.append(numbers.setdefault(image_a, len(numbers)))
                right.append(numbers.setdefault(image_b, len(numbers)))
                same.append(is_same)
    except OSError as error:
        raise PairsInvalid(f"{path} cannot be read: {error.strerror}. Name a file of pairs.") from None
    except UnicodeDecodeError:
        line = _first_undecodable_line(path)
        raise PairsInvalid(f"{path}, line {line}: not UTF-8 text. Save the file as CSV in UTF-8.") from None
    labels = np.array(same, np.bool_)
    folds = np.arange(len(labels)) % FOLDS
    if sizes:
        sets, set_size = (int(sizes[1]), int(sizes[2]) * 2) if sizes[2] else (1, int(sizes[1]) * 2)
        if len(labels) != sets * set_size:
            raise PairsInvalid(
                f"{path}: its first line announces {sets * set_size} pairs, and {len(labels)} follow. The file is"
                " truncated, or its first line is wrong."
            )
        if sets > 1:
            folds = np.arange(len(labels)) // max(set_size, 1)
    _check_kinds(path, labels)
    return Pairs(
        pictures=tuple(numbers),
        left=np.array(left, np.int64),
        right=np.array(right, np.int64),
        same=labels,
        folds=folds,
        file=path.name,
        sha256=sha256,
    )


def _csv_rows(path: Path, first: str, text: TextIO) -> Iterator[Row]:
    """The rows below a first line that names the columns."""
    header = next(csv.reader([first]), [])
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise PairsInvalid(
            f"{path}: its first line lacks {', '.join(missing)}. It must name the columns {','.join(COLUMNS)},"
            " separated by commas. LFW's pairs.txt is accepted, too."
        )
    places = [header.index(column) for column in COLUMNS]
    reader = csv.reader(text)
    try:
        for row in reader:
            if not row:
                continue
            left, right, same = (row[place] if place < len(row) else "" for place in places)
            if not left or not right or same not in _LABELS:
                raise PairsInvalid(
                    f"{path}, line {reader.line_num + 1}: image_a is {left!r}, image_b {right!r}, same {same!r}. Give"
                    " the names of two pictures, and 1 for the same person or 0 for two people."
                )
            yield reader.line_num + 1, left, right, _LABELS[same]
    except csv.Error as error:
        raise PairsInvalid(f"{path}, line {reader.line_num + 1}: not CSV ({error}). Correct the line.") from None


def _lfw_rows(path: Path, text: TextIO) -> Iterator[Row]:
    """The rows below a first line that announces their number."""
    for number, line in enumerate(text, 2):
        match line.split():
            case []:
                continue
            case [name, first, second] if first.isdecimal() and second.isdecimal():
                yield number, _lfw_picture(name, first), _lfw_picture(name, second), True
            case [name, first, other, second] if first.isdecimal() and second.isdecimal():
                yield number, _lfw_picture(name, first), _lfw_picture(other, second), False
            case _:
                raise PairsInvalid(
                    f"{path}, line {number}: {line.strip()!r} is not a pair in LFW's format. Give `name number number`"
                    " for the same person, `name number name number` for two people."
                )


def _lfw_picture(name: str, number: str) -> str:
    """Source: LFW's README, "name/name_xxxx.jpg" with the number in four digits."""
    return f"{name}/{name}_{int(number):04d}.jpg"


def _first_undecodable_line(path: Path) -> int:
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    raise AssertionError("every line decodes, yet the file does not")


def _check_kinds(path: Path, same: Labels) -> None:
    if not len(same):
        raise PairsInvalid(f"{path} holds no pairs. Add a line for each: the names of two pictures, and 1 or 0.")
    if same.all() or not same.any():
        present, absent, label = ("same", "different", 0) if same[0] else ("different", "same", 1)
        raise PairsInvalid(
            f"{path} has only {present}-person pairs ({len(same):,}). A threshold separates the two kinds: add"
            f" {absent}-person pairs (same = {label})."
        )
