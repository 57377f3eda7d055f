"""The service's app: `create_app` builds every object of the running service; `DirectApp` has the HTTP operations.

Settings, InstalledPack ──open_embedder──▶ Embedder ──create_app──▶ DirectApp(FastAPI)
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from arcface_api import __version__, wire
from arcface_api.api import openapi, problems, upload
from arcface_api.api.answers import HealthAnswer, InfoAnswer, StatusAnswer, batch_body, embed_body, model_keys
from arcface_api.api.connections import TASK, Connections
from arcface_api.api.health import Health
from arcface_api.api.options import read_options
from arcface_api.embedder import Embedded, Embedder, EmbedOptions, Picture
from arcface_api.loading import check_default, default_options, open_embedder
from arcface_api.packs import InstalledPack
from arcface_api.settings import Settings

CLOSE_SECONDS = 2.0
"""How long the threads may take to end after the last request is answered."""

_FINGERPRINT, _TIMING, _NORM, _BATCH_SIZE, _VALID, _ALIGNMENT, _WARNINGS = (
    name.lower().encode()
    for name in (
        wire.MODEL_FINGERPRINT_HEADER,
        wire.SERVER_TIMING_HEADER,
        wire.EMBEDDING_NORM_HEADER,
        wire.BATCH_SIZE_HEADER,
        wire.EMBEDDING_VALID_HEADER,
        wire.ALIGNMENT_HEADER,
        wire.WARNINGS_HEADER,
    )
)
"""The names of an answer's headers, as they are sent."""

DESCRIPTION = """
A picture of one **already-cropped face** in, its ArcFace embedding out. Nothing is stored.

Two embeddings may be compared only if `X-Model-Fingerprint` was equal.
"""


@dataclass(frozen=True, kw_only=True)
class DirectApp:
    """An ASGI app that serves `/embed` and `/embed/batch` directly and leaves the other operations to FastAPI.

    FastAPI still describes all operations (OpenAPI, `/docs`), from their docstrings. But for one crop its dozen layers
    cost more CPU than everything else on the event loop, and on a GPU the event loop would become the bottleneck.
    """

    framework: FastAPI
    embedder: Embedder
    timeout_seconds: float  # of a request that asks for no shorter time
    defaults: EmbedOptions
    health: Health
    info: InfoAnswer
    about_model: dict[str, Any]  # `model_keys` of the answers
    uploads: upload.Uploads
    connections: Connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the app's lifespan."""
        operation = _DIRECT.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if operation is None:
            await self.framework(scope, receive, send)
            return
        scope[TASK] = asyncio.current_task()
        request = Request(scope, receive)
        try:
            response = await operation(self, request)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever it is, the caller gets an answer
            response = problems.answer_failed(request, error)
        del scope[TASK]
        await response(scope, receive, send)

    async def embed(self, request: Request) -> Response:
        """Takes a picture of one already-cropped face and returns its embedding."""
        started = time.perf_counter()
        options = read_options(request, self.embedder.recogniser, self.timeout_seconds, self.defaults)
        self.embedder.check_room()
        with self.uploads.body(request, options.embed.deadline) as body:
            picture = await upload.read_image(request, body, options.embed.align)
            received = time.perf_counter()
            embedded = await self.embedder.embed(picture, options.embed)
        about_run = [
            (_NORM, b"%.9g" % embedded.norm),
            (_BATCH_SIZE, b"%d" % embedded.batch_size),
            (_ALIGNMENT, embedded.alignment.value.encode()),
        ]
        if embedded.warnings:
            about_run.append((_WARNINGS, ", ".join(embedded.warnings).encode()))
        content = embed_body(embedded, options, self.about_model)
        stages = {"receive": (received - started) * 1000, **embedded.stages}
        stages["total"] = (time.perf_counter() - started) * 1000
        return self._answer(content, options.media_type, stages, about_run)

    async def embed_batch(self, request: Request) -> Response:
        """Takes many pictures and returns, in their order, an embedding or a problem for each."""
        started = time.perf_counter()
        options = read_options(request, self.embedder.recogniser, self.timeout_seconds, self.defaults)
        self.embedder.check_room()
        with self.uploads.body(request, options.embed.deadline) as body:
            uploaded = await upload.read_images(request, body, options.embed.align)
            received = time.perf_counter()
            pictures = [picture for picture in uploaded if isinstance(picture, Picture)]
            embedded = iter(await self.embedder.embed_many(pictures, options.embed))
        results = [next(embedded) if isinstance(picture, Picture) else picture for picture in uploaded]
        alignments = [each.alignment.value if isinstance(each, Embedded) else "-" for each in results]
        about_run = [
            (_VALID, b"".join(b"0" if alignment == "-" else b"1" for alignment in alignments)),
            (_ALIGNMENT, ", ".join(alignments).encode()),
        ]
        content = batch_body(results, options, self.about_model)
        stages = {"receive": (received - started) * 1000, "total": (time.perf_counter() - started) * 1000}
        return self._answer(content, options.media_type, stages, about_run)

    def _answer(
        self, content: bytes, media_type: wire.MediaType, stages: dict[str, float], about_run: list[tuple[bytes, bytes]]
    ) -> Response:
        response = Response(content, media_type=media_type)
        response.raw_headers[:0] = (  # `Response` takes longer to make them from text
            (_FINGERPRINT, self.info.fingerprint.encode()),
            (_TIMING, ", ".join([f"{stage};dur={ms:.3f}" for stage, ms in stages.items()]).encode()),
            (b"cache-control", b"no-store"),
            (b"vary", b"Accept"),
            *about_run,
        )
        return response

    async def get_health(self) -> Response:
        """200 if a real inference has succeeded in the last seconds. If none has, one is run now."""
        why = await self.health.why_not()
        status = {"status": "failing" if why else "ok", "reason": why or self.info.reason}
        return _probe_answer(HealthAnswer.model_validate({**dict(self.info), **status}), is_well=why is None)

    async def livez(self) -> Response:
        """Answers at once and never waits for a model. 503 only if a decode or an inference does not end."""
        why = self.health.why_hung
        return _probe_answer(StatusAnswer(status="hung" if why else "alive", reason=why), is_well=why is None)

    async def readyz(self) -> Response:
        """As `/health`, in the form that orchestrators expect."""
        why = await self.health.why_not()
        return _probe_answer(StatusAnswer(status="not ready" if why else "ready", reason=why), is_well=why is None)

    async def get_info(self) -> Response:
        """The facts that a caller may want to store beside its vectors."""
        return Response(self.info.model_dump_json(), media_type="application/json")

    async def root(self) -> Response:
        """Leads a browser to `/docs`."""
        return RedirectResponse("docs")

    def add_routes(self) -> None:
        """Give the framework all operations, with their descriptions."""
        route = self.framework.router
        route.post("/embed", summary="Embed one face crop", **openapi.EMBED)(self.embed)
        route.post("/embed/batch", summary="Embed many face crops", **openapi.BATCH)(self.embed_batch)
        for path, operation, summary, answer, failure in (
            ("/health", self.get_health, "Can the service embed?", HealthAnswer, "No; `reason` says why."),
            ("/livez", self.livez, "Is the process alive?", StatusAnswer, "Something hangs; the process will end."),
            ("/readyz", self.readyz, "Should requests be sent here?", StatusAnswer, "Not now; `reason` says why."),
            ("/info", self.get_info, "Which model, files, limits?", InfoAnswer, None),
        ):
            unwell: dict[int | str, Any] = {503: {"model": answer, "description": failure}} if failure else {}
            route.get(path, summary=summary, response_model=answer, responses=unwell, tags=["operation"])(operation)
            route.head(path, include_in_schema=False)(operation)  # as uptime monitors ask
        route.get("/", include_in_schema=False)(self.root)


