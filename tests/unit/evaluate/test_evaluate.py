"""Promises of `arcface-api evaluate`: real embeddings, here or at a service; a report; a sentence for what is wrong."""

import html
import json
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from sklearn.metrics import roc_curve

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE
from arcface_api.errors import EvaluationError
from arcface_api.evaluate import report as reporting
from arcface_api.evaluate.backend import Backend, EmbeddedPicture, OpenBackend, PreparedPicture, open_local
from arcface_api.evaluate.inputs import Pairs, Pictures, read_pairs
from arcface_api.evaluate.run import Preparation, evaluate, similarities
from arcface_api.image import ImageLimits
from arcface_api.loading import regressor_content
from arcface_api.packs import PackLocations, locate
from arcface_api.settings import Settings
from conftest import LFW
from evaluate.conftest import Done, Labelled
from pictures import decoded_by_opencv
from serving import Service

Run = Callable[..., Done]
PLOTS = ("histogram", "roc", "det")
UNCUT = Preparation(ImageLimits(10**6))


def figures_in(folder: Path) -> dict[str, object]:
    """What evaluation.json says, but for where and with what it was made."""
    stated: dict[str, object] = json.loads((folder / "evaluation.json").read_text())
    return {key: value for key, value in stated.items() if key not in ("model", "machine")}


# ── pictures in, thresholds out ────────────────────────────────────────────────────────────────────────────────────


def test_a_threshold_takes_enough_pairs(labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run) -> None:
    """48 pairs of two people are too few for any of the rates, and each says how many it takes."""
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser)
    assert done.status == 0, done.said
    assert re.search(r"tiny_recogniser \([0-9a-f]{16}\) on CPUExecutionProvider in float32", done.said)
    assert "24 same-person and 48 different-person pairs of 48 pictures" in done.said
    assert re.search(
        r"1 in 10  too few pairs: this rate needs 100 different-person pairs, so that 10 are accepted; you have 48\n",
        done.said,
    )
    assert re.search(r"accuracy \d+\.?\d* % ± \d\.\d\d over 10 folds; equal error rate", done.said)


def test_similarities_are_cosines_of_what_the_service_answers(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, run_service: Callable[..., Service], tmp_path: Path
) -> None:
    run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser, "--output", tmp_path / "out")
    service = run_service(tiny_recogniser)

    def embedding(name: str) -> np.ndarray:
        answer = service.post("/embed", files={"file": (labelled.images / name).read_bytes()}, params={"normalize": 1})
        return np.array(answer.json()["embedding"])

    stated = figures_in(tmp_path / "out")
    listed = [*stated["doubtful_same"], *stated["doubtful_different"]]  # type: ignore[misc]  # lists in the JSON
    assert len(listed) == 20
    for pair in listed:
        expected = embedding(pair["image_a"]) @ embedding(pair["image_b"])
        assert pair["similarity"] == pytest.approx(expected, abs=1e-6)


def test_a_service_gives_what_the_model_gives_here(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, service: Service, tmp_path: Path
) -> None:
    here = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser, "--output", tmp_path / "here")
    there = run_evaluate(labelled.pairs, labelled.images, "--url", service.base_url, "--output", tmp_path / "there")
    assert (here.status, there.status) == (0, 0), there.said
    assert figures_in(tmp_path / "here") == figures_in(tmp_path / "there")
    facts = [json.loads((tmp_path / name / "evaluation.json").read_text())["model"] for name in ("here", "there")]
    assert [fact.pop("url") for fact in facts] == [None, str(service.base_url)]
    facts[1].pop("pack"), facts[0].pop("pack")  # what the fixtures called them
    assert facts[0] == facts[1]


def test_a_service_gives_the_same_for_boxes_of_photos(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, service: Service, tmp_path: Path
) -> None:
    boxes = tmp_path / "boxes.csv"
    names = sorted(str(path.relative_to(labelled.images)) for path in labelled.images.rglob("*.png"))
    boxes.write_text("image,x,y,width,height\n" + "".join(f"{name},8,10,40,60\n" for name in names))
    said: dict[str, Done] = {}
    for name, options in {
        "whole": ("--pack", tiny_recogniser),
        "here": ("--boxes", boxes, "--margin", "1.2", "--pack", tiny_recogniser),
        "there": ("--boxes", boxes, "--margin", "1.2", "--url", service.base_url),
    }.items():
        said[name] = run_evaluate(labelled.pairs, labelled.images, *options, "--output", tmp_path / name)
    assert [done.status for done in said.values()] == [0, 0, 0]
    assert figures_in(tmp_path / "here") == figures_in(tmp_path / "there")
    assert figures_in(tmp_path / "here")["margin"] == 1.2
    assert figures_in(tmp_path / "here")["doubtful_same"] != figures_in(tmp_path / "whole")["doubtful_same"]


