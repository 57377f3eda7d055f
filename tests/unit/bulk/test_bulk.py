"""Promises of `arcface-api embed`: what /embed answers, in a file; a job goes on where it was, or says why not."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from filelock import FileLock
from pyarrow import parquet

from arcface_api.bulk import engine, outputs, remote, run
from arcface_api.bulk.engine import Engine, Facts
from arcface_api.bulk.finished import OneFile
from arcface_api.bulk.listing import Input
from arcface_api.bulk.parts import Parts
from arcface_api.bulk.rows import COLUMNS, QUALITY, Row, error_row
from arcface_api.bulk.storage import publish
from arcface_api.client import AsyncClient
from arcface_api.errors import BulkError, ModelFailed, SettingInvalid
from arcface_api.progress import no_progress
from bulk.conftest import Embed, metadata_of, rows_of, vectors_of
from scripted_server import ScriptedServer, answer
from serving import Service, until
from tiny_models import linear_model

Crops = dict[str, bytes]
INCLUDED = ("attributes", "quality", "landmarks", "crop")
PROCESS_SECONDS = 300
"""For a command to start and to do little, on a slow and busy machine."""


# ── what is written ────────────────────────────────────────────────────────────────────────────────────────────────


def test_row_holds_what_the_service_answers(
    crops: Crops, embed: Embed, run_service: Callable[..., Service], tiny_pack: Path
) -> None:
    options = {"flip": "true", "normalize": "true", "align": "auto", "fit": "letterbox"}
    options |= {f"include_{name}": "true" for name in INCLUDED}
    flags = [f"--include-{name}" for name in INCLUDED] + [
        "--flip",
        "--normalize",
        "--align",
        "auto",
        "--fit",
        "letterbox",
    ]
    done = embed("crops", "--out", "out.parquet", "--pack", tiny_pack, *flags)
    assert done.status == 0, done.said
    service = run_service(tiny_pack)
    rows = rows_of(Path("out.parquet"))
    assert [row["id"] for row in rows] == list(crops)
    for row, content in zip(rows, crops.values(), strict=True):
        answer = service.post("/embed", params=options, files={"file": content})
        body = answer.json()
        assert np.array_equal(np.float32(row["embedding"]), np.float32(body["embedding"]))
        assert row["model"] == body["model"]
        assert row["fingerprint"] == answer.headers["X-Model-Fingerprint"]
        assert row["recipe"] == answer.headers["X-Embedding-Recipe"]
        assert row["norm"] == pytest.approx(float(answer.headers["X-Embedding-Norm"]), rel=1e-6)
        assert row["alignment"] == answer.headers["X-Alignment"]
        assert row["warnings"] == body["warnings"]
        person = body["attributes"]
        pose = {f"pose_{name}": value for name, value in person.pop("pose").items()}
        quality = {name: value for name, value in body["quality"].items() if name != "norm"}
        for name, value in {**person, **pose, **quality}.items():
            assert row[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), name
        assert np.allclose(np.reshape(row["landmarks"], (5, 2)), body["landmarks"], atol=1e-3)
        assert json.dumps(body["crop"]) in json.dumps(body)
        assert row["crop"][:4] == b"\x89PNG"


def test_columns_that_nobody_asked_for_are_left_out(crops: Crops, embed: Embed) -> None:
    embed("crops", "--out", "out.parquet")
    schema = parquet.read_schema("out.parquet")
    assert schema.names == [column.name for column in COLUMNS if column.option is None]
    kind = schema.field("embedding").type
    assert (kind.list_size, kind.value_type) == (512, pa.float32())
    assert metadata_of(Path("out.parquet"))["schema_version"] == 1


def test_float16_halves_the_vectors(crops: Crops, embed: Embed) -> None:
    embed("crops", "--out", "a.parquet")
    embed("crops", "--out", "b.parquet", "--dtype", "float16")
    assert parquet.read_schema("b.parquet").field("embedding").type.value_type == pa.float16()
    assert np.array_equal(vectors_of(Path("b.parquet")), vectors_of(Path("a.parquet")).astype(np.float16))


@pytest.mark.parametrize("suffix", ["parquet", "npy", "jsonl"])
def test_vector_that_float16_cannot_hold_is_an_error(crops: Crops, embed: Embed, suffix: str) -> None:
    onnx.save(linear_model(112, 512, gain=1e5), "large.onnx")
    done = embed("crops", "--out", f"out.{suffix}", "--dtype", "float16", "--pack", "large.onnx")
    assert done.status == 0, done.said
    assert "12  embedding_invalid" in done.said
    assert "above 65,504, which float16 cannot hold. Use --dtype float32, or --normalize." in done.said
    if suffix == "parquet":
        assert {(row["embedding"], row["norm"], row["recipe"]) for row in rows_of(Path("out.parquet"))} == {(None,) * 3}
    elif suffix == "npy":
        assert np.isnan(np.load("out.npy")).all()
    else:
        assert {json.loads(line)["embedding"] for line in Path("out.jsonl").read_text().splitlines()} == {None}
    whole = embed("crops", "--out", "whole.parquet", "--pack", "large.onnx")
    assert "12 with an embedding" in whole.said
    unit = embed("crops", "--out", "unit.parquet", "--dtype", "float16", "--pack", "large.onnx", "--normalize")
    assert "12 with an embedding" in unit.said


def test_numbers_in_jsonl_are_as_short_as_in_the_http_api(crops: Crops, embed: Embed, tiny_pack: Path) -> None:
    flags = [f"--include-{name}" for name in ("attributes", "quality", "landmarks")]
    assert embed("crops", "--out", "out.jsonl", "--pack", tiny_pack, *flags).status == 0
    for row in map(json.loads, Path("out.jsonl").read_text().splitlines()):
        for name, digits in {**QUALITY, "pose_yaw": 4}.items():
            assert row[name] == round(row[name], digits), name
        assert row["landmarks"] == [round(number, 2) for number in row["landmarks"]]
        assert row["norm"] == float(str(np.float32(row["norm"])))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_npy_and_jsonl_hold_the_same(crops: Crops, embed: Embed, dtype: str) -> None:
    Path("crops/b/bad.jpg").write_bytes(b"")
    for suffix in ("parquet", "npy", "jsonl"):
        assert (
            embed("crops", "--out", f"out.{suffix}", "--dtype", dtype, "--part-rows", "5", "--include-crop").status == 0
        )
    expected = rows_of(Path("out.parquet"))
    matrix = np.load("out.npy")
    assert matrix.dtype == dtype
    sidecar = [json.loads(line) for line in Path("out.npy.jsonl").read_text().splitlines()]
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert len(matrix) == len(sidecar) == len(lines) == len(expected) == len(crops) + 1
    for row, vector, beside, line in zip(expected, matrix, sidecar, lines, strict=True):
        embedding = row.pop("embedding")
        del row["crop"], beside["crop"]
        line.pop("crop")
        if embedding is None:
            assert np.isnan(vector).all()
            assert line.pop("embedding") is None
        else:
            assert np.array_equal(vector, np.array(embedding, dtype))
            assert np.array_equal(np.array(line.pop("embedding"), dtype), vector)
        assert beside == line
        assert {name: beside[name] for name in ("id", "recipe", "error_code", "error", "warnings")} == {
            name: row[name] for name in ("id", "recipe", "error_code", "error", "warnings")
        }
    stated = json.loads(Path("out.npy.job.json").read_text())
    assert (stated["rows"], stated["errors"]) == (len(expected), {"image_empty": 1})


def test_summary_names_the_ten_most_frequent_errors() -> None:
    errors = Counter({f"code_{number}": number for number in range(1, 13)})
    summary = run.Summary(
        out="x.parquet",
        rows=100,
        was_complete=False,
        ignored=0,
        errors=errors,
        examples=dict.fromkeys(errors, ("a.jpg", "Why.")),
        embedded_now=100,
        seconds=2.0,
    )
    said = str(summary).splitlines()
    assert said[0] == "x.parquet: 100 rows, 22 with an embedding, 78 with an error."
    assert said[1] == "100 pictures in 2.0 s, 50.0 a second."
    assert [line.split()[1].rstrip(",") for line in said[3:]] == [f"code_{number}" for number in range(12, 2, -1)]


# ── a job that goes on ─────────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """As if the process had ended here."""


@pytest.fixture
def begun(crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job on `crops` with 2 of its 4 parts done, and the whole job's rows in expected.parquet."""
    embed("crops", "--out", "expected.parquet")
    write = Parts.write

    def write_some(parts: Parts, number: int, rows: pa.Table) -> None:
        if number == 2:
            raise Killed
        write(parts, number, rows)

    with monkeypatch.context() as broken:
        broken.setattr(Parts, "write", write_some)
        with pytest.raises(Killed):
            embed("crops", "--out", "out.parquet", "--part-rows", "3")
    assert sorted(path.name for path in Path("out.parquet.parts").glob("part-*")) == [
        "part-00000000.parquet",
        "part-00000001.parquet",
    ]


