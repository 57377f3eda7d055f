"""What every session is, whatever runs it: crops in, features out; and the model file that it is made from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from arcface_api.arrays import Crop, Features, InputSpec
from arcface_api.errors import ModelFailed


@dataclass(frozen=True)
class ModelContent:
    """A verified model file, and what goes in and comes out."""

    content: bytes = field(repr=False)
    """The `.onnx` file."""
    sha256: str
    """Of `content`, in hex."""
    spec: InputSpec
    output_dim: int
    """Length of an output row."""


class Session(Protocol):
    """A model loaded on one execution provider; safe to call from one thread at a time."""

    provider: str
    """The execution provider that the model really runs on."""
    precision: str
    """The arithmetic that the provider really uses: float32, bfloat16 or float16."""
    threads: int
    """Of one inference on the CPU."""
    batch_sizes: tuple[int, ...]
    """Sizes that a batch may have, ascending, 1 among them."""

    def run(self, crops: Sequence[Crop]) -> Features:
        """Run one batch: n crops of (height, width, 3) uint8, RGB, n in `batch_sizes`; returns (n, dim) float32.

        Raises:
            ModelFailed: The runtime failed, or returned another shape than the model states.
        """


def check_features(features: Any, rows: int, dim: int) -> Features:
    """Return the features, or raise ModelFailed if their shape is not (rows, dim): callers would get others' rows."""
    if features.shape != (rows, dim):
        raise ModelFailed(
            f"The model returned shape {features.shape} for a batch of {rows}; {(rows, dim)} was expected."
        )
    return features  # type: ignore[no-any-return]  # the runtimes carry no types
