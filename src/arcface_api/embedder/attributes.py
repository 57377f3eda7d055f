"""Age, gender and head pose: one way for each kind of models that a pack may have for them.

Image, landmarks ──look, on a decode thread──▶ Telling ──tell, on the event loop──▶ Attributes

Which models a pack has, the roles in its manifest say.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from arcface_api.arrays import Box, Crop, Features, Image, Transform
from arcface_api.batching import Batcher, both
from arcface_api.embedder.models import AlignedModels, AttributeModels, BoxModels
from arcface_api.embedder.queues import model_queue
from arcface_api.embedder.request import Attributes
from arcface_api.face import attributes as age_and_gender
from arcface_api.face import head_pose as pose
from arcface_api.face.attributes import BOX_MARGIN, attribute_crop, whole_picture
from arcface_api.face.geometry import align, face_box, input_template
from arcface_api.face.landmarks import Landmarks

Telling = Callable[[float, bool], Coroutine[Any, Any, Attributes]]
"""Runs the models on crops that were made before, by a deadline, giving way to others or not."""


class AttributeTeller(Protocol):
    """Feeds the attribute models. `look` may be called by several threads at once."""

    needs_landmarks: bool
    """Also where the picture is not to be aligned."""
    least_side: float
    """Pixels that a reduced picture's shorter side must keep for its models, before oversampling."""

    def look(self, image: Image, found: Landmarks | None) -> Telling:
        """Cut what the models want of a picture.

        Args:
            image: (h, w, 3) uint8, RGB.
            found: Where its face is; None, or unsure: the whole picture is the face.
        """

    queues: tuple[Batcher[Crop, Features], ...]
    """One for each model; they are the owner's to close."""


def teller(models: AttributeModels, capacity: int) -> AttributeTeller:
    """What tells attributes with these models.

    Args:
        models: Loaded.
        capacity: Pictures that may be inside at once.
    """
    return BoxTeller(models, capacity) if isinstance(models, BoxModels) else AlignedTeller(models, capacity)


@dataclass(frozen=True)
class BoxCrops:
    """One picture as InsightFace's attribute models want it."""

    age_gender: Crop
    landmarks_3d: Crop
    transform: Transform
    """From the picture's pixels to those of the landmark crop."""


class BoxTeller:
    """InsightFace's models: the face's box amid a margin, upright where landmarks tell what that is."""

    needs_landmarks = False

    def __init__(self, models: BoxModels, capacity: int) -> None:
        """Nothing runs yet."""
        self._face_size = models.age_gender.spec.height
        self._landmark_size = models.landmarks_3d.spec.height
        self.least_side: float = max(self._face_size, self._landmark_size) / BOX_MARGIN
        self._age_gender = model_queue(models.age_gender, "age_gender", capacity)
        self._landmarks_3d = model_queue(models.landmarks_3d, "landmarks_3d", capacity)
        self.queues: tuple[Batcher[Crop, Features], ...] = self._age_gender, self._landmarks_3d

    def crops(self, image: Image, found: Landmarks | None) -> BoxCrops:
        """What both models see."""
        box = face_box(found.points) if found and found.are_sure else whole_picture(*image.shape[:2])
        crop, _ = attribute_crop(image, box, self._face_size)
        return BoxCrops(crop, *attribute_crop(image, box, self._landmark_size))

    def look(self, image: Image, found: Landmarks | None) -> Telling:
        """See `AttributeTeller.look`."""
        crops = self.crops(image, found)

        async def tell(deadline: float, is_bulk: bool) -> Attributes:
            scores, row = await both(
                self._age_gender.submit(crops.age_gender, deadline=deadline, is_bulk=is_bulk),
                self._landmarks_3d.submit(crops.landmarks_3d, deadline=deadline, is_bulk=is_bulk),
            )
            landmarks = pose.landmarks_in_picture(row.row, self._landmark_size, crops.transform)
            return Attributes(age_and_gender.age_gender(scores.row), pose.head_pose(landmarks))

        return tell


UNALIGNED_BOX = 0.8
"""Of the picture's shorter side: what the open pack's models see where landmarks are unsure. Source: of the boxes tried
on 320 LFW faces it told gender best (98.1 %)."""


class AlignedTeller:
    """The open pack's models: an aligned face; the head pose is that of its five landmarks."""

    needs_landmarks = True

    def __init__(self, models: AlignedModels, capacity: int) -> None:
        """Nothing runs yet."""
        self._specs = models.age.spec, models.gender.spec
        self.least_side: float = max(spec.height for spec in self._specs)
        self._age = model_queue(models.age, "age", capacity)
        self._gender = model_queue(models.gender, "gender", capacity)
        self.queues: tuple[Batcher[Crop, Features], ...] = self._age, self._gender

    def look(self, image: Image, found: Landmarks | None) -> Telling:
        """See `AttributeTeller.look`."""
        assert found is not None  # noqa: S101  # needs_landmarks
        points = found.points
        age_crop, gender_crop = (
            align(image, points, spec.height, input_template(spec)) if found.are_sure else _middle(image, spec.height)
            for spec in self._specs
        )

        async def tell(deadline: float, is_bulk: bool) -> Attributes:
            age, gender = await both(
                self._age.submit(age_crop, deadline=deadline, is_bulk=is_bulk),
                self._gender.submit(gender_crop, deadline=deadline, is_bulk=is_bulk),
            )
            return Attributes(age_and_gender.age_gender_of_two(age.row, gender.row), pose.pose_of_five(points))

        return tell


def _middle(image: Image, size: int) -> Crop:
    """The middle of a picture that could not be aligned."""
    height, width = image.shape[:2]
    box = Box(width / 2, height / 2, UNALIGNED_BOX * min(height, width) / BOX_MARGIN)
    return attribute_crop(image, box, size)[0]
