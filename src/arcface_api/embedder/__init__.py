"""Embeds a picture: `embedder` admits it and leads it through `prepare` (decode, cut, recognise) and `attributes`."""

from arcface_api.embedder.embedder import Embedder
from arcface_api.embedder.models import Recogniser
from arcface_api.embedder.request import Embedded, EmbedOptions, Picture

__all__ = ["EmbedOptions", "Embedded", "Embedder", "Picture", "Recogniser"]
