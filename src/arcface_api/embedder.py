"""The whole road of one request: bytes in, embedding (and attributes) out.

    bytes ──decode thread──▶ Image ──▶ Crop ────────────▶ Batcher ──▶ embedding ──checked──▶ Embedded
                                └────▶ attribute crops ──▶ a Batcher each ──▶ age, gender, head pose

The event loop only waits: decoding runs on a few threads, each model on one thread of its own, in batches. As many
pictures as `capacity` may be inside at once, wherever they are on this road; the next one is refused.

Longer than most modules, because the road is told in one place, together with the shapes of what travels on it.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from arcface_api import attributes as age_and_gender
from arcface_api import head_pose as pose
from arcface_api.arrays import Crop, Embedding, InputSpec, Transform
from arcface_api.attributes import AgeGender
from arcface_api.batching import Batcher
from arcface_api.errors import (
    ArcFaceError,
    AttributesUnavailable,
    DeadlineExceeded,
    EmbeddingInvalid,
    QueueFull,
    ServiceClosing,
)
from arcface_api.head_pose import HeadPose
from arcface_api.image import OVERSAMPLING, ImageLimits, Resize, decode, stretch
from arcface_api.session import Session

PREPROCESSING_VERSION = 2
"""Raised with every change that can change a vector: decoding, resizing, normalising.

2: a JPEG of more than a million pixels is decoded at a fraction of its size, unless `resize=exact` is asked for.
"""


@dataclass(frozen=True)
class Model:
    """A loaded model and how it wants its pixels."""

    session: Session
    spec: InputSpec


@dataclass(frozen=True)
class Recogniser(Model):
    """The loaded model that makes embeddings."""

    name: str
    """What answers report as `model`."""
    dim: int
    """Length of an embedding."""
    sha256: str
    """Of the model file, in hex."""
    self_test_cosine: float
    """Lowest cosine to float32 on the probe faces, at start."""
    reason: str | None
    """Why it does not run on what would be faster; None where there is nothing to explain."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits; two embeddings may be compared only if it is equal.

        It covers the weights and every step that turns a picture into the model's input.
        """
        spec = self.spec
        steps = (PREPROCESSING_VERSION, spec.height, spec.width, spec.mean, spec.std, str(spec.channel_order))
        return hashlib.sha256(repr((self.sha256, *steps)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class AttributeModels:
    """The two models behind `include_attributes`."""

    age_gender: Model
    landmarks_3d: Model


@dataclass(frozen=True)
class Attributes:
    """What the attribute models say of one face."""

    age_gender: AgeGender
    head_pose: HeadPose


@dataclass(frozen=True)
class EmbedOptions:
    """What is wanted of a picture; the defaults are the contract's."""

    include_attributes: bool = False
    normalize: bool = False
    """Divide the embedding by its norm."""
    resize: Resize = Resize.AUTO
    deadline: float = math.inf
    """On `time.monotonic`'s clock, in seconds: what cannot be served by then is dropped before it costs the model."""


@dataclass(frozen=True)
class Embedded:
    """The answer to one request."""

    embedding: Embedding
    """(dim,) float32: the model's raw output, or that divided by its norm where asked for."""
    norm: float
    """Length of the raw output."""
    attributes: Attributes | None
    """None unless asked for."""
    stages: dict[str, float]
    """Milliseconds: `decode` (bytes to crops), `queue` (waiting for threads), `inference` (its batch), `attributes`."""
    batch_size: int
    """Of the batch it ran in."""


@dataclass(frozen=True)
class Limits:
    """How much may be inside at once, and how it is grouped."""

    image: ImageLimits
    capacity: int
    """Pictures between upload and answer; one more is refused."""
    decode_threads: int


@dataclass(frozen=True)
class _AttributeCrops:
    """One picture as the attribute models want it."""

    age_gender: Crop
    landmarks_3d: Crop
    transform: Transform
    """From the picture's pixels to those of the landmark crop."""


@dataclass(frozen=True)
class _AttributeQueues:
    """The queues before the attribute models."""

    age_gender: Batcher[Crop, Embedding]
    landmarks_3d: Batcher[Crop, Embedding]
    landmark_size: int
    """Side of the landmark model's input, pixels."""


