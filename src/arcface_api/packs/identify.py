"""Which pack a handful of `.onnx` files make: known ones by their hash, unknown ones by their graph.

The rule for mean and std of an unknown graph is the one InsightFace's library applies when it loads a model, so that a
pack that works there works here with the same numbers. Everything that is a guess comes back as a sentence.

One module, because a file that no hash knows goes on to its graph.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs and no inline types

from arcface_api.arrays import InputSpec
from arcface_api.errors import GraphUnfit, PackError
from arcface_api.packs.content import Measured, read_whole
from arcface_api.packs.manifest import Licence, Manifest, ModelFile, Role, owners

UNKNOWN_LICENCE = Licence(
    name="unknown",
    url="",
    allows_commercial_use=False,
    notice="These weights are not registered, so their licence is not known here: ask who made them.",
)
_log = logging.getLogger("arcface_api.packs")
_MIN_EMBEDDING_DIM = 64
"""Models that see a whole 112x112 crop and return fewer numbers judge quality, masks or age: they recognise nobody."""
_NEEDED = (
    "A model must have one float32 image input (n, 3, height, width) and one output (n, dim): 112x112 with at least"
    f" {_MIN_EMBEDDING_DIM} numbers for a recogniser, 96x96 with 3 for age and gender, 192x192 with 3309 for 3-D"
    " landmarks."
)


@dataclass(frozen=True)
class FoundFile:
    """A file that may belong to a pack; `name` is its name where it came from."""

    name: str
    path: Path
    measured: Measured


@dataclass(frozen=True)
class Entry:
    """A file that fills a role."""

    found: FoundFile
    file: ModelFile
    owners: tuple[Manifest, ...]
    """The registered packs that have this very file; none: its graph was inspected."""
    assumptions: tuple[str, ...] = ()


def identify(
    files: Sequence[FoundFile],
    known: Mapping[str, Manifest],
    *,
    name: str,
    where: str,
    wanted: str | None = None,
    strict: bool = False,
) -> tuple[Manifest, tuple[Entry, ...]]:
    """Which pack these files make, and the files that belong to it, in the order of `Role`.

    Args:
        files: The files, each already measured.
        known: The registered packs by name.
        name: What to call the pack if it is not a registered one; made safe.
        where: The place that was given, for messages.
        wanted: The name it must have; None: a registered pack is called by its registered name.
        strict: Refuse a file that fills no role, instead of skipping it.

    Raises:
        PackError: No file is a recogniser, or two different files fill the same role.
        GraphUnfit: `strict`, and a file fills no role.
    """
    entries: dict[Role, Entry] = {}
    skipped = []
    for found in files:
        try:
            if registered := owners(known, found.measured.sha256):
                entry = Entry(found, registered[0][1], tuple(manifest for manifest, _ in registered))
            else:
                size = found.measured.size_bytes
                file, assumptions = _inspect(read_whole(found.path, size, "Start again."), found.name)
                entry = Entry(found, file, (), assumptions)
        except GraphUnfit as error:
            if strict:
                raise
            _log.info("Left out: %s", error)
            skipped.append(str(error))
            continue
        rival = entries.setdefault(entry.file.role, entry).found
        if rival.measured != found.measured:
            raise PackError(
                f"{where} has two files of which each is {entry.file.role.described}: {rival.name} and {found.name}. A"
                " pack has one: name the recogniser file itself, or take one of them away."
            )
    if Role.RECOGNISER not in entries:
        there = [f"{entry.found.name} is {role.described}." for role, entry in entries.items()] + skipped
        raise PackError(
            f"{where} has no recogniser, the model that turns a face into an embedding."
            f" {' '.join(there) or 'It has no `.onnx` file.'} Add the recogniser's `.onnx` file, or get a whole pack"
            " with `arcface-api packs pull antelopev2 --accept-license`."
        )
    chosen = tuple(entries[role] for role in Role if role in entries)
    return _manifest(chosen, known, safe_name(name), wanted), chosen


def _manifest(chosen: Sequence[Entry], known: Mapping[str, Manifest], name: str, wanted: str | None) -> Manifest:
    recogniser = chosen[0]
    fitting = [
        pack
        for pack in recogniser.owners
        if wanted in {None, pack.name} and all(belongs(entry, pack) for entry in chosen)
    ]
    if fitting:
        # packs share files: the name decides, then how many of the pack's files are here, by hash
        return max(
            fitting,
            key=lambda pack: (pack.name == name, sum(pack in entry.owners for entry in chosen) / len(pack.files)),
        )
    assumptions = [sentence for entry in chosen for sentence in entry.assumptions]
    owner = recogniser.owners[0] if recogniser.owners else None
    if owner is None:
        stem = Path(recogniser.found.name).stem
        # never the name of a registered model, which belongs to that model's bytes
        model = f"custom_{stem}" if stem in {manifest.model for manifest in known.values()} else stem
        assumptions.append(f"The pack reports {model!r} as its model, after the name of {recogniser.found.name}.")
    return Manifest(
        name=wanted or name,
        title=f"Not registered: {', '.join(entry.found.name for entry in chosen)}",
        model=owner.model if owner else model,
        licence=_licence(chosen),
        files=tuple(entry.file for entry in chosen),
        assumptions=tuple(assumptions),
        align=owner.align if owner else None,
        fit=owner.fit if owner else None,
        thresholds=owner.thresholds if owner else (),
    )


def belongs(entry: Entry, pack: Manifest) -> bool:
    """Whether the pack has this very file, or one of that role and name whose hash nobody has published."""
    file = pack.file(entry.file.role)
    if file is None:
        return False
    return pack in entry.owners or (file.sha256 is None and file.name == Path(entry.found.name).name)


def _licence(chosen: Sequence[Entry]) -> Licence:
    """The terms of all files together: what one of them forbids is forbidden."""
    licences = {entry.found.name: entry.owners[0].licence if entry.owners else UNKNOWN_LICENCE for entry in chosen}
    different = list(dict.fromkeys(licences.values()))
    if len(different) == 1:
        return different[0]
    return Licence(
        name=" and ".join(licence.name for licence in different),
        url=next((licence.url for licence in different if licence.url), ""),
        allows_commercial_use=all(licence.allows_commercial_use for licence in different),
        notice=" ".join(f"{name}: {licence.notice}" for name, licence in licences.items()),
    )


def safe_name(text: str) -> str:
    """A text as a pack's name: letters, digits, '.', '_' and '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-")[:64] or "imported"


