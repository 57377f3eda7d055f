"""From bytes to an upright picture, and from a picture to the crop that a model takes.

    bytes ──take_apart──▶ Container ──decode──▶ Image ──resize──▶ Crop

`jpeg`, `png` and `webp` take a container apart; limits are checked before any pixel is decoded. OpenCV decodes and
stretches, as in the reference: equal pixels, equal vectors. It gets only what the pixels need, and may run in separate
processes (`isolation`).
"""

from arcface_api.image.decode import EXACT_UP_TO_PIXELS, ImageLimits, PixelsOf, decode, pixels_here
from arcface_api.image.isolation import Decoders
from arcface_api.image.resize import OVERSAMPLING, Resize, letterbox, stretch

__all__ = [
    "EXACT_UP_TO_PIXELS",
    "OVERSAMPLING",
    "Decoders",
    "ImageLimits",
    "PixelsOf",
    "Resize",
    "decode",
    "letterbox",
    "pixels_here",
    "stretch",
]
