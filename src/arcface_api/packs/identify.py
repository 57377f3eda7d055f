"""Which pack a handful of `.onnx` files make: known ones by their hash, unknown ones by their graph."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arcface_api.errors import GraphUnfit, PackError
from arcface_api.packs.content import Measured, read_whole
from arcface_api.packs.graph import inspect
from arcface_api.packs.manifest import Licence, Manifest, ModelFile, Role, owners

UNKNOWN_LICENCE = Licence(
    name="unknown",
    url="",
    allows_commercial_use=False,
    notice="These weights are not registered, so their licence is not known here: ask who made them.",
)
_log = logging.getLogger("arcface_api.packs")


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
        PackError: No file is a recogniser, two different files fill the same role, or a name is not UTF-8.
        GraphUnfit: `strict`, and a file fills no role.
    """
    entries: dict[Role, Entry] = {}
    skipped = []
    for found in files:
        if found.name.encode(errors="replace").decode() != found.name:  # answers and records could not hold it
            raise PackError(f"{where}: the file name {found.name!a} is not UTF-8. Rename that file.")
        try:
            if registered := owners(known, found.measured.sha256):
                entry = Entry(found, registered[0][1], tuple(manifest for manifest, _ in registered))
            else:
                size = found.measured.size_bytes
                file, assumptions = inspect(read_whole(found.path, size, "Start again."), found.name)
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
