"""Trust on first use: the hash of a file that no manifest pins is recorded, and must stay the same from then on."""

import hashlib
import logging
import os
import tomllib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from arcface_api.errors import ModelHashChanged, PackManifestInvalid
from arcface_api.packs.content import Measured

LOCK_NAME = "pack.lock.toml"

_HEADER = """\
# Written by arcface-api: SHA-256 of files that no manifest pins, as they were at their first use.
# A file that changes is refused. If you changed it on purpose, delete this file.

"""
_log = logging.getLogger("arcface_api.packs")


@dataclass(frozen=True)
class TrustRecord:
    """Where the hashes of a pack's unpinned files are recorded: the first of these that can be written."""

    places: tuple[Path, ...]

    @classmethod
    def of_folder(cls, folder: Path, records_dir: Path) -> "TrustRecord":
        """In the pack's own folder, or, where that is read-only, in `records_dir`."""
        return cls((folder / LOCK_NAME, _keyed(folder, records_dir)))

    @classmethod
    def of_single_file(cls, path: Path, records_dir: Path) -> "TrustRecord":
        """In `records_dir` only: a file somewhere in a person's folders is no reason to write beside it."""
        return cls((_keyed(path, records_dir),))

    def find(self, name: str) -> tuple[Measured, Path] | None:
        """What was recorded for a file, and where.

        Raises:
            PackManifestInvalid: A record cannot be understood.
        """
        for place in self.places:
            entry = _read(place).get(name)
            if entry is not None:
                return entry, place
        return None

    def confirm(self, name: str, found: Measured, path: Path) -> None:
        """Record a file at its first use; refuse it when it is not what was recorded.

        Raises:
            ModelHashChanged: It is not what was recorded.
            PackManifestInvalid: A record cannot be understood.
        """
        known = self.find(name)
        if known is None:
            place = self._record(name, found)
            recorded = f"recorded in {place}" if place is not None else (
                f"which could not be recorded, neither in {' nor in '.join(str(place) for place in self.places)}: a"
                " change will go unnoticed"
            )  # fmt: skip
            _log.warning(
                "%s is not pinned and is trusted at its first use: SHA-256 %s, %s.", path, found.sha256, recorded
            )
        elif known[0] != found:
            raise ModelHashChanged(
                f"{path} has changed since its first use: its SHA-256 is {found.sha256}, recorded was"
                f" {known[0].sha256}. If you replaced it on purpose, delete {known[1]}; if not, delete the pack and"
                " install it again."
            )

    def _record(self, name: str, found: Measured) -> Path | None:
        for place in self.places:
            try:
                write_record(place, {**_read(place), name: found})
            except OSError:
                continue
            return place
        return None


def write_record(place: Path, entries: dict[str, Measured]) -> None:
    """Write a lock file in one step.

    Of two processes at once one may lose an entry, which is then recorded at the next start.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).replace(microsecond=0)
    files = {name: {**asdict(entry), "recorded": now} for name, entry in sorted(entries.items())}
    new = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    new.write_text(_HEADER + tomli_w.dumps({"files": files}), encoding="utf-8")
    new.replace(place)


def _keyed(path: Path, records_dir: Path) -> Path:
    return records_dir / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.toml"


def _read(place: Path) -> dict[str, Measured]:
    try:
        document: dict[str, Any] = tomllib.loads(place.read_text(encoding="utf-8"))
        return {
            name: Measured(int(entry["size_bytes"]), str(entry["sha256"])) for name, entry in document["files"].items()
        }
    except FileNotFoundError:
        return {}
    except (
        OSError,
        UnicodeDecodeError,
        tomllib.TOMLDecodeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise PackManifestInvalid(
            f"{place} cannot be understood: {error}. It records the hashes of files at their first use; if you trust"
            " the files as they are now, delete it."
        ) from error
