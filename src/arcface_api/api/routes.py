"""The HTTP operations: what each reads, does and answers."""

import time
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from arcface_api import errors, wire
from arcface_api.api import upload
from arcface_api.api.answers import EmbedAnswer, HealthAnswer, InfoAnswer, StatusAnswer
from arcface_api.api.health import Health
from arcface_api.api.options import OPENAPI_PARAMETERS, EmbedOptions, read_options
from arcface_api.api.problems import ProblemRoute, openapi_responses
from arcface_api.embedder import Attributes, Embedded, Embedder

EMBED_ERRORS = (
    errors.BodyTooLarge,
    errors.ContentTypeUnsupported,
    errors.MultipartMalformed,
    errors.FileMissing,
    errors.FileRepeated,
    errors.ParameterInvalid,
    errors.ParametersConflict,
    errors.NotAcceptable,
    errors.ImageEmpty,
    errors.ImageFormatUnsupported,
    errors.ImageTooManyPixels,
    errors.ImageDamaged,
    errors.AttributesUnavailable,
    errors.EmbeddingInvalid,
    errors.ModelFailed,
    errors.ServiceClosing,
)
"""Every error that `POST /embed` can answer with."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_EMBED_OPENAPI: dict[str, Any] = {
    "parameters": OPENAPI_PARAMETERS,
    "requestBody": {
        "required": True,
        "content": {
            upload.FORM_TYPE: {
                "schema": {
                    "type": "object",
                    "required": [upload.PART_NAME],
                    "properties": {
                        upload.PART_NAME: {
                            "type": "string",
                            "format": "binary",
                            "description": "One face crop: JPEG, PNG or WebP, any size.",
                        }
                    },
                }
            },
            **dict.fromkeys(upload.RAW_TYPES, _BINARY),
        },
    },
}
_EMBED_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": EmbedAnswer,
        "description": "The embedding.",
        # JSON first: Swagger UI asks for the first one
        "content": {wire.MediaType.JSON: {}, wire.MediaType.NPY: _BINARY, wire.MediaType.BYTES: _BINARY},
        "headers": {
            name: {"schema": {"type": kind}, "description": description}
            for name, kind, description in (
                (wire.MODEL_FINGERPRINT_HEADER, "string", "Embeddings may be compared only if it is equal."),
                (wire.EMBEDDING_NORM_HEADER, "number", "Length of the raw embedding."),
                (wire.SERVER_TIMING_HEADER, "string", "Milliseconds per stage."),
            )
        },
    },
    **openapi_responses(EMBED_ERRORS),
}


def build_router(embedder: Embedder, health: Health, info: InfoAnswer, max_image_bytes: int) -> APIRouter:
    """The service's operations, bound to what they work on."""
    router = APIRouter(route_class=ProblemRoute)
    recogniser = embedder.recogniser
    about_model = {
        "embedding_shape": [recogniser.dim],
        "embedding_dim": recogniser.dim,
        "model": recogniser.name,
        "input_size": f"{recogniser.spec.width}x{recogniser.spec.height}",
    }
    info_json = info.model_dump_json()

    @router.post(
        "/embed",
        summary="Embed one face crop",
        response_class=Response,
        responses=_EMBED_RESPONSES,
        openapi_extra=_EMBED_OPENAPI,
        tags=["embedding"],
    )
    async def embed(request: Request) -> Response:
        """A picture of one already-cropped face in, its embedding out. The picture is stretched to the model's size."""
        started = time.perf_counter()
        options = read_options(request.query_params, request.headers.get("accept", ""))
        content = await upload.read_image(request, max_image_bytes)
        received = time.perf_counter()
        embedded = await embedder.embed(
            content, include_attributes=options.include_attributes, normalize=options.normalize
        )
        body = _embed_body(about_model, embedded, options)
        stages = {"receive": (received - started) * 1000, **embedded.stages}
        stages["total"] = (time.perf_counter() - started) * 1000
        headers = {
            wire.MODEL_FINGERPRINT_HEADER: recogniser.fingerprint,
            wire.EMBEDDING_NORM_HEADER: f"{embedded.norm:.9g}",
            wire.SERVER_TIMING_HEADER: ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in stages.items()),
            "Cache-Control": "no-store",
            "Vary": "Accept",
        }
        return Response(body, headers=headers, media_type=options.media_type)

    @router.get(
        "/health",
        summary="Can the service embed?",
        response_model=HealthAnswer,
        responses={503: {"model": HealthAnswer, "description": "The service cannot embed; `reason` says why."}},
        tags=["operation"],
    )
    async def get_health() -> Response:
        """A real inference has succeeded in the last seconds; where none has, one is run now."""
        why_not = await health.why_not()
        session = recogniser.session
        answer = HealthAnswer(
            status="failing" if why_not else "ok",
            pack=info.pack,
            model=recogniser.name,
            provider=session.provider,
            precision=session.precision,
            reason=why_not or session.reason,
        )
        return _probe_answer(answer.model_dump(), is_well=why_not is None)

    @router.get("/livez", summary="Is the process alive?", response_model=StatusAnswer, tags=["operation"])
    async def livez() -> Response:
        """Answers as long as the event loop turns; never waits for a model."""
        return _probe_answer({"status": "alive", "reason": None}, is_well=True)

    @router.get(
        "/readyz",
        summary="Should requests be sent here?",
        response_model=StatusAnswer,
        responses={503: {"model": StatusAnswer, "description": "Not now; `reason` says why."}},
        tags=["operation"],
    )
    async def readyz() -> Response:
        """As `/health`, in the form that orchestrators expect."""
        why_not = await health.why_not()
        return _probe_answer(
            {"status": "not ready" if why_not else "ready", "reason": why_not}, is_well=why_not is None
        )

    @router.get("/info", summary="Which model, files, limits?", response_model=InfoAnswer, tags=["operation"])
    async def get_info() -> Response:
        """What a caller may want to write down beside its vectors."""
        return Response(info_json, media_type="application/json")

    @router.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("docs")

    return router


def _embed_body(about_model: dict[str, Any], embedded: Embedded, options: EmbedOptions) -> bytes:
    if options.media_type is wire.MediaType.NPY:
        return wire.embedding_npy(embedded.embedding)
    if options.media_type is wire.MediaType.BYTES:
        return wire.embedding_bytes(embedded.embedding)
    body = about_model
    if embedded.attributes is not None:
        body = {**about_model, "attributes": _attributes_body(embedded.attributes)}
    return wire.embedding_json(body, embedded.embedding, options.encoding)


def _attributes_body(attributes: Attributes) -> dict[str, Any]:
    pose = attributes.head_pose
    return {
        "age": attributes.age_gender.age,
        "gender": attributes.age_gender.gender,
        "pose": {"yaw": round(pose.yaw, 4), "pitch": round(pose.pitch, 4), "roll": round(pose.roll, 4)},
    }


def _probe_answer(body: dict[str, Any], *, is_well: bool) -> Response:
    status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(orjson.dumps(body), status, {"Cache-Control": "no-store"}, media_type="application/json")
