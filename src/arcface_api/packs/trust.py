"""Trust on first use: the hash of a file that no manifest pins is recorded, and must stay the same from then on."""

import hashlib
import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

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
    def of_folder(cls, folder: Path, records_dir: Path) -> Self:
        """In the pack's own folder, or, where that is read-only, in `records_dir`."""
        return cls((folder / LOCK_NAME, _keyed(folder, records_dir)))

    @classmethod
    def of_single_file(cls, path: Path, records_dir: Path) -> Self:
        """In `records_dir` only: nothing is written beside a file somewhere in a person's folders."""
        return cls((_keyed(path, records_dir),))

    def find(self, name: str) -> tuple[Measured, Path] | None:
        """What was recorded for a file, and where.

        Raises:
            PackManifestInvalid: A record cannot be understood.
        """
        return next(((entry, place) for place in self.places if (entry := _read(place).get(name))), None)

    def check(self, name: str, found: Measured, path: Path) -> bool:
        """Whether the file was used before; changes and records nothing.

        Raises:
            ModelHashChanged: It was, with other bytes.
            PackManifestInvalid: A record cannot be understood.
        """
        known = self.find(name)
        if known is not None and known[0] != found:
            raise ModelHashChanged(
                f"{path} has changed since its first use: its SHA-256 is {found.sha256}, recorded was"
                f" {known[0].sha256}. If you replaced it on purpose, delete {known[1]}; if not, delete the pack and"
                " install it again."
            )
        return known is not None

    def confirm(self, name: str, found: Measured, path: Path) -> None:
        """`check`, and record a file that was not used before."""
        if self.check(name, found, path):
            return
        for place in self.places:
            try:
                write_record(place, {**_read(place), name: found})
            except OSError:
                continue
            recorded = f"recorded in {place}"
            break
        else:
            tried = " nor in ".join(map(str, self.places))
            recorded = f"which could not be recorded, neither in {tried}: a change will go unnoticed"
        _log.warning("%s is not pinned and is trusted at its first use: SHA-256 %s, %s.", path, found.sha256, recorded)


def write_record(place: Path, entries: Mapping[str, Measured]) -> None:
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
        files = tomllib.loads(place.read_text(encoding="utf-8"))["files"]
        return {name: Measured(int(entry["size_bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        return {}
    # ValueError: neither UTF-8 nor TOML
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackManifestInvalid(
            f"{place} cannot be understood: {error}. It records the hashes of files at their first use; if you trust"
            " the files as they are now, delete it."
        ) from error
