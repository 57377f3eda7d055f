"""Errors that the client raises, made from the same classes as the service's problems.

    ArcFaceError
    ├── RequestError         send something else
    │   ├── ImageUnreadable      not sent: the file, array or object cannot be read
    │   ├── ThresholdUnknown     /info has no threshold that is as strict
    │   └── …                    one for each code of the service: ImageDamaged, ParameterInvalid, FingerprintDiffers …
    ├── ServiceFailed        the service failed on this request: EmbeddingInvalid, ModelFailed …
    ├── ServiceBusy          not now, also after `retry_seconds`: QueueFull, DeadlineExceeded, ServiceClosing …
    ├── ServiceUnreachable   no answer arrived, also after `retry_seconds`
    └── AnswerInvalid        what answered is not arcface-api, or another version that this client cannot read

Each has a `code`. A code that this version does not know becomes a subclass of the first three, by its status.
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from arcface_api import errors
from arcface_api.errors import ArcFaceError, RequestError, ServiceBusy, ServiceFailed


class ImageUnreadable(RequestError, code="image_unreadable"):
    """The picture cannot be read, or is no picture; nothing was sent."""


class ThresholdUnknown(RequestError, code="threshold_unknown"):
    """The service knows no threshold for this false accept rate or a lower one."""


class ServiceUnreachable(ArcFaceError, code="service_unreachable"):
    """No answer arrived: nothing listens there, the connection broke, or it took too long."""

    def __init__(self, sentence: str, *, may_pass: bool = True) -> None:
        super().__init__(sentence)
        self.may_pass = may_pass
        """Whether the same request may succeed later."""


class AnswerInvalid(ArcFaceError, code="answer_invalid"):
    """The answer is not one of arcface-api's, or of a version that this client cannot read."""


KNOWN = {
    error.code: error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, ArcFaceError) and "code" in vars(error)
}
"""Every error that the service can report, by its code."""

_WITHOUT_CODE = "http_error"
"""Of refusals that no arcface-api has written, as those of a proxy."""
_BY_STATUS: dict[int, type[ArcFaceError]] = {
    408: errors.UploadStalled,
    413: errors.BodyTooLarge,
    **dict.fromkeys((429, 502, 503, 504), ServiceBusy),  # 502 and 504: a proxy before a service that restarts
}


def error_of(status: int, headers: Mapping[str, str], content: bytes) -> ArcFaceError:
    """The error of an answer whose status is not 200."""
    problem: dict[str, Any] = {}
    with suppress(ValueError):
        found = json.loads(content)
        problem = found if isinstance(found, dict) else {}
    if status < 400:
        leads_on = f"The address leads on to {headers['location']}: use that one" if "location" in headers else ""
        return AnswerInvalid(f"{leads_on or 'The address is not that of arcface-api: check it'} (status {status}).")
    without = f"The answer has status {status} and no reason; something else may answer in front of the service."
    error = error_of_problem(problem | {"status": status}, without)
    if (seconds := _retry_after_seconds(headers.get("retry-after", ""))) is not None:
        error.retry_after_seconds = seconds
    if identity := headers.get("x-request-id"):
        error.add_note(f"X-Request-ID: {identity}")  # for questions to the operator
    return error


def error_of_problem(problem: Mapping[str, Any], without: str = "The service gives no reason.") -> ArcFaceError:
    """The error of a problem (RFC 9457), for example of one picture of a batch. `without`: where it has no detail."""
    status, code = problem.get("status"), str(problem.get("code") or _WITHOUT_CODE)
    kind = KNOWN.get(code) or _unknown(status if isinstance(status, int) else 500, code)
    return kind.__new__(kind, str(problem.get("detail") or without))  # `__init__` may take what the sentence is made of


@lru_cache(256)
def _unknown(status: int, code: str) -> type[ArcFaceError]:
    family = _BY_STATUS.get(status, RequestError if status < 500 else ServiceFailed)

    def reduced(error: ArcFaceError) -> tuple[Any, ...]:  # pickle finds no class that is made here
        return error_of_problem, ({"status": status, "code": code, "detail": str(error)},), vars(error)

    return type(family.__name__, (family,), {"code": code, "__module__": __name__, "__reduce__": reduced})


def _retry_after_seconds(value: str) -> int | None:
    """Seconds of a Retry-After header (RFC 9110 section 10.2.3), a number or a date; None: there is none."""
    if value.isdecimal():
        return int(value)
    with suppress(ValueError, TypeError):  # no date, or one without a time zone
        return max(0, math.ceil((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()))
    return None
