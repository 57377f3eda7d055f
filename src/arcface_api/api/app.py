"""Builds every object of the running service and joins them; nobody else does.

Settings, InstalledPack ──open_embedder──▶ Embedder ──create_app──▶ DirectApp(FastAPI)
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from arcface_api import __version__
from arcface_api.api import problems
from arcface_api.api.answers import CropInfo, FileInfo, InfoAnswer, InputInfo, LicenceInfo, LimitsInfo, ThresholdInfo
from arcface_api.api.connections import Connections
from arcface_api.api.direct import DirectApp
from arcface_api.api.health import Health
from arcface_api.api.options import OptionReader
from arcface_api.api.receiving import Uploads
from arcface_api.api.routes import build_router
from arcface_api.api.upload import UploadLimits
from arcface_api.embedder import (
    Embedder,
)
from arcface_api.face.landmarks import REGRESSOR_PROVENANCE
from arcface_api.loading import check_default, default_options, max_batch_files, open_embedder, regressor_content
from arcface_api.packs import InstalledPack, Role, VerifiedModel
from arcface_api.settings import Settings

CLOSE_SECONDS = 2.0
"""How long the threads may take to end when the last request has been answered."""

_log = logging.getLogger(__name__)

DESCRIPTION = """
A picture of one **already-cropped face** in, its ArcFace embedding out. Nothing is stored.

Two embeddings may be compared only if `X-Model-Fingerprint` was equal.
"""


def create_app(pack: InstalledPack, settings: Settings) -> DirectApp:
    """The service for one pack: models loaded and run once, ready to answer.

    Raises:
        PackError: A file of the pack is damaged or not what its manifest states.
        ModelFailed: A model cannot be loaded, or takes or returns something unexpected.
        RuntimeUnfit: The device, or the alignment, that was asked for cannot be used.
    """
    verified = {role: pack.read(role) for role in pack.paths}
    check_default(pack, settings)
    embedder = open_embedder(pack, verified, settings)
    health = Health(embedder, hang_seconds=settings.hang_seconds)
    info = _describe(pack, verified, embedder, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(health.watch())
        yield
        watching.cancel()
        await health.close(CLOSE_SECONDS)

    app = FastAPIOffline(
        title="arcface-api",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0 (the service); the weights have their own licence, see /info"},
        redoc_url=None,
        redirect_slashes=False,  # a redirect without a body tells a person with curl nothing
        lifespan=lifespan,
        swagger_ui_parameters={"displayRequestDuration": True},
    )
    problems.install(app)
    limits = UploadLimits(settings.max_image_bytes, max_batch_files(settings), settings.max_batch_bytes)
    slowest = settings.upload_timeout_seconds, settings.upload_min_bytes_per_second
    largest = max(limits.body_bytes, limits.batch_body_bytes)
    uploads = Uploads(settings.max_upload_bytes_inside, largest, *slowest)
    reader = OptionReader(embedder.recogniser, settings.request_timeout_seconds, default_options(pack, settings))
    router = build_router(embedder, health, info, limits, uploads, reader)
    app.include_router(router)
    handlers = {
        ("POST", route.path): problems.answering(route.endpoint)
        for route in router.routes
        if isinstance(route, APIRoute) and route.methods == {"POST"}
    }
    return DirectApp(app, handlers, info, health, Connections(settings.max_connections, *slowest))


def _describe(
    pack: InstalledPack, verified: dict[Role, VerifiedModel], embedder: Embedder, settings: Settings
) -> InfoAnswer:
    manifest, recogniser = pack.manifest, embedder.recogniser
    licence, spec, regressor = manifest.licence, recogniser.spec, regressor_content()
    defaults = default_options(pack, settings)
    return InfoAnswer(
        version=__version__,
        pack=manifest.name,
        model=recogniser.name,
        fingerprint=recogniser.fingerprint,
        embedding_dim=recogniser.dim,
        roles=[role.value for role in verified],
        assumptions=list(manifest.assumptions),
        files=[
            *(
                FileInfo(
                    name=model.file.name,
                    role=role.value,
                    sha256=model.sha256,
                    size_bytes=len(model.content),
                    licence=licence.name,
                    provenance=model.file.provenance or "",
                )
                for role, model in verified.items()
            ),
            FileInfo(
                name="landmarks.onnx",
                role="landmarks",
                sha256=regressor.sha256,
                size_bytes=len(regressor.content),
                licence="Apache-2.0",
                provenance=REGRESSOR_PROVENANCE,
            ),
        ],
        licence=LicenceInfo(
            name=licence.name,
            url=licence.url,
            allows_commercial_use=licence.allows_commercial_use,
            notice=licence.notice,
        ),
        input=InputInfo(
            width=spec.width,
            height=spec.height,
            mean=spec.mean,
            std=spec.std,
            channel_order=spec.channel_order.value,
        ),
        crop=CropInfo(align=defaults.align, fit=defaults.fit, regressor_sha256=regressor.sha256),
        thresholds=[ThresholdInfo(far=each.far, similarity=each.similarity) for each in manifest.thresholds],
        provider=recogniser.session.provider,
        precision=recogniser.session.precision,
        workers=settings.workers,
        threads=recogniser.session.threads,
        batch_sizes=list(recogniser.session.batch_sizes),
        self_test_cosine=recogniser.self_test_cosine,
        reason=recogniser.reason,
        limits=LimitsInfo.model_validate(settings.model_dump() | {"max_batch_files": max_batch_files(settings)}),
    )
