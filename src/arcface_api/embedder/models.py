"""The loaded models that the embedder runs, and how each wants its pixels."""

import hashlib
from dataclasses import dataclass

from arcface_api.arrays import InputSpec
from arcface_api.session import GPU_PROVIDERS, Session

PREPROCESSING_VERSION = 2
"""Raised with every change that can change a vector: decoding, resizing, normalising.

2: a JPEG of more than a million pixels is decoded at a fraction of its size, unless `resize=exact` is asked for.
"""


MAX_IDLING_THREADS = 2
"""So many threads of the recogniser may wait while its batch's faces are found on one: with two, measured, it pays."""


@dataclass(frozen=True)
class Model:
    """A loaded model and how it wants its pixels."""

    session: Session
    spec: InputSpec


@dataclass(frozen=True)
class Recogniser(Model):
    """The loaded model that makes embeddings."""

    name: str
    """What answers report as `model`."""
    dim: int
    """Length of an embedding."""
    sha256: str
    """Of the model file, in hex."""
    self_test_cosine: float
    """Lowest cosine to float32 on the probe faces, at start."""
    reason: str | None
    """Why it does not run on what would be faster; None where there is nothing to explain."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits; two embeddings may be compared only if it is equal.

        It covers the weights, how pixels are fed to them, and a template other than ArcFace's. What a request chooses
        (`align`, `fit`, `flip`, `resize`) leaves embeddings comparable, and it out.
        """
        spec = self.spec
        steps: tuple[object, ...] = (
            PREPROCESSING_VERSION, spec.height, spec.width, spec.mean, spec.std, str(spec.channel_order)
        )  # fmt: skip
        if spec.template is not None:
            steps = (*steps, spec.template)
        return hashlib.sha256(repr((self.sha256, *steps)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class BoxModels:
    """InsightFace's two models behind `include_attributes`, which see a box amid a margin."""

    age_gender: Model
    landmarks_3d: Model


@dataclass(frozen=True)
class AlignedModels:
    """Two models behind `include_attributes` that see an aligned face; the head pose comes from its landmarks."""

    age: Model
    gender: Model


AttributeModels = BoxModels | AlignedModels


@dataclass(frozen=True)
class Regressor:
    """The loaded model that finds landmarks, for `align=auto`. Small: several threads run it at once."""

    session: Session
    is_batch_invariant: bool
    """A crop's row is the same, bit for bit, alone and in any batch, so that no face is cut by the company it has."""


@dataclass(frozen=True)
class Models:
    """Everything that is loaded."""

    recogniser: Recogniser
    regressor: Regressor
    attributes: AttributeModels | None
    """None: the pack lacks them."""

    @property
    def may_align_in_batches(self) -> bool:
        """Landmarks of a batch's pictures may be found together, on the thread that then embeds them.

        Not with a GPU or many threads, which would idle meanwhile.
        """
        session = self.recogniser.session
        idles_much = session.provider in GPU_PROVIDERS or session.threads > MAX_IDLING_THREADS
        return self.regressor.is_batch_invariant and not idles_much
