"""Embeds a picture: `embedder` admits it and takes it through `prepare` (decode, crop, recognise) and `attributes`."""

from arcface_api.embedder.embedder import Embedder
from arcface_api.embedder.models import Recogniser
from arcface_api.embedder.recipe import Recipe
from arcface_api.embedder.request import Embedded, EmbedOptions, Picture
from arcface_api.embedder.self_check import SelfCheck

__all__ = ["EmbedOptions", "Embedded", "Embedder", "Picture", "Recipe", "Recogniser", "SelfCheck"]
