"""The generated parts of precision.md, from what benchmarks/questions/precision.py measured."""

from typing import Any

from results import read

RESULT = "precision.json"
COSINE_BAR = {"float32": 0.999, "bfloat16": 0.999, "float16": 0.999, "int8": 0.99}
"""Lowest cosine to float32 that a precision may show on any crop."""
ACCURACY_BAR_POINTS = 0.1
"""Verification accuracy that a precision may cost."""
CUTS = ("aligned", "stretched")


def accuracy_table() -> str:
    """A row for each recogniser in each precision: what it costs."""
    columns = ["recogniser", "precision", "runs in", "lowest cosine", "1 % of crops below", "accuracy, points"]
    columns += ["at float32's threshold", "TAR, points", "within the bar"]
    rows = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in _results():
        cells = [
            _both(row, "cosine_min", "{:.4f}"),
            _both(row, "cosine_1_percent", "{:.4f}"),
            _both(row, "accuracy_difference_points", "{:+.2f}"),
            _both(row, "accuracy_difference_kept_threshold_points", "{:+.2f}"),
            _both(row, "tar_difference_points", "{:+.2f}"),
        ]
        rows.append(f"| {_name(row)} | {_arithmetic(row)} | {' | '.join(cells)} | {_verdict(row)} |")
    return "\n".join(rows)


def reference_sentence() -> str:
    """What float32 reaches, from which the table's points are counted."""
    report = _report()
    pairs = report["pairs"]
    reached = "; ".join(
        f"{row['recogniser']} {_both(row, 'accuracy_percent', '{:.2f}')}"
        for row in _results()
        if row["recipe"] == "reference"
    )
    return (
        f"float32 on ONNX Runtime, the reference, verifies {pairs['same']:,} pairs of one person and"
        f" {pairs['different']:,} of two with this balanced accuracy in per cent (aligned / stretched): {reached}."
        f" One pair counts {50 / pairs['same']:.3f} or {50 / pairs['different']:.3f} points."
    )


def speed_table() -> str:
    """A row for each recogniser in each precision: milliseconds a face."""
    report = _report()
    rows = ["| recogniser | precision | batch 1 | batch 8 |", "| --- | --- | --- | --- |"]
    for row in _results():
        times = row["ms_a_face"]
        rows.append(f"| {_name(row)} | {times['batch_1']:.2f} | {times['batch_8']:.2f} |")
    where = report["machine"]
    sets = ", ".join(where["instruction_sets"])
    rows.append(f"\nMilliseconds a face, {where['processor']} ({sets}), {report['threads']} threads.")
    return "\n".join(rows)


def _report() -> dict[str, Any]:
    return read(RESULT)


def _results() -> list[dict[str, Any]]:
    return _report()["results"]  # type: ignore[no-any-return]


def _name(row: dict[str, Any]) -> str:
    how = "" if row["recipe"] == "plain" else f": {row['recipe']}"
    return f"{row['recogniser']} | {row['precision']}, {row['runtime']}{how}"


def _both(row: dict[str, Any], key: str, form: str) -> str:
    return " / ".join(form.format(row[cut][key] + 0.0) for cut in CUTS)


def _arithmetic(row: dict[str, Any]) -> str:
    """Share of the convolutions and matrix products in each type, most first."""
    layers = sorted(row["layers_by_arithmetic"].items(), key=lambda item: -item[1])
    total = sum(count for _, count in layers)
    return ", ".join(f"{kind} {100 * count / total:.0f} %" for kind, count in layers)


def _verdict(row: dict[str, Any]) -> str:
    """Whether both cuts hold the bar, or what breaks it."""
    if row["recipe"] == "reference":
        return ""
    bar = COSINE_BAR[row["precision"]]
    broken = [f"cosine {cut}" for cut in CUTS if row[cut]["cosine_min"] < bar]
    broken += [f"accuracy {cut}" for cut in CUTS if row[cut]["accuracy_difference_points"] < -ACCURACY_BAR_POINTS]
    return f"no: {', '.join(broken)}" if broken else "yes"
