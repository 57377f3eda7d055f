"""Figures of labelled similarities: ROC curve, operating points, accuracy, histogram; and how they are printed.

A pair is *accepted*, taken for one person, when its similarity is at least the threshold. The false accept rate (FAR)
is the share of accepted different-person pairs, the true accept rate (TAR) that of accepted same-person pairs. Rates
are 0 to 1. Intervals are of 95 % and treat pairs as independent: they are too narrow where pictures or people recur.

One module, because every figure is read off the same ROC.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Similarities = NDArray[np.float64]  # of n pairs: (n,) float64, -1 to 1
Labels = NDArray[np.bool_]  # (n,) bool, True for a same-person pair
FoldNumbers = NDArray[np.int64]  # (n,) int64, from 0

TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)
"""False accept rates for which a threshold is measured."""
LEAST_FALSE_ACCEPTS = 10
"""Different-person pairs that must be accepted at a threshold before it is reported: the 95 % interval of a count of 10
is 5.4 to 18.4 (Wilson's, for rare events), within a factor of two of the wanted FAR."""
FOLDS = 10
FOLDS_AS_GIVEN = "as the pairs came: the sets of pairs.txt, or the row modulo 10"
FOLDS_BY_KIND = (
    "within each kind of pairs, the row modulo 10, because a fold of the rows as they came would lack a kind"
)
HISTOGRAM_EDGES = np.linspace(-1, 1, 101)
"""Of 100 bins of similarity, each 0.02 wide."""
Z = 1.959964
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True)
class Roc:
    """How many pairs each threshold accepts, from none to all: arrays of m points."""

    thresholds: NDArray[np.float64]
    """(m,) descending: infinity, which accepts none, then each similarity that occurs."""
    false_accepts: NDArray[np.int64]
    """(m,) ascending: accepted different-person pairs."""
    true_accepts: NDArray[np.int64]
    """(m,) ascending: accepted same-person pairs."""

    @property
    def same(self) -> int:
        """Number of same-person pairs."""
        return int(self.true_accepts[-1])

    @property
    def different(self) -> int:
        """Number of different-person pairs."""
        return int(self.false_accepts[-1])

    @property
    def far(self) -> NDArray[np.float64]:
        """(m,) false accept rates."""
        return self.false_accepts / self.different

    @property
    def tar(self) -> NDArray[np.float64]:
        """(m,) true accept rates."""
        return self.true_accepts / self.same

    @property
    def area_under(self) -> float:
        """AUC: the probability that a same-person pair is more similar than a different-person pair."""
        return float(np.trapezoid(self.tar, self.far))

    @property
    def equal_error_rate(self) -> float:
        """EER: where FAR equals 1 - TAR, on the straight line between two points of the curve."""
        far = self.far
        surplus = far - (1 - self.tar)  # ascends from -1 to 1
        after = int(np.argmax(surplus >= 0))
        share = surplus[after] / (surplus[after] - surplus[after - 1])
        return float(far[after] - share * (far[after] - far[after - 1]))

    def lowest_accepting(self, false_accepts: int) -> int:
        """Index of the lowest threshold that accepts at most this many different-person pairs."""
        return int(np.searchsorted(self.false_accepts, false_accepts, side="right")) - 1

    def threshold(self, point: int) -> float:
        """Threshold of a point, always finite: to accept none, the least number above every similarity."""
        threshold = float(self.thresholds[point])
        return threshold if math.isfinite(threshold) else float(np.nextafter(self.thresholds[1], np.inf))

    def corners(self) -> "Roc":
        """The same curve without the points on straight lines between their neighbours: faster to draw."""
        bends = np.diff(self.false_accepts, 2).astype(bool) | np.diff(self.true_accepts, 2).astype(bool)
        kept = np.r_[True, bends, True]
        return Roc(self.thresholds[kept], self.false_accepts[kept], self.true_accepts[kept])


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold, and what it does to the pairs."""

    threshold: float
    """The lowest similarity of a pair that keeps the FAR: accept what is at least this."""
    threshold_interval: Interval
    """Holds the threshold that keeps the FAR for all pairs of this kind."""
    false_accepts: int
    far: float
    """As measured; below the wanted one where many similarities are equal."""
    far_interval: Interval
    tar: float
    tar_interval: Interval


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy over folds, by LFW's protocol: each fold is judged at the threshold that is best on the others."""

    mean: float
    std: float
    """Standard deviation of the folds (with n - 1)."""
    folds: tuple[float, ...]
    thresholds: tuple[float, ...]
    """At which each fold was judged."""
    division: str
    """How the pairs were divided into folds: `FOLDS_AS_GIVEN` or `FOLDS_BY_KIND`."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Everything that is read off the similarities."""

    curve: Roc
    operating_points: dict[float, OperatingPoint | None]
    """By wanted FAR; None where there are too few pairs."""
    accuracy: Accuracy | None
    """None where there are too few pairs for ten folds."""
    separation: float
    """Between the mean similarities of both kinds, in standard deviations: finer than accuracy where that is high."""
    histogram_same: NDArray[np.int64]
    """(100,) counts of same-person pairs between `HISTOGRAM_EDGES`."""
    histogram_different: NDArray[np.int64]
    """(100,) counts of different-person pairs."""


