"""OpenAPI's description of the two operations that read their requests and write their answers themselves."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel

from arcface_api import errors, wire
from arcface_api.api import json_bodies, upload
from arcface_api.api.answers import BatchAnswer, EmbedAnswer
from arcface_api.api.options import OPENAPI_PARAMETERS
from arcface_api.api.problems import INTERNAL_ERROR, MEDIA_TYPE, STATUS_BY_ERROR, ProblemAnswer

_ONE_PICTURE_ERRORS = {
    errors.Base64Invalid,
    errors.ImageEmpty,
    errors.ImageFormatUnsupported,
    errors.ImageTooManyPixels,
    errors.ImageDamaged,
    errors.EmbeddingInvalid,
    errors.ModelFailed,
}
"""Never the answer of a whole batch: each can be one of its results."""
EMBED_ERRORS = [error for error in STATUS_BY_ERROR if error is not errors.TooManyFiles]
BATCH_ERRORS = [error for error in STATUS_BY_ERROR if error not in _ONE_PICTURE_ERRORS]
"""Every error that the operation as a whole can answer with."""

_RETRIED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_RETRY_AFTER = (
    "Seconds after which to send the request again; with `queue_full`, when the present queue will be served. Not with"
    " `deadline_exceeded`."
)

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURE = {"type": "string", "format": "binary", "description": "One face crop: JPEG, PNG or WebP, any size."}
_BASE64 = {"type": "string", "format": "byte", "description": "One face crop as base64, or a `data:` URL of it."}
_POINTS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
_LANDMARKS = (
    "With `align=landmarks`: left eye, right eye, nose tip, left and right mouth corner, each x, y in pixels of the"
    " upright picture; left is the left side of the picture. As JSON, for example"
)


SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"header": []}]
"""None, or a key in one of two headers: whether a service asks for it is its operator's choice."""
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, where the service asks for one."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, in another way."},
}


def describe_keys(framework: FastAPI) -> None:
    """Describe how keys are sent, so that `/docs` has a button for them."""
    describe = framework.openapi

    def with_schemes() -> dict[str, Any]:
        document = describe()
        document["components"]["securitySchemes"] = _SCHEMES
        return document

    framework.openapi = with_schemes  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _form(part: str, schema: dict[str, Any], landmarks: str) -> dict[str, Any]:
    # Plain text, by default empty, which counts as left out. Swagger UI fills in and sends arrays of the least length,
    # strings that say "string" and examples, and asks for a file where there is a media type.
    text = {"type": "string", "default": "", "description": landmarks}
    parts = {part: schema, json_bodies.LANDMARKS: text}
    return {"schema": {"type": "object", "required": [part], "properties": parts}}


def _json(key: str, schema: dict[str, Any], landmarks: dict[str, Any]) -> dict[str, Any]:
    keys = {key: schema, json_bodies.LANDMARKS: landmarks | {"description": "As in the form, but not as text."}}
    return {"schema": {"type": "object", "required": [key], "properties": keys, "additionalProperties": False}}


def _problems(raised: Iterable[type[errors.ArcFaceError]]) -> dict[int | str, dict[str, Any]]:
    """The responses to these errors, and to a defect of the service: the documented codes of each are its examples.

    No schema lists them, because later versions have more, on which a generated client must not fail.
    """
    by_status = {HTTPStatus.INTERNAL_SERVER_ERROR: {INTERNAL_ERROR: "A defect of the service."}}
    for error in raised:
        by_status.setdefault(STATUS_BY_ERROR[error], {})[error.code] = (error.__doc__ or "").strip()
    responses: dict[int | str, dict[str, Any]] = {}
    for status, meanings in sorted(by_status.items()):
        problems = {code: ProblemAnswer.made(status, code, meaning) for code, meaning in sorted(meanings.items())}
        retried = {"Retry-After": _header("integer", _RETRY_AFTER)} if status in _RETRIED else {}
        responses[int(status)] = {
            "description": "\n".join(f"- `{code}`: {meaning}" for code, meaning in meanings.items()),
            **({"headers": retried} if retried else {}),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": f"#/components/schemas/{ProblemAnswer.__name__}"},
                    "examples": {code: {"value": problem.model_dump()} for code, problem in problems.items()},
                }
            },
        }
    return responses


def _header(kind: str, says: str) -> dict[str, Any]:
    return {"schema": {"type": kind}, "description": says}


