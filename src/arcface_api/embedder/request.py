"""What the embedder takes and returns."""

import math
from dataclasses import dataclass
from typing import Any

from arcface_api.arrays import Embedding, Points
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
    include_landmarks: bool = False
    include_crop: bool = False
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
    required_recipe: str | None = None
    """Of the embeddings that the caller compares with: a picture that would get another one is refused."""
    is_bulk: bool = False
    """One of many that a caller sends at once, which give way to single ones. `Embedder.embed_many` sets it."""

    @property
    def need_landmarks(self) -> bool:
        """Whether the face must be found, whatever the loaded models need."""
        return self.align is Align.AUTO or self.include_quality or self.include_landmarks


CONTRACT = EmbedOptions()


@dataclass(frozen=True)
class Attributes:
    """What the attribute models predict for one face."""

    age_gender: AgeGender
    head_pose: HeadPose


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The result for one picture; what `EmbedOptions` can include is None unless asked for."""

    embedding: Embedding
    """(dim,) float32: the model's raw output, with `flip` the sum of two; with `normalize` divided by its norm."""
    norm: float
    """Length of the raw output, or sum."""
    alignment: Alignment
    recipe: str
    """16 hex digits; two embeddings compare well only if it is equal."""
    warnings: tuple[QualityWarning, ...]
    """As far as the options required to look for them."""
    quality: Quality | None
    attributes: Attributes | None
    landmarks: Points | None
    """(5, 2) float32, pixels of the upright file: those that were found or, with `Align.LANDMARKS`, the caller's."""
    crop_png: bytes | None
    """The pixels that the recogniser got, as a PNG file."""
    stages: dict[str, float]
    """Milliseconds: `decode`, `crop` (from the picture to the models' crops, alignment included), `queue` (waiting for
    threads), `inference` (of its batch), `attributes`."""
    batch_size: int
    batch_number: int
    """Of the batch it ran in."""
