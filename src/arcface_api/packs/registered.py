"""The packs this project knows by name: `packs.toml` beside the package's code."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from arcface_api.packs.manifest import Manifest, ModelFile
from arcface_api.packs.manifest_toml import read_registry


@cache
def registry() -> Mapping[str, Manifest]:
    """The registered manifests by name, the default pack first."""
    text = files("arcface_api").joinpath("packs.toml").read_text(encoding="utf-8")
    return MappingProxyType(read_registry(text))


def owners(known: Mapping[str, Manifest], sha256: str) -> list[tuple[Manifest, ModelFile]]:
    """Every registered pack that has the file with this hash, with its entry there."""
    return [(manifest, file) for manifest in known.values() for file in manifest.files if file.sha256 == sha256]
