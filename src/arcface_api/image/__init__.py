"""From bytes to an upright picture, and from a picture to the crop that a model wants.

    bytes ──header──▶ format, width, height ──decode──▶ Image ──resize──▶ Crop

The format is told from the content, never from a file name or a Content-Type. Limits are checked on the header, before
any pixel is decoded. Decoding and stretching are OpenCV's, because the reference's are: equal pixels, equal vectors.
Only a large JPEG may be decoded at a fraction of its size, where the caller allows it.
"""

from arcface_api.image.decode import EXACT_UP_TO_PIXELS, ImageLimits, decode
from arcface_api.image.header import Header, ImageFormat, read_header
from arcface_api.image.resize import OVERSAMPLING, Resize, letterbox, stretch

__all__ = [
    "EXACT_UP_TO_PIXELS",
    "OVERSAMPLING",
    "Header",
    "ImageFormat",
    "ImageLimits",
    "Resize",
    "decode",
    "letterbox",
    "read_header",
    "stretch",
]
