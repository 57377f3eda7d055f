"""Promises of the gate: nobody overtakes, no more go in than may, and refusals and answers move the limit."""

import math

import pytest

from arcface_api.client.gate import CUT, Gate, Outcome, Ticket


class Entered:
    """Asks at a gate, and notes who went in."""

    def __init__(self, capacity: int | None = None) -> None:
        self.gate = Gate()
        self.names: list[str] = []
        if capacity is not None:
            self.gate.has_capacity(capacity)

    def ask(self, name: str, pictures: int = 1) -> Ticket:
        return self.gate.ask(pictures, lambda: self.names.append(name))


def test_first_come_first_served_and_none_overtakes() -> None:
    entered = Entered(capacity=4)
    a, b = entered.ask("a", 3), entered.ask("b", 3)
    entered.ask("c", 1)
    assert entered.names == ["a"], "c has room, but came after b"
    entered.gate.leave(a)
    assert entered.names == ["a", "b", "c"]
    entered.gate.leave(b)


def test_more_than_the_limit_goes_in_alone() -> None:
    entered = Entered(capacity=2)
    small, large = entered.ask("small", 1), entered.ask("large", 5)
    assert entered.names == ["small"]
    entered.gate.leave(small)
    assert entered.names == ["small", "large"]
    entered.ask("next", 1)
    assert entered.names == ["small", "large"]
    entered.gate.leave(large)
    assert entered.names == ["small", "large", "next"]


def test_who_leaves_the_queue_makes_room_for_those_behind() -> None:
    entered = Entered(capacity=2)
    a, b = entered.ask("a", 1), entered.ask("b", 2)
    entered.ask("c", 1)
    entered.gate.leave(b)
    assert entered.names == ["a", "c"]
    entered.gate.leave(a)


def test_refusals_of_one_moment_count_once() -> None:
    entered = Entered(capacity=100)
    tickets = [entered.ask(str(number), 10) for number in range(10)]
    for ticket in tickets[:5]:
        entered.gate.leave(ticket, Outcome.REFUSED)
    assert entered.gate.limit == CUT * 100
    later = entered.ask("later", 10)
    entered.gate.leave(later, Outcome.REFUSED)
    assert entered.gate.limit == pytest.approx(CUT * 60)


def test_answers_raise_the_limit_to_the_capacity_and_no_further() -> None:
    entered = Entered(capacity=100)
    entered.gate.leave(entered.ask("a", 10), Outcome.REFUSED)
    lowered = entered.gate.limit
    assert lowered == CUT * 10
    entered.gate.leave(entered.ask("b", 1), Outcome.OTHER)
    assert entered.gate.limit == lowered
    for _ in range(2000):
        before = entered.gate.limit
        entered.gate.leave(entered.ask("c", 4), Outcome.SERVED)
        assert before < entered.gate.limit or entered.gate.limit == 100
    assert entered.gate.limit == 100


def test_unknown_capacity_is_no_limit_until_a_refusal() -> None:
    entered = Entered()
    assert entered.gate.limit == math.inf
    tickets = [entered.ask(str(number)) for number in range(1000)]
    assert len(entered.names) == 1000
    entered.gate.leave(tickets[0], Outcome.REFUSED)
    assert entered.gate.limit == CUT * 1000


def test_limit_never_falls_below_one_picture() -> None:
    entered = Entered()
    for _ in range(50):
        entered.gate.leave(entered.ask("a"), Outcome.REFUSED)
    assert entered.gate.limit == 1
