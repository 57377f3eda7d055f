"""The HTTP operations: what each reads, does and answers."""

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from arcface_api import wire
from arcface_api.api import openapi, upload
from arcface_api.api.answers import HealthAnswer, InfoAnswer, StatusAnswer, batch_body, embed_body
from arcface_api.api.health import Health
from arcface_api.api.options import OptionReader
from arcface_api.api.problems import ProblemRoute
from arcface_api.embedder import Embedded, Embedder, Picture


@dataclass(frozen=True)
class Operations:
    """The operations of one service. The docstring of each is its description in OpenAPI."""

    embedder: Embedder
    health: Health
    info: InfoAnswer
    reader: OptionReader
    limits: upload.UploadLimits
    uploads: upload.Uploads
    about_model: dict[str, Any]
    """`model_keys` of the answers."""

    def router(self) -> APIRouter:
        """All operations, described for OpenAPI and `/docs`."""
        router = APIRouter(route_class=ProblemRoute)
        router.post("/embed", summary="Embed one face crop", **openapi.EMBED)(self.embed)
        router.post("/embed/batch", summary="Embed many face crops", **openapi.BATCH)(self.embed_batch)
        for path, operation, summary, answer, failure in (
            ("/health", self.get_health, "Can the service embed?", HealthAnswer, "No; `reason` says why."),
            ("/livez", self.livez, "Is the process alive?", StatusAnswer, "Something hangs; the process will end."),
            ("/readyz", self.readyz, "Should requests be sent here?", StatusAnswer, "Not now; `reason` says why."),
            ("/info", self.get_info, "Which model, files, limits?", InfoAnswer, None),
        ):
            unwell: dict[int | str, dict[str, Any]] = (
                {503: {"model": answer, "description": failure}} if failure else {}
            )
            router.get(path, summary=summary, response_model=answer, responses=unwell, tags=["operation"])(operation)
            router.head(path, include_in_schema=False)(operation)  # as uptime monitors ask
        router.get("/", include_in_schema=False)(self.root)
        return router

    async def embed(self, request: Request) -> Response:
        """Takes a picture of one already-cropped face and returns its embedding."""
        started = time.perf_counter()
        options = self.reader.read(request)
        self.embedder.check_room()
        with self.uploads.body(request, options.embed.deadline) as body:
            picture = await upload.read_image(request, body, self.limits, options.embed.align)
            received = time.perf_counter()
            embedded = await self.embedder.embed(picture, options.embed)
        about_run = {
            wire.EMBEDDING_NORM_HEADER: f"{embedded.norm:.9g}",
            wire.BATCH_SIZE_HEADER: str(embedded.batch_size),
            wire.ALIGNMENT_HEADER: embedded.alignment.value,
        }
        if embedded.warnings:
            about_run[wire.WARNINGS_HEADER] = ", ".join(embedded.warnings)
        content = embed_body(embedded, options, self.about_model)
        stages = {"receive": (received - started) * 1000, **embedded.stages}
        stages["total"] = (time.perf_counter() - started) * 1000
        return self._answer(content, options.media_type, stages, about_run)

    async def embed_batch(self, request: Request) -> Response:
        """Takes many pictures and returns, in their order, an embedding or a problem for each."""
        started = time.perf_counter()
        options = self.reader.read(request)
        self.embedder.check_room()
        with self.uploads.body(request, options.embed.deadline) as body:
            uploaded = await upload.read_images(request, body, self.limits, options.embed.align)
            received = time.perf_counter()
            pictures = [picture for picture in uploaded if isinstance(picture, Picture)]
            embedded = iter(await self.embedder.embed_many(pictures, options.embed))
        results = [next(embedded) if isinstance(picture, Picture) else picture for picture in uploaded]
        about_run = {
            wire.EMBEDDING_VALID_HEADER: "".join("1" if isinstance(each, Embedded) else "0" for each in results),
            wire.ALIGNMENT_HEADER: ", ".join(
                each.alignment.value if isinstance(each, Embedded) else "-" for each in results
            ),
        }
        content = batch_body(results, options, self.about_model)
        stages = {"receive": (received - started) * 1000, "total": (time.perf_counter() - started) * 1000}
        return self._answer(content, options.media_type, stages, about_run)

    def _answer(
        self, content: bytes, media_type: wire.MediaType, stages: dict[str, float], about_run: dict[str, str]
    ) -> Response:
        shared = {
            wire.MODEL_FINGERPRINT_HEADER: self.info.fingerprint,
            wire.SERVER_TIMING_HEADER: ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in stages.items()),
            "Cache-Control": "no-store",
            "Vary": "Accept",
        }
        return Response(content, headers=shared | about_run, media_type=media_type)

    async def get_health(self) -> Response:
        """200 if a real inference has succeeded in the last seconds. If none has, one is run now."""
        why_not = await self.health.why_not()
        status = {"status": "failing" if why_not else "ok", "reason": why_not or self.info.reason}
        return _probe_answer(HealthAnswer.model_validate({**dict(self.info), **status}), is_well=why_not is None)

    async def livez(self) -> Response:
        """Answers at once and never waits for a model. 503 only if a decode or an inference does not end."""
        why = self.health.why_hung
        return _probe_answer(StatusAnswer(status="hung" if why else "alive", reason=why), is_well=why is None)

    async def readyz(self) -> Response:
        """As `/health`, in the form that orchestrators expect."""
        why_not = await self.health.why_not()
        status = StatusAnswer(status="not ready" if why_not else "ready", reason=why_not)
        return _probe_answer(status, is_well=why_not is None)

    async def get_info(self) -> Response:
        """What a caller may want to record beside its vectors."""
        return Response(self.info.model_dump_json(), media_type="application/json")

    async def root(self) -> Response:
        """Leads a browser to `/docs`."""
        return RedirectResponse("docs")


def _probe_answer(answer: BaseModel, *, is_well: bool) -> Response:
    status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    body = wire.json_bytes(answer.model_dump())
    return Response(body, status, {"Cache-Control": "no-store"}, media_type="application/json")
