"""The service's app: `create_app` builds every object of the running service; `DirectApp` has the HTTP operations.

Settings, InstalledPack ──open_embedder──▶ Embedder ──create_app──▶ DirectApp(FastAPI)

One module, because each object that is built here is joined to the operation that uses it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arcface_api import __version__, wire
from arcface_api.api import openapi, problems, upload
from arcface_api.api.access import Access, hosts_of
from arcface_api.api.answers import HealthAnswer, InfoAnswer, StatusAnswer, batch_body, embed_body, model_keys
from arcface_api.api.auth import Keys
from arcface_api.api.certificates import Tls
from arcface_api.api.connections import TASK, Connections
from arcface_api.api.heads import HeadLimits
from arcface_api.api.health import Health
from arcface_api.api.metrics import (
    EMBED,
    EMBED_BATCH,
    NO_ROUTE,
    REFRESH_SECONDS,
    Metrics,
    SharedMetrics,
)
from arcface_api.api.observer import Observer
from arcface_api.api.options import read_options
from arcface_api.api.page import page_routes
from arcface_api.api.published import Prefix, Proxies, for_pages_of
from arcface_api.api.request_log import SlowRequests, begin
from arcface_api.api.traces import Traces
from arcface_api.embedder import Embedded, Embedder, EmbedOptions, Picture, SelfCheck
from arcface_api.errors import ArcFaceError
from arcface_api.loading import check_default, default_options, open_embedder
from arcface_api.packs import InstalledPack
from arcface_api.settings import Settings

if TYPE_CHECKING:
    from arcface_api.api.rate_limits import RateLimits

DOCUMENT_THREADS = 4
"""That read the files of `/docs`. The framework's 40 would each keep memory of their own once many callers ask."""
CLOSE_SECONDS = 2.0
"""How long the threads may take to end after the last request is answered."""

