"""What is examined: settings, environment, and where the facts about the machine are."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import arcface_api
from arcface_api.cpus import CGROUPS, MEMBERSHIP, cpu_flags
from arcface_api.doctor.finding import Unknown

if TYPE_CHECKING:  # it needs pydantic, which may be missing
    import socket

    from arcface_api.settings import Settings

Found = TypeVar("Found")


@dataclass(frozen=True)
class Places:
    """Where the kernel and the installation state facts; a test states others."""

    cgroups: Path = CGROUPS
    membership: Path = MEMBERSHIP
    proc: Path = Path("/proc")
    devices: Path = Path("/dev")
    package: Path = Path(arcface_api.__file__).parent
    """The folder of this package as it is installed."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A machine, an installation and their settings."""

    given: "Settings | None" = None
    """None: they cannot be read, because a package is missing."""
    wrong_settings: tuple[str, ...] = ()
    """A sentence for each setting whose value is not allowed; `given` has its default instead."""
    why_no_commands: str = ""
    """Why the command line cannot be loaded; empty if it can."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    is_quick: bool = False
    """The model is not loaded."""
    uses_network: bool = True
    """The sources of packs are contacted."""
    bind: "Callable[[tuple[str, int]], socket.socket] | None" = None
    """Binds a port, or raises an `ArcFaceError`."""
    places: Places = Places()
    flags: frozenset[str] = field(default_factory=cpu_flags)
    """Instruction sets of the CPU."""
    _known: dict[object, Any] = field(default_factory=dict, repr=False)

    @property
    def settings(self) -> "Settings":
        """The settings; raises `Unknown` if there are none."""
        if self.given is None:
            raise Unknown("the settings cannot be read")
        return self.given

    def once(self, find: "Callable[[Subject], Found]") -> Found:
        """What a function finds that several checks call: it runs once."""
        if find not in self._known:
            self._known[find] = find(self)
        found: Found = self._known[find]
        return found