class Embedder:
    """Owns the models and the threads they run on. Its methods belong to one event loop; `close` ends it."""

    def __init__(self, recogniser: Recogniser, attribute_models: AttributeModels | None, limits: Limits) -> None:
        """Nothing runs before the first call; the models are loaded already."""
        self.recogniser = recogniser
        self.attribute_models = attribute_models
        self.limits = limits
        self.last_success = -math.inf
        """When the recogniser last returned a valid embedding, on `time.monotonic`'s clock, in seconds."""
        self._inside = 0
        self._is_closing = False
        self._became_empty = asyncio.Event()
        self._least_side = _least_side(recogniser, attribute_models)
        self._decoders = ThreadPoolExecutor(limits.decode_threads, "decode")
        self._bulk_decoding = asyncio.Semaphore(limits.decode_threads)
        """Of batch requests only as many pictures as there are threads wait for decoding, so that single ones pass."""
        self._recognition = _batcher(recogniser, "recogniser", limits.capacity)
        self._attributes: _AttributeQueues | None = None
        if attribute_models is not None:
            self._attributes = _AttributeQueues(
                _batcher(attribute_models.age_gender, "age_gender", limits.capacity),
                _batcher(attribute_models.landmarks_3d, "landmarks_3d", limits.capacity),
                attribute_models.landmarks_3d.spec.height,
            )

    def check_room(self, pictures: int = 1) -> None:
        """Refuse what could not be admitted now; cheap, so that an upload can be refused before it is read.

        Raises:
            QueueFull: `capacity` pictures would be exceeded.
            ServiceClosing: `close` was called.
        """
        if self._is_closing:
            raise ServiceClosing("The service is shutting down and takes no new work. Send the request again.")
        if self._inside + pictures > self.limits.capacity:
            raise QueueFull(self._inside, self._recognition.seconds_for(self._inside))

    async def embed(self, content: bytes, options: EmbedOptions = EmbedOptions()) -> Embedded:
        """Embed the face on one picture; the whole picture is the face.

        Args:
            content: A JPEG, PNG or WebP file.
            options: What is wanted, and by when.

        Raises:
            AttributesUnavailable: Attributes were asked for and the pack lacks their models.
            QueueFull: As many pictures are inside as may.
            DeadlineExceeded: It could not be served in time.
            ImageEmpty, ImageFormatUnsupported, ImageTooManyPixels, ImageDamaged: The picture cannot be used.
            EmbeddingInvalid, ModelFailed: The model failed on it.
            ServiceClosing: `close` was called.
        """
        self._check_models(options)
        with self._admitted(1):
            return await self._embed(content, options, is_bulk=False)

    async def embed_many(
        self,
        contents: Sequence[bytes],
        options: EmbedOptions = EmbedOptions(),
    ) -> list[Embedded | ArcFaceError]:
        """Embed many pictures of one request: in their order, each an embedding or the error that it met.

        They give way to pictures that are sent one by one.

        Raises:
            AttributesUnavailable, QueueFull, ServiceClosing: As `embed`, for all of them.
        """
        self._check_models(options)

        async def each(content: bytes) -> Embedded | ArcFaceError:
            try:
                return await self._embed(content, options, is_bulk=True)
            except ArcFaceError as error:
                return error

        with self._admitted(len(contents)):
            return await asyncio.gather(*map(each, contents))

    async def probe(self) -> float:
        """Run a real inference on a synthetic picture; the way to know that the service can embed.

        Returns:
            The norm of its embedding.

        Raises:
            EmbeddingInvalid, ModelFailed, ServiceClosing: It cannot.
        """
        spec = self.recogniser.spec
        ramp = np.linspace(0, 255, spec.height * spec.width * 3).astype(np.uint8)
        batched = await self._recognition.submit(ramp.reshape(spec.height, spec.width, 3))
        return self._checked_norm(batched.row)

    async def close(self) -> None:
        """Refuse new work, finish what is inside, end the threads."""
        self._is_closing = True
        while self._inside:
            self._became_empty.clear()
            await self._became_empty.wait()
        await self._recognition.close()
        if self._attributes is not None:
            await self._attributes.age_gender.close()
            await self._attributes.landmarks_3d.close()
        await asyncio.to_thread(self._decoders.shutdown)

    @contextmanager
    def _admitted(self, pictures: int) -> Iterator[None]:
        self.check_room(pictures)
        self._inside += pictures
        try:
            yield
        finally:
            self._inside -= pictures
            if not self._inside:
                self._became_empty.set()

    def _check_models(self, options: EmbedOptions) -> None:
        if options.include_attributes and self.attribute_models is None:
            raise AttributesUnavailable(
                f"The loaded pack ({self.recogniser.name}) has no models for age, gender and head pose. Leave out"
                " include_attributes, or run the service with a pack that has them, for example antelopev2."
            )

    async def _embed(self, content: bytes, options: EmbedOptions, *, is_bulk: bool) -> Embedded:
        async with self._bulk_decoding if is_bulk else nullcontext():
            submitted = time.monotonic()
            (crop, faces), decode_ms = await asyncio.get_running_loop().run_in_executor(
                self._decoders, self._decode, content, options
            )
        decode_waited_ms = (time.monotonic() - submitted) * 1000 - decode_ms
        recognition = self._recognition.submit(crop, deadline=options.deadline, is_bulk=is_bulk)
        attributes: Attributes | None = None
        stages = {"decode": decode_ms}
        if faces is None or self._attributes is None:
            recognised = await recognition
        else:
            telling = _tell_attributes(self._attributes, faces, options.deadline, is_bulk=is_bulk)
            recognised, (attributes, stages["attributes"]) = await asyncio.gather(recognition, telling)
        raw = recognised.row
        norm = self._checked_norm(raw)
        stages |= {"queue": decode_waited_ms + recognised.waited_ms, "inference": recognised.ran_ms}
        embedding = raw / np.float32(norm) if options.normalize else raw
        return Embedded(embedding, norm, attributes, stages, recognised.batch_size)

    def _decode(self, content: bytes, options: EmbedOptions) -> tuple[tuple[Crop, _AttributeCrops | None], float]:
        """On a decode thread: the picture's crops, and the milliseconds it took."""
        started = time.monotonic()
        if started > options.deadline:
            raise DeadlineExceeded.told()
        image = decode(content, self.limits.image, self._least_side if options.resize is Resize.AUTO else None)
        spec, models = self.recogniser.spec, self.attribute_models
        crop = stretch(image, spec.height, spec.width)
        faces: _AttributeCrops | None = None
        if options.include_attributes and models is not None:
            face, _ = age_and_gender.attribute_crop(image, models.age_gender.spec.height)
            faces = _AttributeCrops(face, *age_and_gender.attribute_crop(image, models.landmarks_3d.spec.height))
        return (crop, faces), (time.monotonic() - started) * 1000

    def _checked_norm(self, raw: Embedding) -> float:
        norm = _checked_norm(raw)
        self.last_success = time.monotonic()
        return norm


