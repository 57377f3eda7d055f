"""A queue in front of each model."""

from collections.abc import Sequence

from arcface_api.arrays import Crop, Features
from arcface_api.batching import Batcher
from arcface_api.embedder.models import Model


def model_queue(model: Model, name: str, capacity: int) -> Batcher[Crop, Features]:
    """The queue of one model. It can hold all that is admitted, and a probe.

    Args:
        model: Loaded.
        name: Of its thread.
        capacity: Crops that may be admitted.
    """

    def run(crops: Sequence[Crop]) -> list[Features]:
        return list(model.session.run(crops))

    return Batcher(run, name=name, sizes=model.session.batch_sizes, capacity=capacity + 1)
