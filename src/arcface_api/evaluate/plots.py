"""Histogram, ROC and DET curve as PNG. Needs matplotlib (`arcface-api[evaluate]`)."""

from io import BytesIO
from statistics import NormalDist
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from arcface_api.evaluate.curve import (
    HISTOGRAM_EDGES,
    LEAST_FALSE_ACCEPTS,
    Figures,
    OperatingPoint,
    one_in,
    percent,
    shown_threshold,
)

SIZE_INCHES, DOTS_PER_INCH = (6.0, 4.3), 220
"""Small in relation to the letters, so that they can be read on a telephone."""
SMALL_POINTS = 8.5
DET_TICKS = (1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
SAME, DIFFERENT = "#0072b2", "#d55e00"
"""Blue and orange of M. Okabe and K. Ito's palette, which colour-blind people can distinguish."""
FAINT = "#d0d7de"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # matplotlib's own, so that plots look the same everywhere
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
LABEL: Any = {
    "textcoords": "offset points",
    "fontsize": SMALL_POINTS,
    "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
}
"""Text beside a place, on a background at which lines end."""
_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.4g} %")
_deviate = NormalDist().inv_cdf
"""Where a rate between 0 and 1 stands on a normal deviate axis."""


def draw(found: Figures) -> dict[str, bytes]:
    """Plots (PNG) by the name of their file without `.png`."""
    plots: dict[str, bytes] = {}
    for name, title, draw_on in (
        ("histogram", "How similar pairs are", _histogram),
        ("roc", "ROC: how many are accepted", _roc),
        ("det", "DET: one kind of error against the other", _det),
    ):
        with mpl.rc_context(STYLE), BytesIO() as content:
            figure = Figure(SIZE_INCHES, DOTS_PER_INCH, layout="constrained")
            axes = figure.add_subplot()
            axes.set_axisbelow(True)
            draw_on(axes, found)
            axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
            figure.savefig(content, format="png", metadata={"Software": None})
            plots[name] = content.getvalue()
    return plots


def _histogram(axes: Axes, found: Figures) -> None:
    """How the similarities of both kinds are distributed, with the thresholds."""
    for label, counts, colour, line in (
        ("different people", found.histogram_different, DIFFERENT, "-"),
        ("the same person", found.histogram_same, SAME, "--"),
    ):
        share = counts / counts.sum()
        axes.stairs(share, HISTOGRAM_EDGES, fill=True, color=colour, alpha=0.25)
        axes.stairs(share, HISTOGRAM_EDGES, color=colour, linewidth=1.6, linestyle=line, label=f"pairs of {label}")
    occupied = np.flatnonzero(found.histogram_same + found.histogram_different)
    axes.set_xlim(
        HISTOGRAM_EDGES[max(occupied[0] - 2, 0)], HISTOGRAM_EDGES[min(occupied[-1] + 3, len(HISTOGRAM_EDGES) - 1)]
    )
    top = axes.get_ylim()[1]
    measured = _measured(found)
    axes.set_ylim(0, top * (1.05 + 0.09 * len(measured)))
    # The strictest is furthest right and lowest, so that no line runs through another's label.
    for height, (wanted, point) in enumerate(reversed(measured)):
        up_to = top * (1.04 + 0.09 * height)
        axes.vlines(point.threshold, 0, up_to, color="black", linewidth=1)
        label = f"FAR {one_in(wanted)}: {shown_threshold(point.threshold)}"
        axes.annotate(label, (point.threshold, up_to), xytext=(4, -4), **LABEL)
    axes.set_xlabel("similarity")
    axes.set_ylabel("share of its kind in each 0.02")
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)


def _roc(axes: Axes, found: Figures) -> None:
    """True over false accept rate, the latter logarithmic: strict thresholds are what matters."""
    curve = found.curve.corners()
    least = min(1 / found.curve.different, 0.5)
    axes.step(np.maximum(curve.far, least / 2), curve.tar, where="post", color=SAME, linewidth=1.8)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    seen = curve.tar[curve.far >= least]
    low = min(float(seen.min()) if len(seen) else 0.0, 0.98)
    axes.set_ylim(max(0.0, low - 0.15 * (1 - low)), 1 + 0.15 * (1 - low))
    _shade_uncertain(axes, LEAST_FALSE_ACCEPTS / found.curve.different)
    for number, (_, point) in enumerate(_measured(found)):
        axes.plot(point.far, point.tar, "o", color=DIFFERENT, markersize=6, zorder=3)
        label = f"{percent(point.tar)} at {shown_threshold(point.threshold)}"
        # The curve is never below and right of a point, nor above and left; at the right edge there is no room.
        offset, side = ((-6, 8), "right") if number == 0 else ((8, -14 if number % 2 else -27), "left")
        axes.annotate(label, (point.far, point.tar), xytext=offset, ha=side, **LABEL)
    axes.set_xlabel("false accept rate (FAR)")
    axes.set_ylabel("true accept rate (TAR)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: "all" if rate > 0.99 else one_in(rate)))
    axes.yaxis.set_major_formatter(_PERCENT)


def _det(axes: Axes, found: Figures) -> None:
    """Both kinds of errors over each other, on normal deviate axes (A. Martin et al., Eurospeech 1997)."""
    curve = found.curve.corners()
    is_drawn = (curve.far > 0) & (curve.far < 1) & (curve.tar > 0) & (curve.tar < 1)
    far, frr = ([_deviate(rate) for rate in rates[is_drawn].tolist()] for rates in (curve.far, 1 - curve.tar))
    axes.plot(far, frr, color=SAME, linewidth=1.8)
    if not is_drawn.any():
        axes.text(0.5, 0.5, "no threshold makes both kinds of errors", transform=axes.transAxes, ha="center")
    # From less than one error, the least that can occur, to one in two.
    left, low = (_deviate(0.4 / count) for count in (found.curve.different, found.curve.same))
    axes.set_xlim(left, _deviate(0.5))
    axes.set_ylim(low, _deviate(0.5))
    axes.axline((0, 0), slope=1, color=FAINT, linewidth=1, zorder=0)
    _shade_uncertain(axes, _deviate(min(LEAST_FALSE_ACCEPTS / found.curve.different, 0.5)))
    rate = found.curve.equal_error_rate
    if 0 < rate < 0.5:
        at = _deviate(rate)
        axes.plot(at, at, "o", color=DIFFERENT, markersize=6, zorder=3)
        axes.annotate(f"equal error rate {percent(rate)}", (at, at), xytext=(9, 6), **LABEL)
    for axis, least in ((axes.xaxis, left), (axes.yaxis, low)):
        ticks = [tick for tick in DET_TICKS if _deviate(tick) >= least]
        axis.set_ticks([_deviate(tick) for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
    axes.set_xlabel("false accepts (FAR)")
    axes.set_ylabel("false rejects (1 minus TAR)")


def _measured(found: Figures) -> list[tuple[float, OperatingPoint]]:
    return [(wanted, point) for wanted, point in found.operating_points.items() if point]


def _shade_uncertain(axes: Axes, up_to: float) -> None:
    """Where fewer different-person pairs are accepted than a threshold may rest on."""
    left, right = axes.get_xlim()
    if left < up_to:
        axes.axvspan(left, min(up_to, right), color=FAINT, alpha=0.45, linewidth=0, zorder=0)
        label = f"fewer than {LEAST_FALSE_ACCEPTS} pairs"
        axes.text(0.015, 0.03, label, transform=axes.transAxes, fontsize=SMALL_POINTS)
