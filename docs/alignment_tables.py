"""The generated parts of alignment.md, from what benchmarks/questions/alignment.py measured."""

import textwrap
from typing import Any

from results import read

RESULT = "alignment.json"
TIME = "align-time-iresnet100.json"
ALIGNED = "aligned already"
TURNED_FAR = ("rotated 90", "rotated 135", "rotated 180")
BAR_POINTS = {
    ALIGNED: 0.1,
    **dict.fromkeys(TURNED_FAR, 0.5),
    "mask": 0.8,
    "hand": 0.6,
    **dict.fromkeys(("sunglasses", "eye covered", "brows covered"), 0.4),
}
"""How far the accuracy of `align=auto` may lie below its aim, by condition."""
OTHER_BAR_POINTS = 0.3
ORDINARY = "x1.2"
"""The box with some background, as detectors are often set."""
WAYS = ("stretched", "letterboxed", "auto", "landmarks")
HARD_WAYS = ("stretched", "auto", "landmarks")
AT_THRESHOLD = "at_the_threshold_of_uncovered_faces"
COVERED_PAIRS = {
    "uncovered": "neither face covered",
    "auto against uncovered": "one face covered",
    "auto": "both faces covered",
}


def lead() -> str:
    """What stretching costs, and what `align=auto` recovers."""
    recognisers = _report()["recognisers"]
    tight = [each["conditions"]["tight"]["unseen"]["accuracy_percent"] for each in recognisers.values()]
    stretched, aligned = ([f"{each[way]:.2f} %" for each in tight] for way in ("stretched", "auto"))
    verified = " and ".join(f"{name} verifies {share}" for name, share in zip(recognisers, stretched, strict=True))
    return prose(
        f"If tight detector boxes are stretched to 112x112, {verified} of LFW pairs correctly. With `align=auto` they"
        f" verify {' and '.join(aligned)}."
    )


def full_view_table() -> str:
    """A row for each condition in which the whole face is seen."""
    return accuracy_table(_report(), WAYS)


def hard_table() -> str:
    """A row for each condition in which a part of the face is covered, dark or missing."""
    return accuracy_table(_report(), HARD_WAYS)


def covered_table(report: dict[str, Any] | None = None) -> str:
    """A row for each cover: what the threshold of uncovered faces does to covered ones."""
    recognisers = (report or _report())["recognisers"]
    columns = ["covered by", "pairs", *(f"{name}: FAR | TAR" for name in recognisers)]
    rows = [f"| {' | '.join(columns)} |", "| --- " * (2 + 2 * len(recognisers)) + "|"]
    conditions = next(iter(recognisers.values()))["conditions"]
    covers = [name for name in conditions if AT_THRESHOLD in conditions[name]["unseen"]]
    for cover in covers:
        figures = [each["conditions"][cover]["unseen"][AT_THRESHOLD] for each in recognisers.values()]
        for way, pairs in COVERED_PAIRS.items():
            if way == "uncovered" and cover != covers[0]:
                continue  # the same pictures each time
            cells = [f"{each[way]['far_percent']:.2f} % | {each[way]['tar_percent']:.2f} %" for each in figures]
            rows.append(f"| {cover if way != 'uncovered' else 'nothing'} | {pairs} | {' | '.join(cells)} |")
    return "\n".join(rows)


def accuracy_table(report: dict[str, Any], ways: tuple[str, ...]) -> str:
    """A row for each condition: accuracy and true accept rate in each way, for each recogniser."""
    recognisers = report["recognisers"]
    columns = ["crop", *(f"{name}: {way}" if way == ways[0] else way for name in recognisers for way in ways), "unsure"]
    rows = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for condition in next(iter(recognisers.values()))["conditions"]:
        figures = [each["conditions"][condition]["unseen"] for each in recognisers.values()]
        is_hard = condition != ALIGNED and "letterboxed" not in figures[0]["accuracy_percent"]
        if is_hard != (ways == HARD_WAYS):
            continue
        cells = [_cell(each, way, condition) for each in figures for way in ways]
        unsure = figures[0]["unsure_percent"]  # whether `auto` is unsure does not depend on the recogniser
        rows.append(f"| {condition} | {' | '.join(cells)} | {unsure:.1f} % |")
    return "\n".join(rows)