def _operation(
    content: dict[str, Any],
    answer: type[BaseModel],
    headers: dict[str, tuple[str, str]],
    raised: Iterable[type[errors.ArcFaceError]],
) -> dict[str, Any]:
    """The arguments with which FastAPI describes an operation."""
    headers = {
        wire.MODEL_FINGERPRINT_HEADER: (
            "string",
            "Names the vector space: two embeddings may be compared only if theirs are equal.",
        ),
        wire.RECIPE_HEADER: (
            "string",
            "Store it beside the vector: two embeddings compare well only if theirs are equal. `/info` spells it out.",
        ),
        wire.SERVER_TIMING_HEADER: (
            "string",
            "Milliseconds of `receive`, `decode`, `crop`, `queue`, `inference`, `attributes` and `total`. `crop`"
            " includes alignment and quality; `total` also includes the time between the stages.",
        ),
        wire.REQUEST_ID_HEADER: (
            "string",
            "The request's own, or a new one, of every answer. Keep it for questions to the operator.",
        ),
        "traceresponse": (
            "string",
            "The trace and span of the request, if the service traces it; the last digit is odd if it is recorded.",
        ),
        "Keep-Alive": (
            "string",
            "`timeout=75`: seconds for which this connection stays open without a request"
            " (`ARCFACE_KEEP_ALIVE_SECONDS`).",
        ),
    } | headers
    done = {
        "model": answer,
        "description": "Done.",
        # JSON first: Swagger UI asks for the first one
        "content": {wire.MediaType.JSON: {}, wire.MediaType.NPY: _BINARY, wire.MediaType.BYTES: _BINARY},
        "headers": {name: _header(kind, says) for name, (kind, says) in headers.items()},
    }
    return {
        "response_class": Response,
        "responses": {200: done, **_problems(raised)},
        "openapi_extra": {
            "parameters": OPENAPI_PARAMETERS,
            "requestBody": {"required": True, "content": content},
            "security": SECURITY,
        },
        "tags": ["embedding"],
    }


GUARDED: dict[str, Any] = {
    "responses": _problems([errors.Unauthenticated, errors.HostNotAllowed]),
    "openapi_extra": {"security": SECURITY},
}
"""Of the operations behind a key that FastAPI serves."""
EMBED = _operation(
    {
        upload.FORM_TYPE: _form(upload.PART_NAME, _PICTURE, f"{_LANDMARKS} `{json_bodies.LANDMARKS_EXAMPLE}`."),
        **dict.fromkeys(upload.RAW_TYPES, _BINARY),
        json_bodies.JSON_TYPE: _json(json_bodies.IMAGE_KEY, _BASE64, _POINTS),
    },
    EmbedAnswer,
    {
        wire.EMBEDDING_NORM_HEADER: (
            "number",
            "Length of the raw embedding, even if the body is normalised; with `flip=true`, of the sum of two, so about"
            " twice as long.",
        ),
        wire.ALIGNMENT_HEADER: (
            "string",
            "How the picture was aligned: `none` (not asked for), `auto`, `landmarks`, or `unsure` (`auto` was asked"
            " for, but the landmarks were too uncertain, so the picture was not aligned).",
        ),
        wire.WARNINGS_HEADER: (
            "string",
            "Codes of what may be wrong with the picture, separated by commas; absent if there are none.",
        ),
        wire.BATCH_SIZE_HEADER: ("integer", "How many crops ran in the same batch, those of other callers included."),
    },
    EMBED_ERRORS,
)
BATCH = _operation(
    {
        upload.FORM_TYPE: _form(
            upload.BATCH_PART_NAME,
            {"type": "array", "minItems": 1, "items": _PICTURE},
            f"{_LANDMARKS} `[{json_bodies.LANDMARKS_EXAMPLE},…]`: those of each file, in order.",
        ),
        json_bodies.JSON_TYPE: _json(
            json_bodies.IMAGES_KEY,
            {"type": "array", "minItems": 1, "items": _BASE64},
            {"type": "array", "items": _POINTS},
        ),
    },
    BatchAnswer,
    {
        wire.ALIGNMENT_HEADER: (
            "string",
            "One word for each picture, separated by commas; `-` if it has no embedding.",
        ),
        wire.RECIPE_HEADER: (
            "string",
            "The recipe of each alignment that occurs: `auto=3f0c7a5be2d41968, unsure=b85e1c0d9a7f2643`.",
        ),
        wire.EMBEDDING_VALID_HEADER: (
            "string",
            "One digit for each picture: 1 if it has an embedding, 0 if npy or bytes have NaN in its row.",
        ),
        wire.WARNINGS_HEADER: (
            "string",
            "Each code with the places of its pictures, from 0: `truncated=2 5, upscaled=0`; absent if there are none.",
        ),
        wire.SERVER_TIMING_HEADER: ("string", "Milliseconds of `receive` and `total`."),
    },
    BATCH_ERRORS,
)