@pytest.mark.parametrize(
    ("options", "crops"),
    [
        ((), "align=none, fit=stretch"),
        (("--fit", "letterbox"), "align=none, fit=letterbox"),
        (("--flip",), "align=none, fit=stretch, flip=true"),
        (("--align", "auto"), "align=auto, fit=stretch, 48 of 48 unsure and not aligned"),
    ],
)
def test_crops_are_made_as_asked_for_here_and_there(
    labelled: Labelled,
    tiny_recogniser: Path,
    run_evaluate: Run,
    service: Service,
    tmp_path: Path,
    options: tuple[str, ...],
    crops: str,
) -> None:
    """The made-up people have no faces, so that none can be aligned."""
    said = [
        run_evaluate(labelled.pairs, labelled.images, *options, *where, "--output", tmp_path / name).said
        for name, where in (("here", ("--pack", tiny_recogniser)), ("there", ("--url", service.base_url)))
    ]
    assert all(f" in float32; {crops}\n" in each for each in said), said
    assert figures_in(tmp_path / "here") == figures_in(tmp_path / "there")
    regressor = regressor_content().sha256 if "auto" in options else None
    for place in ("here", "there"):
        stated = json.loads((tmp_path / place / "evaluation.json").read_text())
        assert stated["model"]["regressor_sha256"] == regressor
        assert ("regressor sha256" in (tmp_path / place / "report.html").read_text()) is bool(regressor)
    plain = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser, "--output", tmp_path / "plain")
    assert plain.status == 0
    changes = "letterbox" in options or "--flip" in options
    assert (
        figures_in(tmp_path / "plain")["doubtful_same"] != figures_in(tmp_path / "here")["doubtful_same"]
    ) is changes


def test_crops_are_made_as_the_service_is_set_where_nothing_is_asked_for(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, run_service: Callable[..., Service]
) -> None:
    service = run_service(tiny_recogniser, align="auto", fit="letterbox")
    pairs = (labelled.pairs, labelled.images, "--url", service.base_url)
    assert "; align=auto, fit=letterbox, 48 of 48 unsure" in run_evaluate(*pairs).said
    assert "; align=none, fit=letterbox\n" in run_evaluate(*pairs, "--align", "none").said


def test_crops_are_made_as_the_settings_say_where_nothing_is_asked_for(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCFACE_FIT", "letterbox")
    assert (
        "; align=none, fit=letterbox\n" in run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser).said
    )


@pytest.mark.parametrize(("most_pictures", "most_bytes"), [(5, 10**6), (32, 9000)])
def test_each_picture_is_embedded_once_and_in_small_groups(
    labelled: Labelled,
    tiny_recogniser: Path,
    tmp_path: Path,
    most_pictures: int,
    most_bytes: int,
) -> None:
    groups: list[Sequence[PreparedPicture]] = []

    @asynccontextmanager
    async def counted(opened: OpenBackend) -> AsyncIterator[Backend]:
        async with opened as real:

            async def embed(pictures: Sequence[PreparedPicture]) -> list[EmbeddedPicture | str]:
                groups.append(pictures)
                return await real.embed(pictures)

            yield replace(real, embed=embed, group_pictures=most_pictures, group_bytes=most_bytes)

    pairs = read_pairs(labelled.pairs)
    pack = locate(str(tiny_recogniser), PackLocations(None, tmp_path / "cache", tmp_path / "insightface"))
    source = counted(open_local(pack, Settings(pack=str(tiny_recogniser))))
    shares: list[float] = []
    pictures = Pictures(labelled.images, pairs.pictures)
    evaluate(pairs, pictures, UNCUT, source, lambda _, share, __: shares.append(share))
    sent = [picture.content for group in groups for picture in group]
    assert sorted(sent) == sorted(path.read_bytes() for path in labelled.images.rglob("*.png"))
    assert 1 < max(map(len, groups)) <= most_pictures
    assert all(sum(len(picture.content) for picture in group) <= most_bytes for group in groups)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


