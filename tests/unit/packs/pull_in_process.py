"""Pull the tiny pack in a process of its own: `python -m packs.pull_in_process CACHE URL SHA256 POINT`.

At POINT the process kills itself as `kill -9` would, without any clean-up: "never", or a moment named in `main`.
"""

import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arcface_api.packs import PackLocations, pull
from arcface_api.packs.manifest import Source
from arcface_api.progress import no_progress
from packs.small_packs import with_sources


def die(*_: object, **__: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def after(function: Callable[..., Any], calls: int = 1) -> Callable[..., Any]:
    """The function, and death after so many calls."""
    count = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        result = function(*arguments, **options)
        count += 1
        if count == calls:
            die()
        return result

    return call


def main(cache: str, url: str, sha256: str, point: str) -> None:
    """Pull and print the folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    progress: Callable[..., None] = no_progress
    match point:
        case "during the download":
            progress = after(progress, calls=3)
        case "during unpacking":
            progress = _die_when_unpacking
        case "before the rename":
            Path.rename = die  # type: ignore[method-assign]
        case "between the two renames":
            Path.rename = after(Path.rename)  # type: ignore[method-assign]
        case "after the rename":
            setattr(shutil, "rmtree", die)  # noqa: B010 - its type has an attribute that a function lacks
    packs = with_sources(Source(url, sha256=sha256))
    places = PackLocations(None, Path(cache), Path(cache) / "no-insightface", packs)
    print(pull("tiny", places, accepted_licences=frozenset({"tiny"}), progress=progress).folder)  # noqa: T201


def _die_when_unpacking(what: str, done: float, _: float | None) -> None:
    if what.startswith("Unpacking") and "genderage" in what and done:
        die()


if __name__ == "__main__":
    main(*sys.argv[1:])
