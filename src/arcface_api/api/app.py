"""Builds every object of the running service and joins them; nothing else does.

Settings, InstalledPack ──open_embedder──▶ Embedder ──create_app──▶ DirectApp(FastAPI)
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.types import Receive, Scope, Send

from arcface_api import __version__
from arcface_api.api import problems
from arcface_api.api.answers import InfoAnswer, model_keys
from arcface_api.api.connections import TASK, Connections
from arcface_api.api.health import Health
from arcface_api.api.options import OptionReader
from arcface_api.api.routes import Operations
from arcface_api.api.upload import UploadLimits, Uploads
from arcface_api.loading import check_default, default_options, max_batch_files, open_embedder
from arcface_api.packs import InstalledPack
from arcface_api.settings import Settings

CLOSE_SECONDS = 2.0
"""How long the threads may take to end after the last request is answered."""

DESCRIPTION = """
A picture of one **already-cropped face** in, its ArcFace embedding out. Nothing is stored.

Two embeddings may be compared only if `X-Model-Fingerprint` was equal.
"""


@dataclass(frozen=True)
class DirectApp:
    """An ASGI app that serves the operations that embed itself and leaves the others to FastAPI.

    FastAPI describes all operations (OpenAPI, `/docs`). But its routing and its dozen layers cost more CPU than
    everything that this service does on the event loop for one crop, which on a GPU would be the limit.
    """

    framework: FastAPI
    handlers: Mapping[tuple[str, str], problems.Handler]
    """By method and path. They answer every error themselves."""
    info: InfoAnswer
    health: Health
    connections: Connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the app's lifespan."""
        handler = self.handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None:
            await self.framework(scope, receive, send)
        else:
            scope[TASK] = asyncio.current_task()
            response = await handler(Request(scope, receive))
            del scope[TASK]
            await response(scope, receive, send)


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
    info = InfoAnswer.of(pack, verified, embedder, settings)

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
    reader = OptionReader(embedder.recogniser, settings.request_timeout_seconds, default_options(pack, settings))
    limits = UploadLimits(settings.max_image_bytes, max_batch_files(settings), settings.max_batch_bytes)
    slowest = settings.upload_timeout_seconds, settings.upload_min_bytes_per_second
    uploads = Uploads(settings.max_upload_bytes_inside, limits.largest_body_bytes, *slowest)
    operations = Operations(
        embedder=embedder,
        health=health,
        info=info,
        reader=reader,
        limits=limits,
        uploads=uploads,
        about_model=model_keys(info),
    )
    framework.include_router(operations.router())
    return DirectApp(
        framework=framework,
        handlers={
            ("POST", "/embed"): problems.answering(operations.embed),
            ("POST", "/embed/batch"): problems.answering(operations.embed_batch),
        },
        info=info,
        health=health,
        connections=Connections(settings.max_connections, *slowest),
    )
