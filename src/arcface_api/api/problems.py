"""The HTTP status of every error, in one table from which answers and OpenAPI are made.

A problem is RFC 9457's `application/problem+json`; `title` and `status` are HTTP's, `code` is for programs, which
have to expect codes that they do not know (docs/compatibility.md).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Self

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from arcface_api import errors
from arcface_api.api.connections import has_left
from arcface_api.errors import ArcFaceError

MEDIA_TYPE = "application/problem+json"
CODE = "arcface_api.code"
"""Key in an ASGI scope: the code of the problem that answers its request."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_ERRORS_BY_STATUS: dict[HTTPStatus, tuple[type[ArcFaceError], ...]] = {
    HTTPStatus.BAD_REQUEST: (errors.RequestMalformed, errors.MultipartMalformed, errors.JsonMalformed),
    HTTPStatus.UNAUTHORIZED: (errors.Unauthenticated,),
    HTTPStatus.FORBIDDEN: (errors.Forbidden, errors.ClientCertificateMissing),
    HTTPStatus.NOT_ACCEPTABLE: (errors.NotAcceptable,),
    HTTPStatus.REQUEST_TIMEOUT: (errors.UploadStalled,),
    HTTPStatus.CONFLICT: (errors.FingerprintDiffers, errors.RecipeDiffers),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (errors.BodyTooLarge, errors.TooManyFiles, errors.ImageTooManyPixels),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (errors.ContentTypeUnsupported, errors.ImageFormatUnsupported),
    HTTPStatus.MISDIRECTED_REQUEST: (errors.HostNotAllowed,),
    HTTPStatus.UNPROCESSABLE_ENTITY: (
        errors.FileMissing,
        errors.ParameterInvalid,
        errors.ParametersConflict,
        errors.LandmarksInvalid,
        errors.AttributesUnavailable,
        errors.AlignmentUnavailable,
        errors.FileRepeated,
        errors.Base64Invalid,
        errors.ImageEmpty,
        errors.ImageDamaged,
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        errors.QueueFull,
        errors.UploadsFull,
        errors.RateLimited,
        errors.TooManyConnectionsFromAddress,
    ),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (errors.RequestHeadTooLarge,),
    HTTPStatus.INTERNAL_SERVER_ERROR: (errors.EmbeddingInvalid, errors.ModelFailed),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        errors.TooManyConnections,
        errors.DeadlineExceeded,
        errors.ServiceClosing,
        errors.VectorsDrifted,
    ),
}
STATUS_BY_ERROR = {error: status for status, group in _ERRORS_BY_STATUS.items() for error in group}
"""Every error that a request can meet. Any other is a defect and becomes 500 `internal_error`."""
_STATUS_BY_CODE = {error.code: status for error, status in STATUS_BY_ERROR.items()}

_TITLES = {
    HTTPStatus.BAD_REQUEST: "Bad Request",
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.FORBIDDEN: "Forbidden",
    HTTPStatus.NOT_FOUND: "Not Found",
    HTTPStatus.METHOD_NOT_ALLOWED: "Method Not Allowed",
    HTTPStatus.NOT_ACCEPTABLE: "Not Acceptable",
    HTTPStatus.REQUEST_TIMEOUT: "Request Timeout",
    HTTPStatus.CONFLICT: "Conflict",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Request Entity Too Large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Unsupported Media Type",
    HTTPStatus.MISDIRECTED_REQUEST: "Misdirected Request",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Entity",
    HTTPStatus.TOO_MANY_REQUESTS: "Too Many Requests",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "Request Header Fields Too Large",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Internal Server Error",
    HTTPStatus.SERVICE_UNAVAILABLE: "Service Unavailable",
}
"""A problem's `title`, part of the contract. Python's own phrases differ between its versions."""
INTERNAL_ERROR = "internal_error"
_ROUTER_ERRORS = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing at {path}. The operations are listed at {prefix}/docs."),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method_not_allowed",
        "{path} takes no {method}, only {allowed}; see {prefix}/docs.",
    ),
}
_UNKNOWN_ROUTER_ERROR = ("http_error", "{method} {path} was refused; see {prefix}/docs.")
CODES = frozenset(
    {
        *(error.code for error in STATUS_BY_ERROR),
        *(code for code, _ in _ROUTER_ERRORS.values()),
        _UNKNOWN_ROUTER_ERROR[0],
        INTERNAL_ERROR,
    }
)
"""All codes of this version."""

_CAUSED_BY_CALLERS = errors.DeadlineExceeded | errors.TooManyConnections | errors.TooManyConnectionsFromAddress
"""By a short X-Request-Timeout, or by their number. The log has them as information."""

_log = logging.getLogger(__name__)


