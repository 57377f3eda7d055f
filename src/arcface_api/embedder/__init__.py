"""The whole road of one request, from bytes to its embedding.

`request` holds what is asked and answered, `models` what it runs on, `queues` and `recognise` what stands in front of
each model, `prepare` the step from a picture to crops, `aligning` that to the recogniser's crop, `attributes` the
attribute models, `embedder` the road itself.
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
