"""Where packs are looked for and where they are installed, and which are known by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import platformdirs

from arcface_api.packs.manifest import Manifest, registry

Origin = Literal["path", "models_dir", "cache", "insightface", "package"]
"""Which of the places a pack was found in; "path": it was named by its path."""

AUTO, PREFERRED, CARRIED = "auto", "antelopev2", "open"
"""`auto` is allowed where a pack's name is; it means the preferred pack where that is installed or can be pulled, else
the one that this package carries."""

SHIPPED_DIR = Path(__file__).parents[1] / "shipped_packs"
"""The packs that this package carries; only read."""


@dataclass(frozen=True)
class PackLocations:
    """The folders that hold packs, each as a sub-folder with the pack's name."""

    models_dir: Path | None
    """`ARCFACE_MODELS_DIR`, searched first."""
    cache_dir: Path
    """Ours, in the user's cache."""
    insightface_dir: Path
    """What the InsightFace library has downloaded; only read."""
    known: Mapping[str, Manifest] = field(default_factory=registry, repr=False)
    """The registered packs by name."""

    @classmethod
    def default(cls, models_dir: Path | None) -> Self:
        """The places of this user, with `models_dir` before them if given."""
        try:
            home = Path.home()
        except RuntimeError:
            home = Path("/")  # a user without one, as in a container that runs under any number
        return cls(
            models_dir=models_dir.expanduser() if models_dir is not None else None,
            cache_dir=platformdirs.user_cache_path("arcface-api") / "packs",
            insightface_dir=home / ".insightface" / "models",
        )

    @property
    def writable(self) -> Path:
        """Where `pull` and `import_pack` install: the first place searched."""
        return self.models_dir if self.models_dir is not None else self.cache_dir

    @property
    def records_dir(self) -> Path:
        """Where the hashes of unpinned files are recorded when their own folder cannot take them."""
        return self.cache_dir / ".trusted"

    def places(self) -> list[tuple[Path, Origin]]:
        """The folders of packs in the order in which they are searched."""
        own: list[tuple[Path, Origin]] = [(self.models_dir, "models_dir")] if self.models_dir is not None else []
        return [*own, (self.cache_dir, "cache"), (self.insightface_dir, "insightface"), (SHIPPED_DIR, "package")]
