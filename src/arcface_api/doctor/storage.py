"""Checks of the pack, its files, the cache, and the memory that the models need."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from arcface_api.cpus import memory_limit_bytes
from arcface_api.doctor.finding import Finding, note, ok, problem
from arcface_api.doctor.subject import Subject
from arcface_api.errors import PackError, PackNotFound
from arcface_api.packs import AUTO, CARRIED, PREFERRED, InstalledPack, Manifest, PackLocations, Role, locate
from arcface_api.settings import user_cache
from arcface_api.wording import counted

if sys.platform != "win32":
    import resource

BASE_BYTES = 340 * 10**6
"""What a worker takes beside its weights."""
WEIGHTS_IN_MEMORY, RECOGNISER_AT_FIRST_START = 2.0, 7.5
"""How often weights are in memory; at the first start several ways to run the recogniser are open at once. An
IResNet100 (261 MB) alone takes 0.8 GB, and 2.2 GB at its first start (docs/operations.md)."""
NEARLY_FULL = 2.0
"""The cache needs about half of its size; a disk with less room than this many times the recogniser is full."""


def locate_pack(subject: Subject) -> InstalledPack | PackError:
    """The pack of the settings, or why there is none."""
    settings = subject.settings
    try:
        return locate(settings.pack, PackLocations.default(settings.models_dir))
    except PackError as error:
        return error


def weight_bytes(subject: Subject) -> tuple[int, int]:
    """Size of the recogniser, and of all the pack's files, on the disk or as registered; 0 where it is not known."""
    pack, sizes = subject.once(locate_pack), dict[Role, int]()
    if not isinstance(pack, PackError):
        for role, path in pack.paths.items():
            with suppress(OSError):
                sizes[role] = path.stat().st_size
    elif (manifest := registered(subject)) is not None:
        sizes = {file.role: file.size_bytes or 0 for file in manifest.files}
    return sizes.get(Role.RECOGNISER, 0), sum(sizes.values())


def registered(subject: Subject) -> Manifest | None:
    """What is registered about the pack of the settings, with its sources; None if nothing is."""
    settings = subject.settings
    known = PackLocations.default(settings.models_dir, settings.pack_mirror).known
    return known.get(PREFERRED if settings.pack == AUTO else settings.pack)


# ── the pack ───────────────────────────────────────────────────────────────────────────────────────────────────────


def pack(subject: Subject) -> Iterator[Finding]:
    """Find the pack as the service would."""
    found, settings = subject.once(locate_pack), subject.settings
    manifest = registered(subject)
    will_be_pulled = manifest is not None and settings.pull and manifest.name in settings.accept_license
    if isinstance(found, PackNotFound):
        first, *rest = str(found).splitlines()
        if will_be_pulled:
            yield note(f"{first.rstrip('.')}: it will be downloaded at the next start.")
            yield from _models_dir(PackLocations.default(settings.models_dir).writable)
        elif rest and "Do one of these:" in rest:
            yield problem(first, "\n".join(rest[rest.index("Do one of these:") :]))
        else:
            yield problem(first, "See docs/configuration.md for the packs that there are.")
        return
    if isinstance(found, PackError):
        what, _, remedy = str(found).partition(". ")
        yield problem(f"{what}.", remedy or "arcface-api packs verify shows more.")
        return
    name = found.manifest.name
    yield ok(f"{name}: {found.folder} ({found.origin}).")
    if settings.pack == AUTO and name == CARRIED and will_be_pulled:
        yield note(f"{PREFERRED} is not on this machine: it will be downloaded at the next start.")
        yield from _models_dir(PackLocations.default(settings.models_dir).writable)
    elif settings.pack == AUTO and name == CARRIED:
        yield note(
            f"{PREFERRED} is not on this machine: with ARCFACE_PACK=auto the less accurate open pack is served.",
            f"If you accept its licence: arcface-api packs pull {PREFERRED} --accept-license",
        )
    for assumption in found.manifest.assumptions:
        yield note(f"Assumed: {assumption}", "arcface-api packs check finds out whether it is fed rightly.")