def test_many_pairs_are_compared_in_parts() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    left, right = rng.integers(0, 50, (2, 10_000))
    pairs = Pairs(
        pictures=(),
        left=left,
        right=right,
        same=np.zeros(10_000, bool),
        folds=np.zeros(10_000, np.int64),
        file="",
        sha256="",
    )
    np.testing.assert_allclose(similarities(rows, pairs), (rows @ rows.T)[left, right], atol=1e-6)


@pytest.fixture
def points(labelled: Labelled, tmp_path: Path) -> Path:
    """Landmarks of the synthetic people: where a face would have them in 64 x 80 pixels, a little different each."""
    template = TEMPLATE * (64 / TEMPLATE_SIDE) + (0, 8)
    names = sorted(str(path.relative_to(labelled.images)) for path in labelled.images.rglob("*.png"))
    lines = ["image," + ",".join(f"{axis}{point}" for point in range(1, 6) for axis in "xy")]
    for number, name in enumerate(names):
        lines.append(name + "".join(f",{value:.2f}" for value in (template * (1 - number / 200)).ravel()))
    (tmp_path / "points.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "points.csv"


@pytest.mark.parametrize("is_cut", [False, True], ids=["crops", "boxes"])
def test_crops_are_aligned_by_given_landmarks_here_and_there(
    labelled: Labelled,
    tiny_recogniser: Path,
    run_evaluate: Run,
    service: Service,
    points: Path,
    tmp_path: Path,
    *,
    is_cut: bool,
) -> None:
    """With boxes the landmarks are those of the whole photo."""
    aligned: tuple[str | Path, ...] = ("--align", "landmarks", "--landmarks", points)
    if is_cut:
        names = [line.partition(",")[0] for line in points.read_text().splitlines()[1:]]
        boxes = tmp_path / "boxes.csv"
        boxes.write_text("image,x,y,width,height\n" + "".join(f"{name},8,10,40,60\n" for name in names))
        aligned = (*aligned, "--boxes", boxes, "--margin", "1.3")
    for name, options in {
        "plain": ("--pack", tiny_recogniser),
        "here": (*aligned, "--pack", tiny_recogniser),
        "there": (*aligned, "--url", service.base_url),
    }.items():
        done = run_evaluate(labelled.pairs, labelled.images, *options, "--output", tmp_path / name)
        assert done.status == 0, done.said
        assert ("align=landmarks, fit=stretch\n" in done.said) is (name != "plain")
    assert figures_in(tmp_path / "here") == figures_in(tmp_path / "there")
    assert figures_in(tmp_path / "here")["alignments"] == {"landmarks": 48}
    assert figures_in(tmp_path / "here")["doubtful_same"] != figures_in(tmp_path / "plain")["doubtful_same"]


def test_missing_landmarks_are_named_before_a_model_is_loaded(
    labelled: Labelled, run_evaluate: Run, points: Path
) -> None:
    points.write_text("\n".join(points.read_text().splitlines()[:-1]) + "\n")
    options = ("--align", "landmarks", "--landmarks", points, "--pack", "nowhere.onnx")
    done = run_evaluate(labelled.pairs, labelled.images, *options)
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert "has no landmarks for 1 of the 48 pictures that the pairs name, among them P23/2.png." in str(done.error)


@pytest.mark.parametrize("is_there", [False, True], ids=["here", "there"])
def test_landmarks_that_describe_no_face_leave_their_picture_out(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, service: Service, points: Path, *, is_there: bool
) -> None:
    points.write_text(re.sub(r"(?m)^(P05/1\.png),[^,]+", r"\1,500", points.read_text()))
    where = ("--url", service.base_url) if is_there else ("--pack", tiny_recogniser)
    done = run_evaluate(labelled.pairs, labelled.images, "--align", "landmarks", "--landmarks", points, *where)
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert "P05/1.png: Landmark 1 of 5 is at (500, " in str(done.error)


def test_real_pairs_are_separated_and_better_when_aligned(
    lfw_pairs: Labelled, real_recogniser: Path, run_evaluate: Run, tmp_path: Path
) -> None:
    labels = LFW / "labels.csv"
    measured = {}
    for name, options in {
        "none": ("--boxes", labels, "--align", "none"),
        "auto": ("--boxes", labels, "--align", "auto"),
        "landmarks": ("--landmarks", labels, "--align", "landmarks"),
    }.items():
        arguments = (lfw_pairs.pairs, lfw_pairs.images, *options, "--pack", real_recogniser)
        done = run_evaluate(*arguments, "--output", tmp_path / name)
        assert done.status == 0, done.said
        measured[name] = json.loads((tmp_path / name / "evaluation.json").read_text())
        assert (measured[name]["pairs"]["same"], measured[name]["pairs"]["different"]) == (60, 60)
    assert measured["none"]["area_under_roc"] > 0.85
    for name in ("auto", "landmarks"):
        assert measured[name]["area_under_roc"] > 0.99
        assert measured[name]["accuracy"]["mean"] > measured["none"]["accuracy"]["mean"]
    assert measured["none"]["alignments"].keys() == {"none"}
    assert measured["auto"]["alignments"]["auto"] > 100
    assert measured["landmarks"]["alignments"].keys() == {"landmarks"}


# ── the report ─────────────────────────────────────────────────────────────────────────────────────────────────────


class References(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "data", "action")]


