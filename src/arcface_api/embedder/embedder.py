"""Leads each picture from its bytes to its embedding and attributes, within limits of number and time.

    Picture ──decode thread──▶ Prepared ──▶ Batcher ──▶ Recognition ──checked──▶ Embedded
                                  └───────▶ a Batcher each ──▶ age, gender, head pose

The event loop only waits: a few threads decode and cut, and one thread per model runs it in batches. At most `capacity`
pictures are inside at once; the next one is refused. The event loop also keeps the deadlines: a caller gets an answer
even if a thread hangs, and `why_stuck` reports threads that do.
"""

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from arcface_api.batching import Batcher, both
from arcface_api.embedder.attributes import AttributePredictor
from arcface_api.embedder.models import Models
from arcface_api.embedder.prepare import CutFace, Prepared, Preparer, UncutFace
from arcface_api.embedder.recognise import recognise_with_mirror_image, recognition_queue
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
from arcface_api.image import Decoders, ImageLimits
from arcface_api.wire import Align, Alignment

_SHORTEST, _LONGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Limits of an embedding's length: beyond them float32, in which it may be divided by its length, is not exact."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Decoding:
    """A picture on its way to a decode thread; None once its caller has left."""

    picture: Picture | None


class Embedder:
    """Owns the models and the threads they run on. Its methods belong to one event loop; `close` ends it."""

    def __init__(
        self, models: Models, limits: ImageLimits, capacity: int, decode_threads: int, decoders: Decoders | None = None
    ) -> None:
        """Starts no thread before the first call.

        Args:
            models: Loaded.
            limits: Of each picture.
            capacity: The number of pictures that may be inside at once.
            decode_threads: The number of threads that decode and cut.
            decoders: Processes that decode pictures, to be closed with this; None: the threads do it.
        """
        self.models = models
        self.recogniser = models.recogniser
        self.last_success = -math.inf
        """When the recogniser last returned a valid embedding, on `time.monotonic`'s clock, in seconds."""
        self._capacity = capacity
        self._inside = 0
        self._became_empty = asyncio.Event()
        self._refusal: str | None = None
        """Why no new work is taken; None while it is."""
        self._waits: set[asyncio.Timeout] = set()
        """Timeouts of the pictures inside: when they expire, callers get an answer."""
        self._decoders = decoders
        self._decode_threads = ThreadPoolExecutor(decode_threads, "decode")
        self._decoding_since: dict[_Decoding, float] = {}
        """What is on a decode thread now, and since when, on `time.monotonic`'s clock."""
        self._bulk_decoding = asyncio.Semaphore(decode_threads)
        """Of batch requests, only as many pictures wait for decoding as there are threads, so that single ones pass."""
        self._predictor = None if models.attributes is None else AttributePredictor(models.attributes, capacity)
        pixels_of = decoders.pixels if decoders else None
        self._preparer = Preparer(models, self._predictor, limits, lambda: self._recognition.is_idle, pixels_of)
        self._recognition = recognition_queue(models.recogniser, self._preparer, 2 * capacity)  # two for `flip`
        attribute_queues = self._predictor.queues if self._predictor else ()
        self._queues: tuple[Batcher[Any, Any], ...] = self._recognition, *attribute_queues
        height, width = self.recogniser.spec.height, self.recogniser.spec.width
        shades = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)
        self._probe = Picture(cv2.imencode(".jpg", shades)[1].tobytes())

    def check_room(self, pictures: int = 1) -> None:
        """Refuses what could not be admitted now; cheap, so that an upload can be refused before it is read.

        Raises:
            QueueFull: `capacity` pictures would be exceeded.
            ServiceClosing: `close` or `give_up` was called.
        """
        if self._refusal is not None:
            raise ServiceClosing(self._refusal)
        if self._inside + pictures > self._capacity:
            raise QueueFull(self._inside, self._capacity, pictures, self._recognition.seconds_for(self._inside))

    async def embed(self, picture: Picture, options: EmbedOptions = CONTRACT) -> Embedded:
        """Embeds the one face of a picture.

        Raises:
            AttributesUnavailable, AlignmentUnavailable: The loaded pack cannot do what the options ask for.
            QueueFull: As many pictures are inside as may be.
            DeadlineExceeded: It could not be served in time.
            ImageEmpty, ImageFormatUnsupported, ImageTooManyPixels, ImageDamaged: The picture cannot be used.
            LandmarksInvalid: The caller's landmarks cannot be used.
            EmbeddingInvalid, ModelFailed: The model failed on it.
            ServiceClosing: `close` or `give_up` was called.
        """
        with self._admitted(1, options):
            return await self._embed(picture, options)

    async def embed_many(
        self, pictures: Sequence[Picture], options: EmbedOptions = CONTRACT
    ) -> list[Embedded | Exception]:
        """Embeds the pictures of one batch request: in their order, each an embedding or its error.

        They give way to pictures that are sent one by one.

        Raises:
            AttributesUnavailable, AlignmentUnavailable, QueueFull, ServiceClosing: As `embed`, for all of them.
        """
        bulk = replace(options, is_bulk=True)

        async def each(picture: Picture) -> Embedded | Exception:
            try:
                return await self._embed(picture, bulk)
            except ArcFaceError as error:
                return error
            except Exception as error:  # noqa: BLE001  # a defect is logged, and costs its own picture only
                _log.exception("A defect in embedding one picture of many:")
                return error

        with self._admitted(len(pictures), options):
            return await asyncio.gather(*map(each, pictures))

    async def probe(self) -> float:
        """Embeds a synthetic JPEG, also beyond `capacity`, and returns the norm: proof that the service can embed.

        Raises:
            ImageDamaged, EmbeddingInvalid, ModelFailed, ServiceClosing: It cannot.
        """
        if self._refusal is not None:
            raise ServiceClosing(self._refusal)
        self._inside += 1
        try:
            return (await self._embed(self._probe, CONTRACT)).norm
        finally:
            self._leave(1)

    def why_stuck(self, before: float) -> str | None:
        """What has been running on a thread since before this moment of `time.monotonic`; None: nothing."""
        if any(since < before for since in list(self._decoding_since.values())):
            return "decoding a picture does not end"
        for queue in self._queues:
            if queue.has_lost_its_thread:
                return f"the thread of the model {queue.name} has ended"
            if queue.running_since is not None and queue.running_since < before:
                return f"an inference of the model {queue.name} does not end"
        return None

    def give_up(self, why: str) -> None:
        """Takes no new work, and answers everyone who waits now with `ServiceClosing(why)`."""
        self._refusal = why
        for wait in self._waits:
            with suppress(RuntimeError):  # it has just expired by itself
                wait.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Refuses new work, finishes what is inside, ends the threads. Waits as long as that takes."""
        self._refusal = self._refusal or "The service is shutting down and takes no new work. Send the request again."
        while self._inside:
            self._became_empty.clear()
            await self._became_empty.wait()
        for queue in self._queues:
            await queue.close()
        self._decode_threads.shutdown(wait=False)  # they are idle
        if self._decoders is not None:
            await asyncio.to_thread(self._decoders.close)

    @contextmanager
    def _admitted(self, pictures: int, options: EmbedOptions) -> Iterator[None]:
        """Holds places for pictures, if the models can do what the options ask for and there is room."""
        if options.include_attributes and self._predictor is None:
            raise AttributesUnavailable(
                f"The loaded pack ({self.recogniser.name}) has no models for age, gender and head pose. Leave out"
                " include_attributes, or run the service with a pack that has them, for example antelopev2."
            )
        spec = self.recogniser.spec
        if options.align is not Align.NONE and spec.height != spec.width:
            raise AlignmentUnavailable(
                f"The loaded recogniser ({self.recogniser.name}) takes crops of {spec.width}x{spec.height} pixels, but"
                " ArcFace's template, by which faces are aligned, is square. Send align=none."
            )
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

    async def _embed(self, picture: Picture, options: EmbedOptions) -> Embedded:
        """One picture; raises at its deadline, or when the service gives up, whatever its thread does."""
        left_seconds = None if math.isinf(options.deadline) else max(0.0, options.deadline - time.monotonic())
        wait = asyncio.timeout(left_seconds)
        try:
            async with wait:
                self._waits.add(wait)
                return await self._run_steps(picture, options)
        except TimeoutError:
            if not wait.expired():
                raise
            raise DeadlineExceeded() if self._refusal is None else ServiceClosing(self._refusal) from None
        finally:
            self._waits.discard(wait)

    async def _run_steps(self, picture: Picture, options: EmbedOptions) -> Embedded:
        async with self._bulk_decoding if options.is_bulk else nullcontext():
            submitted = time.monotonic()
            prepared = await self._prepare(picture, options)
        queue_ms = (time.monotonic() - submitted) * 1000 - prepared.decode_ms - prepared.crop_ms
        stages = {"decode": prepared.decode_ms, "crop": prepared.crop_ms}
        attributes: Attributes | None = None
        face = prepared.face
        if options.flip and isinstance(face, CutFace):  # with `flip`, no face is left uncut
            recognition = recognise_with_mirror_image(self._recognition, face, options)
        else:
            recognition = self._recognition.submit(face, deadline=options.deadline, is_bulk=options.is_bulk)
        if prepared.attribute_crops is None or self._predictor is None:
            recognised = await recognition
        else:
            prediction = self._predictor.predict(prepared.attribute_crops, options)
            recognised, (attributes, stages["attributes"]) = await both(recognition, prediction)
        row = recognised.row
        norm = float(np.linalg.norm(row.raw.astype(np.float64)))
        if not _SHORTEST <= norm <= _LONGEST:  # also if it is NaN: such a vector must never reach a database
            raise EmbeddingInvalid(
                f"The model returned an embedding of length {norm}, which cannot be compared with anything. Try another"
                " picture; if every picture fails, the model or its provider is broken: see /health."
            )
        self.last_success = time.monotonic()
        stages["queue"] = queue_ms + recognised.waited_ms
        stages["crop" if isinstance(face, UncutFace) else "queue"] += row.crop_ms
        stages["inference"] = row.inference_ms
        is_unsure = row.alignment is Alignment.UNSURE
        return Embedded(
            embedding=row.raw / np.float32(norm) if options.normalize else row.raw,
            norm=norm,
            alignment=row.alignment,
            warnings=prepared.warnings or ((QualityWarning.LANDMARKS_UNSURE,) if is_unsure else ()),
            quality=prepared.quality,
            attributes=attributes,
            stages=stages,
            batch_size=recognised.batch_size,
        )

    async def _prepare(self, picture: Picture, options: EmbedOptions) -> Prepared:
        """Runs `Preparer.prepare` on a decode thread.

        If the caller leaves, a picture that no thread has taken yet is dropped. One that is on a thread keeps its place
        until the thread is done, or uncounted pictures would pile up.
        """
        loop = asyncio.get_running_loop()
        decoding = _Decoding(picture)
        prepared = self._decode_threads.submit(self._prepare_on_thread, decoding, options)
        try:
            return await asyncio.wrap_future(prepared)
        except asyncio.CancelledError:
            decoding.picture = None
            if not prepared.cancel() and not prepared.done():
                self._inside += 1
                prepared.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, 1))
            raise

    def _prepare_on_thread(self, decoding: _Decoding, options: EmbedOptions) -> Prepared:
        picture = decoding.picture
        if picture is None:
            raise DeadlineExceeded
        self._decoding_since[decoding] = time.monotonic()
        try:
            return self._preparer.prepare(picture, options)
        finally:
            del self._decoding_since[decoding]