async def _tell_attributes(
    queues: _AttributeQueues, faces: _AttributeCrops, deadline: float, *, is_bulk: bool
) -> tuple[Attributes, float]:
    """Age, gender and head pose, and the milliseconds until both models had answered."""
    started = time.monotonic()
    scores, row = await asyncio.gather(
        queues.age_gender.submit(faces.age_gender, deadline=deadline, is_bulk=is_bulk),
        queues.landmarks_3d.submit(faces.landmarks_3d, deadline=deadline, is_bulk=is_bulk),
    )
    landmarks = pose.landmarks_in_picture(row.row, queues.landmark_size, faces.transform)
    attributes = Attributes(age_and_gender.age_gender(scores.row), pose.head_pose(landmarks))
    return attributes, (time.monotonic() - started) * 1000


def _least_side(recogniser: Recogniser, attribute_models: AttributeModels | None) -> int:
    """The least side, in pixels, that a reduced picture must keep for every loaded model.

    Also for those that a request does not ask for: else `include_attributes` would change the embedding.
    """
    sides: list[float] = [recogniser.spec.height, recogniser.spec.width]
    if attribute_models is not None:
        models = (attribute_models.age_gender, attribute_models.landmarks_3d)
        sides += [model.spec.height / age_and_gender.BOX_MARGIN for model in models]
    return math.ceil(OVERSAMPLING * max(sides))


def _batcher(model: Model, name: str, capacity: int) -> Batcher[Crop, Embedding]:
    """A model's queue. It can hold all that is admitted, and a probe."""

    def run(crops: Sequence[Crop]) -> list[Embedding]:
        return list(model.session.run(crops))

    return Batcher(run, name=name, sizes=model.session.batch_sizes, capacity=capacity + 1)


def _checked_norm(raw: Embedding) -> float:
    """Length of a raw embedding, computed in float64.

    Raises:
        EmbeddingInvalid: It is zero or not finite, and such a vector must never reach a database.
    """
    norm = float(np.linalg.norm(raw.astype(np.float64)))
    if not (np.isfinite(norm) and norm > 0):
        raise EmbeddingInvalid(
            f"The model returned an embedding of length {norm}, which cannot be compared with anything. Try another"
            " picture; if every picture fails, the model or its provider is broken: see /health."
        )
    return norm