_FINGERPRINT, _RECIPE, _TIMING, _NORM, _BATCH_SIZE, _VALID, _ALIGNMENT, _WARNINGS = (
    name.lower().encode()
    for name in (
        wire.MODEL_FINGERPRINT_HEADER,
        wire.RECIPE_HEADER,
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

Two embeddings may be compared only if `X-Model-Fingerprint` was equal, and compare well only if `X-Embedding-Recipe`
was.
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
    observer: Observer
    prefix: Prefix
    access: Access
    rate_limits: "RateLimits | None"
    cors_origins: frozenset[str]
    has_page: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the app's lifespan."""
        await self._entry(scope, receive, send)

    @cached_property
    def _entry(self) -> ASGIApp:
        return for_pages_of(self._serve, self.cors_origins) if self.cors_origins else self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.framework(scope, receive, send)
            return
        started = time.perf_counter()
        path = scope["path"]
        operation = _DIRECT.get((scope["method"], path))
        if operation is None:
            prefix, path = self.prefix.split(scope)
            operation = _DIRECT.get((scope["method"], path))
            scope["root_path"], scope["path"] = prefix, prefix + path
        if operation is None:
            await self._serve_by_framework(path, scope, receive, send)
            return
        added = self.observer.begin(scope)
        scope[TASK] = asyncio.current_task()
        request = Request(scope, receive)
        try:
            self.access.check(scope, path)
            response = await operation(self, request)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever it is, the caller gets an answer
            response = problems.answer_failed(request, error)
        del scope[TASK]
        response.raw_headers += added
        await response(scope, receive, send)
        self.observer.ended(path, response.status_code, started, scope)

    async def _serve_by_framework(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0
        identity = begin(scope)

        async def with_header(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], identity]
            await send(message)

        app: ASGIApp = self.framework
        try:
            self.access.check(scope, path)
        except ArcFaceError as error:
            app = problems.answer_failed(Request(scope, receive), error)
        await app(scope, receive, with_header)
        self.observer.ended(path, status, started, scope)

    async def embed(self, request: Request) -> Response:
        """Takes a picture of one already-cropped face and returns its embedding."""
        started = time.perf_counter()
        options = read_options(request, self.embedder, self.timeout_seconds, self.defaults)
        self.embedder.check_room()
        if self.rate_limits is not None:
            self.rate_limits.count(request.scope)
        with self.uploads.body(request, options.embed.deadline) as body:
            picture = await upload.read_image(request, body, options.embed.align)
            received = time.perf_counter()
            embedded = await self.embedder.embed(picture, options.embed)
        about_run = [
            (_NORM, b"%.9g" % embedded.norm),
            (_BATCH_SIZE, b"%d" % embedded.batch_size),
            (_ALIGNMENT, embedded.alignment.value.encode()),
            (_RECIPE, embedded.recipe.encode()),
        ]
        if embedded.warnings:
            about_run.append((_WARNINGS, ", ".join(embedded.warnings).encode()))
        content = embed_body(embedded, options, self.about_model)
        stages = {"receive": (received - started) * 1000, **embedded.stages}
        self.observer.has_results(request.scope, [embedded], dict(stages))
        stages["total"] = (time.perf_counter() - started) * 1000
        return self._answer(content, options.media_type, stages, about_run)

    async def embed_batch(self, request: Request) -> Response:
        """Takes many pictures and returns, in their order, an embedding or a problem for each."""
        started = time.perf_counter()
        options = read_options(request, self.embedder, self.timeout_seconds, self.defaults)
        self.embedder.check_room()
        if self.rate_limits is not None:
            self.rate_limits.count(request.scope)
        with self.uploads.body(request, options.embed.deadline) as body:
            uploaded = await upload.read_images(request, body, options.embed.align)
            if self.rate_limits is not None:
                self.rate_limits.count(request.scope, len(uploaded), counted_before=1)
            received = time.perf_counter()
            pictures = [picture for picture in uploaded if isinstance(picture, Picture)]
            embedded = iter(await self.embedder.embed_many(pictures, options.embed))
        embedded_at = time.perf_counter()
        results = [next(embedded) if isinstance(picture, Picture) else picture for picture in uploaded]
        recipes = dict.fromkeys(f"{each.alignment}={each.recipe}" for each in results if isinstance(each, Embedded))
        alignments = [each.alignment.value if isinstance(each, Embedded) else "-" for each in results]
        about_run = [
            (_VALID, b"".join(b"0" if alignment == "-" else b"1" for alignment in alignments)),
            (_ALIGNMENT, ", ".join(alignments).encode()),
        ]
        if recipes:  # two at most, however many pictures there are: proxies limit the size of headers
            about_run.append((_RECIPE, ", ".join(recipes).encode()))
        warned: dict[str, list[str]] = {}
        for place, each in enumerate(results):
            for code in each.warnings if isinstance(each, Embedded) else ():
                warned.setdefault(code, []).append(str(place))
        if warned:
            about_run.append((_WARNINGS, ", ".join(f"{code}={' '.join(at)}" for code, at in warned.items()).encode()))
        content = batch_body(results, options, self.about_model)
        receive_ms = (received - started) * 1000
        self.observer.has_results(
            request.scope, results, {"receive": receive_ms, "embed": (embedded_at - received) * 1000}
        )
        stages = {"receive": receive_ms, "total": (time.perf_counter() - started) * 1000}
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

    async def get_metrics(self, request: Request) -> Response:
        """Counters, histograms and gauges for Prometheus; docs/metrics.md lists them."""
        self.observer.count()
        self.observer.metrics.refresh(self.embedder, self.uploads, self.connections)
        content, media_type = await asyncio.to_thread(self.observer.metrics.text, request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-store"})

    async def root(self, request: Request) -> Response:
        """Leads a browser to `/docs`, where there is no page."""
        prefix = request.scope["root_path"]
        return RedirectResponse(f"{prefix}/docs" if prefix else "docs")

    async def keep_metrics_fresh(self) -> None:
        """Of a worker: another one may be asked for them at any time."""
        while True:
            self.observer.metrics.refresh(self.embedder, self.uploads, self.connections)
            await asyncio.sleep(REFRESH_SECONDS)

    def add_routes(self) -> None:
        """Give the framework all operations, with their descriptions."""
        route = self.framework.router
        route.post("/embed", operation_id="embed", summary="Embed one face crop", **openapi.EMBED)(self.embed)
        route.post("/embed/batch", operation_id="embed_batch", summary="Embed many face crops", **openapi.BATCH)(
            self.embed_batch
        )
        for path, operation, summary, answer, failure in (
            ("/health", self.get_health, "Can the service embed?", HealthAnswer, "No; `reason` says why."),
            ("/livez", self.livez, "Is the process alive?", StatusAnswer, "Something hangs; the process will end."),
            ("/readyz", self.readyz, "Should requests be sent here?", StatusAnswer, "Not now; `reason` says why."),
            ("/info", self.get_info, "Which model, files, limits?", InfoAnswer, None),
        ):
            responses: dict[int | str, Any] = {503: {"model": answer, "description": failure}} if failure else {}
            guarded = {} if failure else openapi.GUARDED  # probes need no key
            route.get(
                path,
                operation_id=path[1:],
                summary=summary,
                response_model=answer,
                **{"responses": responses, "tags": ["operation"]} | guarded,
            )(operation)
            route.head(path, include_in_schema=False)(operation)  # as uptime monitors ask
        route.get(
            "/metrics",
            operation_id="metrics",
            summary="Counters and times for Prometheus",
            response_class=PlainTextResponse,
            tags=["operation"],
            **openapi.GUARDED,
        )(self.get_metrics)
        for path, answering in (page_routes() if self.has_page else {"/": self.root}).items():
            route.get(path, include_in_schema=False)(answering)
            route.head(path, include_in_schema=False)(answering)


_DIRECT = {("POST", EMBED): DirectApp.embed, ("POST", EMBED_BATCH): DirectApp.embed_batch}
"""The operations that do not pass through FastAPI."""


def _probe_answer(answer: BaseModel, *, is_well: bool) -> Response:
    status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    body = wire.json_bytes(answer.model_dump())
    return Response(body, status, {"Cache-Control": "no-store"}, media_type="application/json")


def _rate_limits(settings: Settings, proxies: Proxies) -> "RateLimits | None":
    if settings.rate_limit is None:
        return None
    from arcface_api.api.rate_limits import RateLimits  # noqa: PLC0415  # few have one, and its library takes 0.1 s

    return RateLimits(settings.rate_limit, settings.workers, settings.rate_limit_exempt, proxies)


def create_app(pack: InstalledPack, settings: Settings, shared: SharedMetrics | None = None) -> DirectApp:
    """The service for one pack: its models are loaded and have run once. `shared`: of a worker among several.

    Raises:
        SettingInvalid: The file with the API keys cannot be used.
        PackError: A file of the pack is damaged or not what its manifest states.
        ModelFailed: A model cannot be loaded, or takes or returns something unexpected.
        RuntimeUnfit: The device, or the alignment, that was asked for cannot be used.
        SettingInvalid: The certificate or its key cannot be used.
    """
    keys = Keys(settings.api_keys_file) if settings.api_keys_file else None
    tls = Tls.of(settings)
    traces = Traces.to_collector(settings.trace_share) if settings.trace_share else None
    verified = {role: pack.read(role) for role in pack.paths}
    check_default(pack, settings)
    embedder = open_embedder(pack, verified, settings)
    metrics = Metrics(shared)
    self_check = SelfCheck(
        embedder,
        seconds=settings.self_check_seconds,
        busy_seconds=settings.self_check_busy_seconds,
        hang_seconds=settings.hang_seconds,
        on_checked=metrics.checked,
    )
    health = Health(embedder, hang_seconds=settings.hang_seconds, self_check=self_check)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = DOCUMENT_THREADS
        metrics.started(info, uploads.capacity)
        tasks = [asyncio.create_task(health.watch())]
        if keys is not None:
            tasks.append(asyncio.create_task(keys.watch()))
        if settings.self_check_seconds:
            tasks.append(asyncio.create_task(self_check.watch()))
        if shared is not None:
            tasks.append(asyncio.create_task(app.keep_metrics_fresh()))
        if tls is not None:
            tasks.append(asyncio.create_task(tls.watch()))
        yield
        for task in tasks:
            task.cancel()
        await health.close(CLOSE_SECONDS)
        observer.count()
        await asyncio.to_thread(observer.close)

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
    openapi.describe_keys(framework)
    info = InfoAnswer.of(pack, verified, embedder, settings)
    uploads = upload.Uploads(info.limits)
    observer = Observer(metrics, SlowRequests(settings.slow_request_seconds), traces)
    proxies = Proxies(settings.trusted_proxies)
    app = DirectApp(
        framework=framework,
        embedder=embedder,
        timeout_seconds=settings.request_timeout_seconds,
        defaults=default_options(pack, settings),
        health=health,
        info=info,
        about_model=model_keys(info),
        uploads=uploads,
        connections=Connections(
            settings.max_connections,
            settings.keep_alive_seconds,
            settings.upload_timeout_seconds,
            settings.upload_min_bytes_per_second,
            HeadLimits(settings.max_head_bytes, settings.max_header_bytes, settings.max_headers),
            settings.head_timeout_seconds,
            settings.max_unread_answer_bytes,
            settings.max_connections_per_address,
            proxies.trusts_address,
            on_refusal=partial(metrics.answered, NO_ROUTE, seconds=0.0),
            tls=tls,
        ),
        observer=observer,
        prefix=Prefix(settings.root_path, proxies),
        access=Access(hosts_of(settings), settings.cors_origins, proxies, keys),
        rate_limits=_rate_limits(settings, proxies),
        cors_origins=settings.cors_origins,
        has_page=settings.page,
    )
    app.add_routes()
    return app
