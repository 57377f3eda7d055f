"""Promises of the figures: scikit-learn's numbers on the same scores, and those that a person can count."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from arcface_api.evaluate.curve import (
    FOLDS_BY_KIND,
    HISTOGRAM_EDGES,
    accuracy,
    balanced_accuracy,
    best_threshold,
    different_pairs_needed,
    figures,
    operating_point,
    roc,
    wilson,
)

Scores = tuple[NDArray[np.float64], NDArray[np.bool_]]


def drawn(pairs: int, *, seed: int = 0, digits: int | None = None) -> Scores:
    """Scores that overlap; rounded to so many digits, many are equal."""
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.4
    similarities = np.clip(np.where(same, rng.normal(0.4, 0.2, pairs), rng.normal(0.1, 0.1, pairs)), -1, 1)
    return (similarities if digits is None else similarities.round(digits)), same


# ── against scikit-learn ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("digits", [None, 2, 1])
@pytest.mark.parametrize("pairs", [7, 1000])
def test_roc_is_that_of_scikit_learn(pairs: int, digits: int | None) -> None:
    similarities, same = drawn(pairs, digits=digits)
    far, tar, thresholds = roc_curve(same, similarities, drop_intermediate=False)
    curve = roc(similarities, same)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    np.testing.assert_array_equal(curve.far, far)
    np.testing.assert_array_equal(curve.tar, tar)
    assert curve.area_under == pytest.approx(roc_auc_score(same, similarities), abs=1e-12)


@settings(deadline=None)  # a busy machine is no failure
@given(
    arrays.arrays(np.float64, st.integers(2, 40), elements=st.sampled_from([-1.0, -0.2, 0.1, 0.1000001, 0.5, 1.0])),
    st.data(),
)
def test_roc_is_that_of_scikit_learn_for_any_scores(similarities: NDArray[np.float64], data: st.DataObject) -> None:
    same = data.draw(arrays.arrays(np.bool_, len(similarities)).filter(lambda labels: 0 < labels.sum() < len(labels)))
    far, tar, thresholds = roc_curve(same, similarities, drop_intermediate=False)
    curve = roc(similarities, same)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    np.testing.assert_array_equal(curve.far, far)
    np.testing.assert_array_equal(curve.tar, tar)


def test_corners_are_the_same_curve_with_fewer_points() -> None:
    curve = roc(*drawn(5000))
    corners = curve.corners()
    assert len(corners.far) < len(curve.far) / 3
    np.testing.assert_allclose(
        np.interp(curve.far, corners.far, corners.tar), np.interp(curve.far, curve.far, curve.tar)
    )
    assert corners.area_under == pytest.approx(curve.area_under)


@pytest.mark.parametrize("wanted", [0.1, 0.01])
def test_operating_point_is_the_best_of_scikit_learns_that_keeps_the_far(wanted: float) -> None:
    similarities, same = drawn(3000)
    far, tar, thresholds = roc_curve(same, similarities, drop_intermediate=False)
    best = np.flatnonzero(far <= wanted)[-1]
    found = operating_point(roc(similarities, same), wanted)
    assert found is not None
    assert (found.threshold, found.far, found.tar) == (thresholds[best], far[best], tar[best])


# ── small enough to count ──────────────────────────────────────────────────────────────────────────────────────────


def test_equal_error_rate_counted() -> None:
    """At 0.5 one of four different pairs is accepted and one of four same pairs rejected."""
    similarities = np.array([0.9, 0.8, 0.5, 0.2, 0.6, 0.3, 0.1, 0.0])
    same = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    assert roc(similarities, same).equal_error_rate == pytest.approx(0.25)


def test_equal_error_rate_between_two_points() -> None:
    """Thresholds leap from (0, 1/2) to (1, 1): the straight line meets FAR = 1 - TAR at a third."""
    similarities = np.array([0.9, 0.1, 0.1])
    same = np.array([True, True, False])
    assert roc(similarities, same).equal_error_rate == pytest.approx(1 / 3)


def test_pairs_that_are_separated_have_no_error() -> None:
    similarities = np.r_[np.linspace(0.6, 0.9, 20), np.linspace(-0.1, 0.2, 20)]
    same = np.arange(40) < 20
    found = figures(similarities, same, np.arange(40) % 10)
    assert (found.curve.equal_error_rate, found.curve.area_under) == (0, 1)
    assert found.accuracy is not None
    assert (found.accuracy.mean, found.accuracy.std) == (1, 0)
    assert all(threshold == pytest.approx(0.4, abs=0.02) for threshold in found.accuracy.thresholds)


def test_best_threshold_lies_between_the_kinds() -> None:
    assert best_threshold(np.array([0.1, 0.2, 0.6, 0.7]), np.array([False, False, True, True])) == pytest.approx(0.4)


def test_kinds_count_the_same_however_many_pairs_each_has() -> None:
    """One of two same pairs and eight of eight different ones are verified correctly."""
    similarities = np.array([0.9, 0.1] + [0.0] * 8)
    same = np.array([True, True] + [False] * 8)
    assert balanced_accuracy(similarities, same, 0.5) == 0.75


def test_a_fold_is_judged_at_the_threshold_of_the_others() -> None:
    """Fold 0's own best threshold would be 0.55 to 0.65; the others' is 0.3, at which its stranger passes."""
    similarities = np.array([[0.7, 0.5]] + [[0.6, 0.0]] * 9).ravel()
    same = np.array([True, False] * 10)
    found = accuracy(similarities, same, np.arange(20) // 2)
    assert found is not None
    assert found.thresholds[0] == pytest.approx(0.3)
    assert found.folds == (0.5,) + (1.0,) * 9
    assert found.mean == pytest.approx(0.95)
    assert found.std == pytest.approx(math.sqrt((0.45**2 + 9 * 0.05**2) / 9))


def test_folds_that_would_lack_a_kind_are_made_within_the_kinds() -> None:
    """Alternating rows: row modulo 10 puts all same pairs into the even folds."""
    similarities, _ = drawn(100)
    same = np.arange(100) % 2 == 0
    found = accuracy(similarities, same, np.arange(100) % 10)
    assert found is not None
    assert found.division == FOLDS_BY_KIND
    assert len(found.folds) == 10


def test_too_few_pairs_for_folds_have_no_accuracy() -> None:
    similarities, same = np.linspace(0, 1, 18), np.arange(18) < 9
    assert accuracy(similarities, same, np.arange(18) % 10) is None


@pytest.mark.parametrize(("different", "is_measured"), [(999, False), (1000, True)])
def test_a_threshold_rests_on_ten_pairs_at_least(different: int, *, is_measured: bool) -> None:
    similarities = np.r_[np.linspace(0, 0.5, different), 0.9]
    found = operating_point(roc(similarities, np.arange(different + 1) == different), 0.01)
    assert (found is not None) is is_measured
    assert different_pairs_needed(0.01) == 1000
    assert different_pairs_needed(1e-4) == 100_000


def test_operating_point_counted() -> None:
    """Of 100 different pairs 0.00 … 0.99, ten may pass: those from 0.90 on, and same pairs from there."""
    similarities = np.r_[np.arange(100) / 100, 0.895, 0.905, 0.95, 0.99]
    found = operating_point(roc(similarities, np.arange(104) >= 100), 0.1)
    assert found is not None
    assert (found.threshold, found.false_accepts, found.far, found.tar) == (0.895, 10, 0.1, 1.0)
    assert found.threshold_interval.low < 0.89
    assert found.threshold_interval.high > 0.91


def test_equal_scores_are_accepted_together_or_not_at_all() -> None:
    """All strangers are as similar as can be: no threshold lets a tenth of them pass, and one above all is finite."""
    found = operating_point(roc(np.r_[np.full(100, 0.5), 0.4], np.arange(101) == 100), 0.1)
    assert found is not None
    assert (found.false_accepts, found.tar) == (0, 0)
    assert 0.5 < found.threshold < 0.5 + 1e-9


def test_threshold_interval_holds_the_true_threshold_as_often_as_it_says() -> None:
    """Different pairs uniform on 0 … 1: the threshold of FAR 0.1 is 0.9. 95 % of 400 draws hold it, give or take 4."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        similarities = np.r_[rng.random(300), 1.0]
        found = operating_point(roc(similarities, np.arange(301) == 300), 0.1)
        assert found is not None
        held += found.threshold_interval.low <= 0.9 <= found.threshold_interval.high
    assert held / 400 == pytest.approx(0.95, abs=0.04)


def test_wilson_interval_is_the_published_one() -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263 and 0 of 20."""
    many, none = wilson(81, 263), wilson(0, 20)
    ends = [many.low, many.high, none.low, none.high]
    assert ends == pytest.approx([0.2553, 0.3662, 0, 0.1611], abs=5e-5)


def test_histogram_counts_every_pair_once() -> None:
    similarities = np.array([-1.0, -0.005, 0.005, 0.005, 1.0])
    same = np.array([False, False, False, True, True])
    found = figures(similarities, same, np.zeros(5, np.int64))
    assert (found.histogram_same.sum(), found.histogram_different.sum()) == (2, 3)
    assert (found.histogram_different[0], found.histogram_same[-1]) == (1, 1)
    middle = int(np.searchsorted(HISTOGRAM_EDGES, 0.0))
    counts = (found.histogram_different[middle - 1], found.histogram_different[middle], found.histogram_same[middle])
    assert counts == (1, 1, 1)
