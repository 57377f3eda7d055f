"""The inputs that are kept: the smallest that reach what any reached, and those by which defects were found.

`corpus/TARGET.zip` holds each target's; tests run all of them.
"""

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

_FOLDER = Path(__file__).with_name("corpus")
KEPT_BYTES = 40_000
"""Most packed bytes of one target."""
_TIME = (2026, 1, 1, 0, 0, 0)


def kept(target: str) -> dict[str, bytes]:
    """Name to content; a name that begins with `found-` belongs to a defect."""
    path = _FOLDER / f"{target}.zip"
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def keep(target: str, contents: Iterable[bytes]) -> int:
    """Put the smallest of these, as many as fit, in the place of the kept ones that found nothing; returns how many."""
    chosen = {name: content for name, content in kept(target).items() if name.startswith("found-")}
    size = 0
    path = _FOLDER / f"{target}.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for content in sorted(set(contents) - set(chosen.values()), key=lambda content: (len(content), content)):
            chosen[hashlib.sha256(content).hexdigest()[:8]] = content
        for name, content in chosen.items():
            if size > KEPT_BYTES and not name.startswith("found-"):
                break
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED, 9)
            size = archive.fp.tell() + 60 * len(archive.filelist)  # type: ignore[union-attr]  # it is open
        return len(archive.filelist)


def keep_finding(target: str, name: str, content: bytes) -> None:
    """Keep an input by which a defect was found, under `found-NAME`."""
    others = kept(target) | {f"found-{name}": content}
    path = _FOLDER / f"{target}.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(others, key=lambda each: not each.startswith("found-")):
            archive.writestr(zipfile.ZipInfo(each, _TIME), others[each], zipfile.ZIP_DEFLATED, 9)