@pytest.mark.usefixtures("begun")
def test_job_goes_on_where_it_was(embed: Embed) -> None:
    done = embed("crops", "--out", "out.parquet")
    assert done.status == 0, done.said
    assert rows_of(Path("out.parquet")) == rows_of(Path("expected.parquet"))
    assert "6 pictures in" in done.said
    assert "6 were there from an earlier start" in done.said
    assert not Path("out.parquet.parts").exists()


@pytest.mark.usefixtures("begun")
def test_inputs_are_those_of_the_first_start(crops: Crops, embed: Embed) -> None:
    Path("crops/a/00-new.jpg").write_bytes(b"new")
    last = list(crops)[-1]
    Path(last).unlink()
    assert embed("crops", "--out", "out.parquet").status == 0
    rows = rows_of(Path("out.parquet"))
    assert rows[:-1] == rows_of(Path("expected.parquet"))[:-1]
    assert (rows[-1]["id"], rows[-1]["error_code"]) == (last, "input_unreadable")


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["crops", "--flip"], "--flip was false there and is true now"),
        (["crops", "--align", "auto"], "--align was none there and is auto now"),
        (["crops/a"], "sources was"),
        (["crops", "--dtype", "float16"], "--dtype was float32 there and is float16 now"),
        (["crops", "--shard", "1/2"], "--shard was 1/1 there and is 1/2 now"),
        (["crops", "--pack", "other.onnx"], "model was tiny_recogniser there and is other now"),
    ],
)
def test_another_job_is_refused_until_restart(embed: Embed, arguments: list[str], sentence: str) -> None:
    onnx.save(linear_model(112, 512, seed=1), "other.onnx")
    done = embed(*arguments, "--out", "out.parquet")
    assert done.status == 1
    assert sentence in str(done.error)
    assert "name another --out, or begin again: --restart" in str(done.error)
    again = embed(*arguments, "--out", "out.parquet", "--restart")
    assert again.status == 0, again.said
    assert "from an earlier start" not in again.said