@pytest.fixture
def report(labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, tmp_path: Path) -> Path:
    """The folder of a report on enough pairs for one threshold; one of its pictures is called <b>."""
    (labelled.images / "<b>.png").write_bytes((labelled.images / "P00/1.png").read_bytes())
    people = [f"P{person:02d}" for person in range(24)]
    others = [(one, other) for one in people for other in people if one < other]
    different = [f"{one}/1.png,{other}/2.png,0" for one, other in others]
    labelled.write_pairs("P01/1.png,<b>.png,1", *(f"{one}/1.png,{one}/2.png,1" for one in people), *different)
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser, "--output", tmp_path / "a/report")
    assert done.status == 0, done.said
    assert str(tmp_path / "a/report/report.html") in done.said
    return tmp_path / "a/report"


def test_report_needs_nothing_but_itself(report: Path) -> None:
    page = (report / "report.html").read_text()
    references = References()
    references.feed(page)
    kinds = Counter(found.partition(";")[0] for found in references.found)
    assert kinds == {"data:image/png": len(PLOTS), "data:image/jpeg": 2 * 20}
    text = re.sub(r"data:image/\w+;base64,[^\"]+", "", page)
    assert not re.search(r"https?:|//|@import|url\(|<script|<link", text)
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page


def test_report_shows_both_faces_of_the_least_plausible_pairs(report: Path, labelled: Labelled) -> None:
    page = (report / "report.html").read_text()
    pairs = page.split('<div class="pair">')[1:]
    stated = json.loads((report / "evaluation.json").read_text())
    listed = [*stated["doubtful_different"], *stated["doubtful_same"]]
    for shown, pair in zip(pairs, listed, strict=True):
        assert f"{pair['similarity']:.4f}" in shown
        assert [html.unescape(name) for name in re.findall(r"<figcaption>(.*?)</figcaption>", shown)] == [
            pair["image_a"],
            pair["image_b"],
        ]
        for side, jpeg in zip(("image_a", "image_b"), re.findall(r"image/jpeg;base64,([^\"]+)", shown), strict=True):
            face = decoded_by_opencv(b64decode(jpeg)).astype(float)
            assert np.abs(face - decoded_by_opencv((labelled.images / pair[side]).read_bytes())).mean() < 12
    assert "This page shows faces and names of files, which are personal data" in page


def test_faces_can_be_left_out(labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, tmp_path: Path) -> None:
    options = ("--pack", tiny_recogniser, "--output", tmp_path, "--no-faces")
    assert run_evaluate(labelled.pairs, labelled.images, *options).status == 0
    page = (tmp_path / "report.html").read_text()
    assert "image/jpeg" not in page
    assert "The faces were left out (--no-faces)." in page
    assert "<figcaption>P" in page


