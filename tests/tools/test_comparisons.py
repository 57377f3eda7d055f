"""Promises of the benchmarks that compare source trees: what counts as a difference, and how a path is counted."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.lib.trees import Served
from benchmarks.questions import same_answers
from benchmarks.questions.request_path import Call, path_of
from benchmarks.questions.same_answers import Answer, Case, compare

PROBLEM = (("content-length", "9"), ("content-type", "application/problem+json"))


def answer(body: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    return Answer(status, tuple(headers), json.dumps(body).encode())


def compared(monkeypatch: pytest.MonkeyPatch, before: Answer, after: Answer) -> tuple[int, int, int]:
    """Identical answers, different ones, reworded ones."""
    answers = iter([before, after])

    class Running:
        def __enter__(self) -> Served:
            return Served(0, 0)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(same_answers, "served", lambda *_, **__: Running())
    case = Case("case", "auto", (), "", lambda _: [("request", next(answers))])
    found = compare(case, {"before": Path(), "after": Path()}, Path())
    return found["identical"], found["different"], len(found["reworded"])


def test_equal_answers_are_identical(monkeypatch: pytest.MonkeyPatch) -> None:
    one = answer({"embedding": [1.5]}, headers=[("x-alignment", "none")])
    assert compared(monkeypatch, one, one) == (1, 0, 0)


@pytest.mark.parametrize(
    "other",
    [
        answer({"embedding": [1.25]}, headers=[("x-alignment", "none")]),
        answer({"embedding": [1.5]}, headers=[("x-alignment", "auto")]),
        answer({"embedding": [1.5]}, headers=[]),
        answer({"embedding": [1.5]}, 201, headers=[("x-alignment", "none")]),
    ],
)
def test_another_body_header_or_status_is_a_difference(monkeypatch: pytest.MonkeyPatch, other: Answer) -> None:
    one = answer({"embedding": [1.5]}, headers=[("x-alignment", "none")])
    assert compared(monkeypatch, one, other) == (0, 1, 0)


def test_a_refusal_may_be_reworded(monkeypatch: pytest.MonkeyPatch) -> None:
    one = answer({"code": "image_empty", "title": "T", "detail": "Old."}, 422, PROBLEM)
    other = answer(
        {"code": "image_empty", "title": "T", "detail": "New words."}, 422, (("content-length", "99"), PROBLEM[1])
    )
    assert compared(monkeypatch, one, other) == (0, 0, 1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"code": "image_damaged", "title": "T", "detail": "Old."}, 422),
        ({"code": "image_empty", "title": "U", "detail": "Old."}, 422),
        ({"code": "image_empty", "title": "T", "detail": "Old."}, 400),
    ],
)
def test_another_code_title_or_status_of_a_refusal_is_a_difference(
    monkeypatch: pytest.MonkeyPatch, body: object, status: int
) -> None:
    one = answer({"code": "image_empty", "title": "T", "detail": "Old."}, 422, PROBLEM)
    assert compared(monkeypatch, one, answer(body, status, PROBLEM))[1] == 1


def test_a_path_counts_what_all_recordings_share() -> None:
    loop = [
        Call("loop", "protocol.py", "read"),
        Call("loop", "app.py", "App.__call__"),
        Call("loop", "app.py", "embed"),
    ]
    work = [Call("decode", "image.py", "decode"), Call("loop", "app.py", "embed"), Call("loop", "protocol.py", "write")]
    clock = Call("loop", "health.py", "tick")
    path = path_of([[*loop, clock, *work], [*loop, *work]])
    assert path["whole"] == {"files": 3, "functions": 5}
    assert path["app"] == {"files": 2, "functions": 3}
    assert (path["hand_overs"], path["threads"]) == (2, ["loop", "decode", "loop"])
    assert [file["file"] for file in path["path"]] == ["protocol.py", "app.py", "image.py"]
