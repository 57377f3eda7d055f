"""The generated parts of thresholds.md: from benchmarks/questions/thresholds.py, and from the rule in the code."""

import math
from typing import Any

from arcface_api.evaluate.curve import (
    LEAST_FALSE_ACCEPTS,
    Interval,
    different_pairs_needed,
    one_in,
    percent,
    percents,
    shown_threshold,
    thresholds,
)
from arcface_api.packs import registry
from arcface_api.packs.manifest import Threshold
from results import read

RESULT = "evaluation-lfw.json"
FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
BORROWED_CUTS = {"box, stretched", "box, `align=auto`"}
"""The plainest crops, and what the service makes of them on request."""
GALLERIES = (100, 1_000, 10_000, 100_000)


def pairs_sentence() -> str:
    """The size of the data set."""
    first = _report()["results"][0]["pairs"]
    return (
        f"{first['same']:,} same-person and {first['different']:,} different-person pairs of {first['pictures']:,}"
        " pictures, in float32. `box` is a detector's face box, not squared."
    )


def lfw_table() -> str:
    """A row for each recogniser and kind of crops."""
    rows = [
        "| recogniser | crops | accuracy | EER | FAR 1 in 10: threshold | TAR | FAR 1 in 100: threshold (95 % interval)"
        " | TAR (95 % interval) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in _report()["results"]:
        loose, strict = (_point(row, wanted) for wanted in (0.1, 0.01))
        accuracy = row["accuracy"]
        cells = [
            row["recogniser"],
            row["cut"],
            f"{percent(accuracy['mean'])} ± {100 * accuracy['std']:.2f}",
            percent(row["equal_error_rate"]),
            shown_threshold(loose["threshold"]),
            percent(loose["tar"]),
            f"{shown_threshold(strict['threshold'])} ({thresholds(_interval(strict['threshold_interval']))})",
            f"{percent(strict['tar'])} ({percents(_interval(strict['tar_interval']))})",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def borrowed_table() -> str:
    """What thresholds do where they were not chosen: one thing differs, the crop or the recogniser."""
    report = _report()
    different = report["results"][0]["pairs"]["different"]
    rows = [
        f"| threshold for a FAR of {one_in(report['borrowed_far'])} | used for | different-person pairs accepted"
        " | same-person pairs accepted |",
        "| --- | --- | --- | --- |",
    ]
    for row in report["borrowed"]:
        lender, user = row["chosen_for"], row["used_for"]
        if {user["cut"], lender["cut"]} <= BORROWED_CUTS:
            chosen_for, used_for = (f"{of['recogniser']}, {of['cut']}" for of in (lender, user))
            passed = f"{round(row['far'] * different):,} of {different:,}"
            cells = [f"{chosen_for}: {shown_threshold(row['threshold'])}", used_for, passed]
            rows.append(f"| {' | '.join([*cells, percent(row['tar'])])} |")
    return "\n".join(rows)


def registered_table() -> str:
    """The thresholds that `/info` returns for registered packs."""
    of: dict[tuple[Threshold, ...], list[str]] = {}
    for pack in registry().values():
        of.setdefault(pack.thresholds, []).append(pack.name)
    fars = sorted({threshold.far for found in of for threshold in found}, reverse=True)
    rows = [
        f"| pack | {' | '.join(f'FAR {one_in(far)}' for far in fars)} | basis | pairs |",
        f"| --- {'| --- ' * len(fars)}| --- | --- |",
    ]
    for found, names in of.items():
        similarity = {threshold.far: f"{threshold.similarity:g}" for threshold in found}
        basis, pairs = "none known", ""
        if found:
            basis = f"[published]({found[0].source})" if found[0].source else found[0].basis
            pairs = found[0].data_set or ""
        cells = [", ".join(names), *(similarity.get(far, "") for far in fars), basis, pairs]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def pairs_needed_table() -> str:
    """How many different-person pairs each false accept rate takes."""
    rows = ["| FAR | different-person pairs | people, if each is paired once with every other |", "| --- | --- | --- |"]
    for far in FARS:
        pairs = different_pairs_needed(far)
        people = math.ceil((1 + math.sqrt(1 + 8 * pairs)) / 2)
        rows.append(f"| {one_in(far)} | {pairs:,} | {people:,} |")
    return "\n".join([*rows, "", f"With these, {LEAST_FALSE_ACCEPTS} pairs are accepted at the threshold."])


def search_table() -> str:
    """False matches in a search among many, by the FAR of one comparison."""
    rows = [
        "| FAR of one comparison | " + " | ".join(f"among {size:,}" for size in GALLERIES) + " |",
        "| --- " * (len(GALLERIES) + 1) + "|",
    ]
    for far in FARS[1:]:
        cells = [_search(far, size) for size in GALLERIES]
        rows.append(f"| {one_in(far)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def distances_table() -> str:
    """Similarities in other measures."""
    rows = [
        "| cosine similarity | cosine distance, `<=>` | negative inner product, `<#>` | Euclidean distance, `<->` | its"
        " square |",
        "| --- | --- | --- | --- | --- |",
    ]
    for similarity in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        distance = 1 - similarity
        cells = (similarity, distance, -similarity, math.sqrt(2 * distance), 2 * distance)
        rows.append("| " + " | ".join(f"{cell:.4g}" for cell in cells) + " |")
    return "\n".join(rows)


def _search(far: float, size: int) -> str:
    """The probability of a false match, or their mean number where one is nearly certain."""
    probability = -math.expm1(size * math.log1p(-far))
    return f"{far * size:,.0f} false matches a search" if probability > 0.99 else f"{100 * probability:.2g} %"


def _point(row: dict[str, Any], wanted: float) -> dict[str, Any]:
    return next(point["found"] for point in row["operating_points"] if point["wanted_far"] == wanted)  # type: ignore[no-any-return]  # checked by its reading


def _interval(result: dict[str, float]) -> Interval:
    return Interval(result["low"], result["high"])


def _report() -> dict[str, Any]:
    return read(RESULT)
