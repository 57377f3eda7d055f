"""Which pack a handful of `.onnx` files make: known ones by their hash, unknown ones by their graph."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arcface_api.errors import GraphUnfit, PackAmbiguous, PackWithoutRecogniser
from arcface_api.packs.content import Measured, read_whole
from arcface_api.packs.inspect_graph import inspect_graph
from arcface_api.packs.manifest import Licence, Manifest, ModelFile, Role, owners

UNKNOWN_LICENCE = Licence(
    name="unknown",
    url="",
    allows_commercial_use=False,
    notice="These weights are not registered, so their licence is not known here: ask who made them.",
)
_READ_AGAIN = "Start again."


@dataclass(frozen=True)
class Candidate:
    """A file that may belong to a pack."""

    name: str
    """Its file name where it came from."""
    path: Path
    measured: Measured
    brought: Path | None = None
    """What it was found in, where that was a person's choice."""


@dataclass(frozen=True)
class Entry:
    """A candidate that fills a role."""

    candidate: Candidate
    file: ModelFile
    owners: tuple[Manifest, ...]
    """The registered packs that have this very file; none: its graph was inspected."""
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recognised:
    """The pack that a set of files makes."""

    manifest: Manifest
    entries: tuple[Entry, ...]
    skipped: tuple[str, ...]
    """Why each file that was left out was, in sentences."""


def recognise(
    candidates: Sequence[Candidate],
    known: Mapping[str, Manifest],
    *,
    name: str,
    wanted: str | None,
    where: str,
    strict: bool,
) -> Recognised:
    """Find out which pack these files make.

    Args:
        candidates: The files, each already measured.
        known: The registered packs.
        name: What to call the pack if it is not a registered one.
        wanted: The name it must have; None: a registered pack is called by its registered name.
        where: The place that was given, for messages.
        strict: Refuse a file that fills no role, instead of skipping it: it was named itself.

    Raises:
        PackWithoutRecogniser: No file is a recogniser.
        PackAmbiguous: Two different files fill the same role.
        GraphUnfit: A file that was named itself fills no role.
    """
    entries: dict[Role, Entry] = {}
    skipped = []
    for candidate in candidates:
        try:
            entry = _entry(candidate, known)
        except GraphUnfit as error:
            if strict:
                raise
            skipped.append(str(error))
            continue
        rival = entries.setdefault(entry.file.role, entry)
        if rival.candidate.measured != candidate.measured:
            raise PackAmbiguous(
                f"{where} has two files of which each is {entry.file.role.described}: {rival.candidate.name} and"
                f" {candidate.name}. A pack has one: name the recogniser file itself, or take one of them away."
            )
    if Role.RECOGNISER not in entries:
        raise PackWithoutRecogniser(_no_recogniser(where, entries, skipped))
    chosen = tuple(entries[role] for role in Role if role in entries)
    return Recognised(_manifest(chosen, known, name, wanted), chosen, tuple(skipped))


def _entry(candidate: Candidate, known: Mapping[str, Manifest]) -> Entry:
    registered = owners(known, candidate.measured.sha256)
    if registered:
        return Entry(candidate, registered[0][1], tuple(manifest for manifest, _ in registered))
    content = read_whole(candidate.path, candidate.measured.size_bytes, _READ_AGAIN)
    inspected = inspect_graph(content, candidate.name)
    file = ModelFile(candidate.name, inspected.role, inspected.input, inspected.output_dim)
    return Entry(candidate, file, (), inspected.assumptions)


def _no_recogniser(where: str, entries: Mapping[Role, Entry], skipped: Sequence[str]) -> str:
    found = [f"{entry.candidate.name} is {role.described}." for role, entry in entries.items()] + list(skipped)
    return (
        f"{where} has no recogniser, the model that turns a face into an embedding. "
        + (" ".join(found) or "It has no `.onnx` file.")
        + " Add the recogniser's `.onnx` file, or get a whole pack with `arcface-api packs pull antelopev2"
        " --accept-license`."
    )


def _manifest(chosen: Sequence[Entry], known: Mapping[str, Manifest], name: str, wanted: str | None) -> Manifest:
    fitting = [pack for pack in chosen[0].owners if all(belongs(entry, pack) for entry in chosen)]
    if wanted is not None:
        fitting = [pack for pack in fitting if pack.name == wanted]
    if fitting:
        # packs share files: the name decides, then how many of the pack's files are here, by hash
        return max(fitting, key=lambda pack: (pack.name == name, _by_hash(chosen, pack) / len(pack.files)))
    recogniser = chosen[0]
    owner = recogniser.owners[0] if recogniser.owners else None
    model = owner.model if owner else _model_name(recogniser.candidate.name, known)
    assumptions = [sentence for entry in chosen for sentence in entry.assumptions]
    if not recogniser.owners:
        assumptions.append(f"The pack reports {model!r} as its model, after the name of {recogniser.candidate.name}.")
    return Manifest(
        name=wanted or name,
        title=f"Not registered: {', '.join(entry.candidate.name for entry in chosen)}",
        model=model,
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
    return pack in entry.owners or (file.sha256 is None and file.name == Path(entry.candidate.name).name)


def _by_hash(chosen: Sequence[Entry], pack: Manifest) -> int:
    return sum(pack in entry.owners for entry in chosen)


def _model_name(file_name: str, known: Mapping[str, Manifest]) -> str:
    """The file's name without its ending; never one that a registered recogniser owns by its hash."""
    stem = Path(file_name).stem
    return f"custom_{stem}" if stem in {manifest.model for manifest in known.values()} else stem


def _licence(chosen: Sequence[Entry]) -> Licence:
    """The terms of all files together: what one of them forbids is forbidden."""
    licences = {entry.candidate.name: entry.owners[0].licence if entry.owners else UNKNOWN_LICENCE for entry in chosen}
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