def figures(similarities: Similarities, same: Labels, folds: FoldNumbers) -> Figures:
    """All figures of n pairs, at least one of each kind."""
    curve = roc(similarities, same)
    return Figures(
        curve=curve,
        operating_points={target: operating_point(curve, target) for target in TARGETS},
        accuracy=accuracy(similarities, same, folds),
        separation=separation(similarities[same], similarities[~same]),
        histogram_same=np.histogram(similarities[same], HISTOGRAM_EDGES)[0],
        histogram_different=np.histogram(similarities[~same], HISTOGRAM_EDGES)[0],
    )


def roc(similarities: Similarities, same: Labels) -> Roc:
    """The curve of labelled pairs, at least one of each kind."""
    descending = np.argsort(-similarities, kind="stable")
    ordered, is_same = similarities[descending], same[descending]
    last_of_its_value = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]
    true_accepts = np.cumsum(is_same, dtype=np.int64)[last_of_its_value]
    return Roc(
        np.r_[np.inf, ordered[last_of_its_value]],
        np.r_[0, last_of_its_value + 1 - true_accepts],
        np.r_[0, true_accepts],
    )


def different_pairs_needed(target: float) -> int:
    """The number of different-person pairs that a threshold for this FAR takes."""
    return math.ceil(LEAST_FALSE_ACCEPTS / target - 1e-6)


def operating_point(curve: Roc, target: float) -> OperatingPoint | None:
    """The lowest threshold whose FAR is at most `target`; None where `different_pairs_needed` is not reached."""
    different = curve.different
    if different < different_pairs_needed(target):
        return None
    wanted = math.floor(different * target + 1e-6)  # 0.29 * 100 is 28.999999999999996
    point = curve.lowest_accepting(wanted)
    false_accepts, true_accepts = int(curve.false_accepts[point]), int(curve.true_accepts[point])
    # The rank of a quantile is binomial, whatever the similarities' distribution.
    ranks = Z * math.sqrt(different * target * (1 - target))
    low, high = (curve.lowest_accepting(round(wanted + side * ranks)) for side in (1, -1))
    return OperatingPoint(
        threshold=curve.threshold(point),
        threshold_interval=Interval(curve.threshold(low), curve.threshold(high)),
        false_accepts=false_accepts,
        far=false_accepts / different,
        far_interval=wilson(false_accepts, different),
        tar=true_accepts / curve.same,
        tar_interval=wilson(true_accepts, curve.same),
    )


