"""From one picture to the crops that the models take, and the queues for decoding and for the recogniser.

    decoding_queue ──▶ bytes ──decode──▶ Image ─┬──stretch, letterbox or align──▶ Crop ──▶ recognition_queue
                                                └──AttributePredictor.prepare──▶ AttributeCrops

A face is found on the threads that decode (docs/adr/0010).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from arcface_api.arrays import TEMPLATE, TEMPLATE_SIDE, Crop, Embedding, Image, Points
from arcface_api.batching import Batcher
from arcface_api.embedder.attributes import AttributeCrops, AttributePredictor
from arcface_api.embedder.models import Models, Recogniser
from arcface_api.embedder.request import EmbedOptions, Picture
from arcface_api.errors import DeadlineExceeded
from arcface_api.face.geometry import align, check_landmarks, input_template, lies_aligned
from arcface_api.face.landmarks import Landmarks, find_landmarks
from arcface_api.face.quality import Quality, QualityWarning, picture_quality
from arcface_api.image import OVERSAMPLING, ImageLimits, PixelsOf, Resize, decode, letterbox, stretch
from arcface_api.session import Session
from arcface_api.wire import Align, Alignment, Fit


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The crops of one picture, and what was learned on the way."""

    crop: Crop
    """As the recogniser takes it."""
    alignment: Alignment
    attribute_crops: AttributeCrops | None
    quality: Quality | None
    landmarks: Points | None
    crop_png: bytes | None
    """Both as in `Embedded`."""
    warnings: tuple[QualityWarning, ...]
    stages: dict[str, float]
    """As `Embedded.stages`: `decode` and `crop`."""


@dataclass(frozen=True)
class Recognition:
    """The recogniser's result for one crop, and the milliseconds that its batch took."""

    raw: Embedding
    """(dim,) float32, as the model returned it."""
    inference_ms: float


