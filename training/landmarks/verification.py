"""How well a recogniser verifies pairs of faces: pairs, balanced accuracy, TAR at a FAR."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FOLDS = 10


def make_pairs(names: Sequence[str], seed: int, per_person: int = 6) -> list[tuple[int, int, bool]]:
    """Indices of two pictures and whether they show the same person; as many different pairs as same ones.

    LFW's own pairs are too few once the people that were trained on are left out.
    """
    rng = np.random.default_rng(seed)
    people: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        people[name.split("/")[0]].append(index)
    same = []
    for pictures in people.values():
        pairs = [(a, b) for i, a in enumerate(pictures) for b in pictures[i + 1 :]]
        chosen = rng.permutation(len(pairs))[:per_person]
        same += [(*pairs[k], True) for k in chosen]
    everyone = list(people)
    different = []
    for _ in same:
        one, other = rng.choice(len(everyone), 2, replace=False)
        different.append((int(rng.choice(people[everyone[one]])), int(rng.choice(people[everyone[other]])), False))
    return [pair for both in zip(same, different, strict=True) for pair in both]


def balanced_accuracy(scores: NDArray[np.float64], is_same: NDArray[np.bool_]) -> float:
    """Mean of true-positive and true-negative rate, at the threshold that is best on the other nine folds.

    The fold of a pair is its index modulo ten.
    """
    fold = np.arange(len(scores)) % FOLDS
    decided = np.zeros(len(scores), bool)
    for k in range(FOLDS):
        threshold = _best_threshold(scores[fold != k], is_same[fold != k])
        decided[fold == k] = scores[fold == k] >= threshold
    return float((decided[is_same].mean() + (~decided[~is_same]).mean()) / 2)


def _best_threshold(scores: NDArray[np.float64], is_same: NDArray[np.bool_]) -> float:
    order = np.argsort(scores)
    ranked, same = scores[order], is_same[order]
    # deciding "same" from rank k on: same pairs below k are lost, different ones below k are won
    lost = np.concatenate([[0], np.cumsum(same)]) / same.sum()
    won = np.concatenate([[0], np.cumsum(~same)]) / (~same).sum()
    best = np.flatnonzero(won - lost == (won - lost).max())
    k = int(best[len(best) // 2])
    between = np.concatenate([[ranked[0] - 1], (ranked[1:] + ranked[:-1]) / 2, [ranked[-1] + 1]])
    return float(between[k])


def tar_at_far(scores: NDArray[np.float64], is_same: NDArray[np.bool_], far: float = 1e-2) -> float:
    """Part of the same pairs above the threshold that lets at most `far` of the different ones through."""
    return float((scores[is_same] > threshold_at_far(scores, is_same, far)).mean())


def threshold_at_far(scores: NDArray[np.float64], is_same: NDArray[np.bool_], far: float = 1e-2) -> float:
    """The lowest threshold above which lie at most `far` of the different pairs."""
    different = np.sort(scores[~is_same])[::-1]
    return float(different[int(far * len(different))])
