"""What is stated about a model pack: its files, what each is for, and how each is fed.

`packs.toml` holds the registered packs, a `pack.toml` inside a folder an imported one. One module, because both have
the same keys, and each key's check stands beside it.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from importlib.resources import files
from inspect import signature
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

import tomli_w
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from arcface_api.arrays import InputSpec
from arcface_api.errors import PackError
from arcface_api.wording import did_you_mean

PACK_TOML = "pack.toml"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEADER = """\
# Written by `arcface-api packs import`. It states how each file of this pack is fed, and what had to be assumed.
# Correct what is wrong: the values here are used as they stand.

"""


class Role(StrEnum):
    """What a model file is for; shapes of what goes in and comes out."""

    described: str
    """The role in a sentence, after "is" or "is taken for"."""

    def __new__(cls, value: str, described: str) -> Self:
        """A member with its description."""
        role = str.__new__(cls, value)
        role._value_, role.described = value, described
        return role

    RECOGNISER = "recogniser", "a recogniser"
    """A face crop in, its embedding out."""
    AGE_GENDER = "age_gender", "a model for age and gender"
    """(n, 3, 96, 96) in; (n, 3) out: scores for female and male, age in hundreds of years."""
    LANDMARKS_3D = "landmarks_3d", "a model for 3-D landmarks"
    """(n, 3, 192, 192) in; (n, 3309) out, of which the last 68 x 3 are the 3-D landmarks that give the head pose."""
    AGE = "age", "a model for age"
    """A face aligned as `InputSpec.template` says in; (n, 1) out: the expected age in years."""
    GENDER = "gender", "a model for gender"
    """A face aligned likewise in; (n, 2) out: probabilities of female and male."""


def _must(hold: Callable[[Any], object], sentence: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not hold(value):
            raise ValueError(sentence)
        return value

    return AfterValidator(check)


_Name = Annotated[
    str, _must(NAME_PATTERN.fullmatch, "must be a plain name of letters, digits, '.', '_' and '-', without folders")
]
_Sha256 = Annotated[str, _must(re.compile("[0-9a-f]{64}").fullmatch, "must be 64 lowercase hexadecimal digits")]
_Alias = Annotated[
    str, _must(lambda name: not name.startswith("/") and ".." not in name.split("/"), "must stay inside the folder")
]
_Positive = Annotated[int, Field(gt=0)]
_Input = Annotated[
    InputSpec,
    # an input without a name is the graph's only one
    BeforeValidator(lambda given: {"name": None, **given} if isinstance(given, dict) else given),
    _must(lambda spec: min(spec.height, spec.width) > 0 and spec.std > 0, "height, width and std must be above 0"),
    _must(lambda spec: isfinite(spec.mean) and isfinite(spec.std), "mean and std must be finite numbers"),
]


@dataclass(frozen=True)
class ModelFile:
    """One `.onnx` file of a pack."""

    name: _Name
    """File name inside the installed pack's flat folder."""
    role: Role
    input: _Input
    output_dim: _Positive
    """Length of one output row."""
    size_bytes: _Positive | None = None
    """None: not known; recorded at the first use, like `sha256`."""
    sha256: _Sha256 | None = None
    aliases: tuple[_Alias, ...] = ()
    """Other paths under which archives and mirrors carry the same file, for example `recognition/model.onnx`."""
    provenance: str | None = None
    """What is known of the pictures that it was trained on (docs/licences.md has more). None: nothing."""


@dataclass(frozen=True)
class Source:
    """One place that has a pack; sources are tried in the order of the manifest."""

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
    """The terms of the weights."""

    name: str
    url: str
    allows_commercial_use: bool
    notice: str
    """One or two sentences shown before a download and in `/info`."""


@dataclass(frozen=True)
class Threshold:
    """The similarity from which two pictures are taken for the same person."""

    far: float
    """The part of pairs of different people that are then taken for the same, 0 to 1."""
    similarity: float
    """Cosine."""
    basis: Literal["measured", "published"] = "measured"
    """`measured` with this service, or `published` by somebody who measured the same file with another program."""
    data_set: str | None = None
    """Whose pairs those were, and how their pictures were made."""
    source: str | None = None
    """Where that is published, a URL; `published` has one."""


def _sourced(threshold: Threshold) -> Threshold:
    if threshold.basis == "published" and not (threshold.data_set and threshold.source):
        raise ValueError("a published threshold needs a data_set and a source")
    return threshold


