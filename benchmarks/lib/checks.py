"""Promises that a question checks: what was measured, what is allowed, whether it holds."""

from collections.abc import Mapping
from math import isfinite, nan
from typing import Any

from benchmarks.lib.load import LoadReport

Check = dict[str, Any]


def at_least(value: float | None, limit: float) -> Check:
    """A check that fails where nothing was measured."""
    return {"value": _rounded(value), "at_least": limit, "holds": value is not None and value >= limit}


def at_most(value: float | None, limit: float) -> Check:
    """A check that fails where nothing was measured."""
    return {"value": _rounded(value), "at_most": limit, "holds": value is not None and value <= limit}


def broken(checks: Mapping[str, Check]) -> list[str]:
    """The names of those that do not hold."""
    return [name for name, check in checks.items() if not check["holds"]]


def broken_of_kinds(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of each kind's `checks`, those that do not hold."""
    return [f"{kind}: {name}" for kind, found in measured.items() for name in broken(found["checks"])]


def p99(report: LoadReport) -> float:
    """The 99th percentile of the latency, in milliseconds; not a number where nothing was served."""
    return report.latency_ms.p99 if report.latency_ms else nan


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if value is not None and isfinite(value) else None
