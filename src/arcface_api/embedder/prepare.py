"""From one picture to the crops that the models take.

    bytes ──decode──▶ Image ─┬──stretch, letterbox or align──▶ CutFace ──▶ recogniser
                             ├──small, recogniser is busy──▶ UncutFace ──find_and_cut──▶ CutFace
                             └──AttributePredictor.prepare──▶ AttributeCrops

`prepare` runs on a decode thread. `find_and_cut` runs on the recogniser's thread, between two batches, for faces whose
landmarks only the recogniser needs. Both give the same crop, bit for bit.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from arcface_api.arrays import TEMPLATE_SIDE, Crop, Image
from arcface_api.embedder.attributes import AttributeCrops, AttributePredictor
from arcface_api.embedder.models import Models
from arcface_api.embedder.request import EmbedOptions, Picture
from arcface_api.errors import DeadlineExceeded
from arcface_api.face.geometry import align, input_template, lies_aligned
from arcface_api.face.given import check_landmarks
from arcface_api.face.landmarks import Landmarks, find_landmarks
from arcface_api.face.quality import Quality, QualityWarning, picture_quality
from arcface_api.image import OVERSAMPLING, ImageLimits, PixelsOf, Resize, decode, letterbox, stretch
from arcface_api.session import GPU_PROVIDERS
from arcface_api.wire import Align, Alignment, Fit

MAX_IDLING_THREADS = 2
"""Recogniser threads that may idle while one of them finds the faces of a batch. Measured to pay with two; on a GPU or
more threads, which would idle more, it was not measured (docs/adr/0010)."""
MAX_WAITING_PIXELS = 512 * 512
"""Larger pictures are not kept decoded until their batch forms: this many pixels are 0.8 MB, and hundreds of pictures
may wait. Decoding them takes at least as long as finding faces together could save."""


@dataclass(frozen=True)
class CutFace:
    """A face as the recogniser takes it."""

    pixels: Crop
    alignment: Alignment


@dataclass(frozen=True)
class UncutFace:
    """A decoded picture whose face is found and aligned together with others of its batch."""

    image: Image
    fit: Fit
    """If it turns out that it cannot be aligned."""


@dataclass(frozen=True)
class Prepared:
    """The crops of one picture, and what was learned on the way."""

    face: CutFace | UncutFace
    attribute_crops: AttributeCrops | None
    quality: Quality | None
    warnings: tuple[QualityWarning, ...]
    decode_ms: float
    crop_ms: float
    """Milliseconds from the decoded picture to its crops, except for what an `UncutFace` still needs."""


class Preparer:
    """Prepares pictures for the loaded models; several threads may call it at once."""

    def __init__(
        self,
        models: Models,
        predictor: AttributePredictor | None,
        limits: ImageLimits,
        is_idle: Callable[[], bool],
        pixels_of: PixelsOf | None = None,
    ) -> None:
        """`is_idle` returns True if the recogniser has nothing to do just now; `pixels_of` decodes, if given."""
        recogniser = models.recogniser
        self._spec = recogniser.spec
        self._template = input_template(recogniser.spec)
        self._regressor = models.regressor.session
        idles_much = recogniser.session.provider in GPU_PROVIDERS or recogniser.session.threads > MAX_IDLING_THREADS
        self._may_align_in_batches = models.regressor.is_batch_invariant and not idles_much
        self._predictor = predictor
        self._limits = limits
        self._is_idle = is_idle
        self._pixels_of = pixels_of
        # Independent of include_attributes, or asking for attributes would change the embedding.
        sides = self._spec.height, self._spec.width, predictor.least_side if predictor else 0
        self._least_side = math.ceil(OVERSAMPLING * max(sides))

    def prepare(self, picture: Picture, options: EmbedOptions) -> Prepared:
        """Decodes a picture and cuts the models' crops.

        Raises:
            DeadlineExceeded, ImageEmpty, ..., LandmarksInvalid, ModelFailed: As `Embedder.embed`.
        """
        started = time.monotonic()
        if started > options.deadline:
            raise DeadlineExceeded
        may_reduce = options.align is Align.NONE and options.resize is Resize.AUTO
        least_side = self._least_side if may_reduce else None
        image, reduction = decode(picture.content, self._limits, least_side, self._pixels_of)
        decoded_at = time.monotonic()
        predictor = self._predictor if options.include_attributes else None
        landmarks: Landmarks | None = None
        quality: Quality | None = None
        attribute_crops: AttributeCrops | None = None
        face: CutFace | UncutFace
        if options.align is Align.AUTO and self._may_wait(image, options):
            face = UncutFace(image, options.fit)
        else:
            needs_landmarks = options.include_quality or (predictor is not None and predictor.needs_landmarks)
            if options.align is Align.LANDMARKS:
                points = check_landmarks(picture.landmarks, *image.shape[:2])
                landmarks = Landmarks(points, uncertainty=0.0, face_probability=1.0)  # the caller is certain
            elif options.align is Align.AUTO or needs_landmarks:
                landmarks = self.find(image)
            face = self.cut(image, options.align, options.fit, landmarks)
            if options.include_quality and landmarks is not None:
                quality = self._quality(image, landmarks, reduction)
            if predictor is not None:
                # The contract's attributes are of the whole picture, even where quality required to find landmarks.
                may_place = options.align is not Align.NONE or predictor.needs_landmarks
                attribute_crops = predictor.prepare(image, landmarks if may_place else None)
        warnings: tuple[QualityWarning, ...] = ()
        if quality is not None:
            warnings = quality.warnings
        elif landmarks is not None and not landmarks.are_sure:
            warnings = (QualityWarning.LANDMARKS_UNSURE,)
        return Prepared(
            face=face,
            attribute_crops=attribute_crops,
            quality=quality,
            warnings=warnings,
            decode_ms=(decoded_at - started) * 1000,
            crop_ms=(time.monotonic() - decoded_at) * 1000,
        )

    def find(self, image: Image) -> Landmarks:
        """The landmarks of one picture; raises `ModelFailed` if the regressor failed."""
        (found,) = find_landmarks([image], self._regressor.run)
        if isinstance(found, Exception):
            raise found
        return found

    def cut(self, image: Image, wanted: Align, fit: Fit, landmarks: Landmarks | None) -> CutFace:
        """The recogniser's crop of a picture, (h, w, 3) uint8 RGB; with `Align.NONE` the landmarks are not used.

        Raises:
            LandmarksInvalid: The picture cannot be aligned by them.
        """
        height, width = self._spec.height, self._spec.width
        alignment, points = Alignment.NONE, None
        if landmarks is not None and wanted is Align.LANDMARKS:
            alignment, points = Alignment.LANDMARKS, landmarks.points
        elif landmarks is not None and wanted is Align.AUTO:
            alignment = Alignment.AUTO if landmarks.are_sure else Alignment.UNSURE
            if landmarks.are_sure and not lies_aligned(landmarks.points, self._template, height, *image.shape[:2]):
                points = landmarks.points
        if points is not None:
            return CutFace(align(image, points, height, self._template), alignment)
        fitted = letterbox if fit is Fit.LETTERBOX else stretch
        return CutFace(fitted(image, height, width), alignment)

    def find_and_cut(self, pictures: Sequence[UncutFace]) -> list[CutFace | Exception]:
        """The crops of several pictures, aligned as with `Align.AUTO`, or the exception that a picture caused.

        Raises nothing: other faces of the batch may need no alignment.
        """
        most = max(self._regressor.batch_sizes)
        faces: list[CutFace | Exception] = []
        for start in range(0, len(pictures), most):
            part = pictures[start : start + most]
            found: Sequence[Landmarks | Exception | None]
            try:
                found = find_landmarks([picture.image for picture in part], self._regressor.run)
            except Exception:  # noqa: BLE001  # whichever picture caused it: each is tried alone
                found = [None] * len(part)
            faces.extend(self._cut_or_error(*each) for each in zip(part, found, strict=True))
        return faces

    def _cut_or_error(self, picture: UncutFace, found: Landmarks | Exception | None) -> CutFace | Exception:
        """The crop by these landmarks; None: they are still to be found."""
        if isinstance(found, Exception):
            return found
        try:
            landmarks = self.find(picture.image) if found is None else found
            return self.cut(picture.image, Align.AUTO, picture.fit, landmarks)
        except Exception as error:  # noqa: BLE001  # whatever it is, it concerns this picture only
            return error

    def _may_wait(self, image: Image, options: EmbedOptions) -> bool:
        """True if a small picture's landmarks are needed once, by the recogniser, and the recogniser is busy."""
        is_needed_once = not (options.include_quality or options.flip or options.include_attributes)
        is_small = image.shape[0] * image.shape[1] <= MAX_WAITING_PIXELS
        return self._may_align_in_batches and is_needed_once and is_small and not self._is_idle()

    def _quality(self, image: Image, landmarks: Landmarks, reduction: float) -> Quality:
        """Of the face as it would be aligned, whatever `align` says."""
        size = TEMPLATE_SIDE
        face = align(image, landmarks.points, size) if landmarks.are_sure else stretch(image, size, size)
        return picture_quality(image, face, landmarks, reduction=reduction)