def test_report_says_first_which_threshold_and_how_sure_it_is(report: Path) -> None:
    page = (report / "report.html").read_text()
    stated = json.loads((report / "evaluation.json").read_text())
    found = {point["wanted_far"]: point["found"] for point in stated["operating_points"]}
    assert found[0.01] is found[0.001] is found[0.0001] is None
    point = found[0.1]
    shown = re.search(r'class="threshold">(-?\d\.\d{4})<', page)
    assert shown is not None
    assert point["threshold"] <= float(shown[1]) < point["threshold"] + 1e-4
    assert page.index(shown[0]) < page.index("<img")
    assert f"27 of {stated['pairs']['different']} different-person pairs were accepted" in page
    assert "Too few pairs: this rate needs 10,000 different-person pairs" in page
    assert point["threshold_interval"]["low"] < point["threshold"] < point["threshold_interval"]["high"]
    assert point["far_interval"]["low"] < point["far"] <= 0.1 < point["far_interval"]["high"]
    assert point["tar_interval"]["low"] < point["tar"] <= point["tar_interval"]["high"]


def test_plots_are_pictures_of_one_size(report: Path) -> None:
    page = (report / "report.html").read_text()
    for name in PLOTS:
        content = (report / f"{name}.png").read_bytes()
        assert b64encode(content).decode() in page
        with Pillow.open(BytesIO(content)) as picture:
            picture.load()
            assert picture.size == (1320, 946)
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


def test_figures_state_what_they_come_from_and_no_path(report: Path, labelled: Labelled) -> None:
    text = (report / "evaluation.json").read_text()
    stated = json.loads(text)
    assert re.fullmatch(r"[0-9a-f]{16}", stated["model"]["fingerprint"])
    assert re.fullmatch(r"[0-9a-f]{64}", stated["pairs"]["sha256"])
    assert stated["machine"]["packages"]["numpy"] == np.__version__
    assert stated["pairs"]["file"] == "pairs.csv"
    for written in (text, (report / "report.html").read_text()):
        assert str(labelled.images.parent) not in written


def test_what_is_least_plausible_is_listed_first(report: Path) -> None:
    """P01 and <b> are labelled one person; they are two."""
    stated = json.loads((report / "evaluation.json").read_text())
    assert "<b>.png" in (stated["doubtful_same"][0]["image_a"], stated["doubtful_same"][0]["image_b"])
    doubtful = [pair["similarity"] for pair in stated["doubtful_different"]]
    assert doubtful == sorted(doubtful, reverse=True)


def test_thresholds_are_points_of_scikit_learns_curve(
    labelled: Labelled, tiny_recogniser: Path, tmp_path: Path
) -> None:
    pairs = read_pairs(labelled.pairs)
    pack = locate(str(tiny_recogniser), PackLocations(None, tmp_path / "cache", tmp_path / "insightface"))
    source = open_local(pack, Settings(pack=str(tiny_recogniser)))
    pictures = Pictures(labelled.images, pairs.pictures)
    curve = evaluate(pairs, pictures, UNCUT, source, lambda *_: None).figures.curve
    assert len(curve.thresholds) == len(pairs.same) + 1
    scores = np.repeat(curve.thresholds[1:], 1)
    labels = np.diff(curve.true_accepts).astype(bool)
    far, tar, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_array_equal((curve.far, curve.tar), (far, tar))


# ── pictures that cannot be embedded ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_there", [False, True], ids=["here", "there"])
def test_pictures_that_cannot_be_embedded_are_left_out_and_listed(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, service: Service, tmp_path: Path, *, is_there: bool
) -> None:
    (labelled.images / "P03/1.png").write_bytes((labelled.images / "P03/1.png").read_bytes()[:200])
    (labelled.images / "P07/2.png").write_bytes(b"GIF89a")
    where = ("--url", service.base_url) if is_there else ("--pack", tiny_recogniser)
    done = run_evaluate(labelled.pairs, labelled.images, *where, "--output", tmp_path / "out")
    assert done.status == 1
    assert "22 same-person and 44 different-person pairs" in done.said
    assert isinstance(done.error, EvaluationError)
    assert re.match(
        r"2 of 48 pictures could not be embedded, and 6 of 72 pairs were left out of the figures\. The first:"
        r" P03/1\.png: The PNG file cannot be decoded",
        str(done.error),
    )
    stated = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert list(stated["left_out"]) == ["P03/1.png", "P07/2.png"]
    assert "The file is a GIF image" in stated["left_out"]["P07/2.png"]
    assert stated["pairs"]["left_out"] == 6
    page = (tmp_path / "out/report.html").read_text()
    assert "2 of 48 pictures could not be embedded, which leaves 6 pairs out of all figures" in page
    assert "P07/2.png" in page


