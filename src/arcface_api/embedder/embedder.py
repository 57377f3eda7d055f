"""Takes each picture from its bytes to its embedding and attributes, within limits of number and time.

    Picture ──Batcher──▶ Prepared ──Batcher──▶ Recognition ──checked──▶ Embedded
                             └──a Batcher each──▶ age, gender, head pose

The event loop only waits: each Batcher's threads do one kind of work. At most `capacity` pictures are inside at once;
the next one is refused. The event loop also keeps the deadlines: a caller gets an answer even if a thread hangs, and
`why_stuck` reports threads that do.

Python runs one thread at a time, so each further thread that is awake makes all wait for their turns. A face crop
decodes in less time than such a turn takes: small pictures are decoded one after the other on one thread, and large
ones, and those whose face must be found, on the others.

One module, because admission, deadlines and closing share the count of pictures inside.
"""

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from arcface_api.arrays import Crop
from arcface_api.batching import Batched, Batcher, both
from arcface_api.embedder.attributes import AttributePredictor
from arcface_api.embedder.models import Models
from arcface_api.embedder.prepare import Prepared, Preparer, Recognition, decoding_queue, recognition_queue
from arcface_api.embedder.recipe import Recipes
from arcface_api.embedder.request import CONTRACT, Embedded, EmbedOptions, Picture
from arcface_api.errors import (
    AlignmentUnavailable,
    ArcFaceError,
    AttributesUnavailable,
    DeadlineExceeded,
    EmbeddingInvalid,
    ImageTooManyPixels,
    ModelFailed,
    QueueFull,
    ServiceClosing,
    VectorsDrifted,
    reference_of,
)
from arcface_api.image import Decoders, ImageLimits
from arcface_api.wire import Align

_SHORTEST, _LONGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Limits of an embedding's length. Beyond them, dividing the embedding by its length in float32 is not exact."""
SMALL_BYTES, SMALL_PIXELS = 32 * 1024, 512 * 512
"""A picture of at most so many of both decodes in a few milliseconds at worst, and a face crop in a fraction of one."""
SMALL_AT_ONCE = 8
"""Small pictures that the event loop takes over together, where so many wait."""

_log = logging.getLogger(__name__)


