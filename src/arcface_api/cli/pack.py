"""The pack that a command works with."""

import logging

from arcface_api import packs
from arcface_api.packs import InstalledPack, PackLocations
from arcface_api.progress import Progress
from arcface_api.settings import Settings

_log = logging.getLogger(__name__)


def find_pack(settings: Settings, progress: Progress) -> InstalledPack:
    """The pack of the settings; downloaded if it is not installed, `pull` is true and its licence is accepted.

    Raises:
        PackError: It is not installed and may not or cannot be downloaded, or is damaged.
    """
    locations = PackLocations.default(settings.models_dir)
    if settings.pack != packs.AUTO:
        return packs.obtain(
            settings.pack,
            locations,
            may_pull=settings.pull,
            accepted_licences=settings.accept_license,
            progress=progress,
        )
    choice = packs.choose(
        locations, may_pull=settings.pull, accepted_licences=settings.accept_license, progress=progress
    )
    if choice.reason is not None:
        manifest = choice.pack.manifest
        _log.warning(
            "Serving the pack %s (%s, %s): %s", manifest.name, manifest.title, manifest.licence.name, choice.reason
        )
        _log.warning(
            "It is weaker, and its vectors cannot be compared with others. %s; for any other pack set ARCFACE_PACK.",
            choice.remedy,
        )
    return choice.pack


def installed_pack(settings: Settings) -> InstalledPack:
    """The pack of the settings, as it is on this machine.

    Raises:
        PackError: It is not installed, or cannot be understood.
    """
    locations = PackLocations.default(settings.models_dir)
    return packs.choose(locations).pack if settings.pack == packs.AUTO else packs.locate(settings.pack, locations)
