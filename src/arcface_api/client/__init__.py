"""A client of the service: pictures in, embeddings out, synchronously or with asyncio.

Needs only the bare package (httpx, NumPy, tenacity), and imports nothing of the service but its errors.
`docs/client.md` begins with an example; `client.problems` draws the errors.
"""

from typing import TYPE_CHECKING, Any

from arcface_api.client.answers import (
    Attributes,
    Embedding,
    Health,
    Info,
    Limits,
    Pose,
    Quality,
    Threshold,
    similarity,
)
from arcface_api.client.blocking import Client
from arcface_api.client.images import ImageLike, Options, Picture
from arcface_api.client.problems import AnswerInvalid, ImageUnreadable, ServiceUnreachable, ThresholdUnknown
from arcface_api.errors import (
    ArcFaceError,
    FingerprintDiffers,
    RecipeDiffers,
    RequestError,
    ServiceBusy,
    ServiceFailed,
)

if TYPE_CHECKING:
    from arcface_api.client.asynchronous import AsyncClient

__all__ = [
    "AnswerInvalid",
    "ArcFaceError",
    "AsyncClient",
    "Attributes",
    "Client",
    "Embedding",
    "FingerprintDiffers",
    "Health",
    "ImageLike",
    "ImageUnreadable",
    "Info",
    "Limits",
    "Options",
    "Picture",
    "Pose",
    "Quality",
    "RecipeDiffers",
    "RequestError",
    "ServiceBusy",
    "ServiceFailed",
    "ServiceUnreachable",
    "Threshold",
    "ThresholdUnknown",
    "similarity",
]


def __getattr__(name: str) -> Any:
    """`AsyncClient` when it is first used: asyncio would be an eighth of this import's time."""
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from arcface_api.client.asynchronous import AsyncClient  # noqa: PLC0415  # that is the point

    return AsyncClient
