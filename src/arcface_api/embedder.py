"""The whole road of one request: bytes in, embedding (and attributes) out.

    bytes ──decode thread──▶ Image ──▶ Crop ──▶ tensor ──inference thread──▶ features ──checked──▶ Embedded
                                └────▶ attribute crops ──attribute thread──▶ age, gender, head pose

The event loop only waits: decoding runs on a few threads, each model on one thread of its own.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

import numpy as np

from arcface_api import attributes as age_and_gender
from arcface_api import head_pose as pose
from arcface_api.arrays import Embedding, Features, Image, InputSpec, Tensor, Transform, to_tensor
from arcface_api.attributes import AgeGender
from arcface_api.errors import AttributesUnavailable, EmbeddingInvalid, ServiceClosing
from arcface_api.head_pose import HeadPose
from arcface_api.image import ImageLimits, decode, stretch
from arcface_api.session import Session

PREPROCESSING_VERSION = 1
"""Raised with every change that can change a vector: decoding, resizing, normalising."""

T = TypeVar("T")


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
class Embedded:
    """The answer to one request."""

    embedding: Embedding
    """(dim,) float32: the model's raw output, or that divided by its norm where asked for."""
    norm: float
    """Length of the raw output."""
    attributes: Attributes | None
    """None unless asked for."""
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds: `decode` (bytes to tensors), `queue` (waiting for the recogniser), `inference`, `attributes`."""


@dataclass(frozen=True)
class _AttributeTensors:
    """One picture as the attribute models want it, each of batch size 1."""

    age_gender: Tensor
    landmarks_3d: Tensor
    transform: Transform
    """From the picture's pixels to those of the landmark crop."""


@dataclass(frozen=True)
class _Timed(Generic[T]):
    """What a thread returned, how long it waited for the thread and how long it ran."""

    value: T
    waited_ms: float
    ran_ms: float


class Embedder:
    """Owns the models and the threads they run on. Its methods belong to one event loop; `close` ends it."""

    def __init__(
        self,
        recogniser: Recogniser,
        attribute_models: AttributeModels | None,
        limits: ImageLimits,
        decode_threads: int,
    ) -> None:
        """Start the threads; the models are loaded already."""
        self.recogniser = recogniser
        self.attribute_models = attribute_models
        self.limits = limits
        self._decoders = ThreadPoolExecutor(decode_threads, "decode")
        self._inference = ThreadPoolExecutor(1, "inference")
        self._attributes = ThreadPoolExecutor(1, "attributes")
        self._is_closing = False
        self.last_success = -math.inf
        """When the recogniser last returned a valid embedding, on `time.monotonic`'s clock, in seconds."""

    async def embed(self, content: bytes, *, include_attributes: bool = False, normalize: bool = False) -> Embedded:
        """Embed the face on one picture; the whole picture is the face.

        Args:
            content: A JPEG, PNG or WebP file.
            include_attributes: Also tell age, gender and head pose.
            normalize: Divide the embedding by its norm.

        Raises:
            AttributesUnavailable: Attributes were asked for and the pack lacks their models.
            ImageEmpty, ImageFormatUnsupported, ImageTooManyPixels, ImageDamaged: The picture cannot be used.
            EmbeddingInvalid, ModelFailed: The model failed on it.
            ServiceClosing: `close` was called.
        """
        models = self.attribute_models
        if include_attributes and models is None:
            raise AttributesUnavailable(
                f"The loaded pack ({self.recogniser.name}) has no models for age, gender and head pose. Leave out"
                " include_attributes, or run the service with a pack that has them, for example antelopev2."
            )
        wanted = models if include_attributes else None
        prepared = await self._run(self._decoders, lambda: self._prepare(content, wanted))
        crop, faces = prepared.value
        recognition = self._run(self._inference, lambda: self.recogniser.session.run(crop))
        told: _Timed[Attributes] | None = None
        if wanted is None or faces is None:
            recognised = await recognition
        else:
            telling = self._run(self._attributes, lambda: _tell_attributes(wanted, faces))
            recognised, told = await asyncio.gather(recognition, telling)
        raw, norm = self._checked(recognised.value)
        stages = {"decode": prepared.ran_ms, "queue": recognised.waited_ms, "inference": recognised.ran_ms}
        if told is not None:
            stages["attributes"] = told.ran_ms
        embedding = raw / np.float32(norm) if normalize else raw
        return Embedded(embedding, norm, told.value if told else None, stages)

    async def probe(self) -> float:
        """Run a real inference on a synthetic picture; the way to know that the service can embed.

        Returns:
            The norm of its embedding.

        Raises:
            EmbeddingInvalid, ModelFailed, ServiceClosing: It cannot.
        """
        spec = self.recogniser.spec
        ramp = np.linspace(0, 255, spec.height * spec.width * 3).astype(np.uint8)
        tensor = to_tensor([ramp.reshape(spec.height, spec.width, 3)], spec)
        recognised = await self._run(self._inference, lambda: self.recogniser.session.run(tensor))
        return self._checked(recognised.value)[1]

    def close(self) -> None:
        """Refuse new work, finish what is queued, end the threads. Blocks until then."""
        self._is_closing = True
        for pool in (self._decoders, self._inference, self._attributes):
            pool.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self, features: Features) -> tuple[Embedding, float]:
        """The only row of a batch of one, and its norm; notes the success."""
        raw = features[0]
        norm = _checked_norm(raw)
        self.last_success = time.monotonic()
        return raw, norm

    def _prepare(self, content: bytes, models: AttributeModels | None) -> tuple[Tensor, _AttributeTensors | None]:
        image = decode(content, self.limits)
        spec = self.recogniser.spec
        crop = to_tensor([stretch(image, spec.height, spec.width)], spec)
        if models is None:
            return crop, None
        faces, _ = _attribute_tensor(image, models.age_gender.spec)
        landmarks, transform = _attribute_tensor(image, models.landmarks_3d.spec)
        return crop, _AttributeTensors(faces, landmarks, transform)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> _Timed[T]:
        """Run `work` on one of the pool's threads while the event loop goes on."""
        if self._is_closing:
            raise ServiceClosing("The service is shutting down and takes no new work. Send the request again.")
        submitted = time.perf_counter()

        def timed() -> _Timed[T]:
            started = time.perf_counter()
            value = work()
            return _Timed(value, (started - submitted) * 1000, (time.perf_counter() - started) * 1000)

        return await asyncio.get_running_loop().run_in_executor(pool, timed)


def _attribute_tensor(image: Image, spec: InputSpec) -> tuple[Tensor, Transform]:
    crop, transform = age_and_gender.attribute_crop(image, spec.height)
    return to_tensor([crop], spec), transform


def _tell_attributes(models: AttributeModels, faces: _AttributeTensors) -> Attributes:
    scores = models.age_gender.session.run(faces.age_gender)[0]
    row = models.landmarks_3d.session.run(faces.landmarks_3d)[0]
    landmarks = pose.landmarks_in_picture(row, models.landmarks_3d.spec.height, faces.transform)
    return Attributes(age_and_gender.age_gender(scores), pose.head_pose(landmarks))


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
