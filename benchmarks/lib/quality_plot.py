"""Draws what `quality.py` measured: how often people are not recognised, over each number that describes a picture.

    python -m benchmarks.lib.quality_plot REPORT.json PLOT.png

Needs matplotlib (extra `evaluate`).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

PANELS: dict[str, tuple[str, str, str | None, str | None]] = {
    "face_size_px": ("face size, pixels", "shrunk", "MIN_FACE_SIZE_PX", None),
    "sharpness": ("sharpness", "out of focus, moved, shrunk", "MIN_SHARPNESS", None),
    "brightness": ("brightness", "darkened and brightened by stops", "MIN_BRIGHTNESS", "MAX_BRIGHTNESS"),
    "landmark_confidence": ("landmark confidence", "covered", None, None),
    "face_aspect": ("eyes apart / eyes to mouth", "squeezed, then aligned", "MIN_FACE_ASPECT", "MAX_FACE_ASPECT"),
    "picture_aspect": (
        "picture's width / height", "cut long, stretched, not aligned", "MIN_PICTURE_ASPECT", "MAX_PICTURE_ASPECT",
    ),
    "turn": ("nose beside the middle (turn)", "untouched, of the training people", None, "MAX_TURN"),
    "nod": ("nose between eyes and mouth (nod)", "untouched, of the training people", "MIN_NOD", "MAX_NOD"),
}  # fmt: skip
"""Of each curve: the axis, what was done to the pictures, the limits' names."""
LOGARITHMIC = ("face_size_px", "picture_aspect", "sharpness")
OF_HEADS = ("turn", "nod")
"""Too few are turned far to see errors rise: what is shown is how similarity falls."""
COLOURS = ("#0b5fa5", "#d9730d", "#3a7d44")
WARNED, ORDINARY = "#d1495b", "#8a8a8a"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("plot", type=Path)
    arguments = parser.parse_args()
    found = json.loads(arguments.report.read_text(encoding="utf-8"))
    figure, grid = plt.subplots(2, 4, figsize=(16, 8.2), layout="constrained")
    for name, axes in zip(PANELS, grid.flat, strict=True):
        draw(axes, name, found)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), fontsize=11, frameon=False)
    figure.suptitle(
        f"What a quality warning is worth: pictures of {found['people']['test']} people against untouched ones,"
        f" at a false accept rate of {found['false_accept_rate_of_curves']:g}",
        fontsize=14,
    )
    figure.savefig(arguments.plot, dpi=110)


def draw(axes: Axes, name: str, found: dict[str, Any]) -> None:
    """One panel: a line for each recogniser, the warned part shaded, the ordinary part marked below."""
    curve, (label, done, lowest, highest) = found["curves"][name], PANELS[name]
    x = [part["middle"] for part in curve["bins"]]
    figure, axis, top = (
        ("similarity", "mean similarity to the same person", 1.0)
        if name in OF_HEADS
        else ("rejected_percent", "same person not recognised, %", 100.0)
    )
    for recogniser, colour in zip(found["recognisers"], COLOURS, strict=False):
        y = [part[figure][recogniser] for part in curve["bins"]]
        axes.plot(x, y, "o-", color=colour, markersize=3.5, linewidth=1.8, label=recogniser)
    if name in LOGARITHMIC:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    left, right = axes.get_xlim()
    for limit, far_end in ((lowest, left), (highest, right)):
        if limit is None:
            continue
        at = found["limits"][limit]
        axes.axvspan(min(at, far_end), max(at, far_end), color=WARNED, alpha=0.13, linewidth=0, label="warned of")
        axes.axvline(at, color=WARNED, linewidth=1.2)
        is_low = limit is lowest
        axes.annotate(
            f"{at:g}", (at, 1.03 * top), color=WARNED, fontsize=10, ha="left" if is_low else "right",
            xytext=(4 if is_low else -4, 0), textcoords="offset points", va="top",
        )  # fmt: skip
    axes.set_xlim(left, right)
    ordinary = curve["clean_percentiles"]
    axes.plot(
        (ordinary[1], ordinary[3]), (-0.04 * top, -0.04 * top), color=ORDINARY, linewidth=6, solid_capstyle="butt",
        label="96 of 100 untouched pictures",
    )  # fmt: skip
    axes.set(xlabel=label, ylabel=axis, ylim=(-0.07 * top, 1.04 * top))
    axes.set_title(done, fontsize=11, loc="left")
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
