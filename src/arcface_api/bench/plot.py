"""A measurement as a picture: latency over throughput, as an SVG file that needs nothing to draw it.

Each point is a number of clients. Where the line turns upwards, more clients add only waiting.
"""

import math
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from arcface_api.bench.measure import Measurement
from arcface_api.bench.table import milliseconds
from arcface_api.cpus import machine

WIDTH, HEIGHT = 760, 480
LEFT, RIGHT, TOP, BOTTOM = 76, 676, 104, 416
"""The plot's own frame within the picture, in pixels; the last label may stand to the right of it."""
X_TICKS = 6
"""About so many steps on the axis of throughput."""

_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #57606a; }
.title { font-size: 17px; font-weight: 600; fill: #1f2328; }
.label { fill: #1f2328; stroke: #ffffff; stroke-width: 4; paint-order: stroke; }
.paper { fill: #ffffff; }
.grid { stroke: #d8dee4; }
.axis { stroke: #8c959f; }
.pair { stroke: #8c959f; stroke-dasharray: 2 3; }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.p50 { stroke: #0969da; } .dot.p50 { fill: #0969da; }
.p99 { stroke: #bc4c00; } .dot.p99 { fill: #ffffff; stroke-width: 2.5; }
"""
_DARK_STYLE = """
@media (prefers-color-scheme: dark) {
text { fill: #9198a1; }
.title, .label { fill: #f0f6fc; }
.label { stroke: #0d1117; }
.paper { fill: #0d1117; }
.grid { stroke: #262c36; }
.axis, .pair { stroke: #656c76; }
.p50 { stroke: #4493f8; } .dot.p50 { fill: #4493f8; }
.p99 { stroke: #f0883e; } .dot.p99 { fill: #0d1117; }
}
"""


def svg(measurement: Measurement) -> str:
    """The plot as an SVG document, in light or dark colours as its reader prefers."""
    steps = measurement.steps
    x_ticks = linear_ticks(max(step.faces_per_second for step in steps))
    y_ticks = logarithmic_ticks(min(step.p50_ms for step in steps), max(step.p99_ms for step in steps))

    def x(rate: float) -> float:
        return LEFT + (RIGHT - LEFT) * rate / x_ticks[-1]

    def y(ms: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * math.log(ms / y_ticks[0]) / math.log(y_ticks[-1] / y_ticks[0])

    root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")
    root.set("width", str(WIDTH))
    root.set("height", str(HEIGHT))
    ET.SubElement(root, "title").text = "Latency of /embed over its throughput"
    ET.SubElement(root, "style").text = _STYLE + _DARK_STYLE
    _add(root, "rect", "paper", x=0, y=0, width=WIDTH, height=HEIGHT)
    _heading(root, measurement)
    _axes(root, [(x(tick), f"{tick:,g}") for tick in x_ticks], [(y(tick), f"{tick:,g}") for tick in y_ticks])
    for step in steps:
        across = x(step.faces_per_second)
        _add(root, "line", "pair", x1=across, x2=across, y1=y(step.p50_ms), y2=y(step.p99_ms))
    for name, times in (("p99", [step.p99_ms for step in steps]), ("p50", [step.p50_ms for step in steps])):
        points = [(x(step.faces_per_second), y(ms)) for step, ms in zip(steps, times, strict=True)]
        _add(root, "polyline", f"line {name}", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in points))
        for (px, py), step, ms in zip(points, steps, times, strict=True):
            told = f"{step.who}: {step.faces_per_second:,.1f} faces/s, {name} {milliseconds(ms)}"
            ET.SubElement(_dot(root, name, px, py), "title").text = told
    for step in steps:
        label = step.who if step is steps[-1] else str(step.clients)
        _text(root, "label", x(step.faces_per_second) + 9, y(step.p50_ms) + 16, label)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def linear_ticks(most: float) -> list[float]:
    """From 0 to `most` or a little more, in steps of 1, 2 or 5 times a power of ten."""
    step = next(size for size in _round_numbers(most / X_TICKS / 10) if size >= most / X_TICKS)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def logarithmic_ticks(least: float, most: float) -> list[float]:
    """1, 2 and 5 times powers of ten, at least two, around a range of positive numbers."""
    ticks: list[float] = []
    for tick in _round_numbers(least / 10):
        if tick <= least * 0.8:  # room for the label below the lowest point
            ticks = [tick]
        else:
            ticks.append(tick)
        if tick >= most * 1.05:
            return ticks
    raise AssertionError("round numbers have no end")


def _round_numbers(start: float) -> Iterator[float]:
    """1, 2 and 5 times powers of ten, ascending, from at most `start` on."""
    power = math.floor(math.log10(start))
    while True:
        # a negative power as a division: 5 / 10 is 0.5, and 5 * 0.1 may not be
        yield from (digit * 10**power if power >= 0 else digit / 10**-power for digit in (1.0, 2.0, 5.0))
        power += 1


def _heading(root: ET.Element, measurement: Measurement) -> None:
    service = measurement.service
    _text(root, "title", 24, 34, "Latency of /embed over its throughput")
    about = f"{service.model} · {service.provider} · {service.precision}"
    where = measurement.url or f"{machine()['processor']}, {machine()['cpus']} CPUs"
    _text(root, "", 24, 56, f"{about} · {where}")
    for name, told, across in (("p50", "median (p50)", 24), ("p99", "99th percentile (p99)", 176)):
        _add(root, "line", f"line {name}", x1=across, x2=across + 28, y1=78, y2=78)
        _dot(root, name, across + 14, 78)
        _text(root, "", across + 38, 82, told)


def _axes(root: ET.Element, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> None:
    for down, told in y_ticks:
        _add(root, "line", "grid", x1=LEFT, x2=RIGHT, y1=down, y2=down)
        _text(root, "", LEFT - 10, down + 4, told, anchor="end")
    for across, told in x_ticks:
        _add(root, "line", "grid", x1=across, x2=across, y1=TOP, y2=BOTTOM)
        _text(root, "", across, BOTTOM + 20, told, anchor="middle")
    _add(root, "line", "axis", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM)
    _add(root, "line", "axis", x1=LEFT, x2=LEFT, y1=TOP, y2=BOTTOM)
    _text(root, "", (LEFT + RIGHT) / 2, BOTTOM + 46, "throughput, faces per second", anchor="middle")
    middle = (TOP + BOTTOM) / 2
    upright = _text(root, "", 22, middle, "latency, milliseconds (logarithmic)", anchor="middle")
    upright.set("transform", f"rotate(-90 22 {middle:g})")


def _dot(root: ET.Element, name: str, x: float, y: float) -> ET.Element:
    """Round and filled, or square and hollow: told apart without their colours too."""
    if name == "p50":
        return _add(root, "circle", f"dot {name}", cx=x, cy=y, r=5)
    return _add(root, "rect", f"dot {name}", x=x - 4.5, y=y - 4.5, width=9, height=9)


def _text(root: ET.Element, kind: str, x: float, y: float, told: str, *, anchor: str = "start") -> ET.Element:
    element = _add(root, "text", kind, x=x, y=y)
    element.set("text-anchor", anchor)
    element.text = told
    return element


def _add(root: ET.Element, tag: str, kind: str, **attributes: float | str) -> ET.Element:
    element = ET.SubElement(root, tag)
    if kind:
        element.set("class", kind)
    for name, value in attributes.items():
        element.set(name, value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0"))
    return element
