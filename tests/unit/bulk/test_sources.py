"""Promises of SOURCES: each kind gives the same embeddings; what cannot be read has a row with an error."""

import csv
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from arcface_api.bulk.listing import Shard
from arcface_api.bulk.reading import BATCH_ROWS
from bulk.conftest import Embed, rows_of, vectors_of
from pictures import picture_bytes

Crops = dict[str, bytes]
Make = Callable[[Crops], list[str]]


def make_zip(crops: Crops) -> list[str]:
    with zipfile.ZipFile("crops.zip", "w") as archive:
        for name, content in crops.items():
            archive.writestr(name, content)
        archive.writestr("notes.txt", "no picture")
        archive.writestr("__MACOSX/._01.jpg", "no picture either")
    return ["crops.zip"]


def make_tar(crops: Crops, mode: str = "w", name: str = "crops.tar") -> list[str]:
    with tarfile.open(name, mode) as archive:  # type: ignore[call-overload]  # a mode
        archive.add("crops")
    return [name]


def make_parquet(crops: Crops, **save: object) -> list[str]:
    columns = {"number": list(range(len(crops))), "jpeg": list(crops.values()), "name": list(crops)}
    parquet.write_table(pa.table(columns), "crops.parquet", **save)
    return ["crops.parquet", "--column", "jpeg"]


def make_data_set(crops: Crops) -> list[str]:
    """As Hugging Face's `datasets` stores pictures."""
    images = [{"bytes": content, "path": name} for name, content in crops.items()]
    parquet.write_table(pa.table({"image": images, "label": [0] * len(images)}), "crops.parquet", row_group_size=5)
    return ["crops.parquet"]


def make_paths(crops: Crops) -> list[str]:
    parquet.write_table(pa.table({"path": list(crops)}), "crops.parquet")
    return ["crops.parquet"]


def make_categories(crops: Crops) -> list[str]:
    """As pandas writes a column of categories."""
    parquet.write_table(pa.table({"path": pa.array(list(crops)).dictionary_encode()}), "crops.parquet")
    return ["crops.parquet"]


