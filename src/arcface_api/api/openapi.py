"""How OpenAPI describes the two operations that read their requests and write their answers themselves."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from arcface_api import errors, wire
from arcface_api.api import upload
from arcface_api.api.answers import BatchAnswer, EmbedAnswer
from arcface_api.api.landmarks import EXAMPLE
from arcface_api.api.options import OPENAPI_PARAMETERS
from arcface_api.api.problems import openapi_responses

SHARED_ERRORS = (
    errors.RequestMalformed,
    errors.RequestHeadTooLarge,
    errors.UploadStalled,
    errors.BodyTooLarge,
    errors.ContentTypeUnsupported,
    errors.MultipartMalformed,
    errors.FileMissing,
    errors.ParameterInvalid,
    errors.ParametersConflict,
    errors.NotAcceptable,
    errors.LandmarksInvalid,
    errors.AttributesUnavailable,
    errors.AlignmentUnavailable,
    errors.FingerprintDiffers,
    errors.QueueFull,
    errors.UploadsFull,
    errors.TooManyConnections,
    errors.DeadlineExceeded,
    errors.ServiceClosing,
)
PICTURE_ERRORS = (
    errors.ImageEmpty,
    errors.ImageFormatUnsupported,
    errors.ImageTooManyPixels,
    errors.ImageDamaged,
    errors.LandmarksInvalid,
    errors.EmbeddingInvalid,
    errors.ModelFailed,
    errors.DeadlineExceeded,
)
"""What one picture can meet: the answer of `/embed`, one entry among the results of `/embed/batch`."""
EMBED_ERRORS = (*SHARED_ERRORS, errors.FileRepeated, *PICTURE_ERRORS)
"""Every error that `POST /embed` can answer with."""
BATCH_ERRORS = (*SHARED_ERRORS, errors.TooManyFiles)
"""Every error that `POST /embed/batch` can answer with as a whole."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}


def _form(part: str, schema: dict[str, Any], landmarks: str) -> dict[str, Any]:
    # A string, empty by default (which counts as left out), and nothing else of its content: Swagger UI fills in arrays
    # of the least length, strings that say "string" and examples, sends them, and wants a file for a media type.
    text = {"type": "string", "default": "", "description": landmarks}
    parts = {part: schema, upload.LANDMARKS_PART_NAME: text}
    return {"schema": {"type": "object", "required": [part], "properties": parts}}


_PICTURE = {"type": "string", "format": "binary", "description": "One face crop: JPEG, PNG or WebP, any size."}
_LANDMARKS = (
    "With `align=landmarks`: left eye, right eye, nose tip, left and right mouth corner, each x, y in pixels of the"
    " upright picture; left is the left side of the picture. As JSON, for example"
)
EMBED_OPENAPI: dict[str, Any] = {
    "parameters": OPENAPI_PARAMETERS,
    "requestBody": {
        "required": True,
        "content": {
            upload.FORM_TYPE: _form(upload.PART_NAME, _PICTURE, f"{_LANDMARKS} `{EXAMPLE}`."),
            **dict.fromkeys(upload.RAW_TYPES, _BINARY),
        },
    },
}
BATCH_OPENAPI: dict[str, Any] = {
    "parameters": OPENAPI_PARAMETERS,
    "requestBody": {
        "required": True,
        "content": {
            upload.FORM_TYPE: _form(
                upload.BATCH_PART_NAME,
                {"type": "array", "minItems": 1, "items": _PICTURE},
                f"{_LANDMARKS} `[{EXAMPLE},…]`: those of each file, in order.",
            )
        },
    },
}


def _responses(
    answer: type[BaseModel], headers: dict[str, tuple[str, str]], raised: Iterable[type[errors.ArcFaceError]]
) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "model": answer,
            "description": "Done.",
            # JSON first: Swagger UI asks for the first one
            "content": {wire.MediaType.JSON: {}, wire.MediaType.NPY: _BINARY, wire.MediaType.BYTES: _BINARY},
            "headers": {
                name: {"schema": {"type": kind}, "description": description}
                for name, (kind, description) in headers.items()
            },
        },
        **openapi_responses(raised),
    }


_SHARED_HEADERS = {
    wire.MODEL_FINGERPRINT_HEADER: ("string", "Embeddings may be compared only if it is equal."),
    wire.SERVER_TIMING_HEADER: ("string", "Milliseconds per stage."),
}
_EMBED_HEADERS = {
    **_SHARED_HEADERS,
    wire.EMBEDDING_NORM_HEADER: ("number", "Length of the raw embedding; with `flip`, of the sum of two."),
    wire.ALIGNMENT_HEADER: ("string", f"What became of the alignment: {', '.join(wire.Alignment)}."),
    wire.WARNINGS_HEADER: ("string", "Codes of what may be wrong with the picture, where there are any."),
    wire.BATCH_SIZE_HEADER: ("integer", "Size of the batch it ran in, together with crops of other callers."),
}
_BATCH_HEADERS = {
    **_SHARED_HEADERS,
    wire.ALIGNMENT_HEADER: ("string", "As of /embed, one for each picture; `-` where it has no embedding."),
    wire.EMBEDDING_VALID_HEADER: ("string", "With npy or bytes: a digit for each picture, 0 where its row is all NaN."),
}

EMBED_RESPONSES = _responses(EmbedAnswer, _EMBED_HEADERS, EMBED_ERRORS)
BATCH_RESPONSES = _responses(BatchAnswer, _BATCH_HEADERS, BATCH_ERRORS)
