"""Promises of `arcface-api evaluate`: real embeddings, here or at a service; a report; a sentence for what is wrong."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from sklearn.metrics import roc_curve

from arcface_api import evaluate as evaluation
from arcface_api.embedder import EmbedOptions
from arcface_api.errors import EvaluationFailed, EvaluationIncomplete, PairsInvalid, PicturesMissing
from arcface_api.evaluate import files
from arcface_api.evaluate.in_process import InProcess, open_in_process
from arcface_api.evaluate.run import similarities
from arcface_api.evaluate.source import EmbeddedPicture, GroupLimits
from arcface_api.loading import regressor_content
from arcface_api.packs import PackLocations, locate
from arcface_api.settings import Settings
from conftest import LFW
from evaluation.conftest import Done, Labelled
from serving import Service

Run = Callable[..., Done]
PLOTS = ("histogram", "roc", "det")


def figures_in(folder: Path) -> dict[str, object]:
    """What evaluation.json says, but for where and with what it was made."""
    told: dict[str, object] = json.loads((folder / "evaluation.json").read_text())
    return {key: value for key, value in told.items() if key not in ("model", "machine")}


# ── pictures in, thresholds out ────────────────────────────────────────────────────────────────────────────────────


def test_thresholds_are_told_for_what_the_pairs_carry(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run
) -> None:
    """48 pairs of two people are too few for any of the rates, and each says how many it takes."""
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser)
    assert done.status == 0, done.said
    assert re.search(r"tiny_recogniser \([0-9a-f]{16}\) on CPUExecutionProvider in float32", done.said)
    assert "24 pairs of one person and 48 of two, 48 pictures" in done.said
    assert re.search(
        r"1 in 10  cannot be told: it takes 100 pairs of two people, so that 10 pass; there are 48", done.said
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

    told = figures_in(tmp_path / "out")
    listed = [*told["doubtful_same"], *told["doubtful_different"]]  # type: ignore[misc]  # lists in the JSON
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
        told = json.loads((tmp_path / place / "evaluation.json").read_text())
        assert told["model"]["regressor_sha256"] == regressor
        assert ("landmark regressor" in (tmp_path / place / "report.html").read_text()) is bool(regressor)
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


@pytest.mark.parametrize("limits", [GroupLimits(pictures=5), GroupLimits(bytes=9000)])
def test_each_picture_is_embedded_once_and_in_small_groups(
    labelled: Labelled, tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: GroupLimits
) -> None:
    groups: list[Sequence[bytes]] = []
    real = InProcess.embed

    async def counting(self: InProcess, contents: Sequence[bytes]) -> list[EmbeddedPicture | str]:
        groups.append(contents)
        return await real(self, contents)

    monkeypatch.setattr(InProcess, "embed", counting)
    monkeypatch.setattr("arcface_api.evaluate.in_process.GroupLimits", lambda: limits)
    pairs = evaluation.read_pairs(labelled.pairs)
    pack = locate(str(tiny_recogniser), PackLocations(None, tmp_path / "cache", tmp_path / "insightface"))
    source = open_in_process(pack, Settings(pack=str(tiny_recogniser)), EmbedOptions())
    shares: list[float] = []
    pictures = evaluation.open_pictures(labelled.images, pairs.pictures)
    evaluation.evaluate(pairs, pictures, source, lambda _, share: shares.append(share))
    sent = [content for group in groups for content in group]
    assert sorted(sent) == sorted(path.read_bytes() for path in labelled.images.rglob("*.png"))
    assert 1 < max(map(len, groups)) <= limits.pictures
    assert all(sum(map(len, group)) <= limits.bytes for group in groups)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


def test_many_pairs_are_compared_in_parts() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    left, right = rng.integers(0, 50, (2, 10_000))
    pairs = evaluation.Pairs((), left, right, np.zeros(10_000, bool), np.zeros(10_000, np.int64), "", "")
    np.testing.assert_allclose(similarities(rows, pairs), (rows @ rows.T)[left, right], atol=1e-6)


def test_real_pairs_are_told_apart_and_better_when_aligned(
    lfw_pairs: Labelled, real_recogniser: Path, run_evaluate: Run, tmp_path: Path
) -> None:
    pairs = (lfw_pairs.pairs, lfw_pairs.images, "--boxes", LFW / "labels.csv", "--pack", real_recogniser)
    told = {}
    for align in ("none", "auto"):
        done = run_evaluate(*pairs, "--align", align, "--output", tmp_path / align)
        assert done.status == 0, done.said
        told[align] = json.loads((tmp_path / align / "evaluation.json").read_text())
        assert (told[align]["pairs"]["same"], told[align]["pairs"]["different"]) == (30, 30)
    assert told["none"]["area_under_roc"] > 0.85
    assert told["auto"]["area_under_roc"] > 0.99
    assert told["auto"]["accuracy"]["mean"] > told["none"]["accuracy"]["mean"]
    assert told["none"]["alignments"].keys() == {"none"}
    assert told["auto"]["alignments"]["auto"] > 100


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
    assert len(references.found) == 2 * len(PLOTS)
    assert all(found.startswith("data:image/png;base64,") for found in references.found)
    text = re.sub(r"data:image/png;base64,[^\"]+", "", page)
    assert not re.search(r"https?:|//|@import|url\(|<script|<link", text)
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page


def test_report_says_first_which_threshold_and_how_sure_it_is(report: Path) -> None:
    page = (report / "report.html").read_text()
    told = json.loads((report / "evaluation.json").read_text())
    found = {point["wanted_far"]: point["found"] for point in told["operating_points"]}
    assert found[0.01] is found[0.001] is found[0.0001] is None
    point = found[0.1]
    shown = re.search(r'class="threshold">(-?\d\.\d{4})<', page)
    assert shown is not None
    assert point["threshold"] <= float(shown[1]) < point["threshold"] + 1e-4
    assert page.index(shown[0]) < page.index("<picture>")
    assert f"27 of {told['pairs']['different']} pairs of two people passed" in page
    assert "Cannot be told from these pairs. It takes 10,000 pairs of two people" in page
    assert point["threshold_interval"]["low"] < point["threshold"] < point["threshold_interval"]["high"]
    assert point["far_interval"]["low"] < point["far"] <= 0.1 < point["far_interval"]["high"]
    assert point["tar_interval"]["low"] < point["tar"] <= point["tar_interval"]["high"]


def test_plots_are_pictures_of_one_size_and_differ_in_the_dark(report: Path) -> None:
    for name in PLOTS:
        with Pillow.open(BytesIO((report / f"{name}.png").read_bytes())) as picture:
            picture.load()
            assert picture.size == (1320, 946)
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    page = (report / "report.html").read_text()
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(set(pictures)) == 2 * len(PLOTS)


def test_figures_state_what_they_come_from_and_no_path(report: Path, labelled: Labelled) -> None:
    text = (report / "evaluation.json").read_text()
    told = json.loads(text)
    assert re.fullmatch(r"[0-9a-f]{16}", told["model"]["fingerprint"])
    assert re.fullmatch(r"[0-9a-f]{64}", told["pairs"]["sha256"])
    assert told["machine"]["packages"]["numpy"] == np.__version__
    assert told["pairs"]["file"] == "pairs.csv"
    for written in (text, (report / "report.html").read_text()):
        assert str(labelled.images.parent) not in written


def test_what_is_least_plausible_is_listed_first(report: Path) -> None:
    """P01 and <b> are labelled one person; they are two."""
    told = json.loads((report / "evaluation.json").read_text())
    assert "<b>.png" in (told["doubtful_same"][0]["image_a"], told["doubtful_same"][0]["image_b"])
    doubtful = [pair["similarity"] for pair in told["doubtful_different"]]
    assert doubtful == sorted(doubtful, reverse=True)


def test_thresholds_are_points_of_scikit_learns_curve(
    labelled: Labelled, tiny_recogniser: Path, tmp_path: Path
) -> None:
    pairs = evaluation.read_pairs(labelled.pairs)
    pack = locate(str(tiny_recogniser), PackLocations(None, tmp_path / "cache", tmp_path / "insightface"))
    source = open_in_process(pack, Settings(pack=str(tiny_recogniser)), EmbedOptions())
    pictures = evaluation.open_pictures(labelled.images, pairs.pictures)
    curve = evaluation.evaluate(pairs, pictures, source, lambda *_: None).figures.curve
    assert len(curve.thresholds) == len(pairs.same) + 1
    scores = np.repeat(curve.thresholds[1:], 1)
    labels = np.diff(curve.true_accepts).astype(bool)
    far, tar, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_array_equal((curve.far, curve.tar), (far, tar))


# ── pictures that cannot be embedded ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_there", [False, True], ids=["here", "there"])
def test_pictures_that_cannot_be_embedded_are_left_out_and_told(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, service: Service, tmp_path: Path, *, is_there: bool
) -> None:
    (labelled.images / "P03/1.png").write_bytes((labelled.images / "P03/1.png").read_bytes()[:200])
    (labelled.images / "P07/2.png").write_bytes(b"GIF89a")
    where = ("--url", service.base_url) if is_there else ("--pack", tiny_recogniser)
    done = run_evaluate(labelled.pairs, labelled.images, *where, "--output", tmp_path / "out")
    assert done.status == 1
    assert "22 pairs of one person and 44 of two" in done.said
    assert isinstance(done.error, EvaluationIncomplete)
    assert re.match(
        r"2 of 48 pictures could not be embedded, and 6 of 72 pairs were left out of the figures\. The first:"
        r" P03/1\.png: The PNG file cannot be decoded",
        str(done.error),
    )
    told = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert list(told["left_out"]) == ["P03/1.png", "P07/2.png"]
    assert "The file is a GIF image" in told["left_out"]["P07/2.png"]
    assert told["pairs"]["left_out"] == 6
    page = (tmp_path / "out/report.html").read_text()
    assert "2 of 48 pictures could not be embedded, and 6 pairs are left out" in page
    assert "P07/2.png" in page


def test_a_box_that_cannot_be_cut_leaves_its_picture_out(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, tmp_path: Path
) -> None:
    names = sorted(str(path.relative_to(labelled.images)) for path in labelled.images.rglob("*.png"))
    boxes = [f"{name},{900 if name == 'P00/1.png' else 0},0,40,40\n" for name in names]
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\n" + "".join(boxes))
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser, "--boxes", tmp_path / "boxes.csv")
    assert (done.status, type(done.error)) == (1, EvaluationIncomplete)
    assert "P00/1.png: Its box 900, 0, 40, 40 (x, y, width, height) lies outside its 64x80 pixels." in str(done.error)


def test_nothing_is_told_where_no_picture_can_be_embedded(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run
) -> None:
    for path in labelled.images.rglob("*.png"):
        path.write_bytes(b"")
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser)
    assert (done.status, type(done.error)) == (1, EvaluationFailed)
    assert str(done.error).startswith("48 of 48 pictures could not be embedded, and without their pairs one kind")


# ── what is wrong, in a sentence ───────────────────────────────────────────────────────────────────────────────────


def test_missing_pictures_are_told_before_a_model_is_loaded(labelled: Labelled, run_evaluate: Run) -> None:
    (labelled.images / "P03/1.png").unlink()
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", "nowhere.onnx")
    assert (done.status, type(done.error)) == (1, PicturesMissing)
    assert "lacks 1 of the 48 pictures that the pairs name: P03/1.png." in str(done.error)


def test_pairs_are_checked_before_pictures(labelled: Labelled, run_evaluate: Run) -> None:
    labelled.write_pairs("nothing,there,1")
    done = run_evaluate(labelled.pairs, labelled.images)
    assert (done.status, type(done.error)) == (1, PairsInvalid)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--url", "localhost:5555"), "'localhost:5555' is not allowed. Give http://host:port or https://host:port."),
        (("--url", "http://x", "--device", "cpu"), "leave out those of the model"),
        (("--margin", "1.2"), "--margin is about the boxes of --boxes: give both, or neither."),
        (("--boxes", "nothing.csv"), "'nothing.csv' does not exist"),
    ],
)
def test_wrong_options_are_status_2(labelled: Labelled, run_evaluate: Run, options: tuple[str, ...], told: str) -> None:
    done = run_evaluate(labelled.pairs, labelled.images, *options)
    assert done.status == 2
    assert told in re.sub(r"\s+", " ", done.said)


def test_a_report_needs_matplotlib_and_a_table_does_not(
    labelled: Labelled, tiny_recogniser: Path, run_evaluate: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib" or name == "arcface_api.evaluate.plots":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == "matplotlib" else object())
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it fails
    done = run_evaluate(labelled.pairs, labelled.images, "--pack", "nowhere.onnx", "--output", tmp_path / "out")
    assert (done.status, type(done.error)) == (1, EvaluationFailed)
    assert "pip install 'arcface-api[evaluate]', or leave out --output" in str(done.error)
    assert not (tmp_path / "out").exists()
    assert run_evaluate(labelled.pairs, labelled.images, "--pack", tiny_recogniser).status == 0


def test_a_report_that_cannot_be_written_is_told_first(labelled: Labelled, run_evaluate: Run) -> None:
    done = run_evaluate(
        labelled.pairs, labelled.images, "--pack", "nowhere.onnx", "--output", labelled.pairs / "below/a/file"
    )
    assert (done.status, type(done.error)) == (1, EvaluationFailed)
    assert "cannot be written: Not a directory. Name another folder with --output." in str(done.error)


def test_the_command_says_in_one_sentence_what_is_wrong(labelled: Labelled) -> None:
    labelled.write_pairs("P00/1.png,P00/2.png,1")
    command = [sys.executable, "-m", "arcface_api", "evaluate", str(labelled.pairs), str(labelled.images)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: \S+pairs\.csv: all 1 pairs are of one person\. .*\n", done.stderr)


def test_asking_a_service_needs_no_runtime_here() -> None:
    """The extra `evaluate` brings none; only a model that runs in this process does."""
    code = "import sys, arcface_api.evaluate, arcface_api.cli.evaluate; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
