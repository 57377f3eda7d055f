"""How must a recogniser be fed? Tries what is usual on a person's own labelled pairs (`arcface-api packs check`).

First the range of numbers and the order of the colours, then where the landmarks of aligned faces lie in the input.

pictures ─▶ crops ─the recogniser, fed in each way─▶ FeedResult each ─▶ the best one, unless none is clearly better
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, InputSpec
from arcface_api.errors import EvaluationError
from arcface_api.evaluate.backend import open_local
from arcface_api.evaluate.curve import Figures, Labels, Similarities, figures, percent, separation
from arcface_api.evaluate.inputs import Pairs, Pictures
from arcface_api.evaluate.run import Preparation, embed_all, similarities, why_left_out
from arcface_api.packs import InstalledPack, Manifest, Role, usual_feeds
from arcface_api.progress import Progress
from arcface_api.settings import Settings
from arcface_api.wire import Align

CLEAR_GAIN = 1.01
"""How many times the separation of the stated feed another one must reach to replace it."""
CERTAIN, DRAWS = 0.9, 200
"""In what share of random samples of the pairs a result must hold, and how many samples are drawn."""
LEAST_OF_A_KIND = 15
"""Pairs of one person, and of different people: with fewer nothing is certain. With so many, no wrong result was
(benchmarks/results/feeds.json)."""
Template: TypeAlias = tuple[tuple[float, float], ...]
_LOOSER = (TEMPLATE / TEMPLATE_SIDE - 0.5) * 0.8 + 0.5
TEMPLATES: dict[str, Template | None] = {
    "ArcFace's": None,
    "a looser": tuple((round(float(x), 4), round(float(y), 4)) for x, y in _LOOSER),
    "dlib's": ((0.312, 0.304), (0.6773, 0.304), (0.4947, 0.51), (0.3373, 0.6887), (0.652, 0.6887)),
}
"""Where landmarks lie, as shares of the input's sides: ArcFace's, the same at 0.8 of its size about the middle, and
those of dlib's chips (packs.toml)."""
SHOWN_FAR = 0.01
"""At which the table shows the part of same-person pairs that are recognised."""


@dataclass(frozen=True)
class FeedResult:
    """One way to feed a recogniser, and what came of it."""

    input: InputSpec
    is_stated: bool
    """It is how the pack states it, or what was found before."""
    figures: Figures
    similarities: Similarities
    """Of each pair."""
    same: Labels
    """Whether the pair shows one person."""

    def __str__(self) -> str:
        """The feed in words."""
        return f"{self.input.feed}, {_template_name(self.input)} template"


@dataclass(frozen=True)
class Decision:
    """How a recogniser must be fed, by the pairs."""

    best: FeedResult
    rival: FeedResult
    """The one that is hardest to distinguish from the best."""
    certainty: float
    """The share of random samples of the pairs in which the rival is no better."""
    is_certainly_better: bool
    """Than the stated feed: what the pack states should be replaced."""

    has_enough_pairs: bool
    """There are `LEAST_OF_A_KIND`, or more."""

    @property
    def is_certain(self) -> bool:
        """Whether other pairs would hardly lead elsewhere."""
        return self.has_enough_pairs and self.certainty >= CERTAIN


@dataclass(frozen=True)
class Check:
    """A recogniser and the labelled pairs by which it is decided how to feed it."""

    pack: InstalledPack
    settings: Settings
    pairs: Pairs
    pictures: Pictures
    preparation: Preparation

    def feeds(self, progress: Progress) -> list[FeedResult]:
        """Evaluate the usual feeds in float32, the stated one first; faces are aligned if the input is square.

        Raises ArcFaceError as `evaluate`.
        """
        stated = _recogniser_input(self.pack.manifest)
        return self._evaluate(usual_feeds(stated), stated, progress)

    def templates(self, found: FeedResult, progress: Progress) -> list[FeedResult]:
        """Evaluate the usual templates with what has been found, which comes first; only that if faces are not aligned.

        Raises ArcFaceError as `evaluate`.
        """
        spec = found.input
        results = [replace(found, is_stated=True)]
        others = [template for name, template in TEMPLATES.items() if name != _template_name(spec) and _is_square(spec)]
        for number, template in enumerate(others):

            def shown(_: str, done: float, whole: float | None, number: int = number) -> None:
                progress(f"template {number + 1} of {len(others)}", number + done / (whole or 1), len(others))

            (tried,) = self._evaluate([replace(spec, template=_pixels(template, spec.height))], spec, shown)
            if len(tried.same) == len(found.same):  # of all the same pairs
                results.append(tried)
        return results

    def __call__(self, progress: Progress) -> tuple[list[FeedResult], Decision]:
        """Every result, and how the recogniser must be fed: first the feed, then the template.

        Raises ArcFaceError as `evaluate`.
        """
        results = self.feeds(progress)
        fed = decide(results)
        if not (fed.best.is_stated or fed.is_certainly_better):
            return results, fed
        of_templates = self.templates(fed.best, progress)
        results += of_templates[1:]
        if len(of_templates) == 1:
            return results, fed
        placed = decide(of_templates)
        if placed.best.is_stated or not placed.is_certainly_better:
            least = min(fed, placed, key=lambda decision: decision.certainty)
            return results, replace(fed, rival=least.rival, certainty=least.certainty)
        return results, placed

    def _evaluate(self, specs: Sequence[InputSpec], stated: InputSpec, progress: Progress) -> list[FeedResult]:
        """Of feeds with one template: each picture is prepared once."""
        settings = self.settings.model_copy(update={"device": "cpu", "lanes": 1})
        pack = replace(self.pack, manifest=with_input(self.pack.manifest, specs[0]))
        align = Align.AUTO if _is_square(specs[0]) else Align.NONE
        opened, pairs = open_local(pack, settings, align=align, feeds=specs), self.pairs
        embedding = embed_all(pairs.pictures, self.pictures, self.preparation, opened, progress)
        rows, _, _, left_out = asyncio.run(embedding)
        kept = np.isfinite(similarities(rows, pairs))
        same = pairs.same[kept]
        if same.all() or not same.any():
            raise EvaluationError(why_left_out(pairs, left_out, "the remaining pairs are not of both kinds"))
        results = []
        for spec, part in zip(specs, np.split(rows, len(specs), axis=1), strict=True):
            lengths = np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)
            compared = similarities(part / lengths, pairs)[kept]
            results.append(FeedResult(spec, spec == stated, figures(compared, same, pairs.folds[kept]), compared, same))
        return results


