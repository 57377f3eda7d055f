"""Predicts age, gender and head pose with the attribute models that the pack has."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from arcface_api.arrays import Box, Crop, Features, Image
from arcface_api.batching import Batcher, both
from arcface_api.embedder.models import AlignedModels, AttributeModels, BoxModels, Model
from arcface_api.embedder.request import Attributes, EmbedOptions
from arcface_api.face.attributes import BOX_MARGIN, age_gender, age_gender_of_two, attribute_crop, whole_picture
from arcface_api.face.geometry import align, face_box, input_template
from arcface_api.face.head_pose import head_pose, landmarks_in_picture, pose_of_five
from arcface_api.face.landmarks import Landmarks
from arcface_api.session import Session

UNALIGNED_BOX = 0.8
"""Of the picture's shorter side: what `AlignedModels` see if landmarks are unsure. Source: the best of the boxes tried
on 320 LFW faces (gender right in 98.1 %; measured once, not recorded)."""


@dataclass(frozen=True)
class AttributeCrops:
    """What the two attribute models see of one picture."""

    crops: tuple[Crop, Crop]
    """In the order of `AttributePredictor.queues`."""
    read: Callable[[Features, Features], Attributes]
    """What the models' rows for these crops mean; raises `ModelFailed` if they mean nothing."""


class AttributePredictor:
    """Prepares the crops of the two attribute models on decode threads, and runs the models from the event loop."""

    def __init__(self, models: AttributeModels, capacity: int) -> None:
        """For `capacity` pictures and a probe. Starts no thread yet; the owner closes `queues`."""
        self._models = models
        self.needs_landmarks = isinstance(models, AlignedModels)
        """True if landmarks are needed even for a picture that is not aligned."""
        side = max(model.spec.height for model in vars(models).values())
        self.least_side = side / BOX_MARGIN if isinstance(models, BoxModels) else side
        """Pixels that the shorter side of a reduced picture must keep for these models, before oversampling."""
        self.queues = tuple(_queue(model.session, name, capacity + 1) for name, model in vars(models).items())

    def prepare(self, image: Image, landmarks: Landmarks | None) -> AttributeCrops:
        """Cuts the models' crops from a picture; several threads may call it at once.

        If landmarks are None or unsure, the whole picture counts as the face; for `AlignedModels`, its middle.
        """
        if isinstance(self._models, BoxModels):
            return _crops_of_box(self._models, image, landmarks)
        assert landmarks is not None  # noqa: S101  # needs_landmarks
        return _aligned_crops(self._models, image, landmarks)

    async def predict(self, prepared: AttributeCrops, options: EmbedOptions) -> tuple[Attributes, float]:
        """One picture's attributes, and the milliseconds until both models had answered; raises as `Batcher.submit`."""
        started = time.monotonic()
        submitted = (
            queue.submit(crop, deadline=options.deadline, is_bulk=options.is_bulk)
            for queue, crop in zip(self.queues, prepared.crops, strict=True)
        )
        one, other = await both(*submitted)
        return prepared.read(one.row, other.row), (time.monotonic() - started) * 1000


def _crops_of_box(models: BoxModels, image: Image, landmarks: Landmarks | None) -> AttributeCrops:
    """For InsightFace's models: the face's box amid a margin, upright if landmarks are known."""
    if landmarks is not None and landmarks.are_sure:
        box = face_box(landmarks.points, landmarks.weights)
    else:
        box = whole_picture(*image.shape[:2])
    size = models.landmarks_3d.spec.height
    face_crop, _ = attribute_crop(image, box, models.age_gender.spec.height)
    landmark_crop, transform = attribute_crop(image, box, size)

    def read(scores: Features, row: Features) -> Attributes:
        return Attributes(age_gender(scores), head_pose(landmarks_in_picture(row, size, transform)))

    return AttributeCrops((face_crop, landmark_crop), read)


def _aligned_crops(models: AlignedModels, image: Image, landmarks: Landmarks) -> AttributeCrops:
    """For the open pack's models: an aligned face; the head pose is that of its landmarks."""

    def crop(model: Model) -> Crop:
        size = model.spec.height
        if landmarks.are_sure:
            return align(image, landmarks.points, size, input_template(model.spec), weights=landmarks.weights)
        height, width = image.shape[:2]
        box = Box(width / 2, height / 2, UNALIGNED_BOX * min(height, width) / BOX_MARGIN)
        return attribute_crop(image, box, size)[0]

    def read(age_row: Features, gender_row: Features) -> Attributes:
        return Attributes(age_gender_of_two(age_row, gender_row), pose_of_five(landmarks.points))

    return AttributeCrops((crop(models.age), crop(models.gender)), read)


def _queue(session: Session, name: str, capacity: int) -> Batcher[Crop, Features]:
    def run(crops: Sequence[Crop]) -> list[Features]:
        return list(session.run(crops))

    return Batcher(run, name=name, sizes=session.batch_sizes, capacity=capacity, lanes=session.lanes)
