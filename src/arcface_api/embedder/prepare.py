"""From one picture to the crops that the models take, and the recogniser's queue.

    bytes ──decode──▶ Image ─┬──stretch, letterbox or align──▶ CutFace ──▶ recognition_queue
                             ├──small, recogniser is busy──▶ UncutFace ──▶ recognition_queue ──find_and_cut──▶ CutFace
                             └──AttributePredictor.prepare──▶ AttributeCrops

`prepare` runs on a decode thread. `find_and_cut` runs on the recogniser's thread, between two batches, for faces whose
landmarks only the recogniser needs: beside a running batch, a regressor would take a core from it, and all its threads
would wait for the one on that core (docs/adr/0010). Both give the same crop, bit for bit.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from arcface_api.arrays import TEMPLATE_SIDE, Crop, Embedding, Image
from arcface_api.batching import Batcher
from arcface_api.embedder.attributes import AttributeCrops, AttributePredictor
from arcface_api.embedder.models import Models, Recogniser
from arcface_api.embedder.request import EmbedOptions, Picture
from arcface_api.errors import DeadlineExceeded
from arcface_api.face.geometry import align, check_landmarks, input_template, lies_aligned
from arcface_api.face.landmarks import Landmarks, find_landmarks
from arcface_api.face.quality import Quality, QualityWarning, picture_quality
from arcface_api.image import OVERSAMPLING, ImageLimits, PixelsOf, Resize, decode, letterbox, stretch
from arcface_api.session import GPU_PROVIDERS, Session
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
    """A decoded picture whose face is found together with others of its batch; `fit` is for one that cannot be."""

    image: Image
    fit: Fit


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The crops of one picture, and what was learned on the way."""

    face: CutFace | UncutFace
    attribute_crops: AttributeCrops | None
    quality: Quality | None
    warnings: tuple[QualityWarning, ...]
    stages: dict[str, float]
    """As `Embedded.stages`: `decode` and `crop`, except for what an `UncutFace` still needs."""


