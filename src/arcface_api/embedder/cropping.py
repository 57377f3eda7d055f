"""From one picture to the crops that the models want: what runs on a decode thread.

    bytes ──decode──▶ Image ──stretch, letterbox or align──▶ Crop, for the recogniser
                        └────look──────────────────────────▶ Telling, what the attribute models want

The landmark regressor runs here, on the same thread, a picture at a time: its work is small beside a decoded picture's
way through another queue, the picture need not be kept meanwhile, and no company can change where a face is cut
(docs/adr/0010).
"""

import math
import time
from dataclasses import dataclass

from arcface_api.alignment import Landmarks, align, check_landmarks, find_landmarks, input_template, lies_aligned
from arcface_api.arrays import TEMPLATE_SIDE, Crop, Features, Image, Points
from arcface_api.embedder.models import Models
from arcface_api.embedder.request import EmbedOptions, Picture
from arcface_api.embedder.telling import AttributeTeller, Telling
from arcface_api.errors import DeadlineExceeded
from arcface_api.image import OVERSAMPLING, ImageLimits, Resize, decode, letterbox, read_header, stretch
from arcface_api.quality import Finding, Quality, QualityWarning, picture_quality
from arcface_api.wire import Align, Alignment, Fit


@dataclass(frozen=True)
class Crops:
    """One picture as the models want it, and what was seen on the way."""

    face: Crop
    """The recogniser's."""
    alignment: Alignment
    warnings: tuple[QualityWarning, ...]
    quality: Quality | None
    """None unless asked for."""
    tell_attributes: Telling | None
    """None unless asked for."""
    decode_ms: float
    crop_ms: float
    """Milliseconds from the picture to its crops."""


class Cropper:
    """Makes crops for the loaded models; several threads may call it at once."""

    def __init__(self, models: Models, teller: AttributeTeller | None, limits: ImageLimits) -> None:
        """Nothing is decoded yet."""
        self._models = models
        self._teller = teller
        self._limits = limits
        self._template = input_template(models.recogniser.spec)
        # Also for attributes that a request does not ask for: else asking for them would change the embedding.
        sides = [models.recogniser.spec.height, models.recogniser.spec.width, teller.least_side if teller else 0]
        self._least_side = math.ceil(OVERSAMPLING * max(sides))

    def crops(self, picture: Picture, options: EmbedOptions) -> Crops:
        """Decode a picture and cut what the models want.

        Raises:
            DeadlineExceeded: It is too late to begin.
            ImageEmpty, ImageFormatUnsupported, ImageTooManyPixels, ImageDamaged: The picture cannot be used.
            LandmarksInvalid: The caller's landmarks cannot be used.
            ModelFailed: The landmark regressor failed.
        """
        started = time.monotonic()
        if started > options.deadline:
            raise DeadlineExceeded.told()
        may_reduce = options.align is Align.NONE and options.resize is Resize.AUTO
        image = decode(picture.content, self._limits, self._least_side if may_reduce else None)
        decoded = time.monotonic()
        teller = self._teller if options.include_attributes else None
        needs_landmarks = options.include_quality or (teller is not None and teller.needs_landmarks)
        found: Landmarks | None = None
        if options.align is Align.LANDMARKS:
            points = check_landmarks(picture.landmarks, *image.shape[:2])
            found = Landmarks(points, uncertainty=0.0, face_probability=1.0)  # the caller knows
        elif options.align is Align.AUTO or needs_landmarks:
            found = find_landmarks(image, self._run_regressor)
        outcome, aligned_by = self._alignment(image, options.align, found)
        face = self._face(image, aligned_by, options.fit)
        quality: Quality | None = None
        warnings: tuple[QualityWarning, ...] = ()
        if options.include_quality and found is not None:
            quality = self._quality(picture.content, image, found)
            warnings = quality.warnings
        elif found is not None and not found.are_sure:
            warnings = (QualityWarning.LANDMARKS_UNSURE,)
        telling: Telling | None = None
        if teller is not None:
            # the contract's attributes are of the whole picture, whatever else was found out about it
            may_place = options.align is not Align.NONE or teller.needs_landmarks
            telling = teller.look(image, found if may_place else None)
        crop_ms = (time.monotonic() - decoded) * 1000
        return Crops(face, outcome, warnings, quality, telling, (decoded - started) * 1000, crop_ms)

    def _run_regressor(self, crop: Crop) -> Features:
        row: Features = self._models.regressor.run([crop])[0]
        return row

    def _face(self, image: Image, points: Points | None, fit: Fit) -> Crop:
        spec = self._models.recogniser.spec
        if points is not None:
            return align(image, points, spec.height, self._template)
        fitted = letterbox if fit is Fit.LETTERBOX else stretch
        return fitted(image, spec.height, spec.width)

    def _quality(self, content: bytes, image: Image, found: Landmarks) -> Quality:
        """Of the face as it would be aligned, whatever `align` says."""
        face = align(image, found.points, TEMPLATE_SIDE) if found.are_sure else stretch(image, *[TEMPLATE_SIDE] * 2)
        finding = Finding(found.points, found.uncertainty, found.face_probability, found.are_sure)
        header = read_header(content)
        reduction = max(header.width, header.height) / max(image.shape[:2])
        return picture_quality(image, face, finding, reduction=reduction)

    def _alignment(self, image: Image, wanted: Align, found: Landmarks | None) -> tuple[Alignment, Points | None]:
        """What becomes of the alignment, and by which landmarks; None: the picture stays as it is."""
        if wanted is Align.NONE or found is None:
            return Alignment.NONE, None
        if wanted is Align.LANDMARKS:
            return Alignment.LANDMARKS, found.points
        if not found.are_sure:
            return Alignment.UNSURE, None
        size = self._models.recogniser.spec.height
        is_aligned = lies_aligned(found.points, self._template, size, *image.shape[:2])
        return Alignment.AUTO, None if is_aligned else found.points