def make_csv(crops: Crops) -> list[str]:
    with Path("crops.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("label", "photo"), *((0, name) for name in crops)])
    return ["crops.csv", "--column", "photo"]


def make_jsonl(crops: Crops) -> list[str]:
    Path("crops.jsonl").write_text("".join(json.dumps({"file": name, "x": 1}) + "\n" for name in crops))
    return ["crops.jsonl"]


KINDS: dict[str, Make] = {
    "folder": lambda _: ["crops"],
    "pattern": lambda _: ["crops/**/*.jpg"],
    "pattern of everything": lambda _: ["crops/**"],
    "pattern of a folder": lambda _: ["cr*s"],
    "files": list,
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": lambda crops: make_tar(crops, "w:gz", "crops.tar.gz"),
    "tar.xz": lambda crops: make_tar(crops, "w:xz", "crops.tar"),
    "parquet": make_parquet,
    "parquet in groups": lambda crops: make_parquet(crops, row_group_size=5),
    "data set": make_data_set,
    "parquet of paths": make_paths,
    "parquet of categories": make_categories,
    "csv": make_csv,
    "jsonl": make_jsonl,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_embeddings_in_order(crops: Crops, embed: Embed, kind: str) -> None:
    assert embed("crops", "--out", "expected.parquet").status == 0
    done = embed(*KINDS[kind](crops), "--out", "out.parquet", "--part-rows", "5")
    assert done.status == 0, done.said
    by_name = {Path(row["id"]).name: row["embedding"] for row in rows_of(Path("expected.parquet"))}
    rows = rows_of(Path("out.parquet"))
    names = [Path(row["id"]).name for row in rows]
    if kind in ("parquet", "parquet in groups", "data set"):
        assert names == [f"crops.parquet#{number}" for number in range(len(crops))]
        names = [Path(name).name for name in crops]
    assert sorted(names) == sorted(by_name)
    assert [row["embedding"] for row in rows] == [by_name[name] for name in names]


def test_paths_may_come_on_standard_input(crops: Crops, embed: Embed) -> None:
    embed("crops", "--out", "expected.parquet")
    done = embed("-", "--out", "out.parquet", given="\n".join([*crops, ""]).encode())
    assert done.status == 0, done.said
    assert rows_of(Path("out.parquet")) == rows_of(Path("expected.parquet"))


def test_tables_may_name_the_ids(crops: Crops, embed: Embed) -> None:
    assert embed(*make_parquet(crops), "--id-column", "number", "--out", "a.parquet").status == 0
    Path("crops.jsonl").write_text("".join(json.dumps({"path": name, "n": name[-6:-4]}) + "\n" for name in crops))
    assert embed("crops.jsonl", "--id-column", "n", "--out", "b.parquet").status == 0
    assert [row["id"] for row in rows_of(Path("a.parquet"))] == [str(number) for number in range(len(crops))]
    assert [row["id"] for row in rows_of(Path("b.parquet"))] == [name[-6:-4] for name in crops]
    assert np.array_equal(vectors_of(Path("a.parquet")), vectors_of(Path("b.parquet")))


def test_landmarks_of_a_column_align_the_faces(crops: Crops, embed: Embed) -> None:
    flat = [15.0, 20, 30, 20, 22, 32, 17, 42, 28, 42]
    pairs = [[flat[at], flat[at + 1]] for at in range(0, 10, 2)]
    parquet.write_table(pa.table({"path": list(crops), "points": [flat] * len(crops)}), "a.parquet")
    Path("b.jsonl").write_text("".join(json.dumps({"path": name, "points": pairs}) + "\n" for name in crops))
    with Path("c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "points"), *((name, json.dumps(pairs)) for name in crops)])
    for table in ("a.parquet", "b.jsonl", "c.csv"):
        options = ("--align", "landmarks", "--landmarks-column", "points", "--out", f"{table}.out.parquet")
        assert embed(table, *options).status == 0
    expected = rows_of(Path("a.parquet.out.parquet"))
    assert {row["alignment"] for row in expected} == {"landmarks"}
    assert rows_of(Path("b.jsonl.out.parquet")) == rows_of(Path("c.csv.out.parquet")) == expected
    refused = embed("a.parquet", "--align", "landmarks", "--out", "d.parquet")
    assert refused.status == 2
    assert "give both, or neither" in refused.said


def test_hidden_files_and_other_kinds_are_left_out_and_counted(crops: Crops, embed: Embed) -> None:
    Path("crops/._a.jpg").write_bytes(b"resource fork")
    Path("crops/notes.txt").write_text("x")
    Path("crops/circle").symlink_to(".")
    done = embed("crops", "--out", "out.parquet")
    assert len(rows_of(Path("out.parquet"))) == len(crops)
    assert "2 files were left out" in done.said  # the text, and the link


def test_names_that_are_no_utf8_are_embedded(crops: Crops, embed: Embed) -> None:
    name = b"crops/b/99-\xff.jpg"
    Path(os.fsdecode(name)).write_bytes(next(iter(crops.values())))
    assert embed("crops", "--out", "out.parquet").status == 0
    last = rows_of(Path("out.parquet"))[-1]
    assert last["id"] == "crops/b/99-\\xff.jpg"
    assert last["error"] is None


# ── what cannot be read ────────────────────────────────────────────────────────────────────────────────────────────


def test_bad_pictures_become_rows_with_an_error(crops: Crops, embed: Embed) -> None:
    names = list(crops)
    bad = {
        names[1]: (b"", "image_empty"),
        names[3]: (b"GIF89a", "image_format_unsupported"),
        names[5]: (picture_bytes()[:300], "image_damaged"),
        names[7]: (b"x" * 5000, "body_too_large"),
    }
    for name, (content, _) in bad.items():
        Path(name).write_bytes(content)
    os.mkfifo("pipe.jpg")
    Path("list.csv").write_text("\n".join(["path", *names, "missing.jpg", '""', "pipe.jpg", ""]))
    done = embed("list.csv", "--out", "out.parquet", "--max-image-bytes", "4000")
    assert done.status == 0, done.said
    rows = rows_of(Path("out.parquet"))
    assert [row["id"] for row in rows] == [*names, "missing.jpg", f"list.csv#{len(names) + 1}", "pipe.jpg"]
    expected = {
        **{name: code for name, (_, code) in bad.items()},
        "missing.jpg": "input_unreadable",
        "pipe.jpg": "input_unreadable",
    }
    expected[f"list.csv#{len(names) + 1}"] = "input_unreadable"
    assert {row["id"]: row["error_code"] for row in rows if row["error_code"]} == expected
    assert all((row["embedding"] is None) == (row["error"] is not None) for row in rows)
    assert all((row["recipe"] is None) == (row["error"] is not None) for row in rows)
    assert "8 with an embedding, 7 with an error" in done.said
    assert "3  input_unreadable, first of missing.jpg: It cannot be read: No such file or directory." in done.said


def test_archive_that_breaks_off_keeps_what_it_has(crops: Crops, embed: Embed) -> None:
    make_tar(crops, "w:gz", "crops.tar.gz")
    content = Path("crops.tar.gz").read_bytes()
    Path("crops.tar.gz").write_bytes(content[: len(content) // 2])
    for also in ("", " It was complete already"):
        done = embed("crops.tar.gz", "crops", "--out", "out.parquet")
        assert done.status == 1, done.said
        assert also.strip() in done.said
        assert "crops.tar.gz could not be read to the end, so pictures are missing from out.parquet" in str(done.error)
    rows = rows_of(Path("out.parquet"))
    whole = [row for row in rows if row["id"].startswith("crops/")]
    broken = [row for row in rows if row["id"].startswith("crops.tar.gz")]
    assert len(whole) == len(crops)
    assert broken[-1]["id"] == "crops.tar.gz"
    assert broken[-1]["error_code"] == "input_unreadable"
    assert 1 < len(broken) < len(crops)
    assert broken[0]["embedding"] in [row["embedding"] for row in whole]


def offsets_of(name: str) -> list[int]:
    """Where the headers of a .tar's files are."""
    with tarfile.open(name) as archive:
        return [member.offset for member in archive if member.isfile()]


@pytest.mark.parametrize(
    "kind", ["damaged", "cut", "cut in a header", "not ended", "junk behind it", "second is damaged"]
)
def test_archive_whose_rest_cannot_be_read_says_so(crops: Crops, embed: Embed, kind: str) -> None:
    make_tar(crops)
    content, third = bytearray(Path("crops.tar").read_bytes()), offsets_of("crops.tar")[3]
    present = 3
    if kind == "damaged":
        content[third + 10] ^= 0xFF
    elif kind == "cut":
        del content[third:]
    elif kind == "cut in a header":
        del content[third + 200 :]
    else:
        present = len(crops)
        if kind == "not ended":
            del content[len(content.rstrip(b"\0")) // 512 * 512 + 512 :]
        elif kind == "junk behind it":
            content += b"junk" * 200
        else:
            second = content.copy()
            second[third + 10] ^= 0xFF
            content += second
            present += 3
    Path("crops.tar").write_bytes(content)
    done = embed("crops.tar", "--out", "out.parquet")
    assert done.status == 1
    assert "crops.tar could not be read to the end" in str(done.error)
    rows = rows_of(Path("out.parquet"))
    assert [row["error_code"] for row in rows] == [None] * present + ["input_unreadable"]
    assert (rows[-1]["id"], rows[-1]["error"][:27]) == ("crops.tar", "It cannot be read further: ")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_links_in_an_archive_have_rows(crops: Crops, embed: Embed, suffix: str) -> None:
    """GNU tar stores the second name of a file as a hard link."""
    first, second, *_ = crops
    os.link(first, "crops/b/98-again.jpg")
    os.link("crops/b/98-again.jpg", "crops/b/99-and-again.jpg")
    Path("crops/b/97-symbolic.jpg").symlink_to(second)
    make_tar(crops, "w:gz" if suffix == "tar.gz" else "w", f"crops.{suffix}")
    with tarfile.open(f"crops.{suffix}", "a" if suffix == "tar" else "r") as archive:
        assert [member.name for member in archive if member.islnk()]
        if suffix == "tar":
            dangling = tarfile.TarInfo("dangling.jpg")
            dangling.type, dangling.linkname = tarfile.LNKTYPE, "nowhere.jpg"
            archive.addfile(dangling)
    assert embed(f"crops.{suffix}", "--out", "out.parquet").status == 0
    embed("crops", "--out", "expected.parquet")
    expected = {row["id"]: row["embedding"] for row in rows_of(Path("expected.parquet"))}
    found = {row["id"].partition("/")[2]: row for row in rows_of(Path("out.parquet"))}
    if suffix == "tar":
        assert (
            found.pop("dangling.jpg")["error"] == "It is a link to nowhere.jpg, which is not before it in the archive."
        )
    symbolic = found.pop("crops/b/97-symbolic.jpg")
    assert symbolic["error"].startswith(f"It is a symbolic link to {second}.")
    assert found.keys() == expected.keys() - {"crops/b/97-symbolic.jpg"}
    assert {name: row["embedding"] for name, row in found.items()} == {name: expected[name] for name in found}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archives_that_were_joined_are_read_whole(crops: Crops, embed: Embed, mode: str) -> None:
    make_tar(crops, mode)
    Path("two.tar").write_bytes(2 * Path("crops.tar").read_bytes())
    assert embed("two.tar", "--out", "out.parquet").status == 0
    embed("crops", "--out", "expected.parquet")
    expected = {row["id"]: row["embedding"] for row in rows_of(Path("expected.parquet"))}
    rows = rows_of(Path("out.parquet"))
    assert len(rows) == 2 * len(crops)
    assert all(row["embedding"] == expected[row["id"].removeprefix("two.tar/")] for row in rows)


def test_encrypted_member_says_so(crops: Crops, embed: Embed) -> None:
    make_zip(crops)
    content = bytearray(Path("crops.zip").read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    Path("crops.zip").write_bytes(content)
    assert embed("crops.zip", "--out", "out.parquet").status == 0
    first, *others = rows_of(Path("out.parquet"))
    assert first["error"] == "It is encrypted. Decrypt the archive first."
    assert all(row["error"] is None for row in others)


def test_damaged_member_costs_its_own_row(crops: Crops, embed: Embed) -> None:
    make_zip(crops)
    content = bytearray(Path("crops.zip").read_bytes())
    third = list(crops.values())[2]
    content[content.index(third[-100:]) + 5] ^= 0xFF
    Path("crops.zip").write_bytes(content)
    assert embed("crops.zip", "--out", "out.parquet").status == 0
    rows = rows_of(Path("out.parquet"))
    assert [row["error_code"] for row in rows] == [None, None, "input_unreadable"] + [None] * (len(crops) - 3)


def test_name_that_is_no_utf8_costs_its_own_row(crops: Crops, embed: Embed) -> None:
    names = list(crops) * 70  # 14 kB, more than is decoded at once
    encoded = [name.encode() for name in names]
    lines = [b"path", *encoded[:700], "crops/é.jpg".encode("latin-1"), *encoded[700:]]
    Path("list.csv").write_bytes(b"\n".join(lines))
    done = embed("list.csv", "--out", "out.parquet")
    assert done.status == 0, done.said
    rows = rows_of(Path("out.parquet"))
    assert len(rows) == len(names) + 1
    assert [row["id"] for row in rows if row["error"]] == ["crops/\\xe9.jpg"]


def test_long_field_costs_nothing(crops: Crops, embed: Embed) -> None:
    with Path("list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "more"), *((name, "x" * 140_000) for name in crops)])
    assert embed("list.csv", "--out", "out.parquet").status == 0
    assert [row["error"] for row in rows_of(Path("out.parquet"))] == [None] * len(crops)
    assert csv.field_size_limit() == 131_072, "evaluate, in the same process, would accept any field"


def test_quotation_mark_that_is_not_closed_is_noticed(crops: Crops, embed: Embed) -> None:
    first, second, *others = crops
    Path("list.csv").write_text("\n".join(["path,label", first, f'{second},"open', *others]))
    done = embed("list.csv", "--out", "out.parquet")
    assert done.status == 1
    assert "list.csv could not be read to the end" in str(done.error)
    rows = rows_of(Path("out.parquet"))
    assert [row["id"] for row in rows] == [first, second, "list.csv"]
    assert rows[-1]["error"] == "It cannot be read further: a quotation mark is open from line 3 on."
    Path("list.csv").write_text("\n".join(["path,label", *others, f'{first},"two\nlines"']))
    assert embed("list.csv", "--out", "whole.parquet").status == 0
    assert [row["id"] for row in rows_of(Path("whole.parquet"))] == [*others, first]


def test_text_that_is_no_text_costs_its_own_row(crops: Crops, embed: Embed) -> None:
    first, second, *_ = crops
    lines = [f'{{"path": "{first}", "id": "\\ud800"}}', '{"path": "\\ud800.jpg"}', f'{{"path": "{second}"}}']
    Path("list.jsonl").write_text("\n".join(lines))
    assert embed("list.jsonl", "--id-column", "id", "--out", "out.parquet", "--shard", "1/1").status == 0
    rows = rows_of(Path("out.parquet"))
    assert [row["id"] for row in rows] == ["\\ud800", "\\ud800.jpg", second]
    assert [row["error_code"] for row in rows] == [None, "input_unreadable", None]
    assert embed("list.jsonl", "--out", "paths.parquet").status == 0
    assert [row["id"] for row in rows_of(Path("paths.parquet"))] == [first, "\\ud800.jpg", second]


def test_empty_lines_are_no_pictures(crops: Crops, embed: Embed) -> None:
    first, second, *_ = crops
    Path("list.jsonl").write_text(f'\n{{"path": "{first}"}}\n\n  \n{{"path": "{second}"}}\n\n')
    assert embed("list.jsonl", "--out", "a.parquet").status == 0
    given = f"\ufeff{first}\n\n  \r\n{second}\n\n".encode()
    assert embed("-", "--out", "b.parquet", given=given).status == 0
    for out in ("a.parquet", "b.parquet"):
        assert [(row["id"], row["error"]) for row in rows_of(Path(out))] == [(first, None), (second, None)]


@pytest.mark.parametrize("landmarks", [[b"x", b"y"], [Decimal("1.5")] * 2, [datetime(2026, 1, 1, tzinfo=UTC)] * 2])
def test_landmarks_of_another_type_cost_their_own_rows(crops: Crops, embed: Embed, landmarks: list[object]) -> None:
    parquet.write_table(pa.table({"path": list(crops)[:2], "points": landmarks}), "list.parquet")
    options = ("--align", "landmarks", "--landmarks-column", "points")
    assert embed("list.parquet", "--out", "out.parquet", *options).status == 0
    assert {row["error_code"] for row in rows_of(Path("out.parquet"))} <= {"input_unreadable", "landmarks_invalid"}


def test_landmarks_may_be_decimal_numbers(crops: Crops, embed: Embed) -> None:
    points = [15.0, 20, 30, 20, 22, 32, 17, 42, 28, 42]
    kinds = {"a": points, "b": [Decimal(point) for point in map(str, points)]}
    for name, values in kinds.items():
        parquet.write_table(pa.table({"path": list(crops)[:1], "points": [values]}), f"{name}.parquet")
        options = ("--align", "landmarks", "--landmarks-column", "points", "--out", f"{name}.out.parquet")
        assert embed(f"{name}.parquet", *options).status == 0
    assert rows_of(Path("a.out.parquet")) == rows_of(Path("b.out.parquet"))
    assert rows_of(Path("a.out.parquet"))[0]["error"] is None


def test_lines_and_rows_without_a_picture_have_an_error(crops: Crops, embed: Embed) -> None:
    lines = [json.dumps({"path": next(iter(crops))}), "{", "[1]", json.dumps({"other": 1})]
    Path("list.jsonl").write_text("\n".join(lines))
    assert embed("list.jsonl", "--out", "a.parquet").status == 0
    rows = rows_of(Path("a.parquet"))
    assert [row["id"] for row in rows[1:]] == ["list.jsonl#1", "list.jsonl#2", "list.jsonl#3"]
    assert [row["error_code"] for row in rows] == [None] + ["input_unreadable"] * 3
    contents = [None, *crops.values(), None]
    parquet.write_table(pa.table({"image": pa.array(contents, pa.binary())}), "list.parquet")
    assert embed("list.parquet", "--out", "b.parquet").status == 0
    codes = [row["error_code"] for row in rows_of(Path("b.parquet"))]
    assert codes == ["input_unreadable", *[None] * len(crops), "input_unreadable"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere is neither a file nor a folder, and no file matches it"),
        (["none/*.jpg"], "no file matches it as a pattern"),
        (["crops", "./crops"], "is named twice"),
        (["empty"], "There is no picture in empty; 1 files have names of other kinds"),
        (["no.csv"], "has none of the columns image, path, file, but a, b. Name the one"),
        (["no.csv", "--column", "c"], "no.csv has no column c. It has a, b"),
        (["no.csv", "--column", "a", "--id-column", "c"], "--id-column"),
        (["no.parquet"], "the column image has the type int64"),
        (["no.zip"], "no.zip cannot be read: File is not a zip file"),
        (["no.jsonl"], "its first line is no JSON object"),
        (["utf16.csv"], "utf16.csv is in UTF-16. Save it in UTF-8."),
        (["crops", "--shard", "3/2"], "from 1/n to n/n"),
    ],
)
def test_source_that_cannot_be_used_is_refused_before_anything_is_written(
    crops: Crops, embed: Embed, arguments: list[str], sentence: str
) -> None:
    Path("empty").mkdir()
    Path("empty/a.txt").write_text("x")
    Path("no.csv").write_text("a,b\n1,2\n")
    Path("no.zip").write_bytes(b"PK")
    Path("utf16.csv").write_text("path\na.jpg\n", encoding="utf-16")
    Path("no.jsonl").write_text("path\na.jpg\n")
    parquet.write_table(pa.table({"image": [1]}), "no.parquet")
    done = embed(*arguments, "--out", "out.parquet")
    assert done.status in (1, 2)
    assert sentence in f"{done.said} {done.error}"
    assert not Path("out.parquet").exists()
    assert not Path("out.parquet.parts").exists()


# ── shards ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_shards_share_all_inputs_and_none_twice(crops: Crops, embed: Embed) -> None:
    shares = []
    for number in (1, 2, 3):
        assert embed("crops", "--shard", f"{number}/3", "--out", f"{number}.parquet").status == 0
        shares.append([row["id"] for row in rows_of(Path(f"{number}.parquet"))])
    assert sorted(chain(*shares)) == list(crops)
    assert all(shares)
    assert all(share == sorted(share) for share in shares)


@pytest.mark.parametrize("suffix", ["parquet", "npy", "jsonl"])
def test_share_without_inputs_is_a_file_without_rows(crops: Crops, embed: Embed, suffix: str) -> None:
    picture = next(iter(crops))
    empty = next(number for number in (1, 2) if not Shard(number, 2).has(picture))
    done = embed(picture, "--shard", f"{empty}/2", "--out", f"out.{suffix}")
    assert done.status == 0, done.said
    assert "0 rows" in done.said
    if suffix == "parquet":
        assert rows_of(Path("out.parquet")) == []
    if suffix == "npy":
        assert np.load("out.npy").shape == (0, 512)


def test_share_of_an_input_depends_on_nothing_but_its_id() -> None:
    shares = [sum(Shard(number, 4).has(f"crops/{n}.jpg") for n in range(4000)) for number in (1, 2, 3, 4)]
    assert sum(shares) == 4000
    assert min(shares) > 900
    assert [number for number in range(1, 5) if Shard(number, 4).has("crops/1.jpg")] == [3]  # as on every machine


def test_parquet_is_read_a_few_rows_at_a_time(crops: Crops, embed: Embed) -> None:
    """Rows around every border of what is read at once, and of row groups."""
    contents = [picture_bytes(size=(30 + n, 40)) for n in range(3 * BATCH_ROWS + 2)]
    parquet.write_table(pa.table({"image": contents}), "a.parquet", row_group_size=BATCH_ROWS + 1)
    with tarfile.open("a.tar", "w") as archive:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(f"{number:03}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for name in ("a.parquet", "a.tar"):
        assert embed(name, "--out", f"{name}.out.parquet").status == 0
    assert np.array_equal(vectors_of(Path("a.parquet.out.parquet")), vectors_of(Path("a.tar.out.parquet")))
