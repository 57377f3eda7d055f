"""Promises of the client's errors: they are the service's own, and a new code becomes one of its status."""

import inspect
import json
import pickle
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from arcface_api import client, errors
from arcface_api.api.problems import STATUS_BY_ERROR, ProblemAnswer
from arcface_api.client import ArcFaceError, problems
from arcface_api.client.problems import error_of, error_of_problem


def answered(status: int, code: str | None = None, **headers: str) -> ArcFaceError:
    body = b"<h1>No</h1>" if code is None else json.dumps({"code": code, "detail": "The detail."}).encode()
    return error_of(status, headers, body)


@pytest.mark.parametrize("error", STATUS_BY_ERROR, ids=lambda error: error.code)
def test_problem_becomes_the_error_that_it_was(error: type[ArcFaceError]) -> None:
    sent = ProblemAnswer.made(STATUS_BY_ERROR[error], error.code, "The detail.")
    made = error_of_problem(sent.model_dump())
    assert type(made) is error
    assert (str(made), made.code) == ("The detail.", error.code)


@pytest.mark.parametrize("error", STATUS_BY_ERROR, ids=lambda error: error.code)
def test_family_of_a_code_fits_its_status(error: type[ArcFaceError]) -> None:
    """So a program that knows only families decides alike about old and new codes."""
    new = error_of_problem({"status": int(STATUS_BY_ERROR[error]), "code": "of_a_later_version"})
    families = (errors.RequestError, errors.ServiceFailed, errors.ServiceBusy)
    assert [isinstance(new, family) for family in families] == [issubclass(error, family) for family in families]


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (418, errors.RequestError),
        (404, errors.RequestError),
        (408, errors.UploadStalled),
        (413, errors.BodyTooLarge),
        (429, errors.ServiceBusy),
        (500, errors.ServiceFailed),
        (502, errors.ServiceBusy),
        (503, errors.ServiceBusy),
        (507, errors.ServiceFailed),
        (302, client.AnswerInvalid),
    ],
)
def test_unknown_code_becomes_an_error_of_its_status(status: int, family: type[ArcFaceError]) -> None:
    assert isinstance(answered(status), family)
    if status >= 400:
        assert (answered(status).code, answered(status, "of_a_later_version").code) == (
            "http_error",
            "of_a_later_version",
        )
        assert type(answered(status, "of_a_later_version")) is type(answered(status, "of_a_later_version"))


@pytest.mark.parametrize("status", [None, "abc", 5.5, [], {}])
def test_problem_without_a_usable_status_is_an_error(status: object) -> None:
    assert isinstance(error_of_problem({"status": status, "code": "of_a_later_version"}), errors.ServiceFailed)
    assert type(error_of_problem({"status": status, "code": "image_damaged"})) is errors.ImageDamaged
    empty = error_of_problem({"status": status, "code": None, "detail": None})
    assert (empty.code, str(empty)) == ("http_error", "The service gives no reason.")


@pytest.mark.parametrize(
    "error",
    [
        *[error_of_problem({"code": code, "detail": "The detail."}) for code in problems.KNOWN],
        errors.QueueFull(1, 2, 3, 4),
        client.ServiceUnreachable("Nothing answers.", may_pass=False),
        answered(429, "of_a_later_version", **{"retry-after": "7", "x-request-id": "abc"}),
        answered(502),
    ],
    ids=lambda error: error.code,
)
def test_error_can_be_sent_to_another_process(error: ArcFaceError) -> None:
    """As pools do, and `copy`."""
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), arrived.code) == (type(error), str(error), error.code)
    assert vars(arrived) == vars(error)


def test_what_a_proxy_answers_is_named_as_such() -> None:
    assert "something else may answer" in str(answered(502))


@pytest.mark.parametrize("value", ["soon", "-1", "Wed, 99 Foo", ""])
def test_retry_after_that_says_nothing_is_not_used(value: str) -> None:
    error = error_of(429, {"retry-after": value}, b"")
    assert not hasattr(error, "retry_after_seconds")


def test_retry_after_may_be_seconds_or_a_date() -> None:
    assert error_of(503, {"retry-after": "7"}, b"").retry_after_seconds == 7
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < error_of(503, {"retry-after": soon}, b"").retry_after_seconds <= 100
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=100), usegmt=True)
    assert error_of(503, {"retry-after": past}, b"").retry_after_seconds == 0


def test_drawn_tree_is_the_real_one() -> None:
    """Each name stands under its parent."""
    lines = re.findall(r"^    ([│ ├└─]*)(\w+)  +(.*)$", inspect.getdoc(problems) or "", re.MULTILINE)
    parents = {0: ArcFaceError}
    drawn = set()
    everything = vars(errors) | vars(problems)
    for indent, name, rest in lines:
        level = len(indent) // 4
        if name in everything:
            kind = everything[name]
            assert kind.__bases__ == (parents[level - 1],), name
            parents[level] = kind
            drawn.add(kind)
        for example in re.findall(r"\b[A-Z]\w+(?=[, …]|$)", rest.partition(": ")[2]):
            assert issubclass(everything[example], parents[level if name in everything else level - 1]), example
    own = {kind for kind in vars(problems).values() if inspect.isclass(kind) and kind.__module__ == problems.__name__}
    assert own <= drawn
    assert {errors.RequestError, errors.ServiceFailed, errors.ServiceBusy} <= drawn


def test_client_exports_what_a_caller_may_catch() -> None:
    assert client.__all__ == sorted(client.__all__)
    for name in client.__all__:
        assert hasattr(client, name)
