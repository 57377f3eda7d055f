"""Histogram, ROC and DET as PNG, for light and for dark surroundings. Needs matplotlib (`arcface-api[evaluate]`)."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from statistics import NormalDist
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from arcface_api.evaluate.advice import one_in, percent, shown_threshold
from arcface_api.evaluate.figures import Figures
from arcface_api.evaluate.operating_points import LEAST_FALSE_ACCEPTS, OperatingPoint

INCHES = (6.0, 4.3)
"""Small beside the letters, so that they can be read on a telephone."""
DOTS_PER_INCH = 220
SMALL = 8.5
"""Points of type."""
DET_TICKS = (1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.4g} %")


@dataclass(frozen=True)
class Colours:
    """Of a plot; told apart by everybody, also without colours by the shape of what is drawn in them."""

    paper: str
    ink: str
    faint: str
    same: str
    different: str


# The two kinds: blue and orange of M. Okabe and K. Ito's palette, lightened for the dark.
LIGHT = Colours("#ffffff", "#1f2328", "#d0d7de", "#0072b2", "#d55e00")
DARK = Colours("#161b22", "#e6edf3", "#3d444d", "#56b4e9", "#e69f00")


def histogram(found: Figures, colours: Colours) -> bytes:
    """How the similarities of both kinds are distributed, with the thresholds."""

    def draw(axes: Axes) -> None:
        bins = found.histogram
        shares = (("two people", bins.different, colours.different, "-"), ("one person", bins.same, colours.same, "--"))
        for label, counts, colour, line in shares:
            share = counts / counts.sum()
            axes.stairs(share, bins.edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(share, bins.edges, color=colour, linewidth=1.6, linestyle=line, label=f"pairs of {label}")
        occupied = np.flatnonzero(bins.same + bins.different)
        axes.set_xlim(bins.edges[max(occupied[0] - 2, 0)], bins.edges[min(occupied[-1] + 3, len(bins.edges) - 1)])
        top = axes.get_ylim()[1]
        told = _told(found)
        axes.set_ylim(0, top * (1.05 + 0.09 * len(told)))
        # The strictest is furthest right and lowest, so that no line runs through another's label.
        for height, (wanted, point) in enumerate(reversed(told)):
            up_to = top * (1.04 + 0.09 * height)
            axes.vlines(point.threshold, 0, up_to, color=colours.ink, linewidth=1)
            told_rate = f"FAR {one_in(wanted)}: {shown_threshold(point.threshold)}"
            _label(axes, told_rate, (point.threshold, up_to), (4, -4))
        axes.set_xlabel("similarity")
        axes.set_ylabel("share of its kind in each 0.02")
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)

    return _png(draw, "How similar pairs are", colours)


def roc(found: Figures, colours: Colours) -> bytes:
    """True over false accept rate, the latter logarithmic: strict thresholds are what matters."""

    def draw(axes: Axes) -> None:
        curve = found.curve.corners()
        least = min(1 / found.different, 0.5)
        axes.step(np.maximum(curve.far, least / 2), curve.tar, where="post", color=colours.same, linewidth=1.8)
        axes.set_xscale("log")
        axes.set_xlim(least, 1)
        seen = curve.tar[curve.far >= least]
        low = min(float(seen.min()) if len(seen) else 0.0, 0.98)
        axes.set_ylim(max(0.0, low - 0.15 * (1 - low)), 1 + 0.15 * (1 - low))
        _shade_untold(axes, LEAST_FALSE_ACCEPTS / found.different, colours)
        for number, (_, point) in enumerate(_told(found)):
            axes.plot(point.far, point.tar, "o", color=colours.different, markersize=6, zorder=3)
            told = f"{percent(point.tar)} at {shown_threshold(point.threshold)}"
            # Below and right of a point the curve never comes, nor above and left; at the right edge is no room.
            offset = (-6, 8) if number == 0 else (8, -14 if number % 2 else -27)
            _label(axes, told, (point.far, point.tar), offset, is_left=number == 0)
        axes.set_xlabel("false accept rate (FAR)")
        axes.set_ylabel("true accept rate (TAR)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: "all" if rate > 0.99 else one_in(rate)))
        axes.yaxis.set_major_formatter(_PERCENT)

    return _png(draw, "ROC: who is let in", colours)


def det(found: Figures, colours: Colours) -> bytes:
    """Both kinds of errors over each other, on normal deviate axes (A. Martin et al., Eurospeech 1997)."""

    def draw(axes: Axes) -> None:
        curve = found.curve.corners()
        is_drawn = (curve.far > 0) & (curve.far < 1) & (curve.tar > 0) & (curve.tar < 1)
        rates = (curve.far[is_drawn], 1 - curve.tar[is_drawn])
        axes.plot(*map(_deviates, rates), color=colours.same, linewidth=1.8)
        if not is_drawn.any():
            axes.text(0.5, 0.5, "no threshold errs on both sides", transform=axes.transAxes, ha="center")
        # From less than one error, which is the least that can occur, to one in two.
        left, low = (_deviate(0.4 / count) for count in (found.different, found.same))
        high = _deviate(0.5)
        axes.set_xlim(left, high)
        axes.set_ylim(low, high)
        axes.axline((0, 0), slope=1, color=colours.faint, linewidth=1, zorder=0)
        _shade_untold(axes, _deviate(min(LEAST_FALSE_ACCEPTS / found.different, 0.5)), colours, is_told_above=True)
        rate = found.equal_error_rate
        if 0 < rate < 0.5:
            at = _deviate(rate)
            axes.plot(at, at, "o", color=colours.different, markersize=6, zorder=3)
            _label(axes, f"equal error rate {percent(rate)}", (at, at), (9, 6))
        for axis, least in ((axes.xaxis, left), (axes.yaxis, low)):
            ticks = [tick for tick in DET_TICKS if _deviate(tick) >= least]
            axis.set_ticks([_deviate(tick) for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
        axes.set_xlabel("false accepts (FAR)")
        axes.set_ylabel("false rejects (1 minus TAR)")

    return _png(draw, "DET: one error against the other", colours)


def _told(found: Figures) -> list[tuple[float, OperatingPoint]]:
    return [(wanted, point) for wanted, point in found.operating_points.items() if point]


def _deviate(rate: float) -> float:
    """Where a rate between 0 and 1 stands on a normal deviate axis."""
    return NormalDist().inv_cdf(rate)


def _deviates(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([_deviate(rate) for rate in rates.tolist()])


def _shade_untold(axes: Axes, up_to: float, colours: Colours, *, is_told_above: bool = False) -> None:
    """Where fewer pairs of two people pass than a threshold may rest on."""
    left, right = axes.get_xlim()
    if left < up_to:
        axes.axvspan(left, min(up_to, right), color=colours.faint, alpha=0.45, linewidth=0, zorder=0)
        told = f"fewer than {LEAST_FALSE_ACCEPTS} pairs"
        height, side = (0.97, "top") if is_told_above else (0.03, "bottom")
        axes.text(0.015, height, told, transform=axes.transAxes, fontsize=SMALL, va=side)


def _label(
    axes: Axes, told: str, at: tuple[float, float], offset: tuple[float, float], *, is_left: bool = False
) -> None:
    """Text `offset` points of type beside a place, to its right or its left; on paper, so that lines end at it."""
    axes.annotate(
        told,
        at,
        textcoords="offset points",
        xytext=offset,
        ha="right" if is_left else "left",
        fontsize=SMALL,
        bbox={"facecolor": axes.get_facecolor(), "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _png(draw: Callable[[Axes], None], title: str, colours: Colours) -> bytes:
    style: Any = {
        "font.family": "DejaVu Sans",  # matplotlib's own, so that plots look the same everywhere
        "font.size": 10,
        "text.color": colours.ink,
        "axes.labelcolor": colours.ink,
        "axes.edgecolor": colours.ink,
        "axes.facecolor": colours.paper,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": colours.faint,
        "grid.linewidth": 0.6,
        "xtick.color": colours.ink,
        "ytick.color": colours.ink,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    with mpl.rc_context(style):
        figure = Figure(INCHES, DOTS_PER_INCH, facecolor=colours.paper, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        draw(axes)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        content = BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
