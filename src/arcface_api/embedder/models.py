"""The loaded models that the embedder runs, and how each takes its pixels."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from arcface_api.arrays import Features, InputSpec
from arcface_api.session import Session

PREPROCESSING_VERSION = 2
"""Raised with every change to decoding, resizing or normalising that can change a vector.

2: a JPEG of more than a million pixels is decoded at a fraction of its size, unless `resize=exact` is asked for.
"""


@dataclass(frozen=True)
class Model:
    """A loaded model and its input."""

    session: Session
    spec: InputSpec


@dataclass(frozen=True, kw_only=True)
class Recogniser(Model):
    """The model that makes embeddings of `dim` numbers; `name` is reported as `model`."""

    name: str
    dim: int
    sha256: str
    """Of the model file, in hex."""
    wide: Session | None = None
    """Runs a lone crop on all threads; None: `session` does."""
    self_test_cosine: float
    """Lowest cosine to float32 on the probe faces, at start."""
    probe_features: Features | None = None
    """The reference's features of the probe crops, (n, dim) float32. None if it is fed in several ways: it never
    serves."""
    reason: str | None
    """Why it does not run on a faster provider; None if there is nothing to explain."""
    doubt: str | None = None
    """Why its embeddings are probably useless; None if nothing speaks against them."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits; two embeddings may be compared only if it is equal.

        Covers the weights, how pixels are fed to them, and a template other than ArcFace's; not what a request chooses
        (`align`, `fit`, `flip`, `resize`), which leaves embeddings comparable.
        """
        spec = self.spec
        template = () if spec.template is None else (spec.template,)
        steps = (spec.height, spec.width, spec.mean, spec.std, str(spec.channel_order), *template)
        return hashlib.sha256(repr((self.sha256, PREPROCESSING_VERSION, *steps)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class BoxModels:
    """InsightFace's two attribute models, which see a box amid a margin."""

    age_gender: Model
    landmarks_3d: Model


@dataclass(frozen=True)
class AlignedModels:
    """Two attribute models that see an aligned face; the head pose follows from its landmarks."""

    age: Model
    gender: Model


AttributeModels = BoxModels | AlignedModels


@dataclass(frozen=True)
class Models:
    """Everything that is loaded; `attributes` is None if the pack has none."""

    recogniser: Recogniser
    regressor: Session
    """Finds landmarks. Small: several threads run it at once."""
    regressor_sha256: str
    """Of its file, in hex."""
    attributes: AttributeModels | None
