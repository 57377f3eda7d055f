"""Promises of reading pairs: both kinds of file, and a sentence with the line for what cannot be read."""

from pathlib import Path

import pytest

from arcface_api.errors import PairsInvalid
from arcface_api.evaluate.pairs import read_pairs

HEADER = "image_a,image_b,same\n"


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "pairs.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_is_read_in_its_order_whatever_the_order_of_its_columns(tmp_path: Path) -> None:
    """As a spreadsheet writes it: a byte order mark, CRLF, a column that nobody asked for, an empty line."""
    text = "\ufeffsame,note,image_a,image_b\r\n1,x,a/1.jpg,a/2.jpg\r\n\r\n0,y,a/1.jpg,b/1.jpg\r\n"
    pairs = read_pairs(written(tmp_path, text))
    assert pairs.pictures == ("a/1.jpg", "a/2.jpg", "b/1.jpg")
    sides = [(pairs.pictures[left], pairs.pictures[right]) for left, right in zip(pairs.left, pairs.right, strict=True)]
    assert sides == [("a/1.jpg", "a/2.jpg"), ("a/1.jpg", "b/1.jpg")]
    assert pairs.same.tolist() == [True, False]
    assert pairs.file == "pairs.csv"


def test_folds_of_a_csv_are_its_rows_modulo_ten(tmp_path: Path) -> None:
    rows = "".join(f"a{number},b{number},{number % 2}\n" for number in range(25))
    assert read_pairs(written(tmp_path, HEADER + rows)).folds.tolist() == [number % 10 for number in range(25)]


def test_pairs_txt_of_lfw_is_read_with_its_sets_as_folds(tmp_path: Path) -> None:
    text = "2\t1\nAda_B\t1\t12\nAda_B\t2\tCy\t3\nCy\t4\t5\nAda_B\t1\tDi\t1\n"
    pairs = read_pairs(written(tmp_path, text))
    assert set(pairs.pictures) >= {"Ada_B/Ada_B_0001.jpg", "Ada_B/Ada_B_0012.jpg", "Cy/Cy_0003.jpg"}
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.folds.tolist() == [0, 0, 1, 1]


def test_pairs_dev_txt_of_lfw_has_one_set(tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path, "1\nAda_B\t1\t12\nAda_B\t2\tCy\t3\n"))
    assert (pairs.same.tolist(), pairs.folds.tolist()) == ([True, False], [0, 1])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", r"pairs.csv: its first line lacks image_a, image_b, same\."),
        ("a;b;same\n", r"its first line lacks image_a, image_b, same\. .* separated by commas"),
        (HEADER, r"holds no pairs\. Add a line for each"),
        (HEADER + "a,b,1\na,c,yes\n", r"line 3: image_a is 'a', image_b 'c', same 'yes'\. Give .* 1 for .* 0 for two"),
        (HEADER + "a,b\n", r"line 2: image_a is 'a', image_b 'b', same ''"),
        (HEADER + "a,,0\n", r"line 2: image_a is 'a', image_b '', same '0'"),
        (HEADER + "a,a,1\n", r"line 2: a is compared with itself.* or remove the line"),
        (HEADER + '"a\n",b,1\n"c",c,1\n', r"line 4: c is compared with itself"),
        (HEADER + "a,b,1\na,c,1\n", r"has only same-person pairs \(2\)\. .* add different-person pairs \(same = 0\)"),
        (HEADER + "a,b,0\n", r"has only different-person pairs \(1\)\. .* add same-person pairs \(same = 1\)"),
        (HEADER.encode() + b"a,b,1\n\xe9,b,0\n", r"line 3: not UTF-8 text\. Save the file as CSV in UTF-8"),
        (HEADER + '"' + "x" * 200_000 + '",b,1\n', r"line 2: not CSV \(field larger than"),
        ("1 1\nA 1 2\nA 1 B x\n", r"line 3: 'A 1 B x' is not a pair in LFW's format\. Give `name number number`"),
        ("1 1\nA 1 2\n", r"its first line announces 2 pairs, and 1 follow"),
        ("1 1\nA 1 1\nA 1 B 1\n", r"line 2: A/A_0001.jpg is compared with itself"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, content: str | bytes, problem: str) -> None:
    with pytest.raises(PairsInvalid, match=problem):
        read_pairs(written(tmp_path, content))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PairsInvalid, match="cannot be read: No such file or directory"):
        read_pairs(tmp_path / "nothing.csv")