def refuse_misfit(content: bytes, file: ModelFile, name: str) -> None:
    """Raise `GraphUnfit` for a model with another role, input size or output than its manifest states."""
    found, _ = _inspect(content, name)
    if (found.role, found.input.height, found.input.width, found.output_dim) != (
        file.role, file.input.height, file.input.width, file.output_dim
    ):  # fmt: skip
        raise GraphUnfit(
            f"{name} takes {found.input.height}x{found.input.width} pixels and returns rows of {found.output_dim}"
            f" numbers, but {file.name} must take {file.input.height}x{file.input.width} and return {file.output_dim}."
        )


def _inspect(content: bytes, name: str) -> tuple[ModelFile, tuple[str, ...]]:
    """What a model is for and how it is fed, and what had to be assumed; `GraphUnfit` if it fits no role.

    Its weights are parsed with it: that takes about twice its size in memory, for a moment.
    """
    try:
        graph = onnx.ModelProto.FromString(content).graph
    except DecodeError as error:
        raise GraphUnfit(
            f"{name} cannot be read as an ONNX model: it is damaged, cut short, or another format."
        ) from error
    # weights in a second file would be covered by no hash
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise GraphUnfit(
            f"{name} keeps its weights in a second file. Save it with its weights inside, for example with"
            " `onnx.save(onnx.load(old), new)`."
        )
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise GraphUnfit(f"{name} has {len(inputs)} inputs and {len(graph.output)} outputs. {_NEEDED}")
    height, width = _image_size(inputs[0], name)
    # the batch size of an output is not looked at: InsightFace's own files state 1 there and return n
    output, shape = graph.output[0], _shape(graph.output[0])
    dim = shape[1] if len(shape) == 2 else None
    if output.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or dim is None:
        raise GraphUnfit(f"{name} has the output {_shown(output)}. {_NEEDED}")
    match height, width, dim:
        case 96, 96, 3:
            role = Role.AGE_GENDER
        case 192, 192, 3309:
            role = Role.LANDMARKS_3D
        case 112, 112, _ if dim >= _MIN_EMBEDDING_DIM:
            role = Role.RECOGNISER
        case _:
            raise GraphUnfit(f"{name} takes {height}x{width} pixels and returns rows of {dim} numbers. {_NEEDED}")
    mean, std, why = _normalisation(graph, role)
    spec = InputSpec(name=inputs[0].name, height=height, width=width, mean=mean, std=std)
    return ModelFile(name, role, spec, dim), (
        f"{name} is taken for {role.described}, because it takes {height}x{width} pixels and returns rows of {dim}"
        " numbers.",
        f"{name} is fed (pixel - {mean:g}) / {std:g}, because {why}.",
        f"{name} is fed its colour planes in the order red, green, blue, because InsightFace's models are.",
    )


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """The dimensions of an input or output; None where the graph leaves one free."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _shown(value: onnx.ValueInfoProto) -> str:
    kind, kinds = value.type.tensor_type.elem_type, onnx.TensorProto.DataType
    element = kinds.Name(kind).lower() if kind in kinds.values() else "unknown"
    return f"{value.name!r}, {element} ({', '.join('n' if dim is None else str(dim) for dim in _shape(value))})"


def _image_size(value: onnx.ValueInfoProto, name: str) -> tuple[int, int]:
    shape = _shape(value)
    is_float32 = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if not is_float32 or len(shape) != 4 or shape[1] != 3 or shape[2] is None or shape[3] is None:
        raise GraphUnfit(f"{name} has the input {_shown(value)}. {_NEEDED}")
    if shape[0] is not None:
        raise GraphUnfit(
            f"{name} has the input {_shown(value)}: its batch size is fixed. Export it again with a free batch"
            " dimension (`dynamic_axes` or `dynamic_shapes` in PyTorch's ONNX export)."
        )
    return shape[2], shape[3]


def _normalisation(graph: onnx.GraphProto, role: Role) -> tuple[float, float, str]:
    """Mean, std, and the reason. Source: InsightFace 2.1, model_zoo, which looks at the first eight nodes' names."""
    names = [node.name for node in graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    multiplies = any(name.startswith(("Mul", "_mul")) for name in names)
    # genderage and 1k3d68 normalise in a batch normalisation of this name
    begins_with_bn = role is not Role.RECOGNISER and "bn_data" in names[:3]
    if (subtracts and multiplies) or begins_with_bn:
        return 0.0, 1.0, "its first nodes normalise the pixels themselves, by the names they have"
    std = 127.5 if role is Role.RECOGNISER else 128.0
    return 127.5, std, "no node that normalises is among its first eight, by the names they have (InsightFace's rule)"
