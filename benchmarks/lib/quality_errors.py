"""Pictures that `quality.py` measured, and the verification errors of each when it is compared with untouched ones."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAR = 1e-2
"""False accept rate of the tables."""
FAR_OF_CHOICE = 1e-3
"""Of the choice of limits and of the curves: stricter, as services are run."""

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Pictures of some people, spoilt and not: n rows."""

    way: NDArray[np.str_]
    name: NDArray[np.str_]
    person: NDArray[np.str_]
    values: dict[str, NDArray[Any]]
    """(n,) each: what `picture_quality` and `face_shape` return, warnings by code, `is_aligned`, `landmark_error`."""
    embeddings: dict[str, NDArray[np.float32]]
    """(n, dim) normalised, by recogniser."""
    norms: dict[str, NDArray[np.float32]]
    """(n,) lengths of the raw ones."""

    def ways(self, *names: str) -> Mask:
        """Which rows were spoilt in one of these ways."""
        return np.isin(self.way, names)

    @cached_property
    def errors(self) -> "dict[str, Errors]":
        """By recogniser."""
        return {name: errors_of(self, embeddings) for name, embeddings in self.embeddings.items()}

    @cached_property
    def rejected(self) -> Values:
        """Mean over the recognisers at `FAR_OF_CHOICE`, (n,); NaN without another picture of the same person."""
        return np.mean([errors.rejected[FAR_OF_CHOICE] for errors in self.errors.values()], axis=0)


@dataclass(frozen=True)
class Errors:
    """Of each picture compared with all clean pictures but its own: (n,) each."""

    rejected: dict[float, Values]
    """Share of the same person's that fail, at the threshold that clean pictures have for a false accept rate."""
    balanced: Values
    """Mean of false rejects and false accepts, at the threshold that is best for clean pictures."""
    similarity: Values
    """Mean to the same person's."""


def errors_of(measured: Measured, embeddings: NDArray[np.float32]) -> Errors:
    """What one recogniser makes of the pictures."""
    is_clean = measured.ways("clean")
    similarity = embeddings @ embeddings[is_clean].T
    is_same = measured.person[:, None] == measured.person[is_clean]
    is_other = is_same & (measured.name[:, None] != measured.name[is_clean])
    same, different = (
        np.sort(similarity[is_clean][is_other[is_clean]]),
        np.sort(similarity[is_clean][~is_same[is_clean]]),
    )

    def at(threshold: float) -> tuple[Values, Values]:
        return mean_where(similarity <= threshold, is_other), mean_where(similarity > threshold, ~is_same)

    rejected = {far: at(float(different[-1 - int(far * len(different))]))[0] for far in (FAR, FAR_OF_CHOICE)}
    true_rejects = np.searchsorted(different, same, "right") / len(different)
    best = int(np.argmax(true_rejects - np.arange(len(same)) / len(same)))
    middle = (same[best] + different[different < same[best]].max()) / 2
    return Errors(rejected, sum(at(float(middle))) / 2, mean_where(similarity, is_other))


def mean_where(values: NDArray[Any], mask: Mask) -> Values:
    """Mean of each row over the mask; NaN where a row has none."""
    count = mask.sum(axis=1)
    return np.where(count > 0, (values * mask).sum(axis=1) / np.maximum(count, 1), np.nan)


def spearman(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Correlation of ranks; ties among floats do not matter."""
    return round(float(np.corrcoef([np.argsort(np.argsort(values)) for values in (one, other)])[0, 1]), 3)


def percent(values: NDArray[Any]) -> float:
    """Mean in per cent."""
    return round(100 * float(np.mean(values)), 2)
