"""The HTTP operations: what each reads, does and answers."""

import time
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from arcface_api import wire
from arcface_api.api import upload
from arcface_api.api.answers import HealthAnswer, InfoAnswer, StatusAnswer
from arcface_api.api.bodies import batch_body, embed_body
from arcface_api.api.health import Health
from arcface_api.api.landmarks import pictures_of
from arcface_api.api.openapi import BATCH_OPENAPI, BATCH_RESPONSES, EMBED_OPENAPI, EMBED_RESPONSES
from arcface_api.api.options import OptionReader
from arcface_api.api.problems import ProblemRoute
from arcface_api.api.receiving import Uploads
from arcface_api.embedder import Embedded, Embedder


def build_router(
    embedder: Embedder,
    health: Health,
    info: InfoAnswer,
    limits: upload.UploadLimits,
    uploads: Uploads,
    reader: OptionReader,
) -> APIRouter:
    """The service's operations, bound to what they work on."""
    router = APIRouter(route_class=ProblemRoute)
    recogniser = embedder.recogniser
    about_model = {
        "embedding_dim": recogniser.dim,
        "model": recogniser.name,
        "input_size": f"{recogniser.spec.width}x{recogniser.spec.height}",
    }

    def answer(body: bytes, media_type: wire.MediaType, stages: dict[str, float], headers: dict[str, str]) -> Response:
        timing = ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in stages.items())
        shared = {
            wire.MODEL_FINGERPRINT_HEADER: recogniser.fingerprint,
            wire.SERVER_TIMING_HEADER: timing,
            "Cache-Control": "no-store",
            "Vary": "Accept",
        }
        return Response(body, headers=shared | headers, media_type=media_type)

    @router.post(
        "/embed",
        summary="Embed one face crop",
        response_class=Response,
        responses=EMBED_RESPONSES,
        openapi_extra=EMBED_OPENAPI,
        tags=["embedding"],
    )
    async def embed(request: Request) -> Response:
        """A picture of one already-cropped face in, its embedding out."""
        started = time.perf_counter()
        options = reader.read(request)
        embedder.check_room()
        with uploads.one(options.embed.deadline) as admission:
            uploaded = await upload.read_image(request, limits, admission)
            (picture,) = pictures_of(uploaded, options.embed.align, is_batch=False)
            received = time.perf_counter()
            embedded = await embedder.embed(picture, options.embed)
        body = embed_body({"embedding_shape": [recogniser.dim], **about_model}, embedded, options)
        stages = {"receive": (received - started) * 1000, **embedded.stages}
        stages["total"] = (time.perf_counter() - started) * 1000
        about_run = {
            wire.EMBEDDING_NORM_HEADER: f"{embedded.norm:.9g}",
            wire.BATCH_SIZE_HEADER: str(embedded.batch_size),
            wire.ALIGNMENT_HEADER: embedded.alignment.value,
        }
        if embedded.warnings:
            about_run[wire.WARNINGS_HEADER] = ", ".join(embedded.warnings)
        return answer(body, options.media_type, stages, about_run)

    @router.post(
        "/embed/batch",
        summary="Embed many face crops",
        response_class=Response,
        responses=BATCH_RESPONSES,
        openapi_extra=BATCH_OPENAPI,
        tags=["embedding"],
    )
    async def embed_batch(request: Request) -> Response:
        """Many pictures in, in their order an embedding or a problem for each: one bad crop costs only itself."""
        started = time.perf_counter()
        options = reader.read(request)
        embedder.check_room()
        with uploads.one(options.embed.deadline) as admission:
            uploaded = await upload.read_images(request, limits, admission)
            received = time.perf_counter()
            pictures = pictures_of(uploaded, options.embed.align, is_batch=True)
            embedded = iter(await embedder.embed_many(pictures, options.embed))
        results = [next(embedded) if isinstance(image, bytes) else image for image in uploaded.images]
        about_run = {
            wire.EMBEDDING_VALID_HEADER: "".join("1" if isinstance(each, Embedded) else "0" for each in results),
            wire.ALIGNMENT_HEADER: ", ".join(
                each.alignment.value if isinstance(each, Embedded) else "-" for each in results
            ),
        }
        return answer(
            batch_body(about_model, results, options, recogniser.dim),
            options.media_type,
            {"receive": (received - started) * 1000, "total": (time.perf_counter() - started) * 1000},
            about_run,
        )

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
            threads=session.threads,
            batch_sizes=list(session.batch_sizes),
            self_test_cosine=recogniser.self_test_cosine,
            reason=why_not or recogniser.reason,
        )
        return _probe_answer(answer.model_dump(), is_well=why_not is None)

    @router.get(
        "/livez",
        summary="Is the process alive?",
        response_model=StatusAnswer,
        responses={503: {"model": StatusAnswer, "description": "Something hangs; the process is about to end."}},
        tags=["operation"],
    )
    async def livez() -> Response:
        """Answers at once; never waits for a model. 503 only where a decode or an inference does not end."""
        why = health.why_hung
        return _probe_answer({"status": "hung" if why else "alive", "reason": why}, is_well=why is None)

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
        return Response(info.model_dump_json(), media_type="application/json")

    for path, answering in (("/health", get_health), ("/livez", livez), ("/readyz", readyz), ("/info", get_info)):
        router.add_api_route(path, answering, methods=["HEAD"], include_in_schema=False)  # as uptime monitors ask

    @router.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("docs")

    return router


def _probe_answer(body: dict[str, Any], *, is_well: bool) -> Response:
    status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(wire.json_bytes(body), status, {"Cache-Control": "no-store"}, media_type="application/json")