def test_a_box_that_cannot_be_cut_leaves_its_picture_out(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, tmp_path: Path
) -> None:
    names = sorted(str(path.relative_to(labelled.images)) for path in labelled.images.rglob("*.png"))
    boxes = [f"{name},{900 if name == 'P00/1.png' else 0},0,40,40\n" for name in names]
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\n" + "".join(boxes))
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser, "--boxes", tmp_path / "boxes.csv")
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert "P00/1.png: Its box 900, 0, 40, 40 (x, y, width, height) lies outside its 64x80 pixels." in str(done.error)


def test_nothing_is_measured_where_no_picture_can_be_embedded(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run
) -> None:
    for path in labelled.images.rglob("*.png"):
        path.write_bytes(b"")
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser)
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert str(done.error).startswith(
        "48 of 48 pictures could not be embedded, and the remaining pairs are not of both kinds"
    )


# ── what is wrong, in a sentence ───────────────────────────────────────────────────────────────────────────────────


def test_missing_pictures_are_named_before_a_model_is_loaded(labelled: Labelled, run_evaluate: Run) -> None:
    (labelled.images / "P03/1.png").unlink()
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", "nowhere.onnx")
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert "lacks 1 of the 48 pictures that the pairs name: P03/1.png." in str(done.error)


def test_pairs_are_checked_before_pictures(labelled: Labelled, run_evaluate: Run) -> None:
    labelled.write_pairs("nothing,there,1")
    done = run_evaluate(labelled.pairs, labelled.images)
    assert (done.status, type(done.error)) == (1, EvaluationError)


@pytest.mark.parametrize(
    ("options", "stated"),
    [
        (("--url", "localhost:5555"), "'localhost:5555' is not allowed. Give http://host:port or https://host:port."),
        (("--url", "http://x", "--device", "cpu"), "leave out --url, or the model's options."),
        (("--margin", "1.2"), "--margin changes the boxes of --boxes: give both, or neither."),
        (("--boxes", "nothing.csv"), "'nothing.csv' does not exist"),
        (("--align", "landmarks"), "uses the landmarks of --landmarks FILE.csv: give both, or neither."),
        (("--landmarks", __file__), "uses the landmarks of --landmarks FILE.csv: give both, or neither."),
        (("--landmarks", __file__, "--align", "auto"), "give both, or neither."),
    ],
)
def test_wrong_options_are_status_2(
    labelled: Labelled, run_evaluate: Run, options: tuple[str, ...], stated: str
) -> None:
    done = run_evaluate(labelled.pairs, labelled.images, *options)
    assert done.status == 2
    assert stated in re.sub(r"\s+", " ", done.said)


def test_without_matplotlib_all_but_the_plots_is_written(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in the container image. A plot of an earlier run would not belong to the new figures."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib" or name == "arcface_api.evaluate.plots":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(reporting, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it fails
    (tmp_path / "out").mkdir()
    (tmp_path / "out/roc.png").write_bytes(b"of an earlier run")
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser, "--output", tmp_path / "out")
    assert done.status == 0, done.said
    assert "Plots need matplotlib, which is not installed: pip install 'arcface-api[evaluate]', then run" in done.said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.json", "report.html"}
    page = (tmp_path / "out/report.html").read_text()
    assert "Plots need matplotlib" in page
    assert "image/png" not in page
    assert figures_in(tmp_path / "out")["pairs"]


def test_a_report_that_cannot_be_written_is_found_first(labelled: Labelled, run_evaluate: Run) -> None:
    done = run_evaluate(
        labelled.pairs, labelled.images, "--pack", "nowhere.onnx", "--output", labelled.pairs / "below/a/file"
    )
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert "cannot be written: Not a directory. Name another folder with --output." in str(done.error)


def test_the_command_says_in_one_sentence_what_is_wrong(labelled: Labelled) -> None:
    labelled.write_pairs("P00/1.png,P00/2.png,1")
    command = [sys.executable, "-m", "arcface_api", "evaluate", str(labelled.pairs), str(labelled.images)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: \S+pairs\.csv has only same-person pairs \(1\)\. .*\n", done.stderr)


def test_asking_a_service_needs_no_runtime_here() -> None:
    """The extra `evaluate` brings none; only a model that runs in this process does."""
    code = "import sys, arcface_api.cli.evaluate, arcface_api.evaluate.report; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
