"""A report for people: a table that fits the terminal, in ASCII but for what others wrote."""

import textwrap
from collections.abc import Mapping
from typing import Any

from arcface_api.doctor.finding import Finding, Report, Status
from arcface_api.wording import counted

_WORDS = {Status.OK: "ok", Status.NOTE: "note", Status.PROBLEM: "PROBLEM"}
_COLOURS = {Status.OK: "32", Status.NOTE: "33", Status.PROBLEM: "31;1"}
_NARROW = 60
"""Columns, below which the text stands under a check's name, not beside it."""
_LEAST = 24


def as_text(report: Report, columns: int = 100, *, is_coloured: bool = False) -> str:
    """The report, with lines of at most that many columns where words allow it."""
    columns = max(columns, _LEAST)
    lines = [*_about(report.about, columns), ""]
    width = max((len(finding.check) for finding in report.findings), default=0)
    last = ""
    for finding in report.findings:
        lines += _row(finding, columns, width, is_coloured=is_coloured, is_first=finding.check != last)
        last = finding.check
    notes = sum(finding.status is Status.NOTE for finding in report.findings)
    counts = f"{counted(report.problems, 'problem')}, {counted(notes, 'note')}."
    return "\n".join([*lines, "", counts]) + "\n"


def _row(finding: Finding, columns: int, width: int, *, is_coloured: bool, is_first: bool) -> list[str]:
    word = f"{_WORDS[finding.status]:<7}"
    if is_coloured:
        word = f"\x1b[{_COLOURS[finding.status]}m{word}\x1b[0m"
    name = finding.check if is_first else ""
    remedy = _filled(finding.remedy, columns, "-> ")
    if columns < _NARROW:
        return [f"{word} {finding.check}", *_filled(finding.what, columns, "  "), *(f"  {line}" for line in remedy)]
    indent = " " * (width + 10)
    body = _filled(finding.what, columns - len(indent))
    remedy = _filled(finding.remedy, columns - len(indent), "-> ")
    head = f"{word}  {name:<{width}} {body[0] if body else ''}".rstrip()
    return [head, *(indent + line for line in [*body[1:], *remedy])]


def _filled(text: str, columns: int, first: str = "") -> list[str]:
    """The text's lines, wrapped; those after the first are indented as far as the text of the first."""
    lines: list[str] = []
    for line in text.splitlines():
        item = len(line) - len(line.lstrip(" -"))
        lines += textwrap.wrap(
            line,
            columns,
            initial_indent=" " * len(first) if lines else first,
            subsequent_indent=" " * (len(first) + item),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _about(facts: Mapping[str, Any], columns: int) -> list[str]:
    """A line for each fact: its name, and its value in words."""
    cpus = f"{facts['cpus']} of {facts['cpus_of_the_host']}"
    if facts["cpu_quota"] is not None:
        cpus += f" (quota {facts['cpu_quota']:g})"
    limit, settings = facts["memory_limit_bytes"], facts["settings"]
    if settings is not None:
        settings = [f"{name}={value}" for name, value in settings.items()]
    shown = {
        "arcface-api": facts["version"],
        "python": facts["python"],
        "system": " ".join(filter(None, (facts["system"], facts["container"] and f"({facts['container']})"))),
        "processor": " ".join([facts["processor"] or "unknown", *(facts["processor_flags"] or ())]),
        "CPUs": cpus,
        "memory": "unknown" if limit is None else f"{limit / 1e9:.1f} GB",
        "packages": " ".join(f"{name}={version}" for name, version in (facts["packages"] or {}).items()) or "unknown",
        "settings": "unknown" if settings is None else " ".join(settings) or "all as by default",
    }
    if columns < _NARROW:
        return [line for name, value in shown.items() for line in [name, *_filled(str(value), columns, "  ")]]
    return [line for name, value in shown.items() for line in _filled(str(value), columns, f"{name:<12}")]
