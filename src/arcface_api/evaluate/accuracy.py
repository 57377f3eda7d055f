"""Accuracy by the protocol of LFW: each tenth of the pairs is judged at the threshold that is best on the other nine.

Source: G. B. Huang et al., Labeled Faces in the Wild, UMass Amherst 07-49, 2007, section 4. There both kinds of pairs
are equally many; here they need not be, and each kind counts for one half.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from arcface_api.evaluate.curve import Labels, Similarities, roc

FOLDS = 10

FoldNumbers = NDArray[np.int64]
"""Which fold a pair belongs to: (n,) int64, from 0."""


class Division(StrEnum):
    """How pairs were divided into folds."""

    AS_GIVEN = "as the pairs came: the sets of pairs.txt, or the row modulo 10"
    BY_KIND = "within each kind of pairs, the row modulo 10, because a fold of the rows as they came would lack a kind"


@dataclass(frozen=True)
class Accuracy:
    """Shares, 0 to 1, each the mean of the two kinds' shares of pairs that were told right."""

    mean: float
    """Of the folds."""
    std: float
    """Of the folds: what the accuracy of one varies by (with n - 1)."""
    folds: tuple[float, ...]
    thresholds: tuple[float, ...]
    """At which each fold was judged."""
    division: Division


def accuracy(similarities: Similarities, same: Labels, given: FoldNumbers) -> Accuracy | None:
    """Accuracy over folds; None where one kind has too few pairs for ten folds.

    Args:
        similarities: (n,) of the pairs.
        same: (n,) their labels.
        given: (n,) their folds, as the pairs came.
    """
    fold, division = given, Division.AS_GIVEN
    if not _has_both_kinds(fold, same):
        if min(np.count_nonzero(same), np.count_nonzero(~same)) < FOLDS:
            return None
        fold, division = _by_kind(same), Division.BY_KIND
    judged: list[float] = []
    thresholds: list[float] = []
    for number in np.unique(fold):
        own = fold == number
        thresholds.append(best_threshold(similarities[~own], same[~own]))
        judged.append(balanced_accuracy(similarities[own], same[own], thresholds[-1]))
    return Accuracy(float(np.mean(judged)), float(np.std(judged, ddof=1)), tuple(judged), tuple(thresholds), division)


def best_threshold(similarities: Similarities, same: Labels) -> float:
    """Where the mean of true-positive and true-negative rate is highest; of several such places the middle one.

    It lies half way between the lowest similarity that it accepts and the next one below.
    """
    curve = roc(similarities, same)
    told_right = (curve.tar - curve.far)[1:]
    best = np.flatnonzero(told_right == told_right.max()) + 1
    lowest = int(best[len(best) // 2])
    below = min(lowest + 1, len(curve.thresholds) - 1)
    return float(curve.thresholds[lowest] + curve.thresholds[below]) / 2


def balanced_accuracy(similarities: Similarities, same: Labels, threshold: float) -> float:
    """Mean of the share of accepted pairs of one person and that of rejected pairs of two."""
    is_accepted = similarities >= threshold
    return (float(is_accepted[same].mean()) + float((~is_accepted[~same]).mean())) / 2


def _by_kind(same: Labels) -> FoldNumbers:
    fold = np.empty(len(same), np.int64)
    for kind in (same, ~same):
        fold[kind] = np.arange(np.count_nonzero(kind)) % FOLDS
    return fold


def _has_both_kinds(fold: FoldNumbers, same: Labels) -> bool:
    """Whether there are folds, and each has a pair of each kind."""
    numbers = np.unique(fold)
    return len(numbers) > 1 and all(np.array_equal(np.unique(fold[kind]), numbers) for kind in (same, ~same))