def test_finished_job_is_not_done_again(crops: Crops, embed: Embed) -> None:
    for suffix in ("parquet", "npy", "jsonl"):
        out = Path(f"out.{suffix}")
        assert embed("crops", "--out", out).status == 0
        before = out.stat()
        done = embed("crops", "--out", out)
        assert done.status == 0
        assert "12 rows, 12 with an embedding" in done.said
        assert "It was complete already" in done.said
        assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
        other = embed("crops", "--out", out, "--flip")
        assert other.status == 1
        assert f"{out} exists and is the output of another job: --flip was false there" in str(other.error)
        assert embed("crops", "--out", out, "--flip", "--restart").status == 0
        assert out.stat().st_ino != before.st_ino


def test_file_of_somebody_else_is_not_replaced(crops: Crops, embed: Embed) -> None:
    for name in ("out.parquet", "out.npy", "out.jsonl"):
        Path(name).write_text("precious")
        done = embed("crops", "--out", name)
        assert done.status == 1
        assert str(done.error) == (
            f"{name} exists and is no output of this command. Name another --out, or replace the file: --restart."
        )
        assert Path(name).read_text() == "precious"
        assert not Path(f"{name}.parts").exists()


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("faces.parquet", "faces.parquet"),
        ("./faces.parquet", "faces.parquet"),
        ("link.parquet", "faces.parquet"),
        ("*.parquet", "faces.parquet"),
        ("list.jsonl", "list.jsonl"),
        ("list.npy.jsonl", "list.npy"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--restart"]])
def test_source_is_never_replaced(crops: Crops, embed: Embed, source: str, out: str, more: list[str]) -> None:
    parquet.write_table(pa.table({"image": list(crops.values())}), "faces.parquet")
    os.link("faces.parquet", "link.parquet")
    for name in ("list.jsonl", "list.npy.jsonl"):
        Path(name).write_text("".join(f'{{"path": "{name}"}}\n' for name in crops))
    before = {path: path.read_bytes() for path in Path().glob("*.*")}
    done = embed(source, "--out", out, *more)
    assert done.status == 1
    if source != "*.parquet" or more:
        assert "is a source, and --out" in str(done.error)
        assert str(done.error).endswith("would replace it. Name another --out.")
    assert {path: path.read_bytes() for path in Path().glob("*.*")} == before


def test_output_that_a_pattern_matches_is_complete_already(crops: Crops, embed: Embed) -> None:
    parquet.write_table(pa.table({"image": list(crops.values())}), "crops.parquet")
    for said in ("12 pictures in", "It was complete already"):
        done = embed("*.parquet", "--out", "faces.parquet")
        assert done.status == 0, done.error
        assert said in done.said


@pytest.mark.parametrize("names", [["notes.txt"], ["part-00000.snappy.parquet", "job.json", "job.txt"], ["job.json"]])
def test_folder_of_somebody_else_is_not_touched(crops: Crops, embed: Embed, names: list[str]) -> None:
    Path("out.parquet.parts").mkdir()
    for name in names:
        Path(f"out.parquet.parts/{name}").write_text("{}")
    for more in ([], ["--restart"]):
        done = embed("crops", "--out", "out.parquet", *more)
        assert done.status == 1
        assert f"what the job has done so far, and holds something else: {min(names)}. Move" in str(done.error) or (
            "job.txt" in names and "holds something else: job.txt. Move" in str(done.error)
        )
    assert sorted(path.name for path in Path("out.parquet.parts").iterdir()) == sorted(names)


def test_files_that_are_no_job_s_stay(crops: Crops, embed: Embed) -> None:
    Path("out.parquet.parts").mkdir()
    others = [Path(f"out.{suffix}.tmp") for suffix in ("parquet", "npy", "npy.jsonl", "npy.job.json")]
    for path in [*others, Path("out.parquet.parts/.DS_Store")]:
        path.write_text("precious")
    for suffix in ("parquet", "npy"):
        assert embed("crops", "--out", f"out.{suffix}").status == 0
    assert {path.read_text() for path in others} == {"precious"}
    assert [path.name for path in Path("out.parquet.parts").iterdir()] == [".DS_Store"]
    assert not Path("out.npy.parts").exists()


@pytest.mark.parametrize("suffix", ["npy", "jsonl"])
def test_files_of_two_jobs_never_claim_to_be_one_output(
    crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    out = f"out.{suffix}"
    embed("crops", "--out", out)
    published = 0

    def publish_one(temporary: Path, path: Path) -> None:
        nonlocal published
        if published:
            raise Killed
        published += 1
        publish(temporary, path)

    with monkeypatch.context() as broken:
        broken.setattr("arcface_api.bulk.outputs.publish", publish_one)
        with pytest.raises(Killed):
            embed("crops", "--out", out, "--flip", "--restart")
    assert outputs.description_of(Path(out)) is None
    assert embed("crops", "--out", out, "--flip").status == 0
    assert json.loads(Path(f"{out}.job.json").read_text())["job"]["pins"]["--flip"] is True


@pytest.mark.usefixtures("begun")
def test_restart_that_cannot_begin_discards_nothing(embed: Embed) -> None:
    for arguments in (["nowhere"], ["crops", "--include-attributes"]):
        assert embed(*arguments, "--out", "out.parquet", "--restart").status == 1
    assert "6 were there from an earlier start" in embed("crops", "--out", "out.parquet").said


def test_job_with_restart_says_how_it_goes_on(crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Parts, "write", stop)
        done = embed("crops", "--out", "out.parquet", "--restart")
    assert done.status == 130
    kept = "What is done is kept in out.parquet.parts: the same command without --restart goes on there."
    assert kept in done.said
    with monkeypatch.context() as broken:
        broken.setattr(OneFile, "finish", lambda *_: (_ for _ in ()).throw(BulkError("No room.")))
        assert kept in embed("crops", "--out", "out.parquet", "--restart").said
    assert embed("crops", "--out", "out.parquet").status == 0


def test_folder_may_go_while_a_job_begins(crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the job before it ends just then."""
    mkdir, left = Path.mkdir, 3

    def vanish(path: Path, *arguments: Any, **named: Any) -> None:
        nonlocal left
        if path.suffix == ".parts" and left:
            left -= 1
            if left % 2:
                raise FileExistsError(17, "File exists", str(path))
            return
        mkdir(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", vanish)
    assert embed("crops", "--out", "out.parquet").status == 0
    assert left == 0


@pytest.mark.parametrize("suffix", ["parquet", "npy", "jsonl"])
def test_output_may_be_in_a_folder_whose_name_is_no_utf8(crops: Crops, embed: Embed, suffix: str) -> None:
    folder = os.fsdecode(b"d\xff")
    Path(folder).mkdir()
    parquet.write_table(pa.table({"image": list(crops.values())}), "crops.parquet")
    Path("crops.parquet").rename(f"{folder}/crops.parquet")
    for said in ("12 pictures in", "It was complete already"):
        done = embed(f"{folder}/crops.parquet", "--out", f"{folder}/out.{suffix}", "--part-rows", "5")
        assert done.status == 0, done.error
        assert said in done.said
        assert f"d\\xff/out.{suffix}: 12 rows" in done.said or f"d\\udcff/out.{suffix}: 12 rows" in done.said


def test_two_processes_do_not_share_a_job(crops: Crops, embed: Embed) -> None:
    Path("out.parquet.parts").mkdir()
    with FileLock("out.parquet.parts/lock"):
        done = embed("crops", "--out", "out.parquet")
    assert done.status == 1
    assert "Another process writes out.parquet.parts now. Wait for its end, or give this job another --out" in str(
        done.error
    )


def test_archive_that_changed_is_refused(crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open("crops.tar", "w") as archive:
        archive.add("crops")

    def write(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(Parts, "write", write)
        with pytest.raises(Killed):
            embed("crops.tar", "--out", "out.parquet")
    os.utime("crops.tar", (1, 1))
    done = embed("crops.tar", "--out", "out.parquet")
    assert done.status == 1
    assert "crops.tar has changed since the job listed it" in str(done.error)
    assert embed("crops.tar", "--out", "out.parquet", "--restart").status == 0


def test_damaged_part_is_named(embed: Embed, begun: None) -> None:
    part = Path("out.parquet.parts/part-00000000.parquet")
    part.write_bytes(part.read_bytes()[:200])
    done = embed("crops", "--out", "out.parquet")
    assert done.status == 1
    assert "part-00000000.parquet is damaged" in str(done.error)
    part.unlink()
    assert embed("crops", "--out", "out.parquet").status == 0
    assert rows_of(Path("out.parquet")) == rows_of(Path("expected.parquet"))


# ── a running service ──────────────────────────────────────────────────────────────────────────────────────────────


def url_of(service: Service) -> str:
    return str(service.base_url).rstrip("/")


@pytest.mark.parametrize(
    "options",
    [[], ["--align", "auto", "--flip"], ["--normalize", "--fit", "letterbox", *(f"--include-{n}" for n in INCLUDED)]],
)
def test_service_gives_the_same_file(
    crops: Crops, embed: Embed, run_service: Callable[..., Service], tiny_pack: Path, options: list[str]
) -> None:
    names = list(crops)
    Path(names[2]).write_bytes(b"")
    Path(names[-1]).write_bytes(b"GIF89a")
    lines = ["path", "missing.jpg", names[0], "missing too.jpg", *names[1:], "missing at the end.jpg"]
    Path("list.csv").write_text("\n".join(lines))
    service = run_service(tiny_pack, max_batch_files=5)
    assert embed("list.csv", "--out", "here.parquet", "--pack", tiny_pack, *options).status == 0
    done = embed("list.csv", "--out", "there.parquet", "--url", url_of(service), *options)
    assert done.status == 0, done.said
    assert rows_of(Path("there.parquet")) == rows_of(Path("here.parquet"))
    here, there = (metadata_of(Path(name))["job"]["pins"] for name in ("here.parquet", "there.parquet"))
    assert here == there
    assert f"{len(names) + 3} rows" in done.said


def test_landmarks_go_to_the_service(crops: Crops, embed: Embed, service: Service, tiny_recogniser: Path) -> None:
    points = [[15.0, 20], [30, 20], [22, 32], [17, 42], [28, 42]]
    rows = [{"path": name, "points": points} for name in crops]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ("--align", "landmarks", "--landmarks-column", "points")
    ways = {"here.parquet": ("--pack", str(tiny_recogniser)), "there.parquet": ("--url", url_of(service))}
    for out, where in ways.items():
        assert embed("a.jsonl", "--out", out, *options, *where).status == 0
    assert rows_of(Path("there.parquet")) == rows_of(Path("here.parquet"))


@pytest.mark.usefixtures("begun")
def test_job_goes_on_at_a_service_with_the_same_model_only(
    embed: Embed, run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    onnx.save(linear_model(112, 512, seed=1), "other.onnx")
    other = embed("crops", "--out", "out.parquet", "--url", url_of(run_service(Path("other.onnx"))))
    assert other.status == 1
    assert "model was tiny_recogniser there and is other now" in str(other.error)
    done = embed("crops", "--out", "out.parquet", "--url", url_of(run_service(tiny_recogniser)))
    assert done.status == 0, done.said
    assert "6 were there from an earlier start" in done.said
    assert rows_of(Path("out.parquet")) == rows_of(Path("expected.parquet"))


def test_service_embeds_as_at_the_start_of_the_job_also_with_other_settings(
    crops: Crops,
    embed: Embed,
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if a service that aligns had taken the place of one that does not behind its first answer."""
    before, after = (run_service(tiny_recogniser, align=align) for align in ("none", "auto"))
    first = before.get("/info").json()
    assert first["crop"]["align"] == "none"
    with_info(monkeypatch, lambda facts, number: first if number == 0 else facts)
    done = embed("crops", "--out", "out.parquet", "--url", url_of(after))
    assert done.status == 0, done.error
    assert {(row["alignment"], row["recipe"]) for row in rows_of(Path("out.parquet"))} == {("none", first["recipe"])}
    assert metadata_of(Path("out.parquet"))["job"]["pins"]["recipes"] == [first["recipe"]]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"precision": "bfloat16"}, "precision was bfloat16 and is float32 now"),
        ({"provider": "Other"}, "provider was Other and is "),
        ({"fingerprint": "0" * 16}, f"fingerprint was {'0' * 16} and is "),
        ({"recipes": {}}, "recipes was  and is "),
    ],
)
def test_service_that_changes_ends_the_job_before_its_rows_are_stored(
    crops: Crops,
    embed: Embed,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    sentence: str,
) -> None:
    with_info(monkeypatch, lambda facts, number: facts | changed if number == 0 else facts)
    done = embed("crops", "--out", "out.parquet", "--part-rows", "1", "--url", url_of(service))
    assert done.status == 1
    assert sentence in str(done.error)
    assert "run the service as it was and start the same command again" in str(done.error)
    assert not [*Path("out.parquet.parts").glob("part-*")]


