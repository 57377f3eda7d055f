"""Promises of `packs check`: labelled pairs find out how a recogniser must be fed, and pack.toml then states it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from arcface_api.arrays import ChannelOrder, InputSpec
from arcface_api.cli import cli
from arcface_api.errors import EvaluationError
from arcface_api.evaluate.curve import figures, separation
from arcface_api.evaluate.feeds import FeedResult, decide, with_input
from arcface_api.packs import registry, usual_feeds
from arcface_api.packs.finding import SHIPPED_DIR
from arcface_api.packs.manifest import PACK_TOML, Manifest, read_pack_toml
from conftest import LFW, REAL_RECOGNISERS
from evaluate.conftest import Labelled

pytestmark = pytest.mark.once  # figures of whole models

ONE_RECOGNISER = pytest.mark.parametrize("real_recogniser", REAL_RECOGNISERS[-1:], indirect=True)
"""The fastest: each check embeds all pictures six times."""
USUAL = InputSpec("input", 112, 112, 127.5, 127.5)


def test_usual_feeds_are_tried_and_the_stated_one_once_and_first() -> None:
    stated = replace(USUAL, mean=127.5, std=128)
    found = usual_feeds(stated)
    assert found[0] == stated
    assert len(found) == len(set(found)) == 8
    assert {(spec.mean, spec.std, spec.channel_order) for spec in usual_feeds(USUAL)} == {
        (mean, std, order) for mean, std in ((127.5, 127.5), (0, 255), (0, 1)) for order in ChannelOrder
    }


def test_separation_is_the_distance_of_the_means_in_standard_deviations() -> None:
    random = np.random.default_rng(0)
    same, different = random.normal(0.6, 0.1, 100_000), random.normal(0.1, 0.1, 100_000)
    assert separation(same, different) == pytest.approx(5, abs=0.05)


def result(spec: InputSpec, gap: float, pairs: int, *, seed: int = 0) -> FeedResult:
    """Of a feed that keeps both kinds of pairs `gap` standard deviations apart, about."""
    random = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    similarities = random.normal(0.3, 0.1, pairs) + 0.1 * gap * same
    return FeedResult(spec, spec == USUAL, figures(similarities, same, np.arange(pairs) % 10), similarities, same)


BGR, PIXELS = replace(USUAL, channel_order=ChannelOrder.BGR), replace(USUAL, mean=0.0, std=1.0)


@pytest.mark.parametrize(
    ("gaps", "best", "is_certain", "is_certainly_better"),
    [
        pytest.param((5, 4, 1), USUAL, True, False, id="as stated"),
        pytest.param((4, 5, 1), BGR, True, True, id="another one"),
        pytest.param((5, 5.02, 1), USUAL, True, False, id="another one, by less than 1 %"),
        pytest.param((1, 5, 4.7), PIXELS, False, True, id="one of two others"),
    ],
)
def test_the_stated_feed_is_replaced_by_one_that_is_certainly_better(
    gaps: tuple[float, float, float], best: InputSpec, is_certain: bool, is_certainly_better: bool
) -> None:
    # the third is of other noise, so that it is sometimes ahead of an equal one
    seeds = (0, 0, 1)
    feeds = (USUAL, BGR, PIXELS)
    decision = decide([result(feed, gap, 400, seed=seed) for feed, gap, seed in zip(feeds, gaps, seeds, strict=True)])
    assert decision.best.input == best
    assert (decision.is_certain, decision.is_certainly_better) == (is_certain, is_certainly_better)


def test_few_pairs_are_uncertain() -> None:
    """What looks better on 20 pairs may be worse on the next 20."""
    decision = decide([result(USUAL, 4, 20, seed=2), result(BGR, 4.3, 20, seed=3)])
    assert not decision.is_certain
    assert not decision.is_certainly_better


def test_one_pair_of_each_kind_is_certain_of_nothing() -> None:
    """Drawn at random, it is the same pair each time."""
    decision = decide([result(USUAL, 4, 2, seed=2), result(BGR, 40, 2, seed=3)])
    assert decision.best.input == BGR
    assert not decision.is_certain
    assert not decision.is_certainly_better


def test_labels_the_wrong_way_round_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="Is the column `same` the wrong way round"):
        decide([result(USUAL, -4, 400), result(BGR, -1, 400)])


def test_corrected_pack_has_no_thresholds_of_the_old_feed() -> None:
    """They belong to other embeddings."""
    pack = registry()["open"]
    assert pack.thresholds
    assert not with_input(pack, BGR, "so").thresholds
    assert with_input(pack, BGR).thresholds == pack.thresholds


@ONE_RECOGNISER
def test_few_pairs_change_nothing_and_say_so(real_recogniser: Path, lfw_pairs: Labelled, tmp_path: Path) -> None:
    onnx.save(fed(real_recogniser, "bgr"), tmp_path / "own.onnx")
    options = ["--models-dir", str(tmp_path / "packs")]
    CliRunner().invoke(cli, ["packs", "import", str(tmp_path / "own.onnx"), *options])
    before = stated(tmp_path)
    lines = lfw_pairs.pairs.read_text().splitlines()
    few = tmp_path / "few.csv"
    few.write_text("\n".join([lines[0], *lines[1::15]]))
    given = [str(lfw_pairs.images), "--pairs", str(few), "--boxes", str(LFW / "labels.csv"), *options]
    checked = CliRunner().invoke(cli, ["packs", "check", "own", *given])
    assert "Warning: too few pairs (8). At least 15 of one person and as many of different people are" in checked.output
    assert stated(tmp_path) == before


def fed(recogniser: Path, kind: str) -> onnx.ModelProto:
    """A recogniser that must be fed differently, and whose graph does not show it."""
    model = onnx.load(recogniser)
    graph = model.graph
    given = graph.input[0].name
    kinds: dict[str, list[tuple[str, Any, dict[str, Any]]]] = {
        "bgr": [("Gather", np.array([2, 1, 0]), {"axis": 1})],
        "unit": [("Mul", np.float32(2), {}), ("Add", np.float32(-1), {})],
        "pixels": [("Mul", np.float32(1 / 127.5), {}), ("Add", np.float32(-1), {})],
    }
    steps = kinds[kind]
    # with a slope of 1 it does nothing, but nobody knows that
    graph.node.insert(0, helper.make_node("LeakyRelu", ["planes"], ["step_0"], alpha=1.0))
    for number, (operator, constant, attributes) in enumerate(steps, start=1):
        graph.initializer.append(numpy_helper.from_array(np.asarray(constant), f"constant_{number}"))
        made = given if number == len(steps) else f"step_{number}"
        names = [f"step_{number - 1}", f"constant_{number}"]
        graph.node.insert(number, helper.make_node(operator, names, [made], **attributes))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("planes", TensorProto.FLOAT, ["n", 3, 112, 112]))
    return model


@ONE_RECOGNISER
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bgr", (127.5, 127.5, ChannelOrder.BGR)),
        ("unit", (0, 255, ChannelOrder.RGB)),
        ("pixels", (0, 1, ChannelOrder.RGB)),
    ],
)
def test_pairs_find_how_a_real_recogniser_must_be_fed(
    kind: str, expected: tuple[float, float, ChannelOrder], real_recogniser: Path, lfw_pairs: Labelled, tmp_path: Path
) -> None:
    onnx.save(fed(real_recogniser, kind), tmp_path / "own.onnx")
    options = ["--models-dir", str(tmp_path / "packs")]
    imported = CliRunner().invoke(cli, ["packs", "import", str(tmp_path / "own.onnx"), *options])
    assert "own.onnx is fed (pixel - 127.5) / 127.5" in imported.output
    given = [str(lfw_pairs.images), "--pairs", str(lfw_pairs.pairs), "--boxes", str(LFW / "labels.csv"), *options]
    checked = CliRunner().invoke(cli, ["packs", "check", "own", *given])
    assert checked.exit_code == 0, checked.output
    manifest = stated(tmp_path)
    spec = manifest.files[0].input
    assert (spec.mean, spec.std, spec.channel_order) == expected
    assert "labelled pairs best" in manifest.assumptions[-1]
    assert sum("is fed" in sentence for sentence in manifest.assumptions) == 1
    if kind == "bgr":
        again = CliRunner().invoke(cli, ["packs", "check", "own", *given])
        assert "own is fed as it should be" in again.output
        assert stated(tmp_path) == manifest


def stated(folder: Path) -> Manifest:
    return read_pack_toml(folder / "packs" / "own" / PACK_TOML)


@ONE_RECOGNISER
def test_a_pack_that_is_fed_rightly_stays_as_it_is(real_recogniser: Path, lfw_pairs: Labelled, tmp_path: Path) -> None:
    given = [str(lfw_pairs.images), "--pairs", str(lfw_pairs.pairs), "--boxes", str(LFW / "labels.csv")]
    checked = CliRunner().invoke(cli, ["packs", "check", str(real_recogniser), *given])
    assert checked.exit_code == 0, checked.output
    assert (
        "is fed as it should be: nothing is better than (pixel - 127.5) / 127.5, RGB, ArcFace's template"
        in checked.output
    )


def test_pairs_find_how_faces_must_be_aligned(lfw_pairs: Labelled, tmp_path: Path) -> None:
    """dlib's ResNet is trained on looser crops than ArcFace's."""
    model = onnx.load(SHIPPED_DIR / "open" / "dlib_resnet_v1.onnx")
    model.producer_name = "somebody"  # the file is not the registered one, whose template is known
    onnx.save(model, tmp_path / "own.onnx")
    options = ["--models-dir", str(tmp_path / "packs")]
    CliRunner().invoke(cli, ["packs", "import", str(tmp_path / "own.onnx"), *options])
    assert stated(tmp_path).files[0].input.template is None
    given = [str(lfw_pairs.images), "--pairs", str(lfw_pairs.pairs), "--boxes", str(LFW / "labels.csv"), *options]
    checked = CliRunner().invoke(cli, ["packs", "check", "own", *given])
    assert checked.exit_code == 0, checked.output
    assert "now states (pixel - 0) / 1, RGB, dlib's template" in checked.output
    template = registry()["open"].files[0].input.template
    np.testing.assert_allclose(stated(tmp_path).files[0].input.template, template, atol=0.02)  # type: ignore[arg-type]  # it has one


@ONE_RECOGNISER
def test_without_a_pack_toml_it_says_how_to_get_one(real_recogniser: Path, lfw_pairs: Labelled, tmp_path: Path) -> None:
    onnx.save(fed(real_recogniser, "unit"), tmp_path / "own.onnx")
    given = [str(lfw_pairs.images), "--pairs", str(lfw_pairs.pairs), "--boxes", str(LFW / "labels.csv")]
    checked = CliRunner().invoke(cli, ["packs", "check", str(tmp_path / "own.onnx"), *given])
    assert checked.exit_code == 1
    assert "Feed it (pixel - 0) / 255, RGB, ArcFace's template." in checked.output
    assert "`arcface-api packs import` makes one" in checked.output
