"""Model packs: registered, found, downloaded, verified, imported.

    packs.toml ─▶ registry ─┬─▶ locate ──────────────────────────────────▶ InstalledPack ─▶ read(role) ─▶ VerifiedModel
                            ├─▶ pull ── download, archive ───────────┐                     (bytes that were checked)
                            └─▶ import_pack ── archive, identify ────┴─▶ install (one rename)

Nothing here prints or reads the environment. Every error is an `arcface_api.errors.PackError`; notes and warnings are
logged to `arcface_api.packs`. Other rooms import only the names below.
"""

from arcface_api.packs.adapt import adapted
from arcface_api.packs.download import reach
from arcface_api.packs.finding import AUTO, CARRIED, PREFERRED, PackLocations, installed_packs, locate
from arcface_api.packs.graph import usual_feeds
from arcface_api.packs.identify import UNKNOWN_LICENCE
from arcface_api.packs.importing import correct, import_pack
from arcface_api.packs.installed import InstalledPack, VerifiedModel
from arcface_api.packs.manifest import Licence, Manifest, ModelFile, Role, owners, registry
from arcface_api.packs.pulling import licence_sentence, obtain, pull

__all__ = [
    "AUTO",
    "CARRIED",
    "PREFERRED",
    "UNKNOWN_LICENCE",
    "InstalledPack",
    "Licence",
    "Manifest",
    "ModelFile",
    "PackLocations",
    "Role",
    "VerifiedModel",
    "adapted",
    "correct",
    "import_pack",
    "installed_packs",
    "licence_sentence",
    "locate",
    "obtain",
    "owners",
    "pull",
    "reach",
    "registry",
    "usual_feeds",
]
