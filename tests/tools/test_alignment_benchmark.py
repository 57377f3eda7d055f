"""Promises of `benchmarks/questions/alignment.py` that its figures and their table rest on; no service is measured."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import alignment_tables
from arcface_api.arrays import TEMPLATE, Image
from arcface_api.face.geometry import align, check_landmarks
from benchmarks.lib.alignment_crops import ALIGNED, NAMES, SEED, Sent, framed, sent
from benchmarks.lib.alignment_pairs import Pairs, table_row
from benchmarks.questions.alignment import CHUNKS_AT_ONCE, Answered, hash_of, in_parallel, read_kept
from training.landmarks.conditions import CONDITIONS, EVERY, HARD
from training.landmarks.faces import Face

TABLES = (alignment_tables.WAYS, alignment_tables.HARD_WAYS)
COVERED = ("mask", "sunglasses", "brows covered", "eye covered", "hand")
POINTS = np.array([[105, 110], [147, 112], [128, 135], [109, 158], [145, 160]], np.float32)


def face() -> Face:
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (25, 25, 3), np.uint8), (250, 250)).astype(np.uint8)
    return Face("A/A_0001.jpg", image, np.array([80.0, 62.0, 92.0, 124.0]), POINTS + 1, POINTS, 0.005)


def decoded(content: bytes) -> Image:
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8, copy=False)


# ── crops ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shift", [(0, 0), (-60, 0), (90, 70), (-40.5, -47.2)])
def test_frame_holds_the_points_and_changes_no_aligned_crop(shift: tuple[float, float]) -> None:
    image = face().image[60:190, 80:170]
    points = POINTS - (80, 60) + np.array(shift, np.float32)
    in_frame, moved = framed(image, points)
    assert np.array_equal(check_landmarks(moved, *in_frame.shape[:2]), moved)
    assert np.array_equal(align(in_frame, moved, 112), align(image, points, 112))
    assert (in_frame is image) is (shift == (0, 0))


@pytest.mark.parametrize("condition", list(EVERY))
def test_file_that_is_sent_has_the_condition_s_own_pixels(condition: str) -> None:
    file, sample = sent(face(), condition), EVERY[condition].crop(face(), SEED)
    assert np.array_equal(decoded(file.content), sample.image)
    assert file.content.startswith(b"\xff\xd8") is (condition == "JPEG 20")
    by_labels = align(decoded(file.framed_content), np.array(file.labels, np.float32), 112)
    assert np.array_equal(by_labels, align(sample.image, sample.labels, 112))


def test_crop_that_is_aligned_already_has_its_labels_near_the_template() -> None:
    file: Sent = sent(face(), ALIGNED)
    assert decoded(file.content).shape == (112, 112, 3)
    assert np.abs(np.array(file.labels) - TEMPLATE).max() < 8  # these points are no perfect face
    assert NAMES[-1] == ALIGNED


# ── pairs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def people(noise: float, seed: int) -> dict[str, Any]:
    """Two pictures each of forty people, whose embeddings differ by so much noise."""
    rng = np.random.default_rng(seed)
    embeddings = {}
    for person in range(40):
        centre = np.random.default_rng(person).normal(0, 1, 64)
        for picture in "ab":
            row = centre + rng.normal(0, noise, 64)
            embeddings[f"{person}/{picture}"] = (row / np.linalg.norm(row)).astype(np.float32)
    return embeddings


def pairs() -> Pairs:
    same = [(f"{n}/a", f"{n}/b") for n in range(40)]
    different = [(f"{n}/a", f"{(n + 7) % 40}/b") for n in range(40)]
    names = [pair for both in zip(same, different, strict=True) for pair in both]
    return Pairs(names, np.arange(80) % 2 == 0)


def test_each_way_is_judged_by_its_own_embeddings_and_mixed_pairs_by_one_of_each() -> None:
    embeddings = {"stretched": people(9, 1), "auto": people(0.1, 2)}
    row = table_row(pairs(), embeddings, unsure={"3/a", "3/b", "no pair's"})
    accuracy = row["accuracy_percent"]
    assert accuracy["auto"] == row["tar_percent"]["auto"] == 100
    assert accuracy["stretched"] < 65
    assert accuracy["stretched"] < accuracy["auto against stretched"] < 100
    assert row["unsure_percent"] == 2.5
    # at a false accept rate of 1e-2 none of forty different pairs may pass
    assert row["threshold"]["auto"] == pytest.approx(
        max(float(embeddings["auto"][a] @ embeddings["auto"][b]) for a, b in pairs().names[1::2]), abs=1e-4
    )


def test_covered_faces_are_compared_with_uncovered_ones_at_the_threshold_of_these() -> None:
    clear, blurred = people(0.3, 1), people(2, 2)
    row = table_row(pairs(), {"stretched": blurred, "auto": blurred, "uncovered": clear}, set())
    at = row["at_the_threshold_of_uncovered_faces"]
    assert at["uncovered"]["tar_percent"] == row["tar_percent"]["uncovered"] == 100
    assert at["uncovered"]["far_percent"] == 0
    threshold = row["threshold"]["uncovered"]
    same = [float(blurred[a] @ clear[b]) > threshold for a, b in pairs().names[::2]]
    assert at["auto against uncovered"]["tar_percent"] == 100 * np.mean(same)
    assert 0 < at["auto"]["tar_percent"] < at["auto against uncovered"]["tar_percent"] < 100
    plain = table_row(pairs(), {"stretched": blurred, "auto": blurred}, set())
    assert "at_the_threshold_of_uncovered_faces" not in plain


# ── the run ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_that_was_cut_off_goes_on_only_where_it_measures_the_same(tmp_path: Path) -> None:
    file, about = tmp_path / "kept.json", {"sha256": "a", "pairs": {"unseen": {"same": 3}}}
    assert read_kept(file, about) == {}
    file.write_text(json.dumps({"about": about, "conditions": {"tight": {"framed": 0}}}))
    assert read_kept(file, about) == {"tight": {"framed": 0}}
    assert read_kept(file, {**about, "sha256": "b"}) == {}


def test_other_code_measures_something_else(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.py").write_text("x = 1")
    hashes = [hash_of([tmp_path])]
    (tmp_path / "some" / "a.py").write_text("x = 2")
    hashes.append(hash_of([tmp_path]))
    (tmp_path / "some" / "a.py").rename(tmp_path / "some" / "b.py")
    hashes.append(hash_of([tmp_path]))
    assert len(set(hashes)) == 3
    (tmp_path / "notes.md").write_text("no code")
    assert hash_of([tmp_path]) == hashes[-1]


def test_parts_are_answered_in_order_and_cut_no_earlier_than_needed() -> None:
    cut = []

    def parts() -> Iterator[list[Face]]:
        for number in range(20):
            cut.append(number)
            yield [replace(face(), name=str(number))]

    def embed(part: list[Face]) -> Answered:
        time.sleep(0.002 * (int(part[0].name) % 3))
        return Answered([each.name for each in part], {}, 0)

    for number, answered in enumerate(in_parallel(embed, parts())):
        assert answered.pictures == [str(number)]
        assert len(cut) <= number + 1 + CHUNKS_AT_ONCE
    assert cut == list(range(20))


# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────


def report(**accuracy: float) -> dict[str, Any]:
    """Every condition with the same accuracy, in one recogniser's report."""

    def figures(*left_out: str) -> dict[str, Any]:
        ways = {"stretched": 90.0, "letterboxed": 95.0, **accuracy}
        ways = {way: share for way, share in ways.items() if way not in left_out}
        return {"unseen": {"unsure_percent": 1.25, "accuracy_percent": ways, "tar_percent": dict.fromkeys(ways, 80.0)}}

    conditions = {name: figures() for name in CONDITIONS} | {name: figures("letterboxed") for name in HARD}
    conditions[ALIGNED] = figures("letterboxed", "landmarks")
    conditions[ALIGNED]["unseen"]["accuracy_percent"]["stretched"] = accuracy["landmarks"]
    return {"recognisers": {"some": {"conditions": conditions}}}


