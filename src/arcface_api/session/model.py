"""What a session is, whoever runs it: crops in, features out; and the model that it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from arcface_api.arrays import Crop, Features, InputSpec
from arcface_api.errors import ModelFailed


@dataclass(frozen=True)
class ModelContent:
    """A model file's bytes, whose they are, and what goes in and comes out."""

    content: bytes = field(repr=False)
    """The `.onnx` file."""
    sha256: str
    """Of `content`, in hex."""
    spec: InputSpec
    output_dim: int
    """Length of one output row."""


class Session(Protocol):
    """One loaded model on one execution provider; safe to call from one thread at a time."""

    provider: str
    """The execution provider that the model really runs on."""
    precision: str
    """Arithmetic that the provider really uses: float32, bfloat16 or float16."""
    threads: int
    """Threads of one inference on the CPU."""
    batch_sizes: tuple[int, ...]
    """Sizes that batches may have, ascending, 1 among them."""

    def run(self, crops: Sequence[Crop]) -> Features:
        """One inference.

        Args:
            crops: n arrays of (height, width, 3) uint8, RGB, of the model's input size; n one of `batch_sizes`.

        Returns:
            (n, dim) float32.

        Raises:
            ModelFailed: The runtime raised, or returned another shape than the model announces.
        """


def check_features(features: Any, rows: int, dim: int) -> Features:
    """The features as they are, if they are (rows, dim).

    Raises:
        ModelFailed: They are not: a row too few would become a mix-up.
    """
    if features.shape != (rows, dim):
        raise ModelFailed(
            f"The model returned shape {features.shape} for a batch of {rows}; {(rows, dim)} was expected."
        )
    return features  # type: ignore[no-any-return]  # the runtimes carry no types
