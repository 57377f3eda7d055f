"""Loads a pack's models as the settings say, without HTTP."""

import hashlib
import logging
import math
from dataclasses import replace
from pathlib import Path

from platformdirs import user_cache_dir

from arcface_api.cpus import available_cpus, memory_limit_bytes
from arcface_api.embedder import Embedder, EmbedOptions
from arcface_api.embedder.models import AlignedModels, AttributeModels, BoxModels, Model, Models, Recogniser
from arcface_api.errors import RuntimeUnfit
from arcface_api.face.landmarks import REGRESSOR_DIM, REGRESSOR_INPUT, regressor
from arcface_api.image import Decoders, ImageLimits
from arcface_api.packs import InstalledPack, Role, VerifiedModel
from arcface_api.session import (
    GPU_PROVIDERS,
    TENSORRT_PROVIDER,
    Cache,
    LaneConfig,
    ModelContent,
    Session,
    SessionConfig,
    check_installation,
    open_reference,
    open_session,
)
from arcface_api.settings import Device, Settings
from arcface_api.wire import Align, Fit

_log = logging.getLogger(__name__)


def open_embedder(pack: InstalledPack, verified: dict[Role, VerifiedModel], settings: Settings) -> Embedder:
    """Loads the pack's models and opens the embedder on them.

    Raises:
        ModelFailed: A model cannot be loaded, or takes or returns something unexpected.
        RuntimeUnfit: The device that was asked for, or decoding in processes, is not available.
    """
    check_installation()
    cpus = max(1, available_cpus() // settings.workers)
    threads = settings.threads or cpus
    if threads > cpus:
        slow = "%d threads share %d CPUs and wait for each other, which is slow. Leave ARCFACE_THREADS out."
        _log.warning(slow, threads, cpus)
    cache = Cache(settings.cache_dir or Path(user_cache_dir("arcface-api")) / "compiled")

    def content(role: Role) -> ModelContent:
        model = verified[role]
        return ModelContent(model.content, model.sha256, model.file.input, model.file.output_dim)

    def attribute_model(role: Role) -> Model:
        # Small beside the recogniser, and read as numbers: float32, on a GPU if the recogniser is.
        model = content(role)
        if chosen.session.provider in GPU_PROVIDERS:
            device: Device = "tensorrt" if chosen.session.provider == TENSORRT_PROVIDER else "cuda"
            exact = replace(config, device=device, precision="float32")
            return Model(open_session(model, exact, cache).session, model.spec)
        session = open_reference(model, threads, chosen.session.batch_sizes, lanes=chosen.session.lanes)
        return Model(session, model.spec)

    recogniser = content(Role.RECOGNISER)
    config = SessionConfig(settings.device, settings.precision, threads, settings.max_batch)
    lanes = LaneConfig(settings.lanes, memory_limit_bytes() / settings.workers)
    chosen = open_session(recogniser, config, cache, lanes)
    attribute_models: AttributeModels | None = None
    if Role.AGE_GENDER in verified and Role.LANDMARKS_3D in verified:
        attribute_models = BoxModels(attribute_model(Role.AGE_GENDER), attribute_model(Role.LANDMARKS_3D))
    elif Role.AGE in verified and Role.GENDER in verified:
        attribute_models = AlignedModels(attribute_model(Role.AGE), attribute_model(Role.GENDER))
    loaded = Recogniser(
        session=chosen.session,
        wide=chosen.wide,
        spec=recogniser.spec,
        name=pack.manifest.model,
        dim=recogniser.output_dim,
        sha256=recogniser.sha256,
        self_test_cosine=chosen.self_test_cosine,
        reason=chosen.reason,
    )
    return Embedder(
        models=Models(loaded, open_regressor(), attribute_models),
        limits=ImageLimits(settings.max_image_pixels),
        capacity=_capacity(settings),
        decode_threads=settings.decode_threads or cpus,
        decoders=open_decoders(settings),
    )


def regressor_content() -> ModelContent:
    """The landmark regressor's file, and its input and output."""
    content = regressor()
    return ModelContent(content, hashlib.sha256(content).hexdigest(), REGRESSOR_INPUT, REGRESSOR_DIM)


def open_regressor() -> Session:
    """The regressor, warmed up; raises `ModelFailed` if that fails."""
    return open_reference(regressor_content(), threads=1, batch_sizes=(1,))  # several decode threads run it at once


def open_decoders(settings: Settings) -> Decoders | None:
    """The processes that decode pictures; None: this one does. Raises `RuntimeUnfit` if the system has none."""
    if settings.decode_isolation == "none":
        return None
    return Decoders(
        max_pixels=settings.max_image_pixels,
        max_bytes=settings.max_image_bytes,
        most_seconds=min(settings.decode_timeout_seconds, settings.hang_seconds * 2 / 3),  # or it would count as hung
    )


def check_default(pack: InstalledPack, settings: Settings) -> None:
    """Raises `RuntimeUnfit` if no request could be served with the default options."""
    file = pack.manifest.file(Role.RECOGNISER)
    is_square = file is None or file.input.height == file.input.width
    if default_options(pack, settings).align is not Align.NONE and not is_square:
        raise RuntimeUnfit(
            f"Faces cannot be aligned for {pack.manifest.name}, whose recogniser's input is not square. Set"
            " ARCFACE_ALIGN=none."
        )


def default_options(pack: InstalledPack, settings: Settings) -> EmbedOptions:
    """The options of a request that chooses nothing: from the settings, else from the pack."""
    manifest = pack.manifest
    return EmbedOptions(
        align=Align(settings.align or manifest.align or Align.NONE),
        fit=Fit(settings.fit or manifest.fit or Fit.STRETCH),
    )


def max_batch_files(settings: Settings) -> int:
    """The largest batch request: one with more pictures than may be inside could never be admitted."""
    return min(settings.max_batch_files, settings.queue_capacity)


def _capacity(settings: Settings) -> int:
    """This worker's share of the service's capacity, but at least the largest batch request."""
    return max(math.ceil(settings.queue_capacity / settings.workers), max_batch_files(settings))
