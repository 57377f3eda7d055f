"""What is asked of the embedder, and what it answers."""

import math
from dataclasses import dataclass
from typing import Any

from arcface_api.arrays import Embedding
from arcface_api.face.attributes import AgeGender
from arcface_api.face.head_pose import HeadPose
from arcface_api.face.quality import Quality, QualityWarning
from arcface_api.image import Resize
from arcface_api.wire import Align, Alignment, Fit


@dataclass(frozen=True)
class Picture:
    """One picture of one face."""

    content: bytes
    """A JPEG, PNG or WebP file."""
    landmarks: Any = None
    """With `Align.LANDMARKS`: five pairs x, y in pixels of the upright picture, as they came; checked when it is
    decoded."""


@dataclass(frozen=True)
class EmbedOptions:
    """What is wanted of a picture; the defaults are the contract's."""

    include_attributes: bool = False
    include_quality: bool = False
    flip: bool = False
    """Add the embedding of the crop's mirror image, before normalising: the evaluation habit of the field."""
    normalize: bool = False
    """Divide the embedding by its norm."""
    align: Align = Align.NONE
    fit: Fit = Fit.STRETCH
    resize: Resize = Resize.AUTO
    """Of a picture that is not aligned; alignment samples from the picture's own pixels."""
    deadline: float = math.inf
    """On `time.monotonic`'s clock, in seconds: what cannot be served by then is dropped before it costs the model."""


CONTRACT = EmbedOptions()
"""What is wanted by a caller who says nothing."""


@dataclass(frozen=True)
class Attributes:
    """What the attribute models say of one face."""

    age_gender: AgeGender
    head_pose: HeadPose


@dataclass(frozen=True)
class Embedded:
    """The answer to one request."""

    embedding: Embedding
    """(dim,) float32: the model's raw output, with `flip` the sum of two; divided by its norm where asked for."""
    norm: float
    """Length of the raw output, or sum."""
    alignment: Alignment
    warnings: tuple[QualityWarning, ...]
    """What may be wrong with the picture, as far as what was asked for tells it."""
    quality: Quality | None
    """None unless asked for."""
    attributes: Attributes | None
    """None unless asked for."""
    stages: dict[str, float]
    """Milliseconds: `decode`, `crop` (from the picture to the models' crops, alignment included; of the whole batch
    where its faces were found together), `queue` (waiting for threads), `inference` (its batch), `attributes`."""
    batch_size: int
    """Of the batch it ran in."""