class ProblemAnswer(BaseModel):
    """An error in the form of RFC 9457."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unsupported Media Type"])
    status: int = Field(examples=[415])
    detail: str = Field(description="What was wrong, what is allowed, what to do.")
    code: str = Field(
        description="For programs: what was wrong. Codes keep their meaning, and later versions may have more.",
        examples=sorted(CODES),
    )

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The problem that an error becomes."""
        code = code_of(error)
        return cls.made(_STATUS_BY_CODE.get(code, HTTPStatus.INTERNAL_SERVER_ERROR), code, sentence_of(error))

    @classmethod
    def made(cls, status: HTTPStatus, code: str, detail: str) -> Self:
        """The problem with these members."""
        title = _TITLES.get(status, "Error")
        return cls(type="about:blank", title=title, status=int(status), detail=detail, code=code)

    def response(self, headers: dict[str, str] | None = None) -> Response:
        """The answer. Caches never store it, as it may describe the picture."""
        headers = {"Cache-Control": "no-store"} | (headers or {})
        return Response(orjson.dumps(self.model_dump()), self.status, headers, media_type=MEDIA_TYPE)


class ProblemRoute(APIRoute):
    """A route whose errors become problems."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, with every error that it can meet answered."""
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as in `DirectApp`
                return answer_failed(request, error)

        return answered


def code_of(error: BaseException) -> str:
    """The code of the problem that an error becomes."""
    return error.code if isinstance(error, ArcFaceError) and type(error) in STATUS_BY_ERROR else INTERNAL_ERROR


def is_internal(error: BaseException) -> bool:
    """Whether no caller may see its text: it is a defect, or what a runtime or the system says, with paths perhaps."""
    if code_of(error) == INTERNAL_ERROR:
        return True
    return isinstance(error, errors.ServiceFailed) and (error.__cause__ is not None or hasattr(error, "reference"))


def reported(error: BaseException) -> str:
    """Log an internal error, unless it was logged, and return the reference under which the log describes it."""
    is_logged = hasattr(error, "reference")
    reference = errors.reference_of(error)
    if not is_logged:
        _log.error(f"{code_of(error)} (reference %s):", reference, exc_info=error)
    return reference


def sentence_of(error: BaseException) -> str:
    """What a caller may read of an error."""
    if not is_internal(error):
        return str(error)
    what = "The model failed on this request"
    if code_of(error) == INTERNAL_ERROR:
        what = "The service met a defect of its own; other requests are not affected"
    return (
        f"{what}. Send it again; if it fails again, give the operator the reference {reported(error)}, under which the"
        " service's log says why."
    )


def answer_failed(request: Request, error: BaseException) -> Response:
    """The answer to a request whose operation raised this.

    An unexpected exception that reached the server would also close the connection, and the caller's next request on it
    would fail.
    """
    if isinstance(error, ArcFaceError):
        request.scope[CODE] = code_of(error)
        return answer_to(error)
    is_cancelled = isinstance(error, asyncio.CancelledError)
    if isinstance(error, ClientDisconnect) or (is_cancelled and has_left(request.scope)):
        return Response(status_code=HTTPStatus.BAD_REQUEST)  # never sent: nobody is there to read it
    if is_cancelled:  # only the end of the grace period cancels other requests
        request.scope[CODE] = errors.ServiceClosing.code
        closing = errors.ServiceClosing("The service was shut down before it could answer. Send it again.")
        return ProblemAnswer.of(closing).response({"Connection": "close", "Retry-After": "1"})
    request.scope[CODE] = INTERNAL_ERROR
    return ProblemAnswer.of(error).response()


def install(app: FastAPI) -> None:
    """Use `ProblemRoute`, and make problems of what the framework's router itself refuses."""

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # it is registered for this class
        status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
        code, sentence = _ROUTER_ERRORS.get(status, _UNKNOWN_ROUTER_ERROR)
        request.scope[CODE] = code
        prefix, allowed = request.scope.get("root_path", ""), headers.get("Allow", "")
        detail = sentence.format(method=request.method, path=request.url.path, allowed=allowed, prefix=prefix)
        return ProblemAnswer.made(status, code, detail).response(headers)

    app.router.route_class = ProblemRoute
    app.add_exception_handler(HTTPException, on_http_exception)


def answer_to(error: ArcFaceError) -> Response:
    """The answer to a request that met an error. What the operator should know is logged."""
    problem = ProblemAnswer.of(error)
    if isinstance(error, _CAUSED_BY_CALLERS):
        _log.info(f"{problem.code}: %s", error)
    elif isinstance(error, errors.VectorsDrifted):
        _log.debug("%s: %s", problem.code, error)  # the self-check has logged what drifted
    elif problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not hasattr(error, "reference"):
        _log.error(f"{problem.code}: %s", error)
    headers = {"Retry-After": str(error.retry_after_seconds)} if hasattr(error, "retry_after_seconds") else {}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.UploadStalled):
        headers["Connection"] = "close"  # the rest of its body must not be read as a request
    elif isinstance(error, errors.VectorsDrifted):
        headers["Connection"] = "close"  # the next connection may reach another worker
    return problem.response(headers)
