"""The pack that a command works with."""

from arcface_api import packs
from arcface_api.packs import InstalledPack, PackLocations
from arcface_api.progress import Progress
from arcface_api.settings import Settings


def find_pack(settings: Settings, progress: Progress) -> InstalledPack:
    """The pack of the settings; downloaded if it is not installed, `pull` is true and its licence is accepted.

    Raises:
        PackError: It is not installed and may not or cannot be downloaded, or is damaged.
    """
    return packs.obtain(
        settings.pack,
        PackLocations.default(settings.models_dir),
        may_pull=settings.pull,
        accepted_licences=settings.accept_license,
        progress=progress,
    )