@dataclass(frozen=True)
class Manifest:
    """Everything that is stated about one pack."""

    # also for the records inside: a misspelt key would be a silent default
    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: _Name
    title: str
    model: str
    """What `/embed` reports as `model` while this manifest's recogniser is loaded."""
    licence: Licence
    files: tuple[ModelFile, ...]
    sources: tuple[Source, ...] = ()
    assumptions: tuple[str, ...] = ()
    """What an import had to assume about unregistered files, in sentences."""
    align: Literal["none", "auto"] | None = None
    """For requests that do not state `align`; None: as the service is set, else `none`."""
    fit: Literal["stretch", "letterbox"] | None = None
    """For requests that do not state `fit`; None: as the service is set, else `stretch`."""
    thresholds: tuple[Annotated[Threshold, AfterValidator(_sourced)], ...] = ()
    """Of this recogniser on aligned pictures, by rising similarity; another recogniser has others."""

    @property
    def is_pinned(self) -> bool:
        """Every file's size and hash is known."""
        return all(file.sha256 is not None and file.size_bytes is not None for file in self.files)

    def file(self, role: Role) -> ModelFile | None:
        """The file that fills a role, or None."""
        return next((file for file in self.files if file.role is role), None)


def _consistent(manifest: Manifest) -> Manifest:
    roles = [file.role for file in manifest.files]
    if Role.RECOGNISER not in roles:
        raise ValueError(f"no file has the role {Role.RECOGNISER.value!r}, and a pack needs one")
    if len(roles) != len(set(roles)):
        raise ValueError("two files have the same role")
    if stray := {source.file for source in manifest.sources} - {None, *(file.name for file in manifest.files)}:
        raise ValueError(f"a source gives {stray.pop()!r}, which is no file of this pack")
    return manifest


_RECORDS: Mapping[str, Callable[..., object]] = {
    "files": ModelFile,
    "input": InputSpec,
    "licence": Licence,
    "sources": Source,
    "thresholds": Threshold,
}
"""The tables inside a manifest, by key."""
_ADAPTER: TypeAdapter[Manifest] = TypeAdapter(Annotated[Manifest, AfterValidator(_consistent)])


@cache
def registry() -> Mapping[str, Manifest]:
    """The registered packs of `packs.toml` by name, the default pack first."""
    document = tomllib.loads(files("arcface_api").joinpath("packs.toml").read_text(encoding="utf-8"))
    packs = {
        name: {"name": name, **table, "licence": document["licences"][table["licence"]]}
        for name, table in document["packs"].items()
    }
    return MappingProxyType({name: _understood(table, f"packs.toml, {name}") for name, table in packs.items()})


def mirrored(known: Mapping[str, Manifest], mirror: str) -> Mapping[str, Manifest]:
    """The packs with this URL in place of their sources: `pack.zip` under its registered name, else `pack/file`."""

    def sources(manifest: Manifest) -> tuple[Source, ...]:
        archives = [
            replace(source, url=f"{mirror}/{source.url.rpartition('/')[2].partition('?')[0]}")
            for source in manifest.sources
            if source.file is None
        ]
        files = [Source(f"{mirror}/{manifest.name}/{file.name}", file.name) for file in manifest.files]
        return tuple(dict.fromkeys((*archives, *files)))

    return {name: replace(manifest, sources=sources(manifest)) for name, manifest in known.items()}


def owners(known: Mapping[str, Manifest], sha256: str) -> list[tuple[Manifest, ModelFile]]:
    """Every registered pack that has the file with this hash, with its entry there."""
    return [(manifest, file) for manifest in known.values() for file in manifest.files if file.sha256 == sha256]


def read_pack_toml(path: Path) -> Manifest:
    """The manifest in a `pack.toml`; raises a `PackError` if it cannot be read or understood."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors mark it
    # ValueError: neither UTF-8 nor TOML, or a number of thousands of digits; RecursionError: a thousand brackets
    except (OSError, ValueError, RecursionError) as error:
        raise PackError(
            f"{path} cannot be read: {error}. Correct it, or import the pack again with `arcface-api packs import"
            " FILES`."
        ) from error
    return _understood(document, str(path))


def write_pack_toml(manifest: Manifest, path: Path) -> None:
    """Write a manifest with all it states and assumes; what is unknown is left out."""
    document = _ADAPTER.dump_python(manifest, mode="json", exclude_none=True)
    path.write_text(_HEADER + tomli_w.dumps(document, multiline_strings=True), encoding="utf-8")


def _understood(document: Mapping[str, Any], where: str) -> Manifest:
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        # a misspelt key before the right one, which is then missing
        first = min(error.errors(), key=lambda each: each["type"] != "unexpected_keyword_argument")
        if first["type"] == "unexpected_keyword_argument":
            what = f"is not a key of a manifest.{_keys_there(first['loc'])}"
        else:
            what = first["msg"].removeprefix("Value error, ") + "."
        wrong = ": ".join(filter(None, [".".join(map(str, first["loc"])), what]))
        raise PackError(f"{where}: {wrong} Correct that line.") from error


def _keys_there(place: Sequence[int | str]) -> str:
    """What an unknown key at this place probably means, and which keys are allowed there."""
    *tables, unknown = map(str, place)
    table = next((_RECORDS[name] for name in reversed(tables) if name in _RECORDS), Manifest)
    keys = list(signature(table).parameters)
    return f"{did_you_mean(unknown, keys)} Allowed there are {', '.join(keys)}."
