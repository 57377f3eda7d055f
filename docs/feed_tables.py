"""The generated parts of packs.md: from benchmarks/questions/feeds.py."""

from typing import Any

from results import read

RESULT = "feeds.json"


def checks_table() -> str:
    """How often `packs check` was right, by the number of pairs."""
    rows = [
        "| pairs, half of each kind | checks | right, and certain | right, with a warning | wrong, with a warning"
        " | wrong, and certain |",
        "| --- " * 6 + "|",
    ]
    keys = ("pairs", "checks", "right_and_certain", "right_and_uncertain", "wrong_and_uncertain", "wrong_and_certain")
    rows += [f"| {' | '.join(str(row[key]) for key in keys)} |" for row in _report()["summary"]]
    return "\n".join(rows)


def probes_table() -> str:
    """The median cosine of different synthetic faces, by feed."""
    of = _report()["probes"]
    rows = [f"| fed | {' | '.join(of)} |", f"| --- {'| --- ' * len(of)}|"]
    rows += [
        f"| {feed} | {' | '.join(f'{found[feed]:.2f}' for found in of.values())} |" for feed in next(iter(of.values()))
    ]
    return "\n".join(rows)


def _report() -> dict[str, Any]:
    return read(RESULT)
