"""A reader of the networks that dlib writes with `serialize`, as far as its face network needs.

    file ─▶ loss layer ─▶ one version a layer, output to input ─▶ input layer ─▶ layer bodies, input to output ─▶ end

Such a file does not state its topology, which is a C++ type of the program that reads it. But the list of versions
shows which layers are tags or skips, and dlib's residual blocks use these in two patterns only, so the network is
rebuilt from there:

    plain block    tag ─▶ … ─▶ add                         a lone tag; `add` adds what it saw
    down block     tag ─▶ … ─▶ tag, skip ─▶ … ─▶ add       the second tag keeps the first branch, the skip goes back to
                                                           where the first one was, `add` joins the two

What the file in sources.toml does not show is refused, not guessed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np

from training.open_pack.layers import (
    Add,
    Affine,
    Array,
    Convolution,
    FullyConnected,
    Layer,
    Network,
    Pair,
    Pool,
    Relu,
    Skip,
    Tag,
)

INNERMOST, COMPUTES, TAG_OR_SKIP = 3, 2, 1
"""Versions that layers write, by what they are."""
MAX_EXPONENT = 1100
"""Beyond it lie no float64, only dlib's codes for infinity and NaN (32000 to 32002), which no weight may be."""


class Unreadable(ValueError):
    """A file that is no such network, or not all of one."""


def parse(content: bytes, name: str) -> Network:
    """The network in a file's content; `name` is for messages.

    Raises:
        Unreadable: It holds something else, less, or more.
    """
    reader = Reader(content, name)
    reader.expect("the loss layer's version", reader.integer(), 1)
    reader.expect("the loss layer", reader.text(), "loss_metric_2")
    reader.real()  # margin, of use in training only
    max_distance = reader.real()
    versions = [reader.integer()]
    while versions[-1] in (COMPUTES, TAG_OR_SKIP):
        versions.append(reader.integer())
    reader.expect("the innermost layer's version", versions[-1], INNERMOST)
    reader.expect("the input layer", reader.text(), "input_rgb_image_sized")
    means = (reader.real(), reader.real(), reader.real())
    rows, columns = reader.integer(), reader.integer()
    layers = tuple(_layers(reader, versions[::-1]))
    reader.expect_end()
    return Network(means, rows, columns, layers, max_distance)


class Reader:
    """dlib's primitives, one after the other."""

    def __init__(self, content: bytes, name: str) -> None:
        """At the first byte; `name` is for messages."""
        self._content, self._name, self._at = content, name, 0

    def integer(self) -> int:
        """A control byte (low four bits: how many bytes follow; bit 7: the sign), then the magnitude, little-endian."""
        (control,) = self._take(1, "an integer")
        size = control & 0x0F
        if not 1 <= size <= 8 or control & 0x70:
            raise self._unreadable(f"{control:#04x} begins no integer")
        magnitude = int.from_bytes(self._take(size, "an integer"), "little")
        return -magnitude if control & 0x80 else magnitude

    def real(self) -> float:
        """A float or double: two integers, mantissa m and exponent e of m * 2**e."""
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > MAX_EXPONENT or abs(mantissa) > 2**53:
            raise self._unreadable(f"{mantissa} * 2 ** {exponent} is not a finite number")
        return math.ldexp(mantissa, exponent)

    def boolean(self) -> bool:
        """The character 0 or 1."""
        character = self._take(1, "a boolean")
        if character not in (b"0", b"1"):
            raise self._unreadable(f"{character!r} is no boolean")
        return character == b"1"

    def text(self) -> str:
        """A length, then that many characters."""
        size = self.integer()
        if not 0 <= size <= 100:
            raise self._unreadable(f"{size} is no length of a layer's name")
        return self._take(size, "a layer's name").decode("ascii", "backslashreplace")

    def pair(self) -> Pair:
        """Two integers."""
        return self.integer(), self.integer()

    def tensor(self) -> Array:
        """A tensor: version 2, four dimensions, then its numbers as IEEE float32, little-endian."""
        self.expect("a tensor's version", self.integer(), 2)
        shape = self._shape()
        numbers = self._take(4 * math.prod(shape), f"a tensor of {shape}")
        return np.frombuffer(numbers, "<f4").reshape(shape).astype(np.float32)

    def split(self, parameters: Array) -> tuple[Array, Array]:
        """What the next two alias tensors (each a version 1 and four dimensions) make of a layer's parameters."""
        shapes = []
        for _ in range(2):
            self.expect("an alias tensor's version", self.integer(), 1)
            shapes.append(self._shape())
        first, second = (math.prod(shape) for shape in shapes)
        self.expect("the number of a layer's parameters", parameters.size, first + second)
        flat = parameters.reshape(-1)
        return flat[:first].reshape(shapes[0]), flat[first:].reshape(shapes[1])

    def expect(self, what: str, found: object, allowed: object) -> None:
        """Refuse what is not as it was seen in the files that the format is known from."""
        if found != allowed:
            raise self._unreadable(f"{what} is {found!r} where {allowed!r} was expected")

    def expect_end(self) -> None:
        """Refuse a file that goes on."""
        if self._at != len(self._content):
            raise self._unreadable(f"the network ends here, but {len(self._content) - self._at} bytes follow")

    def unknown_layer(self, kind: str) -> Unreadable:
        """What to raise for a kind of layer that is not known."""
        return self._unreadable(f"{kind!r} is no layer that can be read")

    def _shape(self) -> tuple[int, int, int, int]:
        dimensions = (self.integer(), self.integer(), self.integer(), self.integer())
        if min(dimensions) < 0:
            raise self._unreadable(f"{dimensions} is no shape")
        return dimensions

    def _take(self, size: int, what: str) -> bytes:
        end = self._at + size
        if end > len(self._content):
            raise self._unreadable(f"{what} ({size} bytes) begins here, but the file ends at {len(self._content)}")
        taken, self._at = self._content[self._at : end], end
        return taken

    def _unreadable(self, what: str) -> Unreadable:
        return Unreadable(
            f"{self._name} is not a whole network of dlib as known here: at byte {self._at}, {what}."
            " Get the file again, and compare its SHA-256 with the one in sources.toml."
        )


