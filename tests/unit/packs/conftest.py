"""Places for packs, and a server that serves them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from arcface_api.packs import PackLocations
from packs.file_server import FileServer, serving


@pytest.fixture
def locations(tmp_path: Path) -> PackLocations:
    return PackLocations(None, tmp_path / "cache", tmp_path / "insightface")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as served:
        yield served
