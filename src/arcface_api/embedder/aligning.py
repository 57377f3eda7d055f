"""From a picture to the crop that the recogniser wants: its landmarks found, and the face cut by them.

    Image ──find──▶ Landmarks ──cut──▶ CutFace             on a decode thread
    UncutFaces ────find_and_cut──────▶ as many CutFaces    on the recogniser's, between two batches

Both give the same crop, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from arcface_api.arrays import Crop, Features, Image, Points
from arcface_api.embedder.models import Models
from arcface_api.face.geometry import align, input_template, lies_aligned
from arcface_api.face.landmarks import Landmarks, find_landmarks, find_landmarks_of_many
from arcface_api.image import letterbox, stretch
from arcface_api.wire import Align, Alignment, Fit


@dataclass(frozen=True)
class CutFace:
    """What the recogniser sees of a picture."""

    pixels: Crop
    alignment: Alignment


@dataclass(frozen=True)
class UncutFace:
    """A decoded picture, to be aligned by what the regressor finds once its batch has been formed."""

    image: Image
    fit: Fit
    """Of the picture that cannot be aligned."""


class Aligner:
    """Finds landmarks and cuts faces by them, for the loaded models; several threads may call it at once."""

    def __init__(self, models: Models) -> None:
        """Nothing runs yet."""
        self._regressor = models.regressor
        self._spec = models.recogniser.spec
        self._template = input_template(self._spec)

    def find(self, image: Image) -> Landmarks:
        """Where the landmarks of the one face are; see `find_landmarks`.

        Raises:
            ModelFailed: The landmark regressor failed.
        """
        return find_landmarks(image, self._row)

    def cut(self, image: Image, wanted: Align, fit: Fit, found: Landmarks | None) -> CutFace:
        """The recogniser's crop.

        Args:
            image: (h, w, 3) uint8, RGB.
            wanted: By which landmarks the caller wants it aligned.
            fit: How the picture becomes square where it is not aligned.
            found: These landmarks; None only where it is not to be aligned.

        Raises:
            LandmarksInvalid: It cannot be aligned by them.
        """
        alignment, points = self._alignment(image, wanted, found)
        if points is not None:
            return CutFace(align(image, points, self._spec.height, self._template), alignment)
        fitted = letterbox if fit is Fit.LETTERBOX else stretch
        return CutFace(fitted(image, self._spec.height, self._spec.width), alignment)

    def find_and_cut(self, pictures: Sequence[UncutFace]) -> list[CutFace | Exception]:
        """The crops of several pictures, to be aligned as `Align.AUTO` says; or what one picture met.

        It raises nothing: among the batch's other faces there may be some that want no alignment.
        """
        images = [picture.image for picture in pictures]
        return [self._cut_or_error(*each) for each in zip(pictures, self._find_all(images), strict=True)]

    def _cut_or_error(self, picture: UncutFace, found: Landmarks | Exception) -> CutFace | Exception:
        if isinstance(found, Exception):
            return found
        try:
            return self.cut(picture.image, Align.AUTO, picture.fit, found)
        except Exception as error:  # noqa: BLE001  # whatever it was, it is this picture's own answer
            return error

    def _find_all(self, images: Sequence[Image]) -> list[Landmarks | Exception]:
        most = max(self._regressor.session.batch_sizes)
        starts = range(0, len(images), most)
        return [found for start in starts for found in self._find_together(images[start : start + most])]

    def _find_together(self, images: Sequence[Image]) -> list[Landmarks | Exception]:
        try:
            return find_landmarks_of_many(images, self._regressor.session.run)
        except Exception:  # noqa: BLE001  # whatever it was: alone, each picture meets what is its own of it
            return [self._found_or_error(image) for image in images]

    def _found_or_error(self, image: Image) -> Landmarks | Exception:
        try:
            return self.find(image)
        except Exception as error:  # noqa: BLE001  # it is this picture's own answer
            return error

    def _row(self, crop: Crop) -> Features:
        row: Features = self._regressor.session.run([crop])[0]
        return row

    def _alignment(self, image: Image, wanted: Align, found: Landmarks | None) -> tuple[Alignment, Points | None]:
        """What becomes of the alignment, and by which landmarks; None: the picture stays as it is."""
        if wanted is Align.NONE or found is None:
            return Alignment.NONE, None
        if wanted is Align.LANDMARKS:
            return Alignment.LANDMARKS, found.points
        if not found.are_sure:
            return Alignment.UNSURE, None
        is_aligned = lies_aligned(found.points, self._template, self._spec.height, *image.shape[:2])
        return Alignment.AUTO, None if is_aligned else found.points
