"""Pairs and pictures in, an evaluation out: embeds, compares, and keeps what figures and reports are made from."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcface_api import __version__
from arcface_api.cpus import machine
from arcface_api.errors import EvaluationFailed, EvaluationIncomplete
from arcface_api.evaluate.curve import Similarities
from arcface_api.evaluate.embedding import EmbeddedPictures, OnProgress, Prepare, embed_pictures
from arcface_api.evaluate.figures import Figures, figures
from arcface_api.evaluate.operating_points import different_pairs_needed
from arcface_api.evaluate.pairs import Pairs
from arcface_api.evaluate.pictures import Pictures
from arcface_api.evaluate.source import ModelFacts, OpenSource

PAIRS_AT_ONCE = 4096
"""Compared together: 17 MB of embeddings on either side."""
DOUBTFUL_PAIRS = 10
"""Of each kind as many of the least plausible pairs are listed."""
PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python-headless")
"""Of which the versions are kept."""


@dataclass(frozen=True)
class ComparedPair:
    """Two pictures and how similar they are."""

    image_a: str
    image_b: str
    similarity: float


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated, how, and what came of it."""

    facts: ModelFacts
    alignments: Mapping[str, int]
    """How many pictures were aligned, by the name of an `Alignment`."""
    margin: float | None
    """How many times its size each face box was cut; None: the pictures were crops."""
    pairs: Pairs
    figures: Figures
    left_out: Mapping[str, str]
    """Pictures that could not be embedded, each with the reason."""
    pairs_left_out: int
    """Pairs with one of those; the figures are of the others."""
    doubtful_same: tuple[ComparedPair, ...]
    """Least similar pairs that are labelled as one person: wrong labels stand here."""
    doubtful_different: tuple[ComparedPair, ...]
    """Most similar pairs that are labelled as two people."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        found = self.figures
        return {
            "evaluation": "arcface-api evaluate",
            "version": __version__,
            "model": asdict(self.facts),
            "alignments": dict(self.alignments),
            "margin": self.margin,
            "pairs": {
                "file": self.pairs.file,
                "sha256": self.pairs.sha256,
                "pictures": len(self.pairs.pictures),
                "same": found.same,
                "different": found.different,
                "left_out": self.pairs_left_out,
            },
            "accuracy": asdict(found.accuracy) if found.accuracy else None,
            "equal_error_rate": found.equal_error_rate,
            "area_under_roc": found.area_under_roc,
            "operating_points": [
                {
                    "wanted_far": wanted,
                    "different_pairs_needed": different_pairs_needed(wanted),
                    "found": asdict(point) if point else None,
                }
                for wanted, point in found.operating_points.items()
            ],
            "histogram": {
                "edges": [round(edge, 6) for edge in found.histogram.edges.tolist()],
                "same": found.histogram.same.tolist(),
                "different": found.histogram.different.tolist(),
            },
            "doubtful_same": [asdict(pair) for pair in self.doubtful_same],
            "doubtful_different": [asdict(pair) for pair in self.doubtful_different],
            "left_out": dict(self.left_out),
            "machine": {**machine(), "packages": _versions()},
        }

    def check(self) -> None:
        """Say that the figures are not of all pairs, where they are not.

        Raises:
            EvaluationIncomplete: Pictures could not be embedded.
        """
        if self.left_out:
            name, reason = next(iter(self.left_out.items()))
            raise EvaluationIncomplete(
                f"{len(self.left_out):,} of {len(self.pairs.pictures):,} pictures could not be embedded, and"
                f" {self.pairs_left_out:,} of {len(self.pairs.same):,} pairs were left out of the figures. The first:"
                f" {name}: {reason} --output lists all of them."
            )


def evaluate(
    pairs: Pairs,
    pictures: Pictures,
    opened: OpenSource,
    on_progress: OnProgress,
    *,
    prepare: Prepare | None = None,
    margin: float | None = None,
) -> Evaluation:
    """Embed the pictures of the pairs and compare them.

    Args:
        pairs: Of which all pictures are there.
        pictures: Where they are.
        opened: What embeds them.
        on_progress: Told how far it is.
        prepare: What is done to a picture before it is sent.
        margin: Of the face boxes, where `prepare` cuts them; to be told with the figures.

    Raises:
        EvaluationFailed: The service gives out, or too few pictures can be embedded.
        ArcFaceError: The pictures cannot be read, or the model cannot be loaded.
    """
    embedded = asyncio.run(embed_pictures(pairs.pictures, pictures, prepare, opened, on_progress))
    compared = similarities(embedded.rows, pairs)
    kept = np.isfinite(compared)
    same = pairs.same[kept]
    if same.all() or not same.any():
        raise EvaluationFailed(_too_few(pairs, embedded))
    found = figures(compared[kept], same, pairs.folds[kept])
    on_progress("done", 1)
    return Evaluation(
        embedded.facts,
        embedded.alignments,
        margin,
        pairs,
        found,
        dict(sorted(embedded.left_out.items())),
        int(np.count_nonzero(~kept)),
        _least_plausible(pairs, compared, kept & pairs.same, ascending=True),
        _least_plausible(pairs, compared, kept & ~pairs.same, ascending=False),
    )


def similarities(rows: NDArray[np.float32], pairs: Pairs) -> Similarities:
    """Of each pair, from embeddings (pictures, dim) of length 1: (n,) float64; NaN where one is."""
    compared = np.empty(len(pairs.same))
    for start in range(0, len(compared), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        left, right = (rows[side[part]].astype(np.float64) for side in (pairs.left, pairs.right))
        compared[part] = np.einsum("ij,ij->i", left, right)
    return np.clip(compared, -1, 1)  # rounding may lead past the ends


def _least_plausible(
    pairs: Pairs, compared: Similarities, of_kind: NDArray[np.bool_], *, ascending: bool
) -> tuple[ComparedPair, ...]:
    numbers = np.flatnonzero(of_kind)
    order = np.argsort(compared[numbers] if ascending else -compared[numbers], kind="stable")
    return tuple(
        ComparedPair(pairs.pictures[pairs.left[number]], pairs.pictures[pairs.right[number]], float(compared[number]))
        for number in numbers[order[:DOUBTFUL_PAIRS]].tolist()
    )


def _too_few(pairs: Pairs, embedded: EmbeddedPictures) -> str:
    name, reason = min(embedded.left_out.items())
    return (
        f"{len(embedded.left_out):,} of {len(pairs.pictures):,} pictures could not be embedded, and without their pairs"
        f" one kind of pairs is gone. The first: {name}: {reason}"
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