class Preparer:
    """Prepares pictures for the loaded models; several threads may call it at once."""

    def __init__(
        self,
        models: Models,
        predictor: AttributePredictor | None,
        pixels_of: PixelsOf | None = None,
    ) -> None:
        """`pixels_of` decodes, if given."""
        self._spec = models.recogniser.spec
        self._template = input_template(self._spec)
        self._has_standard_input = self._spec.height == TEMPLATE_SIDE and np.array_equal(self._template, TEMPLATE)
        self._regress = lambda crop: models.regressor.run([crop])[0]
        self._predictor, self._pixels_of = predictor, pixels_of
        # Independent of include_attributes, or asking for attributes would change the embedding.
        sides = self._spec.height, self._spec.width, predictor.least_side if predictor else 0
        self._least_side = math.ceil(OVERSAMPLING * max(sides))

    def prepare(self, picture: Picture, options: EmbedOptions, limits: ImageLimits) -> Prepared:
        """Decodes a picture and cuts the models' crops; raises as `Embedder.embed`."""
        started = time.monotonic()
        if started > options.deadline:
            raise DeadlineExceeded
        may_reduce = options.align is Align.NONE and options.resize is Resize.AUTO
        least_side = self._least_side if may_reduce else None
        image, reduction, is_truncated = decode(picture.content, limits, least_side, self._pixels_of)
        decoded_at = time.monotonic()
        predictor = self._predictor if options.include_attributes else None
        landmarks: Landmarks | None = None
        quality: Quality | None = None
        attribute_crops: AttributeCrops | None = None
        if options.align is Align.LANDMARKS:
            points = check_landmarks(picture.landmarks, *image.shape[:2])
            landmarks = Landmarks(points, uncertainty=0.0, face_probability=1.0)  # the caller is certain
        elif options.need_landmarks or (predictor and predictor.needs_landmarks):
            landmarks = find_landmarks(image, self._regress)
        crop, alignment, is_moved = self._cut(image, options.align, options.fit, landmarks)
        if options.include_quality and landmarks is not None:  # of the face as it would be aligned
            if is_moved and self._has_standard_input:
                face = crop
            elif landmarks.are_sure:
                face = align(image, landmarks.points, TEMPLATE_SIDE, weights=landmarks.weights)
            else:
                face = stretch(image, TEMPLATE_SIDE, TEMPLATE_SIDE)
            quality = picture_quality(image, face, landmarks, reduction=reduction)
        if predictor is not None:
            # The contract's attributes are of the whole picture, even where quality required to find landmarks.
            may_place = options.align is not Align.NONE or predictor.needs_landmarks
            attribute_crops = predictor.prepare(image, landmarks if may_place else None)
        is_unsure = landmarks is not None and not landmarks.are_sure
        warnings = quality.warnings if quality else (QualityWarning.LANDMARKS_UNSURE,) if is_unsure else ()
        return Prepared(
            crop=crop,
            alignment=alignment,
            attribute_crops=attribute_crops,
            quality=quality,
            # A pixel's centre is a whole number, and its left edge half a pixel before.
            landmarks=(landmarks.points + 0.5) * reduction - 0.5 if landmarks and options.include_landmarks else None,
            crop_png=_png(crop) if options.include_crop else None,
            warnings=(*warnings, QualityWarning.TRUNCATED) if is_truncated else warnings,
            stages={"decode": (decoded_at - started) * 1000, "crop": (time.monotonic() - decoded_at) * 1000},
        )

    def _cut(self, image: Image, wanted: Align, fit: Fit, landmarks: Landmarks | None) -> tuple[Crop, Alignment, bool]:
        """The recogniser's crop, what it states of its alignment, and whether the landmarks moved its pixels.

        `Align.NONE` ignores landmarks; raises `LandmarksInvalid` if they are of no use.
        """
        height, width = self._spec.height, self._spec.width
        fitted = letterbox if fit is Fit.LETTERBOX else stretch
        if landmarks is None or wanted is Align.NONE:
            return fitted(image, height, width), Alignment.NONE, False
        if not landmarks.are_sure:
            return fitted(image, height, width), Alignment.UNSURE, False
        points, weights = landmarks.points, landmarks.weights
        alignment = Alignment.LANDMARKS if wanted is Align.LANDMARKS else Alignment.AUTO
        if wanted is Align.AUTO and lies_aligned(points, self._template, height, *image.shape[:2], weights=weights):
            return stretch(image, height, width), alignment, False  # `fit` is not part of its recipe
        return align(image, points, height, self._template, weights=weights), alignment, True


def _png(crop: Crop) -> bytes:
    """A crop as a file, packed quickly rather than tightly."""
    return cv2.imencode(".png", crop[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def decoding_queue(
    preparer: Preparer, name: str, capacity: int, *, lanes: int = 1, most: int = 1
) -> Batcher[tuple[Picture, EmbedOptions, ImageLimits], Prepared]:
    """A queue of the arguments of `Preparer.prepare`, for `capacity` pictures and a probe, up to `most` at once."""

    def run(jobs: Sequence[tuple[Picture, EmbedOptions, ImageLimits]]) -> list[Prepared | Exception]:
        return [attempt(*job) for job in jobs]

    def attempt(*job: *tuple[Picture, EmbedOptions, ImageLimits]) -> Prepared | Exception:
        try:
            return preparer.prepare(*job)
        except Exception as error:  # noqa: BLE001  # costs its own picture only
            return error

    return Batcher(run, name=name, sizes=range(1, most + 1), capacity=capacity + 1, lanes=lanes)


def recognition_queue(model: Recogniser, capacity: int) -> Batcher[Crop, Recognition]:
    """The recogniser's queue, for `capacity` crops and a probe."""

    def run(crops: Sequence[Crop], session: Session = model.session) -> list[Recognition]:
        started = time.monotonic()
        rows = session.run(crops)
        inference_ms = (time.monotonic() - started) * 1000
        return [Recognition(row, inference_ms) for row in rows]

    return Batcher(
        run,
        name="recogniser",
        sizes=model.session.batch_sizes,
        capacity=capacity + 1,
        lanes=model.session.lanes,
        run_alone=partial(run, session=model.wide or model.session),
    )