def _layers(reader: Reader, versions: Sequence[int]) -> Iterator[Layer]:
    """The layers from input to output, which is the order of their bodies; `versions` must be in this order, too."""
    marks = 0  # tags and skips since the block began
    for are_marks, run in groupby(versions, lambda version: version == TAG_OR_SKIP):
        if are_marks:
            count = len(list(run))
            reader.expect("the number of tags and skips side by side", count, {0: 1, 1: 2}.get(marks, 0))
            yield Skip() if marks else Tag()
            marks += count
            continue
        for version in run:
            layer = _layer(reader)
            if version == INNERMOST:
                reader.expect("the sample expansion factor", reader.integer(), 1)
            if isinstance(layer, Add):
                reader.expect("whether a block is open where an add layer ends it", marks > 0, allowed=True)
                marks = 0
            yield layer
    reader.expect("whether a block is open at the output", marks > 0, allowed=False)


def _layer(reader: Reader) -> Layer:
    """One body: what the layer is, then what training left behind, which is of no use here."""
    kind = reader.text()
    if kind not in _DETAILS:
        raise reader.unknown_layer(kind)
    layer = _DETAILS[kind](reader)
    for _ in ("setup was called", "gradient of the input is stale", "gradient shares memory with the output"):
        reader.boolean()
    for _ in ("gradient of the input", "output", "gradient of the parameters"):
        reader.tensor()
    return layer


def _convolution(reader: Reader) -> Convolution:
    parameters = reader.tensor()
    filters, *window = (reader.integer() for _ in range(3))
    stride, padding = reader.pair(), reader.pair()
    weights, biases = reader.split(parameters)
    _learning_rates(reader)
    reader.expect("a convolution's filters and window", [weights.shape[0], *weights.shape[2:]], [filters, *window])
    reader.expect("the number of a convolution's biases", biases.size, filters)
    return Convolution(weights, biases.reshape(filters), stride, padding)


def _affine(reader: Reader) -> Affine:
    gamma, beta = reader.split(reader.tensor())
    reader.expect("the shape of an affine layer's beta", beta.shape, gamma.shape)
    reader.expect("an affine layer's mode", reader.integer(), 0)  # for each channel
    return Affine(gamma.reshape(-1), beta.reshape(-1))


def _max_pool(reader: Reader) -> Pool:
    return Pool("max", reader.pair(), reader.pair(), reader.pair())


def _average_pool(reader: Reader) -> Pool:
    return Pool("average", reader.pair(), reader.pair(), reader.pair())


def _fully_connected(reader: Reader) -> FullyConnected:
    outputs, inputs = reader.integer(), reader.integer()
    weights, _ = reader.split(reader.tensor())
    reader.expect("the number of a fully connected layer's weights", weights.size, inputs * outputs)
    reader.expect("a fully connected layer's bias mode", reader.integer(), 1)  # without
    _learning_rates(reader)
    return FullyConnected(weights.reshape(inputs, outputs))


def _learning_rates(reader: Reader) -> None:
    """Multipliers of learning rate and weight decay, for weights and for biases."""
    for _ in range(4):
        reader.real()


_DETAILS: dict[str, Callable[[Reader], Layer]] = {
    "con_4": _convolution,
    "affine_": _affine,
    "max_pool_2": _max_pool,
    "avg_pool_2": _average_pool,
    "relu_": lambda _: Relu(),
    "add_prev_": lambda _: Add(),
    "fc_2": _fully_connected,
}
"""What stands between a layer's name and what training left behind."""