@pytest.mark.parametrize(
    ("auto", "marked"),
    [
        (99.9, []),
        (99.8, []),
        (99.79, [ALIGNED]),
        (99.6, [ALIGNED]),
        (99.59, [name for name in NAMES if name not in (*alignment_tables.TURNED_FAR, *COVERED)]),
        (99.39, [name for name in NAMES if name not in ("mask", "hand")]),
        (99.2, [name for name in NAMES if name != "mask"]),
        (99.09, list(NAMES)),
    ],
)
def test_cell_is_marked_where_auto_falls_short_of_its_aim(auto: float, marked: list[str]) -> None:
    measured = report(auto=auto, landmarks=99.9)
    full, hard = (alignment_tables.accuracy_table(measured, ways).split("\n")[2:] for ways in TABLES)
    assert [row.split(" | ")[0].removeprefix("| ") for row in full] == [*CONDITIONS, ALIGNED]
    assert [row.split(" | ")[0].removeprefix("| ") for row in hard] == [*HARD]
    short = {row.split(" | ")[0].removeprefix("| ") for row in full + hard if f"{auto:.2f} / 80.00 (!)" in row}
    assert short == set(marked)
    assert all(row.count("(!)") <= 1 for row in full + hard)


def test_covered_faces_table_has_uncovered_ones_once_and_two_rows_a_cover() -> None:
    measured = report(auto=99.9, landmarks=99.9)
    shares = {way: {"far_percent": 1.0, "tar_percent": 98.5} for way in alignment_tables.COVERED_PAIRS}
    conditions = measured["recognisers"]["some"]["conditions"]
    for name in ("mask", "sunglasses"):
        conditions[name]["unseen"][alignment_tables.AT_THRESHOLD] = shares
    measured["recognisers"]["other"] = measured["recognisers"]["some"]
    lines = alignment_tables.covered_table(measured).split("\n")
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| nothing", *["| mask"] * 2, *["| sunglasses"] * 2]


@pytest.mark.parametrize("ways", TABLES)
def test_every_row_has_as_many_cells_as_the_head(ways: tuple[str, ...]) -> None:
    lines = alignment_tables.accuracy_table(report(auto=99.9, landmarks=99.9), ways).split("\n")
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert all(line.endswith("1.2 % |") for line in lines[2:])
