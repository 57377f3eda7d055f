"""Promises of `similarity`: a number that can be trusted, or an error."""

import numpy as np
import pytest

from arcface_api.client import Embedding, FingerprintDiffers, RecipeDiffers, similarity


def embedding(*vector: float, fingerprint: str = "f", recipe: str = "r", alignment: str = "none") -> Embedding:
    return Embedding(
        vector=np.array(vector, np.float32),
        model="x",
        fingerprint=fingerprint,
        recipe=recipe,
        norm=1.0,
        alignment=alignment,
        warnings=(),
    )


def test_is_the_cosine_whatever_the_lengths() -> None:
    assert similarity(embedding(3, 0), embedding(1, 1)) == pytest.approx(0.5**0.5)
    assert similarity(embedding(3e30, 0), embedding(-2e-30, 0)) == -1


def test_is_never_above_one() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        one = embedding(*random.normal(size=512))
        assert 1 - 1e-9 < similarity(one, one) <= 1


@pytest.mark.parametrize("vector", [(0, 0), (np.nan, 1), (np.inf, 1)])
def test_vector_without_a_direction_is_refused(vector: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="no direction"):
        similarity(embedding(*vector), embedding(1, 1))


def test_different_models_are_refused() -> None:
    with pytest.raises(FingerprintDiffers, match="different models"):
        similarity(embedding(1, 0), embedding(1, 0, fingerprint="g"))


@pytest.mark.parametrize("alignments", [("none", "none"), ("none", "auto"), ("unsure", "none"), ("auto", "landmarks")])
def test_different_recipes_are_refused(alignments: tuple[str, str]) -> None:
    one, other = (embedding(1, 0, recipe=each, alignment=each) for each in alignments)
    other = embedding(1, 0, recipe="other", alignment=alignments[1])
    with pytest.raises(RecipeDiffers, match=r"recipe \w+ with alignment \w+, other with .*same options"):
        similarity(one, other)


def test_both_outcomes_of_align_auto_are_compared() -> None:
    """One call has them where no face was found in one of its pictures."""
    one, other = (embedding(1, 0, recipe=each, alignment=each) for each in ("auto", "unsure"))
    assert similarity(one, other) == similarity(other, one) == 1
