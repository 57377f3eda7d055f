"""A subject to be examined, and what makes it unwell: packages, control groups, servers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packs.file_server import Answer, FileServer, Request, serving

from arcface_api.doctor import CHECKS, Finding, Places, Status, Subject, examine
from arcface_api.serving import port
from arcface_api.settings import Settings

Install = Callable[..., None]


def subject(
    *,
    places: Places | None = None,
    environment: dict[str, str] | None = None,
    flags: frozenset[str] = frozenset(),
    is_quick: bool = True,
    **settings: object,
) -> Subject:
    """What is examined: these settings on this machine, except for what is given."""
    return Subject(
        given=Settings(**settings),  # type: ignore[arg-type]
        environment=environment or {},
        is_quick=is_quick,
        bind=port.bind,
        places=places or Places(),
        flags=flags,
    )


def findings(name: str, about: Subject) -> list[Finding]:
    """What one check finds."""
    return list(examine(about, checks=[check for check in CHECKS if check.name == name]).findings)


def problems(name: str, about: Subject) -> list[str]:
    """The sentences of the problems that one check finds; each has a remedy."""
    found = [finding for finding in findings(name, about) if finding.status is Status.PROBLEM]
    assert all(finding.remedy for finding in found)
    return [finding.what for finding in found]


def notes(name: str, about: Subject) -> list[str]:
    """The sentences of the notes of a check that finds no problem."""
    assert problems(name, about) == []
    return [finding.what for finding in findings(name, about) if finding.status is Status.NOTE]


def is_well(name: str, about: Subject) -> bool:
    """Whether a check has found something, and nothing but good."""
    return {finding.status for finding in findings(name, about)} == {Status.OK}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Let pip's metadata state a package: it is the first of its name that Python finds."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, version: str, *requires: str) -> None:
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {each}" for each in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")

    return install


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as served:
        yield served


def json_answer(content: bytes, status: int = 200) -> Answer:
    def answer(request: Request) -> None:
        request.head(status, Content_Length=len(content), Content_Type="application/json")
        request.write(content)

    return answer


def control_group(root: Path, **files: str) -> Places:
    """Places in which the root control group has these files; `_` in a name is a point."""
    root.mkdir()
    for name, content in files.items():
        (root / name.replace("_", ".")).write_text(f"{content}\n")
    return Places(cgroups=root, membership=root / "none")
