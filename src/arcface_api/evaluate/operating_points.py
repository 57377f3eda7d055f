"""Which threshold keeps the false accept rate at a wanted one, what it then accepts, and how sure all that is.

Intervals are of 95 % and take pairs for independent. They are not quite, where pictures or people occur in several
pairs: then the truth is a little wider.
"""

import math
from dataclasses import dataclass

from arcface_api.evaluate.curve import Roc

TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)
"""False accept rates for which a threshold is told."""
LEAST_FALSE_ACCEPTS = 10
"""So many pairs of two people have to be accepted at a threshold, or it is not told.

Of a count of 10 the 95 % interval is 5.4 to 18.4 (Wilson's, for rare events): the true FAR lies within a factor of two
of the wanted one. With fewer the threshold hangs on a handful of pairs, of which one may be labelled wrong.
"""
Z = 1.959964
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True)
class Interval:
    """What holds the truth with 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it does to the pairs. Rates are 0 to 1."""

    threshold: float
    """The lowest similarity of a pair that keeps the FAR: accept what is at least this."""
    threshold_interval: Interval
    """Within which the threshold lies that keeps the FAR for all pairs of the kind that was given."""
    false_accepts: int
    far: float
    """Measured; where many similarities are equal, less than what was wanted."""
    far_interval: Interval
    tar: float
    tar_interval: Interval


def different_pairs_needed(target: float) -> int:
    """How many pairs of two people it takes to tell the threshold of a FAR."""
    return math.ceil(LEAST_FALSE_ACCEPTS / target - 1e-6)


def operating_point(curve: Roc, target: float) -> OperatingPoint | None:
    """The threshold that lets at most the share `target` of the pairs of two people pass.

    Returns:
        None where there are too few pairs (`different_pairs_needed`).
    """
    if curve.different < different_pairs_needed(target):
        return None
    wanted = math.floor(curve.different * target + 1e-6)  # 0.29 * 100 is 28.999999999999996
    point = curve.lowest_accepting(wanted)
    false_accepts, true_accepts = int(curve.false_accepts[point]), int(curve.true_accepts[point])
    # The rank of a quantile is binomial, whatever the similarities' distribution.
    ranks = Z * math.sqrt(curve.different * target * (1 - target))
    low, high = (curve.lowest_accepting(round(wanted + side * ranks)) for side in (1, -1))
    return OperatingPoint(
        curve.threshold(point),
        Interval(curve.threshold(low), curve.threshold(high)),
        false_accepts,
        false_accepts / curve.different,
        wilson(false_accepts, curve.different),
        true_accepts / curve.same,
        wilson(true_accepts, curve.same),
    )


def wilson(hits: int, tries: int) -> Interval:
    """Wilson's score interval of a share (E. B. Wilson, 1927): holds also near 0 and 1, where the textbook's fails."""
    share = hits / tries
    weight = Z * Z / tries
    centre = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / tries + weight / (4 * tries)) / (1 + weight)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