def decide(results: Sequence[FeedResult]) -> Decision:
    """The result that keeps same and different people furthest apart; the stated one if none is clearly better.

    How certain that is follows from as many pairs drawn from the same ones at random (bootstrap: B. Efron, 1979).
    Raises `EvaluationError` if even the best one keeps them no further apart than chance.
    """
    stated = next(result for result in results if result.is_stated)
    winner = max(results, key=lambda result: result.figures.separation)
    if winner.figures.separation <= 0:
        raise EvaluationError(
            "However it is fed, pictures of one person are no more alike than those of different people. Is the column"
            " `same` the wrong way round, or do the names stand for other pictures? Nothing is changed."
        )
    if winner.figures.separation < CLEAR_GAIN * stated.figures.separation:
        winner = stated
    rivals = [result for result in results if result is not winner]
    # at least as far ahead as it must be to win
    gain = 1 / CLEAR_GAIN if winner is stated else 1.0
    same = winner.same
    kinds = [np.flatnonzero(same), np.flatnonzero(~same)]
    random = np.random.default_rng(0)
    beaten_by = np.zeros(len(rivals))
    for _ in range(DRAWS):
        drawn = [random.choice(kind, len(kind)) for kind in kinds]
        reached = [separation(*(result.similarities[kind] for kind in drawn)) for result in (winner, *rivals)]
        beaten_by += np.array(reached[1:]) * gain > reached[0]
    certainty = 1 - beaten_by / DRAWS
    worst = int(certainty.argmin())
    over_stated = [share for share, rival in zip(certainty.tolist(), rivals, strict=True) if rival is stated]
    has_enough = min(map(len, kinds)) >= LEAST_OF_A_KIND
    is_better = has_enough and bool(over_stated) and over_stated[0] >= CERTAIN
    return Decision(winner, rivals[worst], float(certainty[worst]), is_better, has_enough)


def table(results: Sequence[FeedResult]) -> str:
    """A line for each feed, the best one first."""
    lines = [f"{'feed':<62} {'accuracy':>9} {f'TAR at FAR {SHOWN_FAR:g}':>18} {'separation':>11}"]
    for result in sorted(results, key=lambda result: -result.figures.separation):
        accuracy, point = result.figures.accuracy, result.figures.operating_points.get(SHOWN_FAR)
        lines.append(
            f"{str(result) + (' (as stated)' if result.is_stated else ''):<62}"
            f" {percent(accuracy.mean) if accuracy else 'too few':>9}"
            f" {percent(point.tar) if point else 'too few':>18} {result.figures.separation:>11.2f}"
        )
    return "\n".join(lines)


def with_input(manifest: Manifest, spec: InputSpec, reason: str | None = None) -> Manifest:
    """The manifest with its recogniser fed so; `reason` replaces what was assumed about that, and the thresholds go."""
    files = tuple(replace(file, input=spec) if file.role is Role.RECOGNISER else file for file in manifest.files)
    if reason is None:
        return replace(manifest, files=files)
    name = next(file.name for file in files if file.role is Role.RECOGNISER)
    kept = (sentence for sentence in manifest.assumptions if not sentence.startswith(f"{name} is fed"))
    return replace(manifest, files=files, assumptions=(*kept, f"{name} is fed {reason}"), thresholds=())


def _is_square(spec: InputSpec) -> bool:
    return spec.height == spec.width


def _template_name(spec: InputSpec) -> str:
    """Which of the usual templates it is."""
    if spec.template is None:
        return next(iter(TEMPLATES))
    shares = np.array(spec.template) / (spec.width, spec.height)
    named = (name for name, usual in TEMPLATES.items() if usual is not None and np.allclose(shares, usual, atol=2e-3))
    return next(named, "another")


def _pixels(template: Template | None, side: int) -> Template | None:
    return template and tuple((round(x * side, 2), round(y * side, 2)) for x, y in template)


def _recogniser_input(manifest: Manifest) -> InputSpec:
    return next(file.input for file in manifest.files if file.role is Role.RECOGNISER)
