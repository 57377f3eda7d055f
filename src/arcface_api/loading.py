"""Loads a pack's models as the settings say, without HTTP."""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np

from arcface_api.arrays import InputSpec
from arcface_api.cpus import available_cpus, memory_limit_bytes
from arcface_api.embedder import Embedder, EmbedOptions
from arcface_api.embedder.models import AlignedModels, AttributeModels, BoxModels, Model, Models, Recogniser
from arcface_api.errors import LandmarksInvalid, ModelFailed, RuntimeUnfit
from arcface_api.face.geometry import check_landmarks
from arcface_api.face.landmarks import REGRESSOR_DIM, REGRESSOR_INPUT, regressor
from arcface_api.image import Decoders, ImageLimits
from arcface_api.packs import InstalledPack, ModelFile, Role, VerifiedModel, adapted, owners, registry, usual_feeds
from arcface_api.session import (
    GPU_PROVIDERS,
    MAX_SIMILARITY,
    TENSORRT_PROVIDER,
    Cache,
    FedSession,
    LaneConfig,
    ModelContent,
    OnnxCpuSession,
    Session,
    SessionConfig,
    check_installation,
    median_similarity,
    open_reference,
    open_session,
    probe_crops,
    reference_features,
)
from arcface_api.settings import Device, Settings, user_cache
from arcface_api.wire import Align, Fit
from arcface_api.wording import counted

_log = logging.getLogger(__name__)


def open_embedder(
    pack: InstalledPack,
    verified: dict[Role, VerifiedModel],
    settings: Settings,
    feeds: Sequence[InputSpec] = (),
) -> Embedder:
    """Loads the pack's models and opens the embedder on them.

    With `feeds`, an embedding has those of all of these ways to feed the recogniser, one behind the other, computed on
    the CPU in float32.

    Raises:
        ModelFailed: A model cannot be loaded, or takes or returns something unexpected.
        RuntimeUnfit: The device that was asked for, or decoding in processes, is not available.
    """
    check_installation()
    cpus = max(1, available_cpus() // settings.workers)
    cv2.setNumThreads(cpus)  # its own count knows no quota of a group below the root
    threads = settings.threads or cpus
    if threads > cpus:
        slow = "%d threads share %s and wait for each other, which is slow. Leave ARCFACE_THREADS out."
        _log.warning(slow, threads, counted(cpus, "CPU"))
    cache = Cache(settings.cache_dir or user_cache() / "compiled")

    def content(role: Role) -> ModelContent:
        model = verified[role]
        of_usual_shape = model.content if pack.manifest.name in registry() else adapted(model.content)
        return ModelContent(of_usual_shape, model.sha256, model.file.input, model.file.output_dim)

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
    try:
        chosen = open_session(recogniser, config, cache, lanes)
    except ModelFailed as error:
        if config.max_batch == 1:
            raise
        # Some graphs compute one row only, whatever they state.
        try:
            chosen = open_session(recogniser, replace(config, max_batch=1), cache, lanes)
        except ModelFailed:
            raise error from None
        one_by_one = f"pictures run one by one, because more of them at once fail: {error}"
        _log.warning("This is slower than it could be: %s", one_by_one)
        chosen = replace(chosen, reason="; ".join(filter(None, (chosen.reason, one_by_one))))
    attribute_models: AttributeModels | None = None
    if Role.AGE_GENDER in verified and Role.LANDMARKS_3D in verified:
        attribute_models = BoxModels(attribute_model(Role.AGE_GENDER), attribute_model(Role.LANDMARKS_3D))
    elif Role.AGE in verified and Role.GENDER in verified:
        attribute_models = AlignedModels(attribute_model(Role.AGE), attribute_model(Role.GENDER))
    doubt_about = None
    # Registered ones are known to be fed rightly, and dlib's faces are all similar.
    if chosen.similarity > MAX_SIMILARITY and not owners(registry(), recogniser.sha256):
        model = verified[Role.RECOGNISER]
        doubt_about = doubt(chosen.similarity, similarities(model.file, model.content))
    if feeds:
        reference = OnnxCpuSession(recogniser, threads, chosen.session.batch_sizes, flushes_denormals=True)
        chosen = replace(chosen, session=FedSession(reference, feeds), wide=None)
    loaded = Recogniser(
        session=chosen.session,
        wide=chosen.wide,
        spec=recogniser.spec,
        name=pack.manifest.model,
        dim=recogniser.output_dim * max(1, len(feeds)),
        sha256=recogniser.sha256,
        self_test_cosine=chosen.self_test_cosine,
        probe_features=None if feeds else chosen.expected,
        reason=chosen.reason,
        doubt=doubt_about,
    )
    return Embedder(
        models=Models(loaded, open_regressor(), regressor_content().sha256, attribute_models),
        limits=ImageLimits(settings.max_image_pixels),
        capacity=_capacity(settings),
        decode_threads=settings.decode_threads or cpus,
        decoders=open_decoders(settings),
    )


def doubt(similarity: float, by_feed: Mapping[InputSpec, float]) -> str | None:
    """What speaks against a recogniser whose features of different synthetic faces have this median cosine.

    `by_feed` has that of other ways to feed it, as `similarities` returns it. None: nothing speaks against it.
    """
    if similarity <= MAX_SIMILARITY:
        return None
    better = sorted((found, spec.feed) for spec, found in by_feed.items() if found <= MAX_SIMILARITY)
    instead = " or ".join(f"{feed}: {found:.2f}" for found, feed in better[:3])
    return (
        "The recogniser hardly distinguishes faces: the built-in probe faces have a median cosine of"
        f" {similarity:.2f} to each other, and at most {MAX_SIMILARITY} is usual. It is probably fed wrongly, and its"
        f" embeddings are then useless. {f'Fed otherwise: {instead}.' if better else 'No usual way to feed it helps.'}"
        " `arcface-api packs check` finds out with your labelled pairs; docs/packs.md shows how."
    )


def similarities(file: ModelFile, content: bytes) -> dict[InputSpec, float]:
    """For each usual way to feed a recogniser, the stated one first: the median cosine of different synthetic faces.

    Raises ModelFailed if it cannot be loaded or run.
    """
    specs = usual_feeds(file.input)
    model = ModelContent(adapted(content), hashlib.sha256(content).hexdigest(), file.input, file.output_dim)
    session = FedSession(OnnxCpuSession(model, max(1, available_cpus())), specs)
    rows = reference_features(session, probe_crops(file.input.height, file.input.width))
    return dict(zip(specs, map(median_similarity, np.split(rows, len(specs), axis=1)), strict=True))


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
    """Raises `RuntimeUnfit` if no request could be served with the default options, or no face aligned rightly."""
    file = pack.manifest.file(Role.RECOGNISER)
    is_square = file is None or file.input.height == file.input.width
    if default_options(pack, settings).align is not Align.NONE and not is_square:
        raise RuntimeUnfit(
            f"Faces cannot be aligned for {pack.manifest.name}, whose recogniser's input is not square. Set"
            " ARCFACE_ALIGN=none."
        )
    if file is not None and file.input.template is not None:
        try:
            check_landmarks(file.input.template, file.input.height, file.input.width)
        except LandmarksInvalid as error:
            raise RuntimeUnfit(
                f"The template of {file.name} cannot be used: {error} Correct it in pack.toml."
            ) from None


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