@dataclass(frozen=True)
class Recognition:
    """The recogniser's result for one face, and what its whole batch took to be found and cut, and to be inferred."""

    raw: Embedding
    """(dim,) float32, as the model returned it."""
    alignment: Alignment
    crop_ms: float
    inference_ms: float


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
        self._spec = models.recogniser.spec
        self._template = input_template(self._spec)
        self._regressor = models.regressor.session
        session = models.recogniser.session
        idles_much = session.provider in GPU_PROVIDERS or session.threads > MAX_IDLING_THREADS
        self._may_align_in_batches = models.regressor.is_batch_invariant and not idles_much
        self._predictor, self._limits, self._is_idle, self._pixels_of = predictor, limits, is_idle, pixels_of
        # Independent of include_attributes, or asking for attributes would change the embedding.
        sides = self._spec.height, self._spec.width, predictor.least_side if predictor else 0
        self._least_side = math.ceil(OVERSAMPLING * max(sides))

    def prepare(self, picture: Picture, options: EmbedOptions) -> Prepared:
        """Decodes a picture and cuts the models' crops; raises as `Embedder.embed`."""
        started = time.monotonic()
        if started > options.deadline:
            raise DeadlineExceeded
        may_reduce = options.align is Align.NONE and options.resize is Resize.AUTO
        image, reduction = decode(
            picture.content, self._limits, self._least_side if may_reduce else None, self._pixels_of
        )
        decoded_at = time.monotonic()
        height, width = image.shape[:2]
        predictor = self._predictor if options.include_attributes else None
        landmarks: Landmarks | None = None
        quality: Quality | None = None
        attribute_crops: AttributeCrops | None = None
        face: CutFace | UncutFace
        needs_landmarks_once = not (options.include_quality or options.flip or options.include_attributes)
        may_wait = self._may_align_in_batches and needs_landmarks_once and height * width <= MAX_WAITING_PIXELS
        if options.align is Align.AUTO and may_wait and not self._is_idle():
            face = UncutFace(image, options.fit)
        else:
            if options.align is Align.LANDMARKS:
                points = check_landmarks(picture.landmarks, height, width)
                landmarks = Landmarks(points, uncertainty=0.0, face_probability=1.0)  # the caller is certain
            elif options.align is Align.AUTO or options.include_quality or (predictor and predictor.needs_landmarks):
                landmarks = self.find(image)
            face = self.cut(image, options.align, options.fit, landmarks)
            if options.include_quality and landmarks is not None:  # of the face as it would be aligned
                size = TEMPLATE_SIDE
                crop = align(image, landmarks.points, size) if landmarks.are_sure else stretch(image, size, size)
                quality = picture_quality(image, crop, landmarks, reduction=reduction)
            if predictor is not None:
                # The contract's attributes are of the whole picture, even where quality required to find landmarks.
                may_place = options.align is not Align.NONE or predictor.needs_landmarks
                attribute_crops = predictor.prepare(image, landmarks if may_place else None)
        is_unsure = landmarks is not None and not landmarks.are_sure
        return Prepared(
            face=face,
            attribute_crops=attribute_crops,
            quality=quality,
            warnings=quality.warnings if quality else (QualityWarning.LANDMARKS_UNSURE,) if is_unsure else (),
            stages={"decode": (decoded_at - started) * 1000, "crop": (time.monotonic() - decoded_at) * 1000},
        )

    def find(self, image: Image) -> Landmarks:
        """The landmarks of one picture; raises `ModelFailed` if the regressor failed."""
        (found,) = find_landmarks([image], self._regressor.run)
        if isinstance(found, Exception):
            raise found
        return found

    def cut(self, image: Image, wanted: Align, fit: Fit, landmarks: Landmarks | None) -> CutFace:
        """The recogniser's crop. `Align.NONE` ignores landmarks; raises `LandmarksInvalid` if they are of no use."""
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
        """The crops of several pictures, aligned as with `Align.AUTO`, or the exception that a picture alone caused."""
        most = max(self._regressor.batch_sizes)
        faces: list[CutFace | Exception] = []
        for start in range(0, len(pictures), most):
            part = pictures[start : start + most]
            found: Sequence[Landmarks | Exception | None]
            try:
                found = find_landmarks([picture.image for picture in part], self._regressor.run)
            except Exception:  # noqa: BLE001  # whichever picture caused it: each is tried alone
                found = [None] * len(part)
            for picture, one in zip(part, found, strict=True):
                if isinstance(one, Exception):
                    faces.append(one)
                    continue
                try:
                    faces.append(self.cut(picture.image, Align.AUTO, picture.fit, one or self.find(picture.image)))
                except Exception as error:  # noqa: BLE001  # whatever it is, it concerns this picture only
                    faces.append(error)
        return faces


def recognition_queue(
    model: Recogniser, preparer: Preparer, capacity: int
) -> Batcher[CutFace | UncutFace, Recognition]:
    """The queue of the recogniser `model`, for `capacity` faces and a probe; `preparer` cuts what is not cut yet."""
    session, spec = model.session, model.spec
    wide = model.wide or session
    blank = np.zeros((spec.height, spec.width, 3), np.uint8)

    def run(faces: Sequence[CutFace | UncutFace], session: Session = session) -> list[Recognition | Exception]:
        started = time.monotonic()
        uncut = [face for face in faces if isinstance(face, UncutFace)]
        found = iter(preparer.find_and_cut(uncut) if uncut else ())
        cut = [next(found) if isinstance(face, UncutFace) else face for face in faces]
        cut_at = time.monotonic()
        if len(uncut) == len(faces) and all(isinstance(each, Exception) for each in cut):
            return [each for each in cut if isinstance(each, Exception)]
        rows = session.run([each.pixels if isinstance(each, CutFace) else blank for each in cut])
        crop_ms, inference_ms = (cut_at - started) * 1000, (time.monotonic() - cut_at) * 1000
        return [
            Recognition(row, each.alignment, crop_ms, inference_ms) if isinstance(each, CutFace) else each
            for each, row in zip(cut, rows, strict=True)
        ]

    return Batcher(
        run,
        name="recogniser",
        sizes=session.batch_sizes,
        capacity=capacity + 1,
        lanes=session.lanes,
        run_alone=lambda faces: run(faces, wide),
    )