def thresholds_table() -> str:
    """A row for each way to embed one ordinary kind of crop: accuracy, true accept rate, threshold."""
    recognisers = _report()["recognisers"]
    columns = ["pictures", *(f"{name}: accuracy, % | TAR, % | threshold" for name in recognisers)]
    rows = [f"| {' | '.join(columns)} |", "| --- " * (1 + 3 * len(recognisers)) + "|"]
    figures = [each["conditions"][ORDINARY]["unseen"] for each in recognisers.values()]
    for way in figures[0]["threshold"]:
        cells = [
            f"{each['accuracy_percent'][way]:.2f} | {each['tar_percent'][way]:.2f} | {each['threshold'][way]:.3f}"
            for each in figures
        ]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(rows)


def time_sentence() -> str:
    """How much longer a face takes with `align=auto`, and on what that was measured."""
    report: dict[str, Any] = read(TIME)
    machine = report["machine"]
    parts = []
    for clients, label in (("16 clients", "with 16 clients"), ("1 clients", "with one client")):
        auto, quality = (f"{report[clients][way]['added_percent']:.1f} %" for way in ("auto", "auto, quality"))
        parts.append(f"{auto} longer {label} ({quality} if `include_quality=true` is added)")
    ranges = []
    for clients, label in (("16 clients", "16 clients"), ("1 clients", "one")):
        rounds = report[clients]["auto"]["added_percent_by_round"]
        ranges.append(f"from {min(rounds):.0f} to {max(rounds):.0f} % with {label}")
    plain, auto = (report["1 clients"][way]["crop_ms"] for way in ("none", "auto"))
    return prose(
        f"With `align=auto` a face takes {' and '.join(parts)}. Measured on an IResNet100 in {report['precision']}"
        f" ({report['provider']}, {machine['cpus']} CPUs of {machine['processor']}). These are medians of {len(rounds)}"
        f" rounds, in which `align=auto` ranges {' and '.join(ranges)}. Measured directly, making the crop takes"
        f" {auto:.1f} ms of a face's {report['1 clients']['auto']['p50_ms']:.0f} with one client ({plain:.1f} ms"
        " without `align`)."
    )


def sentence() -> str:
    """Which recognisers and pairs were measured, and what one pair counts."""
    recognisers = _report()["recognisers"]
    measured = "; ".join(f"{name} ({each['precision']}, {each['provider']})" for name, each in recognisers.items())
    first = next(iter(recognisers.values()))
    pairs, conditions = first["pairs"]["unseen"], first["conditions"]
    count, worth = pairs["same"] + pairs["different"], 50 / min(pairs["same"], pairs["different"])
    outside = ", ".join(f"{name}: {each['framed']}" for name, each in conditions.items() if each["framed"])
    return prose(
        f"{measured}: {count:,} pairs of people on whom the regressor was not trained. One pair is worth {worth:.2f}"
        f" points of accuracy. Where a labelled landmark lay outside the crop ({outside}; of"
        f" {conditions[ALIGNED]['pictures']:,} pictures each), `landmarks` was sent the crop in a black frame just wide"
        " enough to hold it."
    )


def prose(text: str) -> str:
    """The text in lines as long as the other lines of the docs."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _cell(figures: dict[str, Any], way: str, condition: str) -> str:
    """Accuracy / true accept rate; marked where `auto` falls short."""
    accuracy = figures["accuracy_percent"]
    if way not in accuracy:
        return ""
    aim = accuracy.get("landmarks", accuracy["stretched"])  # an aligned crop is not changed by stretching
    # rounded, because 99.9 - 99.8 is more than 0.1 in floating point
    is_short = way == "auto" and round(aim - accuracy[way], 2) > BAR_POINTS.get(condition, OTHER_BAR_POINTS)
    return f"{accuracy[way]:.2f} / {figures['tar_percent'][way]:.2f}{' (!)' if is_short else ''}"


def _report() -> dict[str, Any]:
    return read(RESULT)
