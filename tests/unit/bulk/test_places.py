"""Promises of `arcface-api embed` about object storage, shown with `file://`, and about folders as outputs."""

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from arcface_api.bulk.listing import read_listing, slices
from arcface_api.bulk.parts import Parts
from arcface_api.bulk.places import located
from arcface_api.bulk.storage import Bucket
from arcface_api.errors import BulkError
from bulk.conftest import Embed, rows_of, vectors_of

Crops = dict[str, bytes]


def vectors_and_ids(out: Path) -> tuple[Any, list[str]]:
    return vectors_of(out).tobytes(), [row["id"] for row in rows_of(out)]


# ── sources ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "kind", ["crops/", "crops", "crops.zip", "crops.tar", "crops.tar.gz", "crops.parquet", "list.csv"]
)
def test_url_gives_what_the_path_gives(crops: Crops, embed: Embed, tmp_path: Path, kind: str) -> None:
    with zipfile.ZipFile("crops.zip", "w") as archive:
        for name in crops:
            archive.write(name)
    for name, mode in (("crops.tar", "w:"), ("crops.tar.gz", "w:gz")):
        with tarfile.open(name, mode) as packed:  # type: ignore[call-overload]  # either mode is a literal
            for each in crops:
                packed.add(each)
    parquet.write_table(pa.table({"image": list(crops.values())}), "crops.parquet")
    Path("list.csv").write_text("\n".join(["path", *crops]))
    done = embed(kind, "--out", "path.parquet", "--part-rows", "5")
    assert done.status == 0, done.said
    base = f"file://{tmp_path}"
    done = embed(f"{base}/{kind}", "--out", "url.parquet", "--part-rows", "5")
    assert done.status == 0, done.said
    vectors, ids = vectors_and_ids(Path("path.parquet"))
    shown = ids if kind == "list.csv" else [f"{base}/{each}" for each in ids]
    assert vectors_and_ids(Path("url.parquet")) == (vectors, shown)


def test_lists_may_hold_urls(crops: Crops, embed: Embed, tmp_path: Path) -> None:
    urls = [f"file://{tmp_path}/{name}" for name in crops] + [f"file://{tmp_path}/gone.jpg", "gopher://x/y.jpg"]
    done = embed("-", "--out", "out.parquet", given="\n".join(urls).encode())
    assert done.status == 0, done.said
    *found, gone, unknown = rows_of(Path("out.parquet"))
    assert [row["error_code"] for row in found] == [None] * len(crops)
    assert gone["error_code"] == unknown["error_code"] == "input_unreadable"
    assert "URLs begin with s3://, gs://, abfs:// or file:///" in unknown["error"]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("file:///no/such/folder/", "There is nothing at file:///no/such/folder/. Name a folder"),
        ("gopher://x/", "gopher://x cannot be reached"),
        ("s3://key:secret@bucket/x/", "A key stands in a URL of bucket. URLs are stored with the output: leave it out"),
    ],
)
def test_url_that_cannot_be_used_is_refused(crops: Crops, embed: Embed, url: str, sentence: str) -> None:
    for arguments in ((url, "--out", "out.parquet"), ("crops", "--out", url)):
        if arguments[0] == "crops" and url.startswith("file"):
            continue
        done = embed(*arguments)
        assert done.status == 1
        assert sentence in str(done.error)
        assert "secret" not in str(done.error)


