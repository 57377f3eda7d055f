"""`--pack auto`: the preferred pack where it can be had, else the one that this package carries."""

from collections.abc import Sequence
from dataclasses import dataclass

from arcface_api.errors import PackError, PackNotFound
from arcface_api.packs.finding import locate
from arcface_api.packs.installed_pack import InstalledPack
from arcface_api.packs.locations import PackLocations
from arcface_api.packs.manifest import Source
from arcface_api.packs.progress import Progress, no_progress
from arcface_api.packs.pulling import pull

PREFERRED, CARRIED = "antelopev2", "open"


@dataclass(frozen=True)
class Choice:
    """Which pack, and why not the preferred one."""

    pack: InstalledPack
    reason: str | None
    """A sentence; None: it is the preferred one."""
    error: PackError | None = None
    """Why the preferred one could not be pulled, where that was tried."""


def choose(
    locations: PackLocations,
    *,
    accepted_licences: frozenset[str],
    progress: Progress = no_progress,
    sources: Sequence[Source] | None = None,
) -> Choice:
    """The preferred pack if it is installed, or can be pulled and its licence was accepted; else the carried one.

    Args:
        locations: Where to look, and where to install.
        accepted_licences: Names of the packs whose licence the person who runs this has accepted.
        progress: Told about a download.
        sources: Of the preferred pack, instead of its manifest's.
    """
    failure: PackError | None = None
    try:
        return Choice(locate(PREFERRED, locations), None)
    except PackNotFound:
        reason = f"{PREFERRED} is not on this machine, and its licence was not accepted."
    if PREFERRED in accepted_licences:
        try:
            pack = pull(PREFERRED, locations, accepted_licences=accepted_licences, progress=progress, sources=sources)
            return Choice(pack, None)
        except PackError as error:
            failure = error
            first, *_ = str(error).splitlines()
            reason = f"{PREFERRED} could not be had: {first.rstrip(':.')}."
    return Choice(locate(CARRIED, locations), reason, failure)
