"""What embeddings come from: a model in this process, or a service that runs. Both look the same to the rest."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from arcface_api.arrays import Embedding

REQUESTS_IN_FLIGHT = 4
"""So many groups of pictures are on their way at once: one is read, one sent or decoded, one runs, one comes back."""
GROUP_PICTURES = 32
"""Most pictures of one group."""
GROUP_BYTES = 16 * 1024 * 1024
"""Most bytes of one group, unless a single picture is larger: with the above it bounds the memory."""


@dataclass(frozen=True)
class ModelFacts:
    """What made the embeddings. Thresholds hold for embeddings that were made alike."""

    pack: str
    model: str
    fingerprint: str
    embedding_dim: int
    provider: str
    precision: str
    align: str
    """Of pictures, an `Align`: what was asked for, or else what the service or the settings say."""
    fit: str
    """Of pictures that are not aligned, a `Fit`, likewise."""
    regressor_sha256: str | None
    """Of the landmark regressor that `align=auto` went by; None with another `align`."""
    flip: bool
    """The embedding of the mirror image was added to each."""
    version: str
    """Of arcface-api, where the model ran."""
    url: str | None
    """Of the service; None: the model ran in this process."""


@dataclass(frozen=True)
class GroupLimits:
    """How much may be asked for at once."""

    pictures: int = GROUP_PICTURES
    bytes: int = GROUP_BYTES


@dataclass(frozen=True)
class EmbeddedPicture:
    """One picture's embedding."""

    embedding: Embedding
    """(dim,) float32, raw."""
    alignment: str
    """What became of its alignment, an `Alignment`."""


class Source(Protocol):
    """Embeds pictures, several groups of them at once."""

    facts: ModelFacts
    limits: GroupLimits

    async def embed(self, contents: Sequence[bytes]) -> list[EmbeddedPicture | str]:
        """In the order of the pictures: each its embedding, or why there is none.

        Raises:
            ArcFaceError: None can be had.
        """


OpenSource: TypeAlias = AbstractAsyncContextManager[Source]
"""A source while it is open."""
