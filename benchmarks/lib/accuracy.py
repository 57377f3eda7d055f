"""How well embeddings verify LFW's pairs, with thresholds chosen on other folds."""

import numpy as np
from numpy.typing import NDArray

FOLDS = 10


def fold_thresholds(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each of ten folds (row modulo 10) the threshold that is best on the other nine, (10,).

    Best is the highest mean of true-positive and true-negative rate; of several such thresholds it is the middle one.
    """
    fold = np.arange(len(same)) % FOLDS
    return np.array([_best_threshold(similarities[fold != own], same[fold != own]) for own in range(FOLDS)])


def balanced_accuracy(
    similarities: NDArray[np.float64], same: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> float:
    """Mean over the folds, each at its threshold, of the mean of true-positive and true-negative rate, in per cent."""
    fold = np.arange(len(same)) % FOLDS
    right = (similarities > thresholds[fold]) == same
    return 100 * float(
        np.mean(
            [(right[same & (fold == own)].mean() + right[~same & (fold == own)].mean()) / 2 for own in range(FOLDS)]
        )
    )


def true_accept_rate(similarities: NDArray[np.float64], same: NDArray[np.bool_], false_accept_rate: float) -> float:
    """Share of same pairs above the lowest threshold that lets no larger share of different pairs pass, in per cent."""
    different = np.sort(similarities[~same])[::-1]
    threshold = different[int(false_accept_rate * len(different))]
    return 100 * float((similarities[same] > threshold).mean())


def _best_threshold(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    order = np.argsort(similarities)
    ordered, positive = similarities[order], same[order]
    # A threshold between two neighbours rejects all up to the lower one.
    rejected_same = np.cumsum(positive)[:-1] / positive.sum()
    rejected_different = np.cumsum(~positive)[:-1] / (~positive).sum()
    balanced = rejected_different - rejected_same
    best = np.flatnonzero(balanced == balanced.max())
    chosen = best[len(best) // 2]
    return float(ordered[chosen] + ordered[chosen + 1]) / 2
