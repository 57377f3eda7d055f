"""The whole road of one request: bytes in, embedding (and attributes) out.

    Picture ──decode thread──▶ Crops ──▶ Batcher ──▶ Recognised ──checked──▶ Embedded
                                 └─────▶ a Batcher each ──▶ age, gender, head pose

The event loop only waits: decoding and cropping run on a few threads, each model on one thread of its own, in batches.
As many pictures as `capacity` may be inside at once, wherever they are on this road; the next one is refused. Deadlines
are the event loop's, too: they end in an answer whatever a thread does, and what has run for too long can be seen
(`why_stuck`).

Longer than most modules, as the road is: each step that is more than a call has a module of its own.
"""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from arcface_api.arrays import Embedding
from arcface_api.batching import Batched, Batcher, both
from arcface_api.embedder.aligning import Aligner, CutFace, UncutFace
from arcface_api.embedder.attributes import teller
from arcface_api.embedder.models import Models, Recogniser
from arcface_api.embedder.prepare import Cropper, Crops
from arcface_api.embedder.recognise import Recognised, recognition_queue
from arcface_api.embedder.request import CONTRACT, Attributes, Embedded, EmbedOptions, Picture
from arcface_api.errors import (
    AlignmentUnavailable,
    ArcFaceError,
    AttributesUnavailable,
    DeadlineExceeded,
    EmbeddingInvalid,
    QueueFull,
    ServiceClosing,
)
from arcface_api.face.quality import QualityWarning
from arcface_api.image import Decoders, ImageLimits, pixels_here
from arcface_api.wire import Align, Alignment

