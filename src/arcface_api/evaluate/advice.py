"""Which threshold to take, in plain words: what the terminal and the report both say."""

import math
from dataclasses import dataclass

from arcface_api.evaluate.figures import Figures
from arcface_api.evaluate.operating_points import (
    LEAST_FALSE_ACCEPTS,
    Interval,
    OperatingPoint,
    different_pairs_needed,
)

SCOPE = (
    "A threshold holds for one model, recognised by its fingerprint, for crops that were made and embedded in the same"
    " way, and for people and pictures like those of the pairs."
)
INDEPENDENCE = (
    "The intervals hold the truth 95 times in 100, if the pairs are independent; where the same pictures and people"
    " occur in many pairs they are too narrow."
)


@dataclass(frozen=True)
class Advice:
    """About one false accept rate."""

    wanted: str
    """`1 in 100`."""
    rule: str
    """What to do, or why it cannot be told."""
    effect: str
    """What that does to pairs of one person; empty where it cannot be told."""
    certainty: str
    """How sure it is; empty where it cannot be told."""


def advise(found: Figures) -> list[Advice]:
    """For each wanted false accept rate, from the loosest to the strictest."""
    return [_advice(found, wanted, point) for wanted, point in found.operating_points.items()]


def one_in(rate: float) -> str:
    """0.01 as `1 in 100`."""
    return "none" if rate == 0 else f"1 in {1 / rate:,.0f}" if rate < 0.095 else f"1 in {1 / rate:.3g}"


def shown_threshold(threshold: float) -> str:
    """Four digits, rounded up: rounded down it would let more pass than was measured."""
    return f"{math.ceil(threshold * 10_000 - 1e-9) / 10_000:.4f}"


def percent(share: float) -> str:
    """Two digits, and 100 only where nothing is missing."""
    told = f"{100 * share:.2f}"
    return ("100" if share == 1 else "99.99" if told == "100.00" else told) + " %"


def percents(interval: Interval) -> str:
    """`98.10 to 99.20 %`."""
    return f"{percent(interval.low).removesuffix(' %')} to {percent(interval.high)}"


def thresholds(interval: Interval) -> str:
    """`0.2011 to 0.2267`."""
    return f"{shown_threshold(interval.low)} to {shown_threshold(interval.high)}"


def _advice(found: Figures, wanted: float, point: OperatingPoint | None) -> Advice:
    if point is None:
        needed = different_pairs_needed(wanted)
        why = (
            f"cannot be told from these pairs. It takes {needed:,} pairs of two people, so that {LEAST_FALSE_ACCEPTS}"
            f" of them pass; there are {found.different:,}."
        )
        return Advice(one_in(wanted), why, "", "")
    return Advice(
        one_in(wanted),
        f"accept two pictures as one person when their similarity is at least {shown_threshold(point.threshold)}.",
        f"Of the pairs of one person {percent(point.tar)} are then accepted (95 % sure:"
        f" {percents(point.tar_interval)}).",
        f"{point.false_accepts:,} of {found.different:,} pairs of two people passed, so the true rate lies between"
        f" {one_in(point.far_interval.high)} and {one_in(point.far_interval.low)}, and the threshold that really keeps"
        f" {one_in(wanted)} between {thresholds(point.threshold_interval).replace(' to ', ' and ')}.",
    )