_DIRECT = {("POST", "/embed"): DirectApp.embed, ("POST", "/embed/batch"): DirectApp.embed_batch}
"""The operations that do not pass through FastAPI."""


def _probe_answer(answer: BaseModel, *, is_well: bool) -> Response:
    status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    body = wire.json_bytes(answer.model_dump())
    return Response(body, status, {"Cache-Control": "no-store"}, media_type="application/json")


def create_app(pack: InstalledPack, settings: Settings) -> DirectApp:
    """The service for one pack: its models are loaded and have run once.

    Raises:
        PackError: A file of the pack is damaged or not what its manifest states.
        ModelFailed: A model cannot be loaded, or takes or returns something unexpected.
        RuntimeUnfit: The device, or the alignment, that was asked for cannot be used.
    """
    verified = {role: pack.read(role) for role in pack.paths}
    check_default(pack, settings)
    embedder = open_embedder(pack, verified, settings)
    health = Health(embedder, hang_seconds=settings.hang_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(health.watch())
        yield
        watching.cancel()
        await health.close(CLOSE_SECONDS)

    framework = FastAPIOffline(
        title="arcface-api",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0 (the service); the weights have their own licence, see /info"},
        redoc_url=None,
        redirect_slashes=False,  # a redirect has no body, which does not help a person with curl
        lifespan=lifespan,
        swagger_ui_parameters={"displayRequestDuration": True},
    )
    problems.install(framework)
    info = InfoAnswer.of(pack, verified, embedder, settings)
    app = DirectApp(
        framework=framework,
        embedder=embedder,
        timeout_seconds=settings.request_timeout_seconds,
        defaults=default_options(pack, settings),
        health=health,
        info=info,
        about_model=model_keys(info),
        uploads=upload.Uploads(info.limits),
        connections=Connections(
            settings.max_connections, settings.upload_timeout_seconds, settings.upload_min_bytes_per_second
        ),
    )
    app.add_routes()
    return app
