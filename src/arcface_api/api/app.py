"""Builds every object of the running service and joins them; nobody else does.

Settings, InstalledPack ──open_embedder──▶ Embedder ──create_app──▶ DirectApp(FastAPI)

Longer than most modules: loading the models moves to a module of its own with the next layout.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from platformdirs import user_cache_dir

from arcface_api import __version__, alignment
from arcface_api.api import problems
from arcface_api.api.answers import CropInfo, FileInfo, InfoAnswer, InputInfo, LicenceInfo, LimitsInfo, ThresholdInfo
from arcface_api.api.connections import Connections
from arcface_api.api.direct import DirectApp
from arcface_api.api.health import Health
from arcface_api.api.options import OptionReader
from arcface_api.api.receiving import Uploads
from arcface_api.api.regressor import open_regressor, regressor_content
from arcface_api.api.routes import build_router
from arcface_api.api.upload import UploadLimits
from arcface_api.cpus import available_cpus
from arcface_api.embedder import (
    AlignedModels,
    AttributeModels,
    BoxModels,
    Embedder,
    EmbedOptions,
    Limits,
    Model,
    Models,
    Recogniser,
)
from arcface_api.errors import RuntimeUnfit
from arcface_api.image import Decoders, ImageLimits
from arcface_api.packs import InstalledPack, Role, VerifiedModel
from arcface_api.session import (
    GPU_PROVIDERS,
    TENSORRT_PROVIDER,
    Cache,
    ModelContent,
    SessionConfig,
    check_installation,
    open_reference,
    open_session,
)
from arcface_api.settings import Device, Settings
from arcface_api.wire import Align, Fit

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
    _check_default(pack, settings)
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
    limits = UploadLimits(settings.max_image_bytes, _batch_files(settings), settings.max_batch_bytes)
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


def _check_default(pack: InstalledPack, settings: Settings) -> None:
    """Refuse to start with a default that no request could be served with."""
    file = pack.manifest.file(Role.RECOGNISER)
    is_square = file is None or file.input.height == file.input.width
    if default_options(pack, settings).align is not Align.NONE and not is_square:
        raise RuntimeUnfit(
            f"Faces cannot be aligned for {pack.manifest.name}, whose recogniser's input is not square. Set"
            " ARCFACE_ALIGN=none."
        )


def default_options(pack: InstalledPack, settings: Settings) -> EmbedOptions:
    """How pictures are embedded for a caller who asks for nothing: as the settings say, else the pack."""
    manifest = pack.manifest
    return EmbedOptions(
        align=Align(settings.align or manifest.align or Align.NONE),
        fit=Fit(settings.fit or manifest.fit or Fit.STRETCH),
    )


def open_embedder(pack: InstalledPack, verified: dict[Role, VerifiedModel], settings: Settings) -> Embedder:
    """Load the pack's models and start the embedder's threads.

    Raises:
        ModelFailed, RuntimeUnfit: As `create_app`.
    """
    check_installation()
    cpus = max(1, available_cpus() // settings.workers)
    threads = settings.threads or cpus
    if threads > cpus:
        _log.warning(
            "%d threads share %d CPUs and wait for each other, which is slow. Leave ARCFACE_THREADS out.",
            threads,
            cpus,
        )
    cache = Cache(settings.cache_dir or Path(user_cache_dir("arcface-api")) / "compiled")

    def content(role: Role) -> ModelContent:
        model = verified[role]
        return ModelContent(model.content, model.sha256, model.file.input, model.file.output_dim)

    def load_attribute_model(role: Role) -> Model:
        # Small beside the recogniser, and read as numbers: float32, on the GPU where the recogniser is.
        model = content(role)
        if chosen.session.provider in GPU_PROVIDERS:
            device: Device = "tensorrt" if chosen.session.provider == TENSORRT_PROVIDER else "cuda"
            config = SessionConfig(device, "float32", threads, settings.max_batch)
            return Model(open_session(model, config, cache).session, model.spec)
        return Model(open_reference(model, threads, chosen.session.batch_sizes), model.spec)

    recogniser, file = content(Role.RECOGNISER), verified[Role.RECOGNISER]
    config = SessionConfig(settings.device, settings.precision, threads, settings.max_batch)
    chosen = open_session(recogniser, config, cache)
    attribute_models: AttributeModels | None = None
    if Role.AGE_GENDER in verified and Role.LANDMARKS_3D in verified:
        attribute_models = BoxModels(load_attribute_model(Role.AGE_GENDER), load_attribute_model(Role.LANDMARKS_3D))
    elif Role.AGE in verified and Role.GENDER in verified:
        attribute_models = AlignedModels(load_attribute_model(Role.AGE), load_attribute_model(Role.GENDER))
    return Embedder(
        Models(
            Recogniser(
                chosen.session,
                recogniser.spec,
                pack.manifest.model,
                file.file.output_dim,
                file.sha256,
                chosen.self_test_cosine,
                chosen.reason,
            ),
            open_regressor(),
            attribute_models,
        ),
        Limits(ImageLimits(settings.max_image_pixels), _capacity(settings), settings.decode_threads or cpus),
        open_decoders(settings),
    )


def open_decoders(settings: Settings) -> Decoders | None:
    """Where pictures are decoded; None: in this process.

    Raises:
        RuntimeUnfit: Processes were asked for, and cannot be had on this system.
    """
    if settings.decode_isolation == "none":
        return None
    return Decoders(
        max_pixels=settings.max_image_pixels,
        max_bytes=settings.max_image_bytes,
        most_seconds=min(settings.decode_timeout_seconds, settings.hang_seconds * 2 / 3),  # or it would count as hung
    )


def _capacity(settings: Settings) -> int:
    """This worker's part of the service's capacity; a batch request that one worker alone would take still fits."""
    return max(math.ceil(settings.queue_capacity / settings.workers), _batch_files(settings))


def _batch_files(settings: Settings) -> int:
    """Most pictures of one batch request. More than may be inside would be told to come back, for ever."""
    return min(settings.max_batch_files, settings.queue_capacity)


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
                provenance=alignment.REGRESSOR_PROVENANCE,
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
        limits=LimitsInfo.model_validate(settings.model_dump() | {"max_batch_files": _batch_files(settings)}),
    )
