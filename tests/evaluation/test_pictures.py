"""Promises of reading pictures and cutting face boxes: a folder and a .tar alike, a sentence for what is wrong."""

import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_api.errors import BoxesInvalid, PicturesMissing
from arcface_api.evaluate.boxes import FaceBox, check_boxes, cutter, read_boxes
from arcface_api.evaluate.pictures import open_pictures
from arcface_api.image import ImageLimits
from pictures import decoded_by_opencv, picture_bytes

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
    read = list(open_pictures(images, names).read(names))
    assert len(read) == len(CONTENTS)
    assert dict(read) == CONTENTS


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    """As when the archive is unpacked: `tar --append` adds a newer one behind."""
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for content in (b"old", b"newer"):
            member = tarfile.TarInfo("a.jpg")
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    assert list(open_pictures(tmp_path / "images.tar", ["a.jpg"]).read(["a.jpg"])) == [("a.jpg", b"newer")]


def test_missing_pictures_are_counted_and_named(images: Path) -> None:
    with pytest.raises(
        PicturesMissing, match=r"lacks 2 of the 3 pictures that the pairs name: b, c/4\.jpg\. Names are"
    ):
        open_pictures(images, ["a/1.jpg", "b", "c/4.jpg"])
    with pytest.raises(PicturesMissing, match=r"lacks 5 of the 5 .* name: 0, 1, 2, …\."):
        open_pictures(images, list("01234"))


def test_what_is_no_archive_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK\x03\x04 and more" * 100)
    with pytest.raises(PicturesMissing, match=r"be read as a \.tar: .*\. Name a folder of pictures, or a whole"):
        open_pictures(tmp_path / "images.zip", ["a"])


def test_an_archive_that_is_cut_off_is_a_sentence(tmp_path: Path) -> None:
    whole = BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name in "ab":
            member = tarfile.TarInfo(name)
            member.size = 50_000
            archive.addfile(member, BytesIO(np.random.default_rng(0).bytes(50_000)))
    (tmp_path / "images.tar.gz").write_bytes(whole.getvalue()[:60_000])
    with pytest.raises(PicturesMissing, match=r"cannot be read as a \.tar"):
        open_pictures(tmp_path / "images.tar.gz", ["a", "b"])


def test_a_picture_that_vanishes_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    pictures = open_pictures(tmp_path, ["a.jpg"])
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(PicturesMissing, match=r"a\.jpg cannot be read: No such file"):
        list(pictures.read(["a.jpg"]))


# ── boxes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("columns", ["image,x,y,width,height", "image,box_x,box_y,box_w,box_h"])
def test_boxes_are_read_by_picture(tmp_path: Path, columns: str) -> None:
    (tmp_path / "boxes.csv").write_text(f"{columns},more\na.jpg,1.5,2,30,40,x\n")
    assert read_boxes(tmp_path / "boxes.csv") == {"a.jpg": FaceBox(1.5, 2, 30, 40)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image,x,y\n", r"has to name the columns image,x,y,width,height or .*; it names image, x, y\."),
        ("image,x,y,width,height\na,1,2,3\n", r"line 2: x, y, width, height have to be numbers in pixels"),
        ("image,x,y,width,height\na,1,2,0,3\n", r"line 2: .* width and height above 0\. Mend the line"),
        ("image,x,y,width,height\na,1,2,nan,3\n", r"line 2"),
        ("image,x,y,width,height\na,1,inf,3,3\n", r"line 2"),
        ("image,x,y,width,height\n" + '"' + "x" * 200_000, r"cannot be read as CSV in UTF-8: field larger than"),
    ],
)
def test_boxes_that_cannot_be_read_are_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(BoxesInvalid, match=told):
        read_boxes(tmp_path / "boxes.csv")


def test_pictures_without_a_box_are_counted_and_named() -> None:
    with pytest.raises(BoxesInvalid, match=r"x.csv has no box for 2 of the 3 pictures that the pairs name, b among"):
        check_boxes(Path("x.csv"), {"a": FaceBox(0, 0, 1, 1)}, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        (FaceBox(10, 20, 30, 40), 1.0, slice(20, 60), slice(10, 40)),
        (FaceBox(10, 20, 30, 40), 1.2, slice(16, 64), slice(7, 43)),
        (FaceBox(-5, -5, 20, 20), 1.0, slice(0, 15), slice(0, 15)),
        (FaceBox(80, 100, 50, 50), 2.0, slice(75, 120), slice(55, 90)),
        (FaceBox(10.4, 20.6, 29.2, 39.2), 1.0, slice(21, 60), slice(10, 40)),
    ],
)
def test_a_box_is_cut_as_it_is_and_without_loss(box: FaceBox, margin: float, rows: slice, columns: slice) -> None:
    photo = picture_bytes("PNG", (90, 120))
    crop = cutter({"a": box}, margin, ImageLimits(10**6))("a", photo)
    assert crop.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decoded_by_opencv(crop), decoded_by_opencv(photo)[rows, columns])


def test_a_box_is_that_of_the_upright_picture() -> None:
    """Orientation 6 of EXIF: the 90 x 120 of the file are 120 x 90 when upright."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    photo = picture_bytes("JPEG", (90, 120), exif=exif)
    crop = cutter({"a": FaceBox(0, 0, 120, 90)}, 1.0, ImageLimits(10**6))("a", photo)
    assert decoded_by_opencv(crop).shape == (90, 120, 3)
    as_stored = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert as_stored is not None
    assert as_stored.shape == (120, 90, 3)


def test_a_box_outside_its_picture_is_a_sentence() -> None:
    with pytest.raises(BoxesInvalid, match=r"Its box 100, 20, 30, 40 .* lies outside its 90x120 pixels\."):
        cutter({"a": FaceBox(100, 20, 30, 40)}, 1.0, ImageLimits(10**6))("a", picture_bytes("PNG", (90, 120)))