def _models_dir(folder: Path) -> Iterator[Finding]:
    if (why := why_not_writable(folder)) is not None:
        yield problem(
            f"The pack cannot be downloaded: {why}.",
            "Give the user that runs arcface-api the right to write there, or choose another folder with"
            " ARCFACE_MODELS_DIR.",
        )


def files(subject: Subject) -> Iterator[Finding]:
    """Compare every file with its manifest, or with its first use."""
    found = subject.once(locate_pack)
    if isinstance(found, PackError):
        yield ok("There are none to be checked.")
        return
    good = 0
    for check in found.verify():
        if not check.is_good:
            what, _, remedy = check.message.partition(". ")
            yield problem(f"{what}.", remedy or "arcface-api packs pull replaces damaged files.")
        elif check.file.role not in found.paths:
            yield note(f"{check.file.name} is not there: no attributes are offered.")
        else:
            good += 1
    if good:
        yield ok(f"As they should be: {good} of {counted(len(found.paths), 'file')}.")


# ── folders and memory ─────────────────────────────────────────────────────────────────────────────────────────────


def why_not_writable(folder: Path) -> str | None:
    """Why a folder cannot be written, or cannot be made; None if it can. It is not made."""
    there = folder
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        inside = "" if there == folder else f", in {there}"
        return f"{folder} cannot be written: {error.strerror or error}{inside}"


def cache(subject: Subject) -> Iterator[Finding]:
    """Write to the cache's folder, and look at the room on its disk."""
    folder = subject.settings.cache_dir or user_cache() / "compiled"
    remedy = "Choose a folder that the service may write to, and that stays: ARCFACE_CACHE_DIR."
    if (why := why_not_writable(folder)) is not None:
        yield problem(f"Nothing can be kept for the next start, which takes as long as the first one: {why}.", remedy)
        return
    exists = folder.is_dir()
    there = folder if exists else next(parent for parent in folder.parents if parent.exists())
    free, needed = shutil.disk_usage(there).free, NEARLY_FULL * weight_bytes(subject)[0]
    if free < needed:
        yield problem(
            f"{folder} has room for {free / 1e6:.0f} MB, and compiled models need up to {needed / 1e6:.0f} MB.",
            f"Free some room. {remedy}",
        )
        return
    kept = sum(1 for path in folder.iterdir() if not path.name.startswith(".")) if exists else 0
    yield ok(f"{folder} can be written ({free / 1e9:.1f} GB free, {kept} {'entry' if kept == 1 else 'entries'}).")


def memory(subject: Subject) -> Iterator[Finding]:
    """Compare the limits of memory with what the models need."""
    (recogniser, weights), workers, places = weight_bytes(subject), subject.settings.workers, subject.places
    needed = workers * (BASE_BYTES + WEIGHTS_IN_MEMORY * weights)
    at_first = BASE_BYTES + WEIGHTS_IN_MEMORY * weights  # the first worker starts alone
    at_first = max(needed, at_first + (RECOGNISER_AT_FIRST_START - WEIGHTS_IN_MEMORY) * recogniser)
    limit, name = float(memory_limit_bytes(places.cgroups, places.membership)), "The memory limit"
    if sys.platform != "win32":
        for kind, called in ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")):
            allowed = resource.getrlimit(kind)[0]
            if allowed != resource.RLIM_INFINITY and allowed < limit:
                limit, name = float(allowed), f"The limit of {called}"
    about = f"about {_gb(needed)} for {counted(workers, 'worker')}, {_gb(at_first)} at a first start"
    raise_it = "Raise the limit, or use fewer ARCFACE_WORKERS or a smaller pack."
    free = _available_bytes(places.proc)
    if limit < needed:
        yield problem(
            f"{name} is {_gb(limit)}, and the models need {about}: the kernel would end the service.", raise_it
        )
    elif limit < at_first:
        yield note(
            f"{name} is {_gb(limit)}; the models need {about}.",
            f"Keep ARCFACE_CACHE_DIR from a start with more memory. {raise_it}",
        )
    elif free is not None and free < needed:
        yield note(f"{_gb(free)} of memory is free now; the models need {about}.", "End what else takes memory.")
    else:
        yield ok(f"{_gb(limit)}; the models need {about}.")


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def _available_bytes(proc: Path) -> int | None:
    """What programs can have without swapping; None if it is not known."""
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = (proc / "meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    return None
