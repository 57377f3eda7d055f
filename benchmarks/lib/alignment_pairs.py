"""The pairs of faces that `alignment.py` compares, and how well a recogniser verifies them."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.alignment_crops import SEED
from training.landmarks.faces import part_of
from training.landmarks.verification import balanced_accuracy, make_pairs, tar_at_far, threshold_at_far

MIXED = "auto against stretched"
"""The pairs of which one picture was aligned and the other not, as in an archive that changes its ways."""

UNCOVERED = "uncovered"
"""The tight boxes of the same pictures without what covers the face, sent with `align=auto`."""
COVERED_MIXED = "auto against uncovered"
"""The pairs of which one face was covered, as at a door where enrolled people wear masks."""

Embeddings = Mapping[str, NDArray[np.float32]]
"""(dim,) normalised, by the picture's name."""


@dataclass(frozen=True)
class Pairs:
    """n pairs of pictures, in an order that decides their folds."""

    names: list[tuple[str, str]]
    same: NDArray[np.bool_]
    """(n,): both pictures show the same person."""

    @property
    def pictures(self) -> set[str]:
        """Each picture of a pair once."""
        return {name for pair in self.names for name in pair}

    def describe(self) -> dict[str, int]:
        """How many there are, for a report."""
        same = int(self.same.sum())
        return {"same": same, "different": len(self.same) - same, "pictures": len(self.pictures)}

    def figures(self, left: Embeddings, right: Embeddings) -> dict[str, float]:
        """Balanced accuracy over ten folds; true accept rate and threshold at a false accept rate of 1e-2.

        Args:
            left: Of the first picture of each pair.
            right: Of the second.
        """
        similarity = self._similarity(left, right)
        return {
            "accuracy_percent": _percent(balanced_accuracy(similarity, self.same)),
            "tar_percent": _percent(tar_at_far(similarity, self.same)),
            "threshold": round(threshold_at_far(similarity, self.same), 4),
        }

    def threshold(self, left: Embeddings, right: Embeddings) -> float:
        """The similarity that at most one in a hundred different pairs exceeds."""
        return threshold_at_far(self._similarity(left, right), self.same)

    def shares_above(self, left: Embeddings, right: Embeddings, threshold: float) -> dict[str, float]:
        """False and true accept rate at a threshold that was chosen elsewhere, in per cent."""
        accepted = self._similarity(left, right) > threshold
        return {
            "far_percent": _percent(float(accepted[~self.same].mean())),
            "tar_percent": _percent(float(accepted[self.same].mean())),
        }

    def _similarity(self, left: Embeddings, right: Embeddings) -> NDArray[np.float64]:
        one = np.stack([left[name] for name, _ in self.names])
        other = np.stack([right[name] for _, name in self.names])
        return np.sum(one * other, axis=1, dtype=np.float64)


def unseen_pairs(folder: Path, people: int | None) -> Pairs:
    """Pairs of the test people, on whom the regressor was not trained.

    Args:
        folder: With LFW's `labels.csv`.
        people: Only so many of them; None: all.
    """
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        names = sorted(row["image"] for row in csv.DictReader(file) if part_of(row["image"]) == "test")
    if people is not None:
        everyone = sorted({name.split("/")[0] for name in names})
        chosen = set(np.random.default_rng(SEED).permutation(everyone)[:people].tolist())
        names = [name for name in names if name.split("/")[0] in chosen]
    pairs = make_pairs(names, SEED)
    return Pairs([(names[a], names[b]) for a, b, _ in pairs], np.array([same for _, _, same in pairs], bool))


def table_row(pairs: Pairs, embeddings: Mapping[str, Embeddings], unsure: set[str]) -> dict[str, Any]:
    """The figures of one condition.

    Args:
        pairs: Those to compare.
        embeddings: By the way in which the pictures were sent.
        unsure: Names of the pictures of whose landmarks `align=auto` was unsure.
    """
    sides = {way: (of, of) for way, of in embeddings.items()}
    sides[MIXED] = (embeddings["auto"], embeddings["stretched"])
    if UNCOVERED in embeddings:
        sides[COVERED_MIXED] = (embeddings["auto"], embeddings[UNCOVERED])
    figures = {way: pairs.figures(*both) for way, both in sides.items()}
    pictures = pairs.pictures
    row: dict[str, Any] = {
        "unsure_percent": _percent(len(unsure & pictures) / len(pictures)),
        **{key: {way: of[key] for way, of in figures.items()} for key in next(iter(figures.values()))},
    }
    if UNCOVERED in embeddings:
        threshold = pairs.threshold(*sides[UNCOVERED])
        row["at_the_threshold_of_uncovered_faces"] = {
            way: pairs.shares_above(*sides[way], threshold) for way in (UNCOVERED, "auto", COVERED_MIXED)
        }
    return row


def _percent(share: float) -> float:
    return round(100 * share, 2)
