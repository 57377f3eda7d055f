"""Promises of reading what the user gives: pairs, pictures, face boxes, landmarks; a sentence for what is wrong."""

import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_api.errors import EvaluationError
from arcface_api.evaluate.inputs import Pictures, read_annotations, read_pairs
from arcface_api.evaluate.run import Preparation
from arcface_api.face.geometry import align
from arcface_api.image import ImageLimits, decode
from pictures import decoded_by_opencv, picture_bytes

# ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

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
        (
            "",
            r"pairs.csv: its first line must name the columns .*; it names none\. LFW's pairs.txt is accepted, too\.",
        ),
        ("a;b;same\n", r"must name the columns image_a,image_b,same, separated by commas; it names a;b;same\."),
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
        ("1 1\nA 1 2\n", r"its first line announces 2 pairs, and 1 came"),
        ("1 1\nA 1 1\nA 1 B 1\n", r"line 2: A/A_0001.jpg is compared with itself"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, content: str | bytes, problem: str) -> None:
    with pytest.raises(EvaluationError, match=problem):
        read_pairs(written(tmp_path, content))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be read: No such file or directory"):
        read_pairs(tmp_path / "nothing.csv")


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────

CONTENTS = {"a/1.jpg": b"one", "a/2.jpg": b"two", "b.jpg": b"three"}


