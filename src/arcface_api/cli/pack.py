"""The pack that a command works with: found where it is installed, downloaded where that is wanted."""

import logging
from collections.abc import Callable

from arcface_api import packs
from arcface_api.errors import PackNotFound
from arcface_api.packs import InstalledPack, PackLocations
from arcface_api.packs.progress import Progress
from arcface_api.settings import Settings

_log = logging.getLogger(__name__)


def find_pack(settings: Settings, progress: Progress) -> InstalledPack:
    """The pack of the settings.

    Raises:
        PackError: It is not installed and may not or cannot be downloaded, or is damaged.
    """
    locations = PackLocations.default(settings.models_dir)
    if settings.pack == packs.AUTO:
        return _chosen(settings, locations, progress)
    try:
        return packs.locate(settings.pack, locations)
    except PackNotFound:
        if not settings.pull or settings.pack not in packs.registry():
            raise
    if settings.pack in settings.accept_license:
        show_licence(settings.pack, _log.info)
    return packs.pull(settings.pack, locations, accepted_licences=settings.accept_license, progress=progress)


def installed_pack(settings: Settings) -> InstalledPack:
    """The pack of the settings, as it is on this machine.

    Raises:
        PackError: It is not installed, or cannot be understood.
    """
    locations = PackLocations.default(settings.models_dir)
    if settings.pack == packs.AUTO:
        return packs.choose(locations, accepted_licences=frozenset()).pack
    return packs.locate(settings.pack, locations)


def _chosen(settings: Settings, locations: PackLocations, progress: Progress) -> InstalledPack:
    choice = packs.choose(locations, accepted_licences=settings.accept_license, progress=progress)
    if choice.reason is not None:
        manifest = choice.pack.manifest
        _log.warning(
            "Serving the pack %s (%s, %s): %s", manifest.name, manifest.title, manifest.licence.name, choice.reason
        )
        remedy = (
            "To have antelopev2 (non-commercial research only) downloaded, set ARCFACE_ACCEPT_LICENSE=antelopev2"
            if choice.error is None
            else "`arcface-api packs pull antelopev2` tries again and tells every reason"
        )
        _log.warning(
            "It is weaker, and its vectors cannot be compared with others. %s; for any other pack set ARCFACE_PACK.",
            remedy,
        )
    return choice.pack


def show_licence(name: str, say: Callable[[str], object]) -> None:
    """Tell the licence of a registered pack's weights."""
    licence = packs.registry()[name].licence
    say(f"Licence of the {name} weights: {licence.name} ({licence.url}). {licence.notice}")
