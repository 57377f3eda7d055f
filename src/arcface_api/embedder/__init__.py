"""The whole road of one request, from bytes to its embedding.

`request` holds what is asked and answered, `models` what it runs on, `queues` and `recognition` what stands in front of
each model, `cropping` the step from a picture to the models' crops, `aligning` that to the recogniser's, `telling` how
attributes are told, `embedder` the road itself.
"""

from arcface_api.embedder.embedder import Embedder, Limits
from arcface_api.embedder.models import AlignedModels, AttributeModels, BoxModels, Model, Models, Recogniser, Regressor
from arcface_api.embedder.request import Attributes, Embedded, EmbedOptions, Picture

__all__ = [
    "AlignedModels",
    "AttributeModels",
    "Attributes",
    "BoxModels",
    "EmbedOptions",
    "Embedded",
    "Embedder",
    "Limits",
    "Model",
    "Models",
    "Picture",
    "Recogniser",
    "Regressor",
]