def test_storage_that_does_not_answer_is_a_sentence(
    crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    query = "?scheme=http&endpoint_override=127.0.0.1:1&region=us-east-1"
    for arguments in ((f"s3://bucket/x/{query}", "--out", "x.parquet"), ("crops", "--out", f"s3://bucket/x/{query}")):
        done = embed(*arguments)
        assert done.status == 1
        assert "s3://bucket/x/ cannot be reached: " in str(done.error)


def test_slices_are_the_listing(crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of a listing has its inputs, also where sources end in the middle of a part."""
    monkeypatch.setattr(Parts, "finish", lambda _: None)
    (first, *others) = list(crops)
    with tarfile.open("some.tar", "w") as archive:
        for name in others[:4]:
            archive.add(name)
    assert embed(first, "some.tar", *others[4:], "--out", "out.parquet", "--part-rows", "3").status == 0
    parts = Parts("out.parquet")
    whole = b"".join(parts.lines())
    all_of_them = [(each.id, each.read()) for each in read_listing(parts.lines(), lambda _: True, 10**6)]
    found = []
    for number, part in enumerate(slices(parts.lines(), 3)):
        lines = (part.holder + whole[part.begin : part.end]).splitlines()
        inputs = [(each.id, each.read()) for each in read_listing(lines, lambda _: True, 10**6)]
        assert (part.number, part.inputs) == (number, len(inputs))
        found += inputs
    assert found == all_of_them
    assert len(found) == len(crops)


# ── a folder as the output ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", ["faces/", "file://{here}/faces/"])
def test_folder_has_a_file_of_each_part(crops: Crops, embed: Embed, tmp_path: Path, place: str) -> None:
    Path("crops/b/bad.jpg").write_bytes(b"")
    assert embed("crops", "--out", "one.parquet").status == 0
    done = embed("crops", "--out", place.format(here=tmp_path), "--part-rows", "5")
    assert done.status == 0, done.said
    assert "13 rows, 12 with an embedding, 1 with an error" in done.said
    names = sorted(path.name for path in Path("faces").iterdir())
    assert names == ["_summary.json", *(f"part-{number:08}.parquet" for number in range(3))]
    assert parquet.read_table("faces").to_pylist() == rows_of(Path("one.parquet"))
    summary = json.loads(Path("faces/_summary.json").read_text())
    assert (summary["rows"], summary["errors"]) == (13, {"image_empty": 1})
    stated = json.loads(parquet.read_metadata("faces/part-00000002.parquet").metadata[b"arcface_api"])
    assert (stated["rows"], stated["errors"], stated["job"]) == (3, {"image_empty": 1}, summary["job"])


def test_finished_folder_is_not_done_again(crops: Crops, embed: Embed) -> None:
    assert embed("crops", "--out", "faces/").status == 0
    before = Path("faces/part-00000000.parquet").stat()
    done = embed("crops", "--out", "faces/")
    assert done.status == 0
    assert "It was complete already" in done.said
    other = embed("crops", "--out", "faces/", "--flip")
    assert "faces exists and is the output of another job: --flip was false there" in str(other.error)
    assert Path("faces/part-00000000.parquet").stat().st_ino == before.st_ino
    done = embed("crops", "--out", "faces/", "--flip", "--restart")
    assert done.status == 0, done.said
    stated = json.loads(parquet.read_metadata("faces/part-00000000.parquet").metadata[b"arcface_api"])
    assert stated["job"]["pins"]["--flip"] is True


def test_folder_of_somebody_else_is_not_touched(crops: Crops, embed: Embed) -> None:
    before = sorted(Path("crops").rglob("*"))
    done = embed("crops", "--out", "crops/")
    assert done.status == 1
    assert "crops exists and is no output of this command. Name another --out, or replace it: --restart" in str(
        done.error
    )
    assert sorted(Path("crops").rglob("*")) == before


@pytest.mark.parametrize(
    ("out", "sentence"), [("s3://bucket/faces", "Let its URL end in a slash"), ("crops", "crops/")]
)
def test_folder_is_named_with_a_slash(crops: Crops, embed: Embed, out: str, sentence: str) -> None:
    done = embed("crops", "--out", out)
    assert done.status == 1
    assert sentence in str(done.error)


@pytest.mark.parametrize("source", ["{here}/faces/part-00000000.parquet", "link.parquet", "{url}", "faces/*.parquet"])
@pytest.mark.parametrize("out", ["faces/", "file://{here}/faces/"])
@pytest.mark.parametrize("more", [[], ["--restart"]])
def test_source_in_a_folder_is_never_replaced(
    crops: Crops, embed: Embed, tmp_path: Path, source: str, out: str, more: list[str]
) -> None:
    Path("faces").mkdir()
    part = Path("faces/part-00000000.parquet")
    parquet.write_table(pa.table({"image": list(crops.values())}), part)
    Path("link.parquet").symlink_to(part)
    before = part.read_bytes()
    named = {"here": tmp_path, "url": f"file://{tmp_path}/faces/part-00000000.parquet"}
    done = embed(source.format(**named), "--out", out.format(**named), *more)
    assert done.status == 1
    if "*" not in source or more:  # without --restart, it is no source: the output is there
        assert "is a source, and --out" in str(done.error)
    assert part.read_bytes() == before
    assert [path.name for path in Path("faces").iterdir()] == [part.name]


def test_source_that_is_the_file_is_known_by_its_url(crops: Crops, embed: Embed, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": list(crops.values())}), "faces.parquet")
    before = Path("faces.parquet").read_bytes()
    done = embed(f"file://{tmp_path}/faces.parquet", "--out", "faces.parquet", "--restart")
    assert "is a source, and --out faces.parquet would replace it" in str(done.error)
    assert Path("faces.parquet").read_bytes() == before


def test_restart_removes_only_its_own_names_from_a_folder(crops: Crops, embed: Embed) -> None:
    assert embed("crops", "--out", "faces/", "--part-rows", "5").status == 0
    theirs = [
        "notes.txt",
        "part-1.parquet",
        "part-00000000.csv",
        "part-00000000.parquet.old",
        "_job.json.bak",
        "_SUCCESS",
    ]
    for name in theirs:
        (Path("faces") / name).write_text("precious")
    done = embed("crops", "--out", "faces/", "--part-rows", "8", "--restart")
    assert done.status == 0, done.said
    left = {"_summary.json", "part-00000000.parquet", "part-00000001.parquet"}
    assert {path.name for path in Path("faces").iterdir()} == left | {*theirs}
    assert {(Path("faces") / name).read_text() for name in theirs} == {"precious"}


@pytest.mark.parametrize("name", ["_job.json", "_summary.json"])
@pytest.mark.parametrize("more", [[], ["--restart"]])
@pytest.mark.parametrize("content", ["precious", '{"precious": 1}'])
def test_folder_with_a_foreign_file_of_that_name_is_refused(
    crops: Crops, embed: Embed, name: str, more: list[str], content: str
) -> None:
    Path("faces").mkdir()
    Path("faces", name).write_text(content)
    done = embed("crops", "--out", "faces/", *more)
    assert f"holds something else: {name}" in str(done.error)
    assert [path.name for path in Path("faces").iterdir()] == [name]
    assert Path("faces", name).read_text() == content


@pytest.mark.parametrize("place", ["faces/", "file://{here}/faces/"])
def test_restart_that_cannot_begin_keeps_a_finished_folder(
    crops: Crops, embed: Embed, tmp_path: Path, place: str
) -> None:
    out = place.format(here=tmp_path)
    assert embed("crops", "--out", out, "--part-rows", "5").status == 0
    before = {path.name: path.read_bytes() for path in Path("faces").iterdir()}
    Path("empty").mkdir()
    Path("damaged.csv").write_bytes(b"\xff\xfe")
    for source in ("empty", "damaged.csv", "nothing/"):
        assert embed(source, "--out", out, "--restart").status == 1
        assert {path.name: path.read_bytes() for path in Path("faces").iterdir()} == before
    assert embed("crops", "--out", out, "--pack", "nothing", "--restart").status != 0
    assert "It was complete already" in embed("crops", "--out", out).said
    assert {path.name: path.read_bytes() for path in Path("faces").iterdir()} == before


def test_source_that_breaks_off_is_stated_by_a_folder(crops: Crops, embed: Embed, tmp_path: Path) -> None:
    with tarfile.open("cut.tar", "w") as archive:
        archive.add("crops")
    content = Path("cut.tar").read_bytes()
    Path("cut.tar").write_bytes(content[: 2 * len(content) // 3 // 512 * 512])
    for source in ("cut.tar", f"file://{tmp_path}/cut.tar"):
        for _ in range(2):  # a finished job ends with the status that it had
            done = embed(source, "--out", f"{Path(source).parent.name}-faces/")
            assert done.status == 1
            assert f"{source} could not be read to the end" in str(done.error)
    summary = json.loads(Path("-faces/_summary.json").read_text())
    assert summary["job"]["broken"] == ["cut.tar"]


def test_bucket_keeps_files_as_a_folder_does(tmp_path: Path) -> None:
    """The same on pyarrow's file system as on an object store's: nothing is there until it is whole."""
    bucket = Bucket(f"file://{tmp_path}/")
    with pytest.raises(ZeroDivisionError), bucket.writing("a"):
        raise ZeroDivisionError
    assert bucket.names() == set()
    with bucket.writing("a") as file:
        file.write(b"first\nsecond\n")
    assert bucket.names() == {"a"}
    with bucket.open("a") as opened:
        assert list(opened) == [b"first\n", b"second\n"]
        opened.seek(6)
        assert opened.read(3) == b"sec"
    assert bucket.name_of(f"file://{tmp_path}/a?region=x") == "a"
    assert (bucket.name_of(f"file://{tmp_path}/b/a"), bucket.name_of("a")) == (None, None)
    bucket.remove("a")
    bucket.remove("a")
    assert bucket.names() == set()
    with pytest.raises(FileNotFoundError):
        bucket.open("a")


def test_character_that_urls_lack_is_written_as_usual() -> None:
    assert located("file:///a%20b/c")[1] == "/a b/c"
    with pytest.raises(BulkError, match="cannot be reached"):
        located("nothing://x")
