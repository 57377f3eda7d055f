"""What is stated about a model pack: its files, what each is for, and how each wants to be fed.

A manifest states; it touches no disk. `packs.toml` holds the registered ones, a `pack.toml` inside a folder an
imported one.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from arcface_api.arrays import InputSpec


class Role(StrEnum):
    """What a model file is for."""

    RECOGNISER = "recogniser"
    """A face crop in, its embedding out."""
    AGE_GENDER = "age_gender"
    """(n, 3, 96, 96) in; (n, 3) out: scores for female and male, age in hundreds of years."""
    LANDMARKS_3D = "landmarks_3d"
    """(n, 3, 192, 192) in; (n, 3309) out, whose last 68 x 3 numbers are the 3-D landmarks that give the
    head pose."""

    AGE = "age"
    """A face aligned as `InputSpec.template` says; (n, 1) out: the expected age in years."""
    GENDER = "gender"
    """A face aligned likewise; (n, 2) out: probabilities of female and male."""

    @property
    def described(self) -> str:
        """The role in a sentence, after "is" or "is taken for"."""
        return _DESCRIBED[self]


_DESCRIBED = {
    Role.RECOGNISER: "a recogniser",
    Role.AGE_GENDER: "a model for age and gender",
    Role.LANDMARKS_3D: "a model for 3-D landmarks",
    Role.AGE: "a model for age",
    Role.GENDER: "a model for gender",
}


@dataclass(frozen=True)
class ModelFile:
    """One `.onnx` file of a pack."""

    name: str
    """File name inside the installed pack's flat folder."""
    role: Role
    input: InputSpec
    output_dim: int
    """Length of one output row."""
    size_bytes: int | None = None
    """None: not known; recorded at the first use, like `sha256`."""
    sha256: str | None = None
    aliases: tuple[str, ...] = ()
    """Other paths under which archives and mirrors carry the same file, for example `recognition/model.onnx`."""
    provenance: str | None = None
    """What is known of the pictures that it was trained on; docs/licences.md says more. None: nothing."""


@dataclass(frozen=True)
class Source:
    """One place that has a pack, tried in the order of the manifest."""

    url: str
    """An archive, or, where `file` is given, one model file."""
    file: str | None = None
    """Name of the `ModelFile` that this URL serves; None: the URL is a zip archive of the whole pack."""
    sha256: str | None = None
    """SHA-256 of an archive, where known: makes a download resumable. The hashes of the files inside decide."""
    size_bytes: int | None = None
    """Size of an archive, where known: the room it takes is checked before the download."""


@dataclass(frozen=True)
class Licence:
    """Under what terms the weights are given."""

    name: str
    url: str
    allows_commercial_use: bool
    notice: str
    """One or two sentences shown before a download and in `/info`."""


@dataclass(frozen=True)
class Threshold:
    """From which similarity on two pictures are taken for the same person."""

    far: float
    """Part of pairs of different people that are then taken for the same, 0 to 1."""
    similarity: float
    """Cosine."""


@dataclass(frozen=True)
class Manifest:
    """Everything that is stated about one pack."""

    name: str
    title: str
    model: str
    """What `/embed` reports as `model` while this manifest's recogniser is loaded."""
    licence: Licence
    files: tuple[ModelFile, ...]
    sources: tuple[Source, ...] = ()
    assumptions: tuple[str, ...] = ()
    """What an import had to assume about files it did not know, in sentences."""

    align: Literal["none", "auto"] | None = None
    """What requests get that do not say; None: as the service is set, else `none`."""
    fit: Literal["stretch", "letterbox"] | None = None
    """What requests get that do not say; None: as the service is set, else `stretch`."""

    thresholds: tuple[Threshold, ...] = ()
    """Measured with this recogniser on aligned pictures, by rising similarity; another recogniser has others."""

    @property
    def is_pinned(self) -> bool:
        """Every file's size and hash is known."""
        return all(file.sha256 is not None and file.size_bytes is not None for file in self.files)

    def file(self, role: Role) -> ModelFile | None:
        """The file that fills a role, or None."""
        return next((file for file in self.files if file.role is role), None)
