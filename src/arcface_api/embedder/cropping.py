"""From one picture to the crops that the models want: what runs on a decode thread.

    bytes ──decode──▶ Image ──stretch, letterbox or align──▶ Crop, for the recogniser
                        └────attribute_crop────────────────▶ a Crop each, for the attribute models

The landmark regressor runs here, on the same thread, a picture at a time: its work is small beside a decoded picture's
way through another queue, the picture need not be kept meanwhile, and no company can change where a face is cut
(docs/adr/0010).
"""

import math
import time
from dataclasses import dataclass

from arcface_api.alignment import Landmarks, align, check_landmarks, face_box, find_landmarks, lies_aligned
from arcface_api.arrays import TEMPLATE_SIDE, Crop, Features, Image, Points, Transform
from arcface_api.attributes import BOX_MARGIN, attribute_crop, whole_picture
from arcface_api.embedder.models import Models
from arcface_api.embedder.request import EmbedOptions, Picture
from arcface_api.errors import DeadlineExceeded
from arcface_api.image import OVERSAMPLING, ImageLimits, Resize, decode, letterbox, read_header, stretch
from arcface_api.quality import Finding, Quality, QualityWarning, picture_quality
from arcface_api.wire import Align, Alignment, Fit


@dataclass(frozen=True)
class AttributeCrops:
    """One picture as the attribute models want it."""

    age_gender: Crop
    landmarks_3d: Crop
    transform: Transform
    """From the picture's pixels to those of the landmark crop."""


@dataclass(frozen=True)
class Crops:
    """One picture as the models want it, and what was seen on the way."""

    face: Crop
    """The recogniser's."""
    alignment: Alignment
    warnings: tuple[QualityWarning, ...]
    quality: Quality | None
    """None unless asked for."""
    attributes: AttributeCrops | None
    """None unless asked for."""
    decode_ms: float
    crop_ms: float
    """Milliseconds from the picture to its crops."""


class Cropper:
    """Makes crops for the loaded models; several threads may call it at once."""

    def __init__(self, models: Models, limits: ImageLimits) -> None:
        """Nothing is decoded yet."""
        self._models = models
        self._limits = limits
        self._least_side = _least_side(models)

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
        found: Landmarks | None = None
        if options.align is Align.AUTO or options.include_quality:
            found = find_landmarks(image, self._run_regressor)
        outcome, points = _alignment(image, picture, options.align, found)
        face = self._face(image, points, options.fit)
        quality: Quality | None = None
        warnings: tuple[QualityWarning, ...] = ()
        if options.include_quality and found is not None:
            quality = self._quality(picture.content, image, found)
            warnings = quality.warnings
        elif outcome is Alignment.UNSURE:
            warnings = (QualityWarning.LANDMARKS_UNSURE,)
        attributes = self._attribute_crops(image, points) if options.include_attributes else None
        crop_ms = (time.monotonic() - decoded) * 1000
        return Crops(face, outcome, warnings, quality, attributes, (decoded - started) * 1000, crop_ms)

    def _run_regressor(self, crop: Crop) -> Features:
        row: Features = self._models.regressor.run([crop])[0]
        return row

    def _face(self, image: Image, points: Points | None, fit: Fit) -> Crop:
        spec = self._models.recogniser.spec
        if points is not None:
            return align(image, points, spec.height)
        fitted = letterbox if fit is Fit.LETTERBOX else stretch
        return fitted(image, spec.height, spec.width)

    def _quality(self, content: bytes, image: Image, found: Landmarks) -> Quality:
        """The same whatever `align` says: of the face as it would be aligned."""
        face = align(image, found.points, TEMPLATE_SIDE) if found.are_sure else stretch(image, *[TEMPLATE_SIDE] * 2)
        finding = Finding(found.points, found.uncertainty, found.face_probability, found.are_sure)
        header = read_header(content)
        reduction = max(header.width, header.height) / max(image.shape[:2])
        return picture_quality(image, face, finding, reduction=reduction)

    def _attribute_crops(self, image: Image, points: Points | None) -> AttributeCrops | None:
        models = self._models.attributes
        if models is None:
            return None
        box = whole_picture(*image.shape[:2]) if points is None else face_box(points)
        face, _ = attribute_crop(image, box, models.age_gender.spec.height)
        return AttributeCrops(face, *attribute_crop(image, box, models.landmarks_3d.spec.height))


def _alignment(
    image: Image, picture: Picture, wanted: Align, found: Landmarks | None
) -> tuple[Alignment, Points | None]:
    """What becomes of the alignment, and by which landmarks; None: the picture stays as it is."""
    if wanted is Align.LANDMARKS:
        return Alignment.LANDMARKS, check_landmarks(picture.landmarks, *image.shape[:2])
    if wanted is Align.NONE or found is None:
        return Alignment.NONE, None
    if not found.are_sure:
        return Alignment.UNSURE, None
    return Alignment.AUTO, None if lies_aligned(found.points, *image.shape[:2]) else found.points


def _least_side(models: Models) -> int:
    """The least side, in pixels, that a reduced picture must keep for every loaded model.

    Also for those that a request does not ask for: else `include_attributes` would change the embedding.
    """
    sides: list[float] = [models.recogniser.spec.height, models.recogniser.spec.width]
    if models.attributes is not None:
        small = (models.attributes.age_gender, models.attributes.landmarks_3d)
        sides += [model.spec.height / BOX_MARGIN for model in small]
    return math.ceil(OVERSAMPLING * max(sides))
