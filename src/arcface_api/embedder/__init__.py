"""Embeds a picture: from the bytes of a file to its embedding and attributes.

`embedder` admits pictures and leads each through the steps: `prepare` (decode, cut), `recognise`, `attributes`.
"""

from arcface_api.embedder.embedder import Embedder
from arcface_api.embedder.models import Recogniser
from arcface_api.embedder.request import Embedded, EmbedOptions, Picture

__all__ = ["EmbedOptions", "Embedded", "Embedder", "Picture", "Recogniser"]