class Embedder:
    """Owns the models and the threads they run on. Its methods belong to one event loop; `close` ends it."""

    def __init__(
        self, models: Models, limits: ImageLimits, capacity: int, decode_threads: int, decoders: Decoders | None = None
    ) -> None:
        """Starts no thread before the first call. `decoders`, closed with this, decode instead of the threads."""
        self.models = models
        self.recogniser = models.recogniser
        self.recipes = Recipes(models.recogniser.fingerprint, models.regressor_sha256)
        self.last_success = -math.inf
        """When the recogniser last returned a valid embedding, on `time.monotonic`'s clock, in seconds."""
        self.failing_since = math.inf
        """When it first failed since then, on the same clock; infinite if it has not."""
        self.capacity = capacity
        self.inside = 0
        """Pictures that are admitted and not answered."""
        self._became_empty = asyncio.Event()
        self._refusal: str | None = None
        """Why no new work is taken; None while it is."""
        self.has_drifted = False
        """Whether embeddings are known to be wrong: then no caller gets one. The self-check sets it."""
        self._waits: set[asyncio.Timeout] = set()
        """Timeouts of the pictures inside: when they expire, callers get an answer."""
        self._decoders = decoders
        self.checks_at_once = max(2, models.recogniser.session.lanes)
        """Pictures of the self-check that have room in the queues beside those of callers."""
        room = capacity + self.checks_at_once
        self._predictor = None if models.attributes is None else AttributePredictor(models.attributes, room)
        pixels_of = decoders.pixels if decoders else None
        self._preparer = Preparer(models, self._predictor, pixels_of)
        self._limits, self._small = limits, ImageLimits(min(SMALL_PIXELS, limits.max_pixels))
        self._decoding = decoding_queue(self._preparer, "decode", room, lanes=decode_threads)
        self._small_decoding = decoding_queue(self._preparer, "decode small", room, most=SMALL_AT_ONCE)
        self.recognition = recognition_queue(models.recogniser, capacity + room)  # each picture twice for `flip`
        self._queues: list[Batcher[Any, Any]] = [self._decoding, self._small_decoding, self.recognition]
        if self._predictor is not None:
            self._queues += self._predictor.queues
        shape = self.recogniser.spec.height, self.recogniser.spec.width, 3
        shades = np.linspace(0, 255, math.prod(shape)).astype(np.uint8).reshape(shape)
        self._probe = Picture(cv2.imencode(".jpg", shades)[1].tobytes())

    def check_room(self, pictures: int = 1) -> None:
        """Raises if so many pictures cannot be admitted. It is cheap, so that an upload can be refused unread.

        `QueueFull`, `VectorsDrifted` or, after `close` or `give_up`, `ServiceClosing`.
        """
        if self._refusal is not None:
            raise ServiceClosing(self._refusal)
        self._check_drift()
        if self.inside + pictures > self.capacity:
            raise QueueFull(self.inside, self.capacity, pictures, self.recognition.seconds_for(self.inside))

    async def embed(self, picture: Picture, options: EmbedOptions = CONTRACT) -> Embedded:
        """Embeds the one face of a picture.

        Raises:
            AttributesUnavailable, AlignmentUnavailable: The loaded pack cannot do what the options ask for.
            QueueFull, ServiceClosing, VectorsDrifted: As `check_room`.
            DeadlineExceeded: It could not be served in time.
            ImageEmpty, ImageFormatUnsupported, ImageTooManyPixels, ImageDamaged: The picture cannot be used.
            LandmarksInvalid: The caller's landmarks cannot be used.
            RecipeDiffers: Its embedding would have another recipe than the options require.
            EmbeddingInvalid, ModelFailed: The model failed on it.
        """
        with self._admitted(1, options):
            embedded = await self._embed(picture, options)
        self._check_drift()  # noticed meanwhile
        return embedded

    async def embed_many(
        self, pictures: Sequence[Picture], options: EmbedOptions = CONTRACT
    ) -> list[Embedded | Exception]:
        """Embeds the pictures of one batch request: in their order, each an embedding or its error.

        Pictures that are sent one by one go first.

        Raises:
            AttributesUnavailable, AlignmentUnavailable, QueueFull, ServiceClosing, VectorsDrifted: As `embed`, for all
                of them.
        """
        bulk = replace(options, is_bulk=True)

        async def each(picture: Picture) -> Embedded | Exception:
            try:
                return await self._embed(picture, bulk)
            except Exception as error:  # noqa: BLE001  # costs its own picture only
                if not isinstance(error, ArcFaceError):
                    message = "A defect in embedding one picture of many (reference %s):"
                    _log.exception(message, reference_of(error))
                return error

        with self._admitted(len(pictures), options):
            embedded = await asyncio.gather(*map(each, pictures))
        self._check_drift()
        return embedded

    async def probe(self) -> float:
        """Embeds a synthetic JPEG, also beyond `capacity`; returns its norm, or raises if the service cannot embed."""
        if self._refusal is not None:
            raise ServiceClosing(self._refusal)
        self.inside += 1
        try:
            return (await self._embed(self._probe, CONTRACT)).norm
        finally:
            self._leave(1)

    async def check(self, picture: Picture, options: EmbedOptions) -> Embedded:
        """Embeds a picture of the self-check: as `embed`, but beyond `capacity`, after callers, and also after a drift.

        At most `checks_at_once` at once.
        """
        if self._refusal is not None:
            raise ServiceClosing(self._refusal)
        return await self._embed(picture, replace(options, is_bulk=True))

    def why_stuck(self, seconds: float) -> str | None:
        """What a thread has been running for more than so many seconds, or that one has ended; None if nothing."""
        for queue in self._queues:
            is_decoding = queue in (self._decoding, self._small_decoding)
            if queue.has_lost_a_thread:
                return f"a thread {'that decodes' if is_decoding else f'of the model {queue.name}'} has ended"
            since = queue.running_since  # read once: the lane may end its batch meanwhile
            if since is not None and time.monotonic() - since > seconds:
                what = "decoding a picture" if is_decoding else f"an inference of the model {queue.name}"
                return f"{what} does not end" + (f": it began more than {seconds:g} s ago" if seconds else "")
        return None

    def give_up(self, why: str) -> None:
        """Takes no new work, and answers everyone who waits now with `ServiceClosing(why)`."""
        self._refusal = why
        for wait in self._waits:
            with suppress(RuntimeError):  # it has just expired by itself
                wait.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Refuses new work, finishes what is inside, and ends the threads, however long that takes."""
        self._refusal = self._refusal or "The service is shutting down and takes no new work. Send the request again."
        while self.inside:
            self._became_empty.clear()
            await self._became_empty.wait()
        for queue in self._queues:
            await queue.close()
        if self._decoders is not None:
            await asyncio.to_thread(self._decoders.close)

    def _check_drift(self) -> None:
        if self.has_drifted:
            raise VectorsDrifted

    @contextmanager
    def _admitted(self, pictures: int, options: EmbedOptions) -> Iterator[None]:
        """Reserves room for pictures, if the models can do what the options ask for and there is room."""
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
        self.inside += pictures
        try:
            yield
        finally:
            self._leave(pictures)

    def _leave(self, pictures: int) -> None:
        self.inside -= pictures
        if not self.inside:
            self._became_empty.set()

    async def _embed(self, picture: Picture, options: EmbedOptions) -> Embedded:
        """One picture; raises at its deadline, or when the service gives up, whatever its thread does."""
        left_seconds = None if math.isinf(options.deadline) else max(0.0, options.deadline - time.monotonic())
        wait = asyncio.timeout(left_seconds)
        try:
            async with wait:
                self._waits.add(wait)
                submitted = time.monotonic()
                prepared = await self._prepare(picture, options)
                recipe = self.recipes.of(options, prepared.alignment)
                stages = dict(prepared.stages)
                queue_ms = (time.monotonic() - submitted) * 1000 - sum(stages.values())
                recognise = self._recognise_with_mirror_image if options.flip else self._recognise
                recognition = recognise(prepared.crop, options)
                if prepared.attribute_crops is None or self._predictor is None:
                    recognised, attributes = await recognition, None
                else:
                    prediction = self._predictor.predict(prepared.attribute_crops, options)
                    recognised, (attributes, stages["attributes"]) = await both(recognition, prediction)
        except TimeoutError:
            if not wait.expired():
                raise
            raise DeadlineExceeded() if self._refusal is None else ServiceClosing(self._refusal) from None
        finally:
            self._waits.discard(wait)
        row = recognised.row
        norm = float(np.linalg.norm(row.raw.astype(np.float64)))
        if not _SHORTEST <= norm <= _LONGEST:  # also if it is NaN: such a vector must never reach a database
            self._note_failure()
            raise EmbeddingInvalid(
                f"The model returned an embedding of length {norm}, which cannot be compared with anything. Try another"
                " picture; if every picture fails, the model or its provider is broken: see /health."
            )
        self.last_success, self.failing_since = time.monotonic(), math.inf
        stages["queue"] = queue_ms + recognised.waited_ms
        stages["inference"] = row.inference_ms
        return Embedded(
            embedding=row.raw / np.float32(norm) if options.normalize else row.raw,
            norm=norm,
            alignment=prepared.alignment,
            recipe=recipe.digest,
            warnings=prepared.warnings,
            quality=prepared.quality,
            attributes=attributes,
            landmarks=prepared.landmarks,
            crop_png=prepared.crop_png,
            stages=stages,
            batch_size=recognised.batch_size,
            batch_number=recognised.batch_number,
        )

    async def _prepare(self, picture: Picture, options: EmbedOptions) -> Prepared:
        """Decodes and crops a picture, on the one thread for small pictures where that takes no time."""
        takes_time = options.need_landmarks or options.include_attributes or options.include_crop
        if not takes_time and self._decoders is None and len(picture.content) <= SMALL_BYTES:
            with suppress(ImageTooManyPixels):  # few bytes may hold many pixels
                job = picture, options, self._small
                return (await self._small_decoding.submit(job, is_bulk=options.is_bulk)).row
        return (await self._decoding.submit((picture, options, self._limits), is_bulk=options.is_bulk)).row

    async def _recognise(self, crop: Crop, options: EmbedOptions) -> Batched[Recognition]:
        try:
            return await self.recognition.submit(crop, deadline=options.deadline, is_bulk=options.is_bulk)
        except ModelFailed:
            self._note_failure()
            raise

    def _note_failure(self) -> None:
        self.failing_since = min(self.failing_since, time.monotonic())

    async def _recognise_with_mirror_image(self, crop: Crop, options: EmbedOptions) -> Batched[Recognition]:
        """The sum of the raw embeddings of a face and of its mirror image."""
        mirror_image = np.ascontiguousarray(crop[:, ::-1])
        one, other = await both(self._recognise(crop, options), self._recognise(mirror_image, options))
        inference_ms = max(one.row.inference_ms, other.row.inference_ms)
        return replace(one, row=replace(one.row, raw=one.row.raw + other.row.raw, inference_ms=inference_ms))
