"""The generated parts of alignment.md, from what benchmarks/questions/alignment.py measured."""

from typing import Any

from results import read

RESULT = "alignment.json"
TIME = "align-time-iresnet100.json"
ALIGNED = "aligned already"
TURNED_FAR = ("rotated 90", "rotated 135", "rotated 180")
BAR_POINTS = {ALIGNED: 0.1, **dict.fromkeys(TURNED_FAR, 0.5)}
"""How far the accuracy of `align=auto` may lie below its aim, by condition."""
OTHER_BAR_POINTS = 0.3
ORDINARY = "x1.2"
"""The box with some background, as detectors are often set."""
WAYS = ("stretched", "letterboxed", "auto", "landmarks")


def lead() -> str:
    """What stretching costs, in a sentence."""
    recognisers = _report()["recognisers"]
    tight = [result["conditions"]["tight"]["unseen"]["accuracy_percent"] for result in recognisers.values()]
    stretched, aligned = (" and ".join(f"{each[way]:.2f} %" for each in tight) for way in ("stretched", "auto"))
    return (
        f"A detector's tight box, stretched to 112x112, verifies {stretched} of pairs correctly"
        f" ({', '.join(recognisers)}); with `align=auto` it is {aligned}."
    )


def unseen_table() -> str:
    """A row for each condition, of people on whom the regressor was not trained."""
    return accuracy_table(_report(), "unseen")


def official_table() -> str:
    """A row for each condition, of LFW's own pairs."""
    return accuracy_table(_report(), "official")


def accuracy_table(report: dict[str, Any], pairs: str) -> str:
    """A row for each condition: accuracy and true accept rate in each way, for each recogniser."""
    recognisers = report["recognisers"]
    columns = ["crop", *(f"{name}: {way}" if way == WAYS[0] else way for name in recognisers for way in WAYS), "unsure"]
    rows = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for condition in next(iter(recognisers.values()))["conditions"]:
        figures = [result["conditions"][condition][pairs] for result in recognisers.values()]
        cells = [_cell(each, way, condition) for each in figures for way in WAYS]
        # of the recogniser with the most pairs: what `auto` is sure of does not depend on the recogniser
        pictures = [result["pairs"][pairs]["pictures"] for result in recognisers.values()]
        unsure = figures[pictures.index(max(pictures))]["unsure_percent"]
        rows.append(f"| {condition} | {' | '.join(cells)} | {unsure:.1f} % |")
    return "\n".join(rows)


def thresholds_table() -> str:
    """A row for each way, of one ordinary kind of crop: accuracy, TAR and the threshold."""
    recognisers = _report()["recognisers"]
    columns = ["pictures", *(f"{name}: accuracy | TAR | threshold" for name in recognisers)]
    rows = [f"| {' | '.join(columns)} |", "| --- " * (1 + 3 * len(recognisers)) + "|"]
    figures = [result["conditions"][ORDINARY]["unseen"] for result in recognisers.values()]
    for way in figures[0]["threshold"]:
        cells = [
            f"{each['accuracy_percent'][way]:.2f} | {each['tar_percent'][way]:.2f} | {each['threshold'][way]:.3f}"
            for each in figures
        ]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(rows)


def time_sentence() -> str:
    """What is added to the time of a face, and on what that was measured."""
    report: dict[str, Any] = read(TIME)
    parts = []
    for clients in ("16 clients", "1 clients"):
        auto, quality = (report[clients][way] for way in ("auto", "auto, quality"))
        parts.append(
            f"with {clients.removesuffix('s') if clients.startswith('1 ') else clients} `align=auto` adds"
            f" {auto['added_percent']:.1f} % to the time of a face, with `include_quality=true`"
            f" {quality['added_percent']:.1f} %"
        )
    machine = report["machine"]
    return (
        f"On an IResNet100 in {report['precision']} ({report['provider']}, {machine['cpus']} CPUs of"
        f" {machine['processor']}), {'; '.join(parts)}."
    )


def sentence() -> str:
    """What was compared, and on what."""
    report = _report()
    recognisers = report["recognisers"]
    parts = []
    for name, result in recognisers.items():
        counts = {key: f"{pairs['same'] + pairs['different']:,}" for key, pairs in result["pairs"].items()}
        parts.append(
            f"{name} ({result['precision']}, {result['provider']}): {counts['unseen']} pairs of people never seen,"
            f" {counts['official']} of LFW's own"
        )
    conditions = _widest(report)["conditions"]
    outside = ", ".join(f"{name}: {result['framed']}" for name, result in conditions.items() if result["framed"])
    unseen, official = (_points_of_a_pair(report, key) for key in ("unseen", "official"))
    return (
        f"{'; '.join(parts)}. One pair of people never seen counts {unseen:.2f} points of accuracy, one of LFW's own up"
        f" to {official:.2f}. Where a label lay outside the crop ({outside} of {conditions[ALIGNED]['pictures']:,}"
        " pictures), `landmarks` was sent the crop in a black frame just wide enough to hold it."
    )


def _points_of_a_pair(report: dict[str, Any], pairs: str) -> float:
    """What one pair counts of the accuracy, at most."""
    counts = [result["pairs"][pairs] for result in report["recognisers"].values()]
    return max(50.0 / int(min(each["same"], each["different"])) for each in counts)


def _cell(figures: dict[str, Any], way: str, condition: str) -> str:
    """Accuracy / true accept rate; marked where `auto` falls short."""
    accuracy = figures["accuracy_percent"]
    if way not in accuracy:
        return ""
    aim = accuracy.get("landmarks", accuracy["stretched"])  # stretching does nothing to a crop that is aligned
    # rounded, because 99.9 - 99.8 is more than 0.1 in floating point
    is_short = way == "auto" and round(aim - accuracy[way], 2) > BAR_POINTS.get(condition, OTHER_BAR_POINTS)
    return f"{accuracy[way]:.2f} / {figures['tar_percent'][way]:.2f}{' (!)' if is_short else ''}"


def _widest(report: dict[str, Any]) -> dict[str, Any]:
    """The recogniser with which the most pictures were measured."""
    result: list[dict[str, Any]] = list(report["recognisers"].values())
    return max(result, key=lambda each: each["conditions"][ALIGNED]["pictures"])


def _report() -> dict[str, Any]:
    return read(RESULT)
