"""Draws what `alignment.py` measured: accuracy over the angle of a face, and for each way of cutting and covering it.

    python -m benchmarks.lib.alignment_plot REPORT.json PLOT.png

Needs matplotlib (extra `evaluate`).
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

WAYS = {
    "landmarks": ("by the labels' landmarks", "#8a8a8a", "s"),
    "auto": ("align=auto", "#0b5fa5", "o"),
    "stretched": ("stretched", "#d1495b", "o"),
}
"""Of each line: what it is called, its colour, its marker; the last one is drawn on top."""
SIZES = {"s": 9, "o": 6}
"""Squares show behind circles."""
PAIRS = "unseen"
UPRIGHT = "tight"
CHANCE = 50.0


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("plot", type=Path)
    arguments = parser.parse_args()
    result = json.loads(arguments.report.read_text(encoding="utf-8"))["recognisers"]
    figure, grid = plt.subplots(
        len(result), 3, figsize=(19, 4 * len(result) + 0.9), layout="constrained", sharey=True, squeeze=False
    )
    for row, (name, of) in zip(grid, result.items(), strict=True):
        draw_angles(row[0], of["conditions"])
        draw_cuts(row[1], of["conditions"], are_hard=False)
        draw_cuts(row[2], of["conditions"], are_hard=True)
        row[0].set_ylabel(f"{name}\npairs verified correctly, %")
    grid[0, 0].set_title("a face that is turned", fontsize=12, loc="left")
    grid[0, 1].set_title("an upright face, however it is cut and spoilt", fontsize=12, loc="left")
    grid[0, 2].set_title("a face that is covered, badly lit or cut off", fontsize=12, loc="left")
    grid[-1, 0].set_xlabel("degrees, either way")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=len(WAYS), fontsize=11, frameon=False)
    people = next(iter(result.values()))["pairs"][PAIRS]
    figure.suptitle(
        f"What alignment is worth: {people['same'] + people['different']:,} pairs of LFW's people whom the regressor"
        " never saw",
        fontsize=14,
    )
    figure.savefig(arguments.plot, dpi=110)


def draw_angles(axes: Axes, conditions: dict[str, Any]) -> None:
    """A line for each way, over the angle."""
    angles = {0: UPRIGHT} | {int(found[1]): name for name in conditions if (found := re.match(r"rotated (\d+)", name))}
    for way, (label, colour, marker) in WAYS.items():
        y = [accuracy(conditions[name], way) for name in angles.values()]
        axes.plot([*angles], y, f"{marker}-", color=colour, markersize=SIZES[marker], linewidth=2, label=label)
    axes.set_xticks([*angles])
    dress(axes)


def draw_cuts(axes: Axes, conditions: dict[str, Any], *, are_hard: bool) -> None:
    """A place for each upright condition, a marker in it for each way. Hard ones are not letterboxed."""
    measured = {name: of[PAIRS]["accuracy_percent"] for name, of in conditions.items()}
    names = [name for name, of in measured.items() if "landmarks" in of and ("letterboxed" in of) != are_hard]
    names = [name for name in names if not name.startswith("rotated")]
    for way, (_, colour, marker) in WAYS.items():
        y = [accuracy(conditions[name], way) for name in names]
        axes.plot(range(len(names)), y, f"{marker}:", color=colour, markersize=SIZES[marker], linewidth=0.8)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")
    dress(axes)


def accuracy(condition: dict[str, Any], way: str) -> float:
    """In per cent."""
    return float(condition[PAIRS]["accuracy_percent"][way])


def dress(axes: Axes) -> None:
    """What both kinds have in common."""
    axes.set_ylim(CHANCE - 2, 101.5)
    axes.axhline(CHANCE, color="#444444", linewidth=0.8, linestyle="--")
    axes.annotate("guessing", (0.995, CHANCE), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
