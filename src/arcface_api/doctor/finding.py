"""What a check finds, and the report of all checks."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from arcface_api import __version__


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing is wrong."""
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One sentence or two about what was found, and what to do about it."""

    status: Status
    what: str
    remedy: str = ""
    check: str = ""
    """Name of the check; `examine` enters it."""


def ok(what: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Status.OK, what)


def note(what: str, remedy: str = "") -> Finding:
    """Worth knowing. It does not change the exit status."""
    return Finding(Status.NOTE, what, remedy)


def problem(what: str, remedy: str) -> Finding:
    """Something is wrong. There is no problem without a remedy."""
    return Finding(Status.PROBLEM, what, remedy)


class Unknown(Exception):
    """What a check needs to know cannot be found out."""


@dataclass(frozen=True)
class Report:
    """What was examined, and what was found; without secrets."""

    about: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """The number of problems."""
        return sum(finding.status is Status.PROBLEM for finding in self.findings)

    @property
    def exit_status(self) -> int:
        """1 if there is a problem, else 0."""
        return int(self.problems > 0)

    def to_json(self) -> str:
        """The whole report; docs/doctor.md describes its keys, and docs/compatibility.md promises them."""
        findings = [asdict(finding) for finding in self.findings]
        return json.dumps(
            {"version": __version__, "problems": self.problems, "findings": findings, "about": self.about}, indent=2
        )