def with_info(monkeypatch: pytest.MonkeyPatch, changed: Callable[[dict[str, Any], int], dict[str, Any]]) -> None:
    """Change what a client gets from /info, by the facts and the number of the call."""
    info, numbers = AsyncClient.info, count()

    async def changed_info(client: Any) -> Any:
        found = await info(client)
        facts = changed(dict(found.facts), next(numbers))
        return replace(found, facts=facts, fingerprint=facts["fingerprint"])

    monkeypatch.setattr(AsyncClient, "info", changed_info)


def test_wrong_address_is_not_waited_for_as_a_service_that_restarts_is(
    crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote.FIRST_SECONDS <= remote.RETRY_SECONDS / 10
    monkeypatch.setattr(remote, "FIRST_SECONDS", 0.5)
    done = embed("crops", "--out", "out.parquet", "--url", "http://127.0.0.1:1")
    assert done.status == 1
    assert "Nothing answers at http://127.0.0.1:1" in str(done.error)
    assert not Path("out.parquet.parts").exists()


@pytest.mark.parametrize("way", ["file", "variable", "both"])
def test_api_key_is_sent_and_never_shown(crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    async def refuse(_: int) -> bytes:
        return answer(401)

    given = []
    if way != "file":
        monkeypatch.setenv("ARCFACE_API_KEY", "another-secret" if way == "both" else "first-secret\n")
    if way != "variable":
        Path("key.txt").write_text("first-secret\n")
        given = ["--api-key-file", "key.txt"]
    with ScriptedServer(refuse) as server:
        url = f"http://{server.address.host}:{server.address.port}"
        done = embed("crops", "--out", "out.parquet", "--url", url, *given)
    assert done.status == 1
    assert b"\r\nAuthorization: Bearer first-secret\r\n" in server.heads[0]
    assert "secret" not in f"{done.said} {done.error}"


def test_api_key_that_is_none_is_refused_and_not_shown(
    crops: Crops, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("key.txt").write_text("two words")
    url = ("--url", "http://127.0.0.1:1")
    refused = embed("crops", "--out", "out.parquet", *url, "--api-key-file", "key.txt")
    assert str(refused.error) == "The file key.txt holds no API key: it must be one word of ASCII characters."
    assert isinstance(refused.error, SettingInvalid)
    monkeypatch.setenv("ARCFACE_API_KEY", "Schlüssel")
    assert str(embed("crops", "--out", "out.parquet", *url).error).startswith("The variable ARCFACE_API_KEY holds no")
    assert (
        "--api-key-file is for the service at --url"
        in embed("crops", "--out", "out.parquet", "--api-key-file", "key.txt").said
    )


def test_service_has_its_own_settings(crops: Crops, embed: Embed) -> None:
    done = embed("crops", "--out", "out.parquet", "--url", "http://localhost:1", "--max-batch", "4")
    assert done.status == 2
    assert "The service at --url has its own settings" in done.said


# ── what ends a job ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("failing", [5, 4])
def test_broken_model_ends_the_job_instead_of_filling_its_file(
    crops: Crops, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    monkeypatch.setattr(engine, "MOST_FAILURES", 5)
    facts = Facts(model="m", fingerprint="f", dim=1, recipes=["r"], provider="p", precision="float32", options={})

    async def rows(inputs: Iterator[Input]) -> AsyncGenerator[list[Row]]:
        for number, each in enumerate(inputs):
            failed = error_row(ModelFailed("No device.")) if number < failing else {"embedding": np.ones(1, np.float32)}
            yield [{"id": each.id, "model": "m", "fingerprint": "f", **failed}]

    @asynccontextmanager
    async def opened() -> AsyncIterator[Engine]:
        yield Engine(facts=facts, rows=rows, max_image_bytes=1_000_000)

    order = run.Order(sources=("crops",), out=Path("out.parquet"))
    if failing < 5:
        assert run.embed_all(order, opened(), no_progress).errors == {"model_failed": 4}
        return
    with pytest.raises(
        BulkError, match=r"The last 5 pictures have all failed, finally with: No device\. No picture is"
    ):
        run.embed_all(order, opened(), no_progress)
    assert not Path("out.parquet").exists()
    assert Path("out.parquet.parts/job.json").exists()


def test_help_is_not_about_a_service(embed: Embed) -> None:
    assert not re.search(r"\b4\d\d\b|HANG_SECONDS|callers", embed("--help").said)


def test_pack_without_attributes_is_refused(crops: Crops, embed: Embed) -> None:
    done = embed("crops", "--out", "out.parquet", "--include-attributes")
    assert done.status == 1
    assert "has no models for age, gender and head pose. Leave out --include-attributes" in str(done.error)
    assert not Path("out.parquet.parts").exists()


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("out.csv", "must end in .parquet, .npy, .jsonl, or in a slash"),
        ("no/out.parquet", "The folder no/out.parquet.parts cannot be made: No such file or directory"),
    ],
)
def test_output_that_cannot_be_written_is_refused(crops: Crops, embed: Embed, out: str, sentence: str) -> None:
    done = embed("crops", "--out", out)
    assert done.status == 1
    assert sentence in str(done.error)


@pytest.mark.timeout(2 * PROCESS_SECONDS)
@pytest.mark.parametrize(
    ("room", "file"), [(100, "inputs.jsonl"), (3_000, "part-0000"), (20_000, "out.parquet cannot")]
)
def test_full_disk_is_a_sentence_and_the_job_goes_on(
    crops: Crops, embed: Embed, tiny_recogniser: Path, room: int, file: str
) -> None:
    """A limit on the size of a file is used instead of a full disk."""
    limited = "import resource, sys; from arcface_api.cli import main; import arcface_api.bulk.local;"
    limited += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); main()"
    command = [sys.executable, "-c", limited, "embed", "crops", "--out", "out.parquet", "--part-rows", "5"]
    command += ["--pack", str(tiny_recogniser)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False)
    assert done.returncode == 1
    assert file in done.stderr
    assert "cannot be written: File too large. Make room on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("out.parquet").exists()
    assert embed("crops", "--out", "out.parquet").status == 0
    embed("crops", "--out", "expected.parquet")
    assert rows_of(Path("out.parquet")) == rows_of(Path("expected.parquet"))


@pytest.mark.timeout(3 * PROCESS_SECONDS)
@pytest.mark.parametrize("where", ["here", "at a service"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_job_in_order(
    crops: Crops,
    embed: Embed,
    tiny_recogniser: Path,
    run_service: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    where: str,
) -> None:
    """The job cannot end before: here it has too much to do, and the service never answers."""
    monkeypatch.setattr("serving.PATIENCE_SECONDS", PROCESS_SECONDS)
    command = [sys.executable, "-m", "arcface_api", "embed", "list.csv", "--out", "out.parquet"]
    with ExitStack() as stack:
        if where == "here":
            Path("list.csv").write_text("\n".join(["path", *(name for name in crops for _ in range(15_000))]))
            command += ["--pack", str(tiny_recogniser)]
        else:
            Path("list.csv").write_text("\n".join(["path", *crops]))
            info = run_service(tiny_recogniser).get("/info").content
            stalled = stack.enter_context(ScriptedServer(stalls_behind(info)))
            command += ["--url", f"http://{stalled.address.host}:{stalled.address.port}"]
        job = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        until(lambda: Path("out.parquet.parts/job.json").exists() or None)
        job.send_signal(number)
        assert job.stderr is not None
        said = job.stderr.read()
        assert job.wait(PROCESS_SECONDS) == 128 + number
    assert "What is done is kept in out.parquet.parts: the same command goes on there." in said
    assert "Traceback" not in said
    assert re.search(rf"^ *{128 + number} +stopped by", embed("--help").said, re.MULTILINE)


def stalls_behind(info: bytes) -> Callable[[int], Awaitable[bytes]]:
    """Answers the first requests, which are for /info, and no other."""

    async def script(number: int) -> bytes:
        if number >= 2:
            await asyncio.Event().wait()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(info), info)

    return script


@pytest.mark.timeout(2 * PROCESS_SECONDS)
def test_summary_begins_below_the_bar(crops: Crops, tiny_recogniser: Path) -> None:
    command = [sys.executable, "-m", "arcface_api", "embed", "crops", "--out", "out.parquet"]
    ours, theirs = pty.openpty()
    with subprocess.Popen([*command, "--pack", str(tiny_recogniser)], stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # at the end, on Linux
            while some := os.read(ours, 65536):
                shown += some
        os.close(ours)
    assert b"Embedding [###" in shown
    assert b"\r\nout.parquet: 12 rows" in shown


@pytest.mark.timeout(2 * PROCESS_SECONDS)
def test_missing_pyarrow_is_a_sentence(tmp_path: Path) -> None:
    without = "import sys; sys.modules['pyarrow'] = None; from arcface_api.cli import main; main()"
    command: list[Any] = [sys.executable, "-c", without, "embed", str(tmp_path), "--out", "x.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False)
    assert done.returncode == 1
    assert "Install the extra bulk: pip install 'arcface-api[bulk]'" in done.stderr