def wilson(hits: int, tries: int) -> Interval:
    """Wilson's score interval of a share (E. B. Wilson, 1927), which also holds near 0 and 1."""
    share = hits / tries
    weight = Z * Z / tries
    centre = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / tries + weight / (4 * tries)) / (1 + weight)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def accuracy(similarities: Similarities, same: Labels, fold: FoldNumbers) -> Accuracy | None:
    """Accuracy over folds, each kind of pairs counting for one half; None where a kind has too few pairs for ten folds.

    Source: G. B. Huang et al., Labeled Faces in the Wild, UMass Amherst 07-49, 2007, section 4, where both kinds have
    equally many pairs.
    """
    division = FOLDS_AS_GIVEN
    numbers = np.unique(fold)
    if len(numbers) == 1 or not all(np.array_equal(np.unique(fold[kind]), numbers) for kind in (same, ~same)):
        if min(np.count_nonzero(same), np.count_nonzero(~same)) < FOLDS:
            return None
        fold, division = np.empty(len(same), np.int64), FOLDS_BY_KIND
        for kind in (same, ~same):
            fold[kind] = np.arange(np.count_nonzero(kind)) % FOLDS
    judged: list[float] = []
    chosen: list[float] = []
    for number in np.unique(fold):
        own = fold == number
        chosen.append(best_threshold(similarities[~own], same[~own]))
        judged.append(balanced_accuracy(similarities[own], same[own], chosen[-1]))
    return Accuracy(
        mean=float(np.mean(judged)),
        std=float(np.std(judged, ddof=1)),
        folds=tuple(judged),
        thresholds=tuple(chosen),
        division=division,
    )


def separation(same: Similarities, different: Similarities) -> float:
    """The distance of two means in standard deviations: d' of signal detection (Green and Swets, 1966)."""
    spread = math.sqrt((float(same.var()) + float(different.var())) / 2)
    return (float(same.mean()) - float(different.mean())) / max(spread, 1e-9)


def best_threshold(similarities: Similarities, same: Labels) -> float:
    """Where balanced accuracy is highest, half way to the next similarity below; of several such places the middle."""
    curve = roc(similarities, same)
    surplus = (curve.tar - curve.far)[1:]
    best = np.flatnonzero(surplus == surplus.max()) + 1
    lowest = int(best[len(best) // 2])
    below = min(lowest + 1, len(curve.thresholds) - 1)
    return float(curve.thresholds[lowest] + curve.thresholds[below]) / 2


def balanced_accuracy(similarities: Similarities, same: Labels, threshold: float) -> float:
    """Mean of the share of accepted same-person pairs and that of rejected different-person pairs."""
    is_accepted = similarities >= threshold
    return (float(is_accepted[same].mean()) + float((~is_accepted[~same]).mean())) / 2


# ── figures as people read them ────────────────────────────────────────────────────────────────────────────────────


def one_in(rate: float) -> str:
    """0.01 as `1 in 100`."""
    return "none" if rate == 0 else f"1 in {1 / rate:,.0f}" if rate < 0.095 else f"1 in {1 / rate:.3g}"


def shown_threshold(threshold: float) -> str:
    """Four digits, rounded up: rounded down, it would accept more than was measured."""
    return f"{math.ceil(threshold * 10_000 - 1e-9) / 10_000:.4f}"


def percent(share: float) -> str:
    """Two digits, and 100 only where nothing is missing."""
    rounded = f"{100 * share:.2f}"
    return ("100" if share == 1 else "99.99" if rounded == "100.00" else rounded) + " %"


def percents(interval: Interval) -> str:
    """`98.10 to 99.20 %`."""
    return f"{percent(interval.low).removesuffix(' %')} to {percent(interval.high)}"


def thresholds(interval: Interval) -> str:
    """`0.2011 to 0.2267`."""
    return f"{shown_threshold(interval.low)} to {shown_threshold(interval.high)}"
