"""What the embedder takes and returns."""

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
    """For `Align.LANDMARKS`: five pairs x, y in pixels of the upright picture, not yet checked."""


@dataclass(frozen=True)
class EmbedOptions:
    """What to do with a picture; the defaults are the contract's."""

    include_attributes: bool = False
    include_quality: bool = False
    flip: bool = False
    """Add the embedding of the mirrored crop, before normalising, as evaluations of recognisers often do."""
    normalize: bool = False
    """Divide the embedding by its norm."""
    align: Align = Align.NONE
    fit: Fit = Fit.STRETCH
    resize: Resize = Resize.AUTO
    """Alignment always samples the full-size picture."""
    deadline: float = math.inf
    """On `time.monotonic`'s clock, in seconds. What cannot be served by then is dropped before it costs the model."""
    is_bulk: bool = False
    """One of many that a caller sends at once, which give way to single ones. `Embedder.embed_many` sets it."""


CONTRACT = EmbedOptions()


@dataclass(frozen=True)
class Attributes:
    """What the attribute models predict for one face."""

    age_gender: AgeGender
    head_pose: HeadPose


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The result for one picture; `quality` and `attributes` are None unless asked for."""

    embedding: Embedding
    """(dim,) float32: the model's raw output, with `flip` the sum of two; with `normalize` divided by its norm."""
    norm: float
    """Length of the raw output, or sum."""
    alignment: Alignment
    warnings: tuple[QualityWarning, ...]
    """As far as the options required to look for them."""
    quality: Quality | None
    attributes: Attributes | None
    stages: dict[str, float]
    """Milliseconds: `decode`, `crop` (from the picture to the models' crops, alignment included), `queue` (waiting for
    threads), `inference` (of its batch), `attributes`."""
    batch_size: int
    """Of the batch it ran in."""
