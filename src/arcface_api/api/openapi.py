"""OpenAPI's description of the two operations that read their requests and write their answers themselves."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import Response
from pydantic import BaseModel

from arcface_api import errors, wire
from arcface_api.api import upload
from arcface_api.api.answers import BatchAnswer, EmbedAnswer
from arcface_api.api.options import OPENAPI_PARAMETERS
from arcface_api.api.problems import INTERNAL_ERROR, MEDIA_TYPE, STATUS_BY_ERROR

_ONE_PICTURE_ERRORS = {
    errors.FileRepeated,
    errors.ImageEmpty,
    errors.ImageFormatUnsupported,
    errors.ImageTooManyPixels,
    errors.ImageDamaged,
    errors.EmbeddingInvalid,
    errors.ModelFailed,
}
"""Never the answer of a whole batch: all but the first can be one of its results."""
EMBED_ERRORS = [error for error in STATUS_BY_ERROR if error is not errors.TooManyFiles]
BATCH_ERRORS = [error for error in STATUS_BY_ERROR if error not in _ONE_PICTURE_ERRORS]
"""Every error that the operation as a whole can answer with."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURE = {"type": "string", "format": "binary", "description": "One face crop: JPEG, PNG or WebP, any size."}
_LANDMARKS = (
    "With `align=landmarks`: left eye, right eye, nose tip, left and right mouth corner, each x, y in pixels of the"
    " upright picture; left is the left side of the picture. As JSON, for example"
)


def _form(part: str, schema: dict[str, Any], landmarks: str) -> dict[str, Any]:
    # Plain text, by default empty, which counts as left out. Swagger UI fills in and sends arrays of the least length,
    # strings that say "string" and examples, and asks for a file where there is a media type.
    text = {"type": "string", "default": "", "description": landmarks}
    parts = {part: schema, upload.LANDMARKS_PART_NAME: text}
    return {"schema": {"type": "object", "required": [part], "properties": parts}}


def _problems(raised: Iterable[type[errors.ArcFaceError]]) -> dict[int | str, dict[str, Any]]:
    """The responses to these errors, and to a defect of the service."""
    by_status = {HTTPStatus.INTERNAL_SERVER_ERROR: {INTERNAL_ERROR: "A defect of the service."}}
    for error in raised:
        by_status.setdefault(STATUS_BY_ERROR[error], {})[error.code] = (error.__doc__ or "").strip()
    responses: dict[int | str, dict[str, Any]] = {}
    for status, meanings in sorted(by_status.items()):
        members = {
            "type": {"type": "string", "const": "about:blank"},
            "title": {"type": "string", "const": status.phrase},
            "status": {"type": "integer", "const": int(status)},
            "detail": {"type": "string", "description": "What was wrong, what is allowed, what to do."},
            "code": {"type": "string", "enum": sorted(meanings)},
        }
        responses[int(status)] = {
            "description": "\n".join(f"- `{code}`: {meaning}" for code, meaning in meanings.items()),
            "content": {MEDIA_TYPE: {"schema": {"type": "object", "required": [*members], "properties": members}}},
        }
    return responses


def _operation(
    content: dict[str, Any],
    answer: type[BaseModel],
    headers: dict[str, tuple[str, str]],
    raised: Iterable[type[errors.ArcFaceError]],
) -> dict[str, Any]:
    """The arguments with which FastAPI describes an operation."""
    headers = {
        wire.MODEL_FINGERPRINT_HEADER: ("string", "Embeddings may be compared only if it is equal."),
        wire.SERVER_TIMING_HEADER: ("string", "Milliseconds per stage."),
    } | headers
    done = {
        "model": answer,
        "description": "Done.",
        # JSON first: Swagger UI asks for the first one
        "content": {wire.MediaType.JSON: {}, wire.MediaType.NPY: _BINARY, wire.MediaType.BYTES: _BINARY},
        "headers": {name: {"schema": {"type": kind}, "description": says} for name, (kind, says) in headers.items()},
    }
    return {
        "response_class": Response,
        "responses": {200: done, **_problems(raised)},
        "openapi_extra": {"parameters": OPENAPI_PARAMETERS, "requestBody": {"required": True, "content": content}},
        "tags": ["embedding"],
    }


EMBED = _operation(
    {
        upload.FORM_TYPE: _form(upload.PART_NAME, _PICTURE, f"{_LANDMARKS} `{upload.LANDMARKS_EXAMPLE}`."),
        **dict.fromkeys(upload.RAW_TYPES, _BINARY),
    },
    EmbedAnswer,
    {
        wire.EMBEDDING_NORM_HEADER: ("number", "Length of the raw embedding; with `flip`, of the sum of two."),
        wire.ALIGNMENT_HEADER: ("string", f"How the picture was aligned: {', '.join(wire.Alignment)}."),
        wire.WARNINGS_HEADER: ("string", "Codes of what may be wrong with the picture, if there are any."),
        wire.BATCH_SIZE_HEADER: ("integer", "Size of the batch it ran in, together with crops of other callers."),
    },
    EMBED_ERRORS,
)
BATCH = _operation(
    {
        upload.FORM_TYPE: _form(
            upload.BATCH_PART_NAME,
            {"type": "array", "minItems": 1, "items": _PICTURE},
            f"{_LANDMARKS} `[{upload.LANDMARKS_EXAMPLE},…]`: those of each file, in order.",
        )
    },
    BatchAnswer,
    {
        wire.ALIGNMENT_HEADER: ("string", "As for /embed, one for each picture; `-` if it has no embedding."),
        wire.EMBEDDING_VALID_HEADER: ("string", "One digit for each picture, 0 if npy or bytes have NaN in its row."),
    },
    BATCH_ERRORS,
)
