"""Model packs: registered, found, downloaded, verified, imported.

    packs.toml ─▶ registry ─┬─▶ locate, installed ──▶ InstalledPack ──▶ read(role) ──▶ VerifiedModel
                            ├─▶ pull ── download, archive ──┐                (bytes that were checked)
                            └─▶ import_pack ── identify ───┴─▶ install (one rename)

Nothing here prints or reads the environment. Everything raised is an `arcface_api.errors.PackError`; what is worth
knowing besides is logged to `arcface_api.packs`.
"""

from arcface_api.errors import PackNotFound
from arcface_api.packs.automatic import Choice, choose, obtain
from arcface_api.packs.download import Patience
from arcface_api.packs.finding import installed, locate
from arcface_api.packs.identify import UNKNOWN_LICENCE
from arcface_api.packs.importing import import_pack
from arcface_api.packs.installed import FileCheck, InstalledPack, VerifiedModel, verify
from arcface_api.packs.locations import AUTO, Origin, PackLocations
from arcface_api.packs.manifest import Licence, Manifest, ModelFile, Role, Source, Threshold, registry
from arcface_api.packs.pulling import licence_sentence, pull

__all__ = [
    "AUTO",
    "UNKNOWN_LICENCE",
    "Choice",
    "FileCheck",
    "InstalledPack",
    "Licence",
    "Manifest",
    "ModelFile",
    "Origin",
    "PackLocations",
    "PackNotFound",
    "Patience",
    "Role",
    "Source",
    "Threshold",
    "VerifiedModel",
    "choose",
    "import_pack",
    "installed",
    "licence_sentence",
    "locate",
    "obtain",
    "pull",
    "registry",
    "verify",
]
