"""Promises of what many messages share: counts that read well, and guesses at what a misspelt name means."""

import pytest

from arcface_api.errors import QueueFull
from arcface_api.wording import counted, did_you_mean


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 pictures"), (1, "1 picture"), (2, "2 pictures"), (1024, "1,024 pictures")]
)
def test_one_thing_is_not_many(number: int, said: str) -> None:
    assert counted(number, "picture") == said


def test_refusal_counts_what_one_place_holds() -> None:
    assert str(QueueFull(0, 1, 1, 1)).startswith("The service holds 1 picture at once;")


@pytest.mark.parametrize(
    ("name", "question"),
    [("normalise", " Did you mean normalize?"), ("flop", " Did you mean flip?"), ("zzz", "")],
)
def test_misspelt_name_gets_the_close_ones(name: str, question: str) -> None:
    assert did_you_mean(name, ("normalize", "flip", "align")) == question
