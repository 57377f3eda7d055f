"""From one picture to the crops that the models want: what runs on a decode thread.

    bytes ──decode──▶ Image ──stretch, letterbox or align──▶ CutFace, for the recogniser
                        ├──as it is──▶ UncutFace, where its face can be found with those of its batch
                        └────look────▶ Telling, what the attribute models want

Landmarks that anything else than the recogniser needs are found here, a picture at a time.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from arcface_api.arrays import TEMPLATE_SIDE, Image
from arcface_api.embedder.aligning import Aligner, CutFace, UncutFace
from arcface_api.embedder.attributes import AttributeTeller, Telling
from arcface_api.embedder.models import Models
from arcface_api.embedder.request import EmbedOptions, Picture
from arcface_api.errors import DeadlineExceeded
from arcface_api.face.geometry import align
from arcface_api.face.given import check_landmarks
from arcface_api.face.landmarks import Landmarks
from arcface_api.face.quality import Quality, QualityWarning, picture_quality
from arcface_api.image import OVERSAMPLING, ImageLimits, PixelsOf, Resize, decode, pixels_here, stretch
from arcface_api.wire import Align

MAX_WAITING_PIXELS = 512 * 512
"""Larger pictures do not wait decoded until their batch has been formed: so many pixels are 0.8 MB, and hundreds of
pictures may wait. Decoding them takes as long as company could save the regressor, or longer."""


@dataclass(frozen=True)
class Crops:
    """One picture as the models want it, and what was seen on the way."""

    face: CutFace | UncutFace
    """The recogniser's."""
    warnings: tuple[QualityWarning, ...]
    quality: Quality | None
    """None unless asked for."""
    tell_attributes: Telling | None
    """None unless asked for."""
    decode_ms: float
    crop_ms: float
    """Milliseconds from the picture to its crops, as far as they are cut."""


class Cropper:
    """Makes crops for the loaded models; several threads may call it at once."""

    def __init__(
        self,
        models: Models,
        aligner: Aligner,
        teller: AttributeTeller | None,
        limits: ImageLimits,
        is_idle: Callable[[], bool],
        pixels_of: PixelsOf = pixels_here,
    ) -> None:
        """Nothing is decoded yet.

        Args:
            models: Loaded.
            aligner: Of the same models.
            teller: Of the attribute models; None: the pack lacks them.
            limits: Of a picture.
            is_idle: Whether the recogniser has nothing to do just now.
            pixels_of: What decodes.
        """
        self._aligner = aligner
        self._teller = teller
        self._limits = limits
        self._is_idle = is_idle
        self._pixels_of = pixels_of
        self._may_align_in_batches = models.may_align_in_batches
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
        least_side = self._least_side if may_reduce else None
        decoded = decode(picture.content, self._limits, least_side, self._pixels_of)
        image = decoded.image
        decoded_at = time.monotonic()
        teller = self._teller if options.include_attributes else None
        if self._may_wait(image, options, teller):
            crop_ms = (time.monotonic() - decoded_at) * 1000
            return Crops(UncutFace(image, options.fit), (), None, None, (decoded_at - started) * 1000, crop_ms)
        needs_landmarks = options.include_quality or (teller is not None and teller.needs_landmarks)
        found: Landmarks | None = None
        if options.align is Align.LANDMARKS:
            points = check_landmarks(picture.landmarks, *image.shape[:2])
            found = Landmarks(points, uncertainty=0.0, face_probability=1.0)  # the caller knows
        elif options.align is Align.AUTO or needs_landmarks:
            found = self._aligner.find(image)
        face = self._aligner.cut(image, options.align, options.fit, found)
        quality: Quality | None = None
        warnings: tuple[QualityWarning, ...] = ()
        if options.include_quality and found is not None:
            quality = self._quality(image, found, decoded.reduction)
            warnings = quality.warnings
        elif found is not None and not found.are_sure:
            warnings = (QualityWarning.LANDMARKS_UNSURE,)
        telling: Telling | None = None
        if teller is not None:
            # the contract's attributes are of the whole picture, whatever else was found out about it
            may_place = options.align is not Align.NONE or teller.needs_landmarks
            telling = teller.look(image, found if may_place else None)
        crop_ms = (time.monotonic() - decoded_at) * 1000
        return Crops(face, warnings, quality, telling, (decoded_at - started) * 1000, crop_ms)

    def _may_wait(self, image: Image, options: EmbedOptions, teller: AttributeTeller | None) -> bool:
        """Only the recogniser needs its landmarks, once; it is busy; and the picture is small enough to be kept."""
        is_wanted_once = options.align is Align.AUTO and not (options.include_quality or options.flip or teller)
        is_small = image.shape[0] * image.shape[1] <= MAX_WAITING_PIXELS
        return self._may_align_in_batches and is_wanted_once and is_small and not self._is_idle()

    def _quality(self, image: Image, found: Landmarks, reduction: float) -> Quality:
        """Of the face as it would be aligned, whatever `align` says."""
        face = align(image, found.points, TEMPLATE_SIDE) if found.are_sure else stretch(image, *[TEMPLATE_SIDE] * 2)
        return picture_quality(image, face, found, reduction=reduction)
