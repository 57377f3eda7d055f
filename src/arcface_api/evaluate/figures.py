"""All figures of labelled similarities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arcface_api.evaluate.accuracy import Accuracy, FoldNumbers, accuracy
from arcface_api.evaluate.curve import Labels, Roc, Similarities, area_under, equal_error_rate, roc
from arcface_api.evaluate.operating_points import TARGETS, OperatingPoint, operating_point

HISTOGRAM_BINS = 100
"""From -1 to 1: 0.02 each."""


@dataclass(frozen=True)
class Histogram:
    """How many pairs of each kind lie in each bin of similarity."""

    edges: NDArray[np.float64]
    """(bins + 1,) ascending."""
    same: NDArray[np.int64]
    """(bins,) pairs of one person."""
    different: NDArray[np.int64]
    """(bins,) pairs of two people."""


@dataclass(frozen=True)
class Figures:
    """What was read off the similarities. Rates are 0 to 1."""

    same: int
    """Pairs of one person."""
    different: int
    """Pairs of two people."""
    operating_points: dict[float, OperatingPoint | None]
    """By wanted FAR; None where the pairs are too few to tell."""
    accuracy: Accuracy | None
    """None where the pairs are too few for ten folds."""
    equal_error_rate: float
    area_under_roc: float
    curve: Roc
    histogram: Histogram


def figures(similarities: Similarities, same: Labels, folds: FoldNumbers) -> Figures:
    """All figures of n pairs, at least one of each kind.

    Args:
        similarities: (n,) float64, -1 to 1.
        same: (n,) bool.
        folds: (n,) int64, as the pairs came.
    """
    curve = roc(similarities, same)
    return Figures(
        curve.same,
        curve.different,
        {target: operating_point(curve, target) for target in TARGETS},
        accuracy(similarities, same, folds),
        equal_error_rate(curve),
        area_under(curve),
        curve,
        _histogram(similarities, same),
    )


def _histogram(similarities: Similarities, same: Labels) -> Histogram:
    edges = np.linspace(-1, 1, HISTOGRAM_BINS + 1)
    counts = [np.histogram(similarities[kind], edges)[0] for kind in (same, ~same)]
    return Histogram(edges, *counts)
