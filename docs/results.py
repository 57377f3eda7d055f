"""Reads what the benchmarks measured."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def read(name: str) -> dict[str, Any]:
    """A result by the name of its file."""
    report: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return report
