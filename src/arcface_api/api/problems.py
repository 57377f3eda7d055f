"""Which HTTP status an error becomes: one table, from which answers and OpenAPI are both made.

A problem is RFC 9457's `application/problem+json`: `title` and `status` say what HTTP says, `detail` what was wrong,
what is allowed and what to do, and `code` is the stable name that a program compares.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from arcface_api import errors
from arcface_api.api.caller import has_left
from arcface_api.errors import ArcFaceError

MEDIA_TYPE = "application/problem+json"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

STATUS_BY_ERROR: dict[type[ArcFaceError], HTTPStatus] = {
    errors.RequestMalformed: HTTPStatus.BAD_REQUEST,
    errors.RequestHeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.UploadStalled: HTTPStatus.REQUEST_TIMEOUT,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ImageTooManyPixels: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ContentTypeUnsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.ImageFormatUnsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    errors.MultipartMalformed: HTTPStatus.BAD_REQUEST,
    errors.FileMissing: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileRepeated: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ParameterInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ParametersConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageEmpty: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageDamaged: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.LandmarksInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.AttributesUnavailable: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.AlignmentUnavailable: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FingerprintDiffers: HTTPStatus.CONFLICT,
    errors.EmbeddingInvalid: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ModelFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TooManyFiles: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.UploadsFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyConnections: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineExceeded: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServiceClosing: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Every error that a request can meet. What is not here is a defect and becomes 500 `internal_error`."""

_HTTP_ERRORS = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing at {path}. The operations are listed at /docs."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", "{path} takes no {method}, only {allowed}; see /docs."),
}
"""What the router itself refuses, on any path."""
_INTERNAL_ERROR = "internal_error"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One problem, ready to be sent."""

    status: HTTPStatus
    code: str
    detail: str

    def response(self, headers: dict[str, str] | None = None) -> Response:
        """The answer that tells it. It is never stored by caches: it may speak of the picture."""
        shared = {"Cache-Control": "no-store"}
        return Response(orjson.dumps(self.body()), self.status, shared | (headers or {}), media_type=MEDIA_TYPE)

    def body(self) -> dict[str, Any]:
        """RFC 9457's members, and `code`."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "code": self.code,
        }


def problem_of(error: Exception) -> Problem:
    """The problem that an error becomes; one without an entry in the table becomes `internal_error`."""
    status = STATUS_BY_ERROR.get(type(error)) if isinstance(error, ArcFaceError) else None
    if status is None or not isinstance(error, ArcFaceError):
        return _internal_error()
    return Problem(status, error.code, str(error))


def answering(handler: Handler) -> Handler:
    """The handler, with every error that it can meet told as a problem.

    Left to the server, an unexpected exception also closes the connection, and the caller's next request on it fails.
    """

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except ArcFaceError as error:
            return answer_to(error)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)  # never sent: nobody is there to read it
        except asyncio.CancelledError:
            if has_left(request.scope):
                return Response(status_code=HTTPStatus.BAD_REQUEST)  # as above
            # nothing else cancels a request but the end of the grace period
            closing = errors.ServiceClosing("The service was shut down before it could answer. Send it again.")
            return problem_of(closing).response({"Connection": "close", "Retry-After": "1"})
        except Exception:  # noqa: BLE001  # any defect: it is logged, and the caller is told
            _log.exception("A defect in %s %s:", request.method, request.url.path)
            return _internal_error().response()

    return guarded


class ProblemRoute(APIRoute):
    """A route whose errors become problems."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, guarded."""
        return answering(super().get_route_handler())


def install(app: FastAPI) -> None:
    """Make what the router itself refuses a problem; `answering` sees to everything behind it."""

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # it is registered for this class
        status = HTTPStatus(error.status_code)
        headers = dict(error.headers or {})
        code, sentence = _HTTP_ERRORS.get(status, ("http_error", "{method} {path} was refused; see /docs."))
        detail = sentence.format(method=request.method, path=request.url.path, allowed=headers.get("Allow", ""))
        return Problem(status, code, detail).response(headers)

    app.add_exception_handler(HTTPException, on_http_exception)


def answer_to(error: ArcFaceError) -> Response:
    """The answer to a request that met an error; what the operator should know is logged."""
    problem = problem_of(error)
    if isinstance(error, errors.DeadlineExceeded | errors.TooManyConnections):
        _log.info("%s: %s", problem.code, error)  # callers may ask for less time than anything takes, or come in crowds
    elif problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("%s: %s", problem.code, error, exc_info=error.__cause__ or problem.code == _INTERNAL_ERROR)
    headers: dict[str, str] = {}
    if isinstance(error, errors.QueueFull | errors.UploadsFull | errors.TooManyConnections):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.ServiceClosing):
        headers["Retry-After"] = "1"
    if isinstance(error, errors.UploadStalled):
        headers["Connection"] = "close"  # the rest of its body must not be read as a request
    return problem.response(headers)


def openapi_responses(raised: Iterable[type[ArcFaceError]]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for an operation that can meet these errors, and a defect of ours."""
    codes: dict[HTTPStatus, dict[str, str]] = {HTTPStatus.INTERNAL_SERVER_ERROR: {_INTERNAL_ERROR: "A defect."}}
    for error in raised:
        codes.setdefault(STATUS_BY_ERROR[error], {})[error.code] = (error.__doc__ or "").strip()
    return {int(status): _openapi_response(status, described) for status, described in sorted(codes.items())}


def problem_schema(codes: Iterable[str], status: HTTPStatus | None = None) -> dict[str, Any]:
    """The JSON schema of a problem with one of these codes, and this status where there is only one."""
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "const": "about:blank"},
            "title": {"type": "string"} | ({"const": status.phrase} if status else {}),
            "status": {"type": "integer"} | ({"const": int(status)} if status else {}),
            "detail": {"type": "string", "description": "What was wrong, what is allowed, what to do."},
            "code": {"type": "string", "enum": sorted(codes)},
        },
    }


def _openapi_response(status: HTTPStatus, described: dict[str, str]) -> dict[str, Any]:
    return {
        "description": "\n".join(f"- `{code}`: {meaning}" for code, meaning in described.items()),
        "content": {MEDIA_TYPE: {"schema": problem_schema(described, status)}},
    }


def _internal_error() -> Problem:
    detail = "The service met a defect of its own; its log tells more. Other requests are not affected."
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL_ERROR, detail)