@pytest.fixture(params=["folder", ".tar", ".tar.gz", ".tar with ./"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same three files, and one that nobody asks for."""
    if request.param == "folder":
        for name, content in {**CONTENTS, "other.jpg": b"x"}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        return tmp_path
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w:gz" if request.param == ".tar.gz" else "w") as archive:
        for name, content in {**CONTENTS, "other.jpg": b"x"}.items():
            member = tarfile.TarInfo(f"./{name}" if "./" in request.param else name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return path


def test_each_picture_is_read_once(images: Path) -> None:
    names = list(reversed(CONTENTS))
    read = list(Pictures(images, names).read(names))
    assert len(read) == len(CONTENTS)
    assert dict(read) == CONTENTS


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    """As when the archive is unpacked: `tar --append` adds a newer one behind."""
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for content in (b"old", b"newer"):
            member = tarfile.TarInfo("a.jpg")
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    assert list(Pictures(tmp_path / "images.tar", ["a.jpg"]).read(["a.jpg"])) == [("a.jpg", b"newer")]


def test_missing_pictures_are_counted_and_named(images: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"lacks 2 of the 3 pictures that the pairs name: b, c/4\.jpg\. Names are"
    ):
        Pictures(images, ["a/1.jpg", "b", "c/4.jpg"])
    with pytest.raises(EvaluationError, match=r"lacks 5 of the 5 .* name: 0, 1, 2, …\."):
        Pictures(images, list("01234"))


def test_what_is_no_archive_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK\x03\x04 and more" * 100)
    with pytest.raises(EvaluationError, match=r"be read as a \.tar: .*\. Name a folder of pictures, or a complete"):
        Pictures(tmp_path / "images.zip", ["a"])


def test_an_archive_that_is_cut_off_is_a_sentence(tmp_path: Path) -> None:
    whole = BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name in "ab":
            member = tarfile.TarInfo(name)
            member.size = 50_000
            archive.addfile(member, BytesIO(np.random.default_rng(0).bytes(50_000)))
    (tmp_path / "images.tar.gz").write_bytes(whole.getvalue()[:60_000])
    with pytest.raises(EvaluationError, match=r"cannot be read as a \.tar"):
        Pictures(tmp_path / "images.tar.gz", ["a", "b"])


def test_a_picture_that_vanishes_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    pictures = Pictures(tmp_path, ["a.jpg"])
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(EvaluationError, match=r"a\.jpg cannot be read: No such file"):
        list(pictures.read(["a.jpg"]))


# ── boxes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("columns", ["image,x,y,width,height", "image,box_x,box_y,box_w,box_h"])
def test_boxes_are_read_by_picture(tmp_path: Path, columns: str) -> None:
    (tmp_path / "boxes.csv").write_text(f"{columns},more\na.jpg,1.5,2,30,40,x\n")
    assert read_annotations(tmp_path / "boxes.csv", "box", ["a.jpg"]) == {"a.jpg": [1.5, 2, 30, 40]}


@pytest.mark.parametrize(
    "columns",
    [
        "image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5",
        "image,left_eye_x,left_eye_y,right_eye_x,right_eye_y,nose_x,nose_y,left_mouth_x,left_mouth_y,right_mouth_x"
        ",right_mouth_y",
    ],
)
def test_landmarks_are_read_by_picture(tmp_path: Path, columns: str) -> None:
    (tmp_path / "points.csv").write_text(f"{columns}\na.jpg,1,2,3,4,5,6,7,8,9,10.5\n")
    assert read_annotations(tmp_path / "points.csv", "landmarks", ["a.jpg"]) == {
        "a.jpg": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10.5]
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,x,y\n", r"must name the columns image,x,y,width,height or .*; it names image, x, y\."),
        ("image,x,y,width,height\na,1,2,3\n", r"line 2: the 4 values of the box must be numbers in pixels"),
        ("image,x,y,width,height\na,1,2,0,3\n", r"line 2: .* width and height above 0\. Correct the line"),
        ("image,x,y,width,height\na,1,2,nan,3\n", r"line 2"),
        ("image,x,y,width,height\na,1,inf,3,3\n", r"line 2"),
        ("image,x,y,width,height\n\udce9,1,2,3,4\n", r"line 2: not UTF-8 text\. Save the file as CSV in UTF-8\."),
        ("image,x,y,width,height\n" + '"' + "x" * 200_000, r"line 2: not CSV \(field larger than"),
    ],
)
def test_boxes_that_cannot_be_read_are_a_sentence(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "boxes.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(EvaluationError, match=problem):
        read_annotations(tmp_path / "boxes.csv", "box", [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,x1,y1\n", r"must name the columns image,x1,y1,.*,x5,y5 or image,left_eye_x,.*; it names image, x1, y1"),
        (
            "{header}a,1,2,3,4,5,6,7,8,9\n",
            r"line 2: the 10 values of the landmarks must be numbers in pixels\. Correct the line",
        ),
        ("{header}a,1,2,3,4,5,6,7,8,9,ten\n", r"line 2"),
        ("{header}a,1,2,3,4,5,6,7,8,9,nan\n", r"line 2"),
    ],
)
def test_landmarks_that_cannot_be_read_are_a_sentence(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "points.csv").write_text(text.format(header="image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n"))
    with pytest.raises(EvaluationError, match=problem):
        read_annotations(tmp_path / "points.csv", "landmarks", [])


def test_pictures_without_a_box_or_landmarks_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("image,x,y,width,height,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na" + ",1" * 14 + "\n")
    for what in ("box", "landmarks"):
        problem = rf"x.csv has no {what} for 2 of the 3 pictures that the pairs name, among them b\."
        with pytest.raises(EvaluationError, match=problem):
            read_annotations(path, what, ["a", "b", "c"])


LIMITS = ImageLimits(10**6)


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        ((10, 20, 30, 40), 1.0, slice(20, 60), slice(10, 40)),
        ((10, 20, 30, 40), 1.2, slice(16, 64), slice(7, 43)),
        ((-5, -5, 20, 20), 1.0, slice(0, 15), slice(0, 15)),
        ((80, 100, 50, 50), 2.0, slice(75, 120), slice(55, 90)),
        ((10.4, 20.6, 29.2, 39.2), 1.0, slice(21, 60), slice(10, 40)),
    ],
)
def test_a_box_is_cut_as_it_is_and_without_loss(
    box: tuple[float, ...], margin: float, rows: slice, columns: slice
) -> None:
    photo = picture_bytes("PNG", (90, 120))
    crop = Preparation(LIMITS, {"a": box}, margin)("a", photo).content
    assert crop.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decoded_by_opencv(crop), decoded_by_opencv(photo)[rows, columns])


def test_a_box_is_that_of_the_upright_picture() -> None:
    """Orientation 6 of EXIF: the 90 x 120 of the file are 120 x 90 when upright."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    photo = picture_bytes("JPEG", (90, 120), exif=exif)
    crop = Preparation(LIMITS, {"a": (0, 0, 120, 90)})("a", photo).content
    assert decoded_by_opencv(crop).shape == (90, 120, 3)
    as_stored = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert as_stored is not None
    assert as_stored.shape == (120, 90, 3)


def test_a_box_outside_its_picture_is_a_sentence() -> None:
    with pytest.raises(EvaluationError, match=r"Its box 100, 20, 30, 40 .* lies outside its 90x120 pixels\."):
        Preparation(LIMITS, {"a": (100, 20, 30, 40)})("a", picture_bytes("PNG", (90, 120)))


# ── landmarks ──────────────────────────────────────────────────────────────────────────────────────────────────────

POINTS = (20, 30, 40, 30, 30, 40, 22, 50, 38, 50)


def test_landmarks_go_with_an_untouched_picture() -> None:
    prepared = Preparation(LIMITS, landmarks={"a": POINTS})("a", b"any")
    assert prepared == (b"any", [[20, 30], [40, 30], [30, 40], [22, 50], [38, 50]])


def test_landmarks_of_the_photo_move_into_the_box() -> None:
    """The box begins at 7, 16 of the photo when it is cut 1.2 times as large."""
    preparation = Preparation(LIMITS, {"a": (10, 20, 30, 40)}, 1.2, {"a": POINTS})
    prepared = preparation("a", picture_bytes("PNG", (90, 120)))
    assert prepared.landmarks == [[13, 14], [33, 14], [23, 24], [15, 34], [31, 34]]


def test_a_landmark_outside_its_box_is_a_sentence() -> None:
    preparation = Preparation(LIMITS, {"a": (10, 20, 20, 40)}, landmarks={"a": POINTS})
    with pytest.raises(EvaluationError, match=r"Landmark 2 of 5 lies outside the face box .* a larger --margin"):
        preparation("a", picture_bytes("PNG", (90, 120)))


# ── thumbnails ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("photo", "box", "size"),
    [((600, 300), None, (96, 48)), ((30, 40), None, (30, 40)), ((600, 300), (10, 10, 100, 200), (48, 96))],
)
def test_a_thumbnail_is_small_and_shows_what_is_embedded(
    photo: tuple[int, int], box: tuple[float, ...] | None, size: tuple[int, int]
) -> None:
    preparation = Preparation(LIMITS, {"a": box} if box else None)
    thumbnail = preparation.thumbnail("a", picture_bytes("PNG", photo))
    assert thumbnail.startswith(b"\xff\xd8")
    assert decoded_by_opencv(thumbnail).shape == (*size[::-1], 3)


def test_a_thumbnail_with_landmarks_is_the_aligned_face() -> None:
    photo = picture_bytes("PNG", (90, 120))
    thumbnail = decoded_by_opencv(Preparation(LIMITS, landmarks={"a": POINTS}).thumbnail("a", photo))
    expected = align(decode(photo, LIMITS).image, np.reshape(POINTS, (5, 2)).astype(np.float32), 96)
    assert np.abs(thumbnail[..., ::-1].astype(float) - expected).mean() < 12
