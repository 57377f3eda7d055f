"""What a command serves: the pack that is installed, else pulled where that was asked for; and `--pack auto`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from arcface_api.errors import LicenceNotAccepted, PackError, PackNotFound
from arcface_api.packs.finding import locate
from arcface_api.packs.installed import InstalledPack
from arcface_api.packs.locations import PackLocations
from arcface_api.packs.manifest import Source, registry
from arcface_api.packs.pulling import licence_sentence, pull
from arcface_api.progress import Progress, no_progress

PREFERRED, CARRIED = "antelopev2", "open"
_log = logging.getLogger("arcface_api.packs")


def obtain(
    name: str,
    locations: PackLocations,
    *,
    may_pull: bool,
    accepted_licences: frozenset[str],
    progress: Progress = no_progress,
    sources: Sequence[Source] | None = None,
) -> InstalledPack:
    """The pack as it is installed; one that is registered but not installed is pulled, where that was asked for.

    Args:
        name: A pack's name, or a path, as `locate` takes it.
        locations: Where to look, and where to install.
        may_pull: Whether a download was asked for; accepting a licence does not ask for one.
        accepted_licences: Names of the packs whose licence was accepted.
        progress: Called while a pack is downloaded.
        sources: Instead of the manifest's.

    Raises:
        PackError: It is not installed and may not or cannot be pulled, or cannot be understood.
    """
    try:
        return locate(name, locations)
    except PackNotFound as missing:
        if name not in registry() or (not may_pull and name not in accepted_licences):
            raise
        if not may_pull:
            raise PackNotFound(
                f"{missing}\nThe licence of {name} is accepted; to download the pack at start, set ARCFACE_PULL=true."
            ) from None
    if name in accepted_licences:
        _log.info("%s", licence_sentence(registry()[name]))
    return pull(name, locations, accepted_licences=accepted_licences, progress=progress, sources=sources)


@dataclass(frozen=True)
class Choice:
    """Which pack `auto` means on this machine."""

    pack: InstalledPack
    reason: str | None = None
    """Why it is not the preferred one, as a sentence; None: it is."""
    remedy: str | None = None
    """What to do to have the preferred one, without a full stop."""


def choose(
    locations: PackLocations,
    *,
    may_pull: bool = False,
    accepted_licences: frozenset[str] = frozenset(),
    progress: Progress = no_progress,
    sources: Sequence[Source] | None = None,
) -> Choice:
    """The preferred pack where `obtain` gives it, else the one that this package carries. Arguments as of `obtain`."""
    try:
        return Choice(
            obtain(
                PREFERRED,
                locations,
                may_pull=may_pull,
                accepted_licences=accepted_licences,
                progress=progress,
                sources=sources,
            )
        )
    except (PackNotFound, LicenceNotAccepted):
        is_accepted = PREFERRED in accepted_licences
        why = "ARCFACE_PULL is not true" if is_accepted else "its licence was not accepted"
        reason = f"{PREFERRED} is not on this machine, and {why}."
        needed = [] if may_pull else ["ARCFACE_PULL=true"]
        needed += [] if is_accepted else [f"ARCFACE_ACCEPT_LICENSE={PREFERRED}"]
        remedy = f"To download {PREFERRED} (non-commercial research only), set {' and '.join(needed)}"
    except PackError as error:
        first, *_ = str(error).splitlines()
        reason = f"{PREFERRED} could not be had: {first.rstrip(':.')}."
        remedy = f"`arcface-api packs pull {PREFERRED}` tries again and shows every reason"
    return Choice(locate(CARRIED, locations), reason, remedy)
