"""The pairs of an evaluation: which pictures are compared, and whether they show the same person.

Two kinds of file are read: a CSV with the columns image_a, image_b, same (1 or 0), and LFW's own pairs.txt.
"""

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcface_api.errors import PairsInvalid
from arcface_api.evaluation.accuracy import FOLDS, FoldNumbers
from arcface_api.evaluation.roc import Labels

COLUMNS = ("image_a", "image_b", "same")
_LABELS = {"1": True, "0": False}

Row = tuple[str, str, bool]
"""Two names of pictures, and whether they show the same person."""


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs of pictures: n pairs, in the file's order."""

    pictures: tuple[str, ...]
    """Each picture once, by name, in the order in which they first occur."""
    left: NDArray[np.int64]
    """(n,) indices into `pictures`."""
    right: NDArray[np.int64]
    """(n,) indices into `pictures`."""
    same: Labels
    folds: FoldNumbers
    """As LFW's pairs.txt says; of a CSV the row, from 0, modulo 10."""
    file: str
    """Name of the file they came from, without its folder."""
    sha256: str
    """Of that file, in hex."""


def read_pairs(path: Path) -> Pairs:
    """Read a file of pairs.

    Raises:
        PairsInvalid: It cannot be read, a line of it cannot, or it lacks pairs of one kind.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise PairsInvalid(f"{path} cannot be read: {error.strerror}. Name a file of pairs.") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PairsInvalid(f"{path}, line {line}: it is no UTF-8 text. Save the file as CSV in UTF-8.") from None
    first = text.partition("\n")[0].strip()
    if re.fullmatch(r"\d+(\s+\d+)?", first):
        sets, _, size = first.replace("\t", " ").partition(" ")
        folds, pairs_a_fold = (int(sets), int(size) * 2) if size else (1, int(sets) * 2)
        rows = list(_lfw_rows(path, text))
        if len(rows) != folds * pairs_a_fold:
            raise PairsInvalid(
                f"{path}: its first line announces {folds * pairs_a_fold} pairs, and {len(rows)} follow. It is cut off,"
                " or its first line is wrong."
            )
        fold = np.arange(len(rows)) // max(pairs_a_fold, 1) if folds > 1 else np.arange(len(rows)) % FOLDS
    else:
        rows = list(_csv_rows(path, text))
        fold = np.arange(len(rows)) % FOLDS
    _check_kinds(path, rows)
    numbers: dict[str, int] = {}
    left = np.array([numbers.setdefault(row[0], len(numbers)) for row in rows], np.int64)
    right = np.array([numbers.setdefault(row[1], len(numbers)) for row in rows], np.int64)
    same = np.array([row[2] for row in rows], np.bool_)
    return Pairs(tuple(numbers), left, right, same, fold, path.name, hashlib.sha256(content).hexdigest())


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(StringIO(text, newline=""))
    try:
        columns = reader.fieldnames or []
        missing = [column for column in COLUMNS if column not in columns]
        if missing:
            raise PairsInvalid(
                f"{path}: its first line lacks {', '.join(missing)}. It has to name the columns {','.join(COLUMNS)},"
                " separated by commas; LFW's pairs.txt is read too."
            )
        for row in reader:
            left, right, same = (row[column] for column in COLUMNS)
            if not left or not right or same not in _LABELS:
                raise PairsInvalid(
                    f"{path}, line {reader.line_num}: image_a is {left!r}, image_b {right!r}, same {same!r}. Give two"
                    " names of pictures, and 1 for the same person or 0 for two."
                )
            yield _not_with_itself(path, reader.line_num, (left, right, _LABELS[same]))
    except csv.Error as error:
        line = reader.reader.line_num  # DictReader's own counts whole rows
        raise PairsInvalid(f"{path}, line {line}: it is no CSV ({error}). Write it anew.") from None


def _lfw_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines()[1:], 2):
        fields = line.split()
        match fields:
            case []:
                continue
            case [name, first, second] if first.isdecimal() and second.isdecimal():
                row = (_lfw_picture(name, first), _lfw_picture(name, second), True)
            case [name, first, other, second] if first.isdecimal() and second.isdecimal():
                row = (_lfw_picture(name, first), _lfw_picture(other, second), False)
            case _:
                raise PairsInvalid(
                    f"{path}, line {number}: {line.strip()!r} is no pair of LFW's. Give `name number number` for the"
                    " same person, `name number name number` for two."
                )
        yield _not_with_itself(path, number, row)


def _lfw_picture(name: str, number: str) -> str:
    """Source: LFW's README, "name/name_xxxx.jpg" with the number in four digits."""
    return f"{name}/{name}_{int(number):04d}.jpg"


def _not_with_itself(path: Path, line: int, row: Row) -> Row:
    if row[0] == row[1]:
        raise PairsInvalid(
            f"{path}, line {line}: {row[0]} is compared with itself, which tells nothing. Name two pictures, or remove"
            " the line."
        )
    return row


def _check_kinds(path: Path, rows: list[Row]) -> None:
    if not rows:
        raise PairsInvalid(f"{path} holds no pairs. Add a line for each: two names of pictures, and 1 or 0.")
    kinds = {same for _, _, same in rows}
    if len(kinds) == 1:
        present, absent, label = ("one person", "two people", 0) if kinds == {True} else ("two people", "one person", 1)
        raise PairsInvalid(
            f"{path}: all {len(rows)} pairs are of {present}. A threshold lies between the two kinds: add pairs of"
            f" {absent} (same = {label})."
        )