_SHORTEST, _LONGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Lengths that an embedding may have: float32, by which it may be divided, holds the others badly or not at all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How much may be inside at once, and how it is grouped."""

    image: ImageLimits
    capacity: int
    """Pictures between upload and answer; one more is refused."""
    decode_threads: int


class Embedder:
    """Owns the models and the threads they run on. Its methods belong to one event loop; `close` ends it."""

    def __init__(self, models: Models, limits: Limits, decoders: Decoders | None = None) -> None:
        """No thread runs before the first call; the models are loaded already.

        Args:
            models: Loaded.
            limits: How much may be inside at once.
            decoders: Where pictures are decoded, and ended by `close`; None: in this process.
        """
        self.models = models
        self.limits = limits
        self.last_success = -math.inf
        """When the recogniser last returned a valid embedding, on `time.monotonic`'s clock, in seconds."""
        self._inside = 0
        self._became_empty = asyncio.Event()
        self._refusal: str | None = None
        """Why no new work is taken; None while it is."""
        self._waits: set[asyncio.Timeout] = set()
        """Of the pictures inside: when their callers get an answer, whatever becomes of them."""
        self._teller = None if models.attributes is None else teller(models.attributes, limits.capacity)
        aligner = Aligner(models)
        self._decode_threads = ThreadPoolExecutor(limits.decode_threads, "decode")
        self._decoding_since: dict[_Decoding, float] = {}
        """What is on a decode thread now, and since when, on `time.monotonic`'s clock."""
        self._bulk_decoding = asyncio.Semaphore(limits.decode_threads)
        """Of batch requests only as many pictures as there are threads wait for decoding, so that single ones pass."""
        self._recognition = recognition_queue(models, aligner, 2 * limits.capacity)  # with `flip` two each
        self._decoders = decoders
        self._cropper = Cropper(
            models,
            aligner,
            self._teller,
            limits.image,
            lambda: self._recognition.is_idle,
            pixels_here if decoders is None else decoders.pixels,
        )
        self._probe = Picture(_probe_picture(models.recogniser.spec.height, models.recogniser.spec.width))

    @property
    def recogniser(self) -> Recogniser:
        """The model that makes embeddings."""
        return self.models.recogniser

    def check_room(self, pictures: int = 1) -> None:
        """Refuse what could not be admitted now; cheap, so that an upload can be refused before it is read.

        Raises:
            QueueFull: `capacity` pictures would be exceeded.
            ServiceClosing: `close` was called.
        """
        if self._refusal is not None:
            raise ServiceClosing(self._refusal)
        if self._inside + pictures > self.limits.capacity:
            raise QueueFull(self._inside, self.limits.capacity, pictures, self._recognition.seconds_for(self._inside))

    async def embed(self, picture: Picture, options: EmbedOptions = CONTRACT) -> Embedded:
        """Embed the one face on a picture.

        Args:
            picture: The file, and the caller's landmarks where it is to be aligned by them.
            options: What is wanted, and by when.

        Raises:
            AttributesUnavailable, AlignmentUnavailable: The loaded pack cannot do what was asked for.
            QueueFull: As many pictures are inside as may.
            DeadlineExceeded: It could not be served in time.
            ImageEmpty, ImageFormatUnsupported, ImageTooManyPixels, ImageDamaged: The picture cannot be used.
            LandmarksInvalid: The caller's landmarks cannot be used.
            EmbeddingInvalid, ModelFailed: The model failed on it.
            ServiceClosing: `close` was called.
        """
        self._check_models(options)
        with self._admitted(1):
            return await self._embed(picture, options, is_bulk=False)

    async def embed_many(
        self, pictures: Sequence[Picture], options: EmbedOptions = CONTRACT
    ) -> list[Embedded | Exception]:
        """Embed many pictures of one request: in their order, each an embedding or the error that it met.

        They give way to pictures that are sent one by one.

        Raises:
            AttributesUnavailable, AlignmentUnavailable, QueueFull, ServiceClosing: As `embed`, for all of them.
        """
        self._check_models(options)

        async def each(picture: Picture) -> Embedded | Exception:
            try:
                return await self._embed(picture, options, is_bulk=True)
            except ArcFaceError as error:
                return error
            except Exception as error:  # noqa: BLE001  # any defect: it is logged, and costs its own picture only
                _log.exception("A defect in embedding one picture of many:")
                return error

        with self._admitted(len(pictures)):
            return await asyncio.gather(*map(each, pictures))

    async def probe(self) -> float:
        """Embed a synthetic picture, decoding included; the way to know that the service can embed.

        Returns:
            The norm of its embedding.

        Raises:
            ImageDamaged, EmbeddingInvalid, ModelFailed, ServiceClosing: It cannot.
        """
        if self._refusal is not None:
            raise ServiceClosing(self._refusal)
        self._inside += 1
        try:
            return (await self._embed(self._probe, CONTRACT, is_bulk=False)).norm
        finally:
            self._leave(1)

    def why_stuck(self, before: float) -> str | None:
        """What on a thread has not ended although it began before this moment; None: nothing.

        Args:
            before: On `time.monotonic`'s clock, in seconds.
        """
        if any(since < before for since in list(self._decoding_since.values())):
            return "decoding a picture does not end"
        for queue in self._queues:
            if queue.has_lost_its_thread:
                return f"the thread of the model {queue.name} has ended"
            if queue.running_since is not None and queue.running_since < before:
                return f"an inference of the model {queue.name} does not end"
        return None

    def give_up(self, why: str) -> None:
        """Take no new work, and answer now all who wait.

        Args:
            why: What they are answered, as `ServiceClosing`.
        """
        self._refusal = why
        for wait in self._waits:
            with suppress(RuntimeError):  # it has just expired by itself
                wait.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Refuse new work, finish what is inside, end the threads. Waits as long as that takes."""
        self._refusal = self._refusal or "The service is shutting down and takes no new work. Send the request again."
        while self._inside:
            self._became_empty.clear()
            await self._became_empty.wait()
        for queue in self._queues:
            await queue.close()
        self._decode_threads.shutdown(wait=False)  # they are idle
        if self._decoders is not None:
            await asyncio.to_thread(self._decoders.close)

    @property
    def _queues(self) -> tuple[Batcher[Any, Any], ...]:
        return (self._recognition, *(self._teller.queues if self._teller else ()))

    @contextmanager
    def _admitted(self, pictures: int) -> Iterator[None]:
        self.check_room(pictures)
        self._inside += pictures
        try:
            yield
        finally:
            self._leave(pictures)

    def _leave(self, pictures: int) -> None:
        self._inside -= pictures
        if not self._inside:
            self._became_empty.set()

    def _check_models(self, options: EmbedOptions) -> None:
        if options.include_attributes and self.models.attributes is None:
            raise AttributesUnavailable(
                f"The loaded pack ({self.recogniser.name}) has no models for age, gender and head pose. Leave out"
                " include_attributes, or run the service with a pack that has them, for example antelopev2."
            )
        spec = self.recogniser.spec
        if options.align is not Align.NONE and spec.height != spec.width:
            raise AlignmentUnavailable(
                f"The loaded recogniser ({self.recogniser.name}) takes crops of {spec.width}x{spec.height} pixels;"
                " ArcFace's template, by which faces are aligned, is square. Send align=none."
            )

    async def _embed(self, picture: Picture, options: EmbedOptions, *, is_bulk: bool) -> Embedded:
        """One picture, with an answer by its deadline, or when the service gives up."""
        left_seconds = None if math.isinf(options.deadline) else max(0.0, options.deadline - time.monotonic())
        wait = asyncio.timeout(left_seconds)
        try:
            async with wait:
                self._waits.add(wait)
                return await self._work_on(picture, options, is_bulk=is_bulk)
        except TimeoutError:
            if not wait.expired():
                raise
            raise DeadlineExceeded.told() if self._refusal is None else ServiceClosing(self._refusal) from None
        finally:
            self._waits.discard(wait)

    async def _work_on(self, picture: Picture, options: EmbedOptions, *, is_bulk: bool) -> Embedded:
        async with self._bulk_decoding if is_bulk else nullcontext():
            submitted = time.monotonic()
            crops = await self._decode(picture, options)
        decode_waited_ms = (time.monotonic() - submitted) * 1000 - crops.decode_ms - crops.crop_ms
        recognition = self._recognise(crops.face, options, is_bulk=is_bulk)
        attributes: Attributes | None = None
        stages = {"decode": crops.decode_ms, "crop": crops.crop_ms}
        if crops.tell_attributes is None:
            recognised = await recognition
        else:
            telling = _timed(crops.tell_attributes(options.deadline, is_bulk))
            recognised, (attributes, stages["attributes"]) = await both(recognition, telling)
        row = recognised.row
        norm = self._checked_norm(row.raw)
        stages["queue"] = decode_waited_ms + recognised.waited_ms
        stages["crop" if isinstance(crops.face, UncutFace) else "queue"] += row.crop_ms
        stages["inference"] = row.inference_ms
        is_unsure = row.alignment is Alignment.UNSURE
        warnings = crops.warnings or ((QualityWarning.LANDMARKS_UNSURE,) if is_unsure else ())
        embedding = row.raw / np.float32(norm) if options.normalize else row.raw
        return Embedded(
            embedding, norm, row.alignment, warnings, crops.quality, attributes, stages, recognised.batch_size
        )

    async def _decode(self, picture: Picture, options: EmbedOptions) -> Crops:
        """What the models see of a picture.

        Its caller may leave meanwhile. A picture that no thread has taken yet is dropped then; one that is on a thread
        keeps a place until the thread gives it back, or pictures would be there that nobody counts.
        """
        loop = asyncio.get_running_loop()
        decoding = _Decoding(picture)
        crops = self._decode_threads.submit(self._run, decoding, options)
        try:
            return await asyncio.wrap_future(crops)
        except asyncio.CancelledError:
            decoding.picture = None
            if not crops.cancel() and not crops.done():
                self._inside += 1
                crops.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, 1))
            raise

    def _run(self, decoding: "_Decoding", options: EmbedOptions) -> Crops:
        """On a decode thread."""
        picture = decoding.picture
        if picture is None:
            raise DeadlineExceeded.told()
        self._decoding_since[decoding] = time.monotonic()
        try:
            return self._cropper.crops(picture, options)
        finally:
            del self._decoding_since[decoding]

    async def _recognise(
        self, face: CutFace | UncutFace, options: EmbedOptions, *, is_bulk: bool
    ) -> Batched[Recognised]:
        """The raw embedding of a face; with `flip`, the sum of its crop's own and that of the crop's mirror image."""
        own = self._recognition.submit(face, deadline=options.deadline, is_bulk=is_bulk)
        if not options.flip:
            return await own
        assert isinstance(face, CutFace)  # noqa: S101  # it is cut before, to be mirrored
        mirror_image = CutFace(np.ascontiguousarray(face.pixels[:, ::-1]), face.alignment)
        mirrored = self._recognition.submit(mirror_image, deadline=options.deadline, is_bulk=is_bulk)
        one, other = await both(own, mirrored)
        inference_ms = max(one.row.inference_ms, other.row.inference_ms)
        return replace(one, row=replace(one.row, raw=one.row.raw + other.row.raw, inference_ms=inference_ms))

    def _checked_norm(self, raw: Embedding) -> float:
        norm = _checked_norm(raw)
        self.last_success = time.monotonic()
        return norm


class _Decoding:
    """A picture on its way to a decode thread."""

    def __init__(self, picture: Picture) -> None:
        self.picture: Picture | None = picture
        """None: its caller has left."""


def _probe_picture(height: int, width: int) -> bytes:
    """A synthetic picture as a JPEG file."""
    shades = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)
    return cv2.imencode(".jpg", shades)[1].tobytes()


async def _timed(telling: Coroutine[Any, Any, Attributes]) -> tuple[Attributes, float]:
    """Attributes, and the milliseconds until all their models had answered."""
    started = time.monotonic()
    return await telling, (time.monotonic() - started) * 1000


def _checked_norm(raw: Embedding) -> float:
    """Length of a raw embedding, computed in float64.

    Raises:
        EmbeddingInvalid: It is zero or not finite, as float32 knows such numbers, and such a vector must never reach a
            database.
    """
    norm = float(np.linalg.norm(raw.astype(np.float64)))
    if not _SHORTEST <= norm <= _LONGEST:  # also where it is NaN
        raise EmbeddingInvalid(
            f"The model returned an embedding of length {norm}, which cannot be compared with anything. Try another"
            " picture; if every picture fails, the model or its provider is broken: see /health."
        )
    return norm
