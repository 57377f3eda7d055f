"""The receiver operating characteristic of labelled pairs, and what is read off it: AUC and equal error rate.

A pair is *accepted*, taken for one person, when its similarity is at least the threshold. The false accept rate (FAR)
is the share of accepted pairs among those of two people, the true accept rate (TAR) that among those of one.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Similarities = NDArray[np.float64]
"""Of pairs: (n,) float64, -1 to 1."""
Labels = NDArray[np.bool_]
"""Of pairs: (n,) bool, True where both pictures show the same person."""


@dataclass(frozen=True)
class Roc:
    """How many pairs each threshold accepts, from none to all: arrays of m points."""

    thresholds: NDArray[np.float64]
    """(m,) descending: infinity, which accepts none, then each similarity that occurs."""
    false_accepts: NDArray[np.int64]
    """(m,) ascending: accepted pairs of two people."""
    true_accepts: NDArray[np.int64]
    """(m,) ascending: accepted pairs of one person."""

    @property
    def different(self) -> int:
        """Pairs of two people."""
        return int(self.false_accepts[-1])

    @property
    def same(self) -> int:
        """Pairs of one person."""
        return int(self.true_accepts[-1])

    @property
    def far(self) -> NDArray[np.float64]:
        """(m,) false accept rate, 0 to 1."""
        return self.false_accepts / self.different

    @property
    def tar(self) -> NDArray[np.float64]:
        """(m,) true accept rate, 0 to 1."""
        return self.true_accepts / self.same

    def lowest_accepting(self, false_accepts: int) -> int:
        """Which point has the lowest threshold that accepts at most so many pairs of two people."""
        return int(np.searchsorted(self.false_accepts, false_accepts, side="right")) - 1

    def threshold(self, point: int) -> float:
        """Of a point, and finite: where none may be accepted, the least number above every similarity."""
        told = float(self.thresholds[point])
        return told if math.isfinite(told) else float(np.nextafter(self.thresholds[1], np.inf))

    def corners(self) -> "Roc":
        """Without the points on straight lines between their neighbours: the same curve, faster to draw."""
        bends = np.diff(self.false_accepts, 2).astype(bool) | np.diff(self.true_accepts, 2).astype(bool)
        kept = np.r_[True, bends, True]
        return Roc(self.thresholds[kept], self.false_accepts[kept], self.true_accepts[kept])


def roc(similarities: Similarities, same: Labels) -> Roc:
    """The curve of labelled pairs, of which there is at least one of each kind."""
    descending = np.argsort(-similarities, kind="stable")
    ordered, is_same = similarities[descending], same[descending]
    last_of_its_value = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]
    true_accepts = np.cumsum(is_same, dtype=np.int64)[last_of_its_value]
    return Roc(
        np.r_[np.inf, ordered[last_of_its_value]],
        np.r_[0, last_of_its_value + 1 - true_accepts],
        np.r_[0, true_accepts],
    )


def area_under(curve: Roc) -> float:
    """AUC, 0 to 1: how probable it is that a pair of one person is more similar than a pair of two."""
    return float(np.trapezoid(curve.tar, curve.far))


def equal_error_rate(curve: Roc) -> float:
    """EER, 0 to 1: where as large a share of pairs of two is accepted as of pairs of one rejected.

    Between two points of the curve it is read off the straight line.
    """
    surplus = curve.far - (1 - curve.tar)  # ascends from -1 to 1
    after = int(np.argmax(surplus >= 0))
    share = surplus[after] / (surplus[after] - surplus[after - 1])
    return float(curve.far[after] - share * (curve.far[after] - curve.far[after - 1]))
