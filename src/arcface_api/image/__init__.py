"""From bytes to an upright picture, and from a picture to the crop that a model wants.

    bytes ──take_apart──▶ Container ──decode──▶ Image ──resize──▶ Crop

`formats` recognises the format by the content, never by a file name or a Content-Type; `jpeg`, `png` and `webp` take a
container apart, `exif` reads the orientation. Limits are checked before any pixel is decoded. Decoding and stretching
are OpenCV's, because the reference's are: equal pixels, equal vectors. But OpenCV gets only what the pixels need, and
may run in processes of its own (`isolation`, `decoder_process`).
"""

from arcface_api.image.container import Container, ImageFormat
from arcface_api.image.decode import EXACT_UP_TO_PIXELS, Decoded, ImageLimits, PixelsOf, decode, pixels_here
from arcface_api.image.formats import take_apart
from arcface_api.image.isolation import Decoders
from arcface_api.image.resize import OVERSAMPLING, Resize, letterbox, stretch

__all__ = [
    "EXACT_UP_TO_PIXELS",
    "OVERSAMPLING",
    "Container",
    "Decoded",
    "Decoders",
    "ImageFormat",
    "ImageLimits",
    "PixelsOf",
    "Resize",
    "decode",
    "letterbox",
    "pixels_here",
    "stretch",
    "take_apart",
]
