"""From a file to an upright picture (`decode`), and from there to a model's crop (`stretch`, `letterbox`).

Pixels are OpenCV's, as in the reference: equal pixels, equal vectors. `isolation` decodes in processes.
"""

from arcface_api.image.decode import (
    EXACT_UP_TO_PIXELS,
    OVERSAMPLING,
    ImageLimits,
    PixelsOf,
    Resize,
    decode,
    letterbox,
    stretch,
)
from arcface_api.image.isolation import Decoders

__all__ = [
    "EXACT_UP_TO_PIXELS",
    "OVERSAMPLING",
    "Decoders",
    "ImageLimits",
    "PixelsOf",
    "Resize",
    "decode",
    "letterbox",
    "stretch",
]
