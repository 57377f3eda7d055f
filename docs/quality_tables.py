"""The generated parts of quality.md: meanings and limits from the code, figures of benchmarks/questions/quality.py."""

import ast
import inspect
import re
import sys
from typing import Any

from arcface_api.face import quality
from arcface_api.face.landmarks import MAX_UNCERTAINTY
from arcface_api.face.quality import QualityWarning
from results import read

RESULT = "quality.json"
LIMITS = {
    QualityWarning.UPSCALED: "`face_size_px` below {MIN_FACE_SIZE_PX:g}",
    QualityWarning.EXTREME_ASPECT: (
        "picture's width / height outside {MIN_PICTURE_ASPECT:g} … {MAX_PICTURE_ASPECT:g}, or eye distance / distance"
        " of eyes and mouth outside {MIN_FACE_ASPECT:g} … {MAX_FACE_ASPECT:g}"
    ),
    QualityWarning.LOW_SHARPNESS: "`sharpness` below {MIN_SHARPNESS:g}",
    QualityWarning.UNDEREXPOSED: "`brightness` below {MIN_BRIGHTNESS:g}",
    QualityWarning.OVEREXPOSED: "`brightness` above {MAX_BRIGHTNESS:g}",
    QualityWarning.LANDMARKS_UNSURE: "landmarks that `align=auto` does not align by",
    QualityWarning.NO_FACE: "face probability below {MIN_FACE_PROBABILITY:g}",
    QualityWarning.EXTREME_POSE: (
        "nose tip more than {MAX_TURN:g} of the distance of eyes and mouth beside the line between them, or not within"
        " {MIN_NOD:g} … {MAX_NOD:g} of it"
    ),
    QualityWarning.EYES_COVERED: "more than {MAX_EYES_HIDDEN:g} of the eyes hidden (0 … 1), as the regressor estimates",
    QualityWarning.LOWER_FACE_COVERED: (
        "more than {MAX_LOWER_FACE_HIDDEN:g} of mouth and chin hidden (0 … 1), as the regressor estimates"
    ),
    QualityWarning.TRUNCATED: "a JPEG's data end too early or have a gap, or scans of a progressive JPEG are missing",
}
TOLERANCE = f"{MAX_UNCERTAINTY:g} eye distances"
NUMBERS = {
    "landmark_confidence": "0 … 1",
    "face_size_px": "pixels of the picture",
    "sharpness": "0 … 0.6",
    "brightness": "0 … 1",
    "contrast": "0 … 1",
}


def meanings_table() -> str:
    """A row for each warning: when, what it means, what to do."""
    meanings = _docstrings(QualityWarning)
    rows = ["| code | when | what it means, and what to do |", "| --- | --- | --- |"]
    for warning, limit in LIMITS.items():
        rows.append(f"| `{warning}` | {limit.format(**vars(quality))} | {meanings[warning.name]} |")
    return "\n".join(rows)


def numbers_table() -> str:
    """A row for each number: its range, the values of untouched pictures, and what it means."""
    meanings = _docstrings(quality.Quality)
    percentiles = _report()["clean"]["percentiles"]
    rows = ["| number | range, unit | untouched LFW: 1 %, median, 99 % | meaning |", "| --- | --- | --- | --- |"]
    for name, unit in NUMBERS.items():
        seen = ", ".join(f"{value:.3g}" for value in percentiles[name])
        meaning = re.sub("^0 to [^:]*: ", "", meanings[name]).replace("`MAX_UNCERTAINTY`", TOLERANCE)
        meaning = meaning[0].upper() + meaning[1:].replace("MAX_UNCERTAINTY", f"{MAX_UNCERTAINTY:g}")
        rows.append(f"| `{name}` | {unit} | {seen} | {meaning} |")
    return "\n".join(rows)


def errors_table() -> str:
    """A row for each warning: what it flags."""
    report = _report()
    columns = ["warning", "untouched pictures warned of", "balanced error, %", "not recognised, %", "pictures"]
    columns += ["not recognised, only this warning, %", "share of all errors, %"]
    rows = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    base = report["no_warning"]
    cells = [_each(base, "balanced_error_percent"), f"**{_each(base, 'rejected_percent')}**", f"{base['pictures']:,}"]
    rows.append(f"| none | | {' | '.join(cells)} | | |")
    for code, row in report["warnings"].items():
        if not row["with"]["pictures"]:  # whole pictures are never `truncated`
            continue
        found, alone, share = row["with"], row["alone"], row["of_all_rejects_percent"]
        cells = [
            f"{row['clean_flagged_percent']:.1f} %",
            _each(found, "balanced_error_percent"),
            f"**{_each(found, 'rejected_percent')}**",
            f"{found['pictures']:,}",
            f"{_each(alone, 'rejected_percent')} of {alone['pictures']:,}" if alone["pictures"] else "",
            " / ".join(f"{share[name]:.0f}" for name in report["recognisers"]),
        ]
        rows.append(f"| `{code}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def ways_table() -> str:
    """A row for each kind of degradation: the share of pictures with a warning, and the errors with and without."""
    columns = ["pictures", "warned of", "most often by", "not recognised where warned of, %", "where not, %"]
    rows = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for way, row in _report()["ways"].items():
        often = sorted(row["flagged_percent"].items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"`{code}` {share:.0f} %" for code, share in often if share >= 1)
        cells = [f"{row['any_warning_percent']:.0f} %", shown]
        cells += [_each(row[key], "rejected_percent") for key in ("with_any", "without_any")]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(rows)


def confidence_table() -> str:
    """How often landmarks were within the tolerance, by their confidence."""
    rows = ["| confidence | pictures | mean confidence | landmarks within the tolerance |", "| --- | --- | --- | --- |"]
    for part in _report()["confidence"]:
        if part["pictures"]:
            span = f"{part['from']:g} … {part['to']:g}"
            rows.append(f"| {span} | {part['pictures']:,} | {part['mean']:.2f} | {part['right_percent']:.0f} % |")
    return "\n".join(rows)


def sentence() -> str:
    """The people and pictures measured, and the errors without a warning."""
    report = _report()
    clean, none, non_faces = report["clean"], report["no_warning"], report["non_faces"]
    names, people, rate = " / ".join(report["recognisers"]), report["people"], report["false_accept_rate"]
    return (
        f"{people['test']} people, {clean['pictures']:,} untouched pictures of them, of which"
        f" {clean['any_warning_percent']:.1f} % have any warning; limits chosen on {people['validation']} others."
        f" Two figures in a cell: {names}. False accept rate of the tables: {rate:g}."
        f" Pictures without any warning, degraded or not, are not recognised in {_each(none, 'rejected_percent')} % of"
        f" comparisons. Of {non_faces['pictures']} pictures without a face,"
        f" {non_faces['probably_no_face_percent']:.0f} % are `probably_no_face` and"
        f" {non_faces['landmarks_unsure_percent']:.0f} % `landmarks_unsure`."
    )


def aspect_sentence() -> str:
    """The errors of stretched pictures, by the picture's own shape."""
    found = _report()["never_aligned"]
    return (
        f"Stretched without alignment, pictures of `extreme_aspect` are not recognised in"
        f" {_each(found['with'], 'rejected_percent')} % of comparisons, others in"
        f" {_each(found['without'], 'rejected_percent')} %."
    )


def norm_sentence() -> str:
    """How well the norm predicts similarity, by recogniser."""
    correlations = [
        f"{name}: {found['spearman']:.2f} (untouched pictures have {found['clean_percentiles'][0]:.3g} to"
        f" {found['clean_percentiles'][2]:.3g})"
        for name, found in _report()["norm"].items()
    ]
    return f"Rank correlation of the norm with the similarity to the same person: {'; '.join(correlations)}."


def _report() -> dict[str, Any]:
    report = read(RESULT)
    now = {name: value for name, value in vars(quality).items() if name in report["limits"]}
    if report["limits"] != now:
        sys.exit(f"{RESULT} was measured with other limits than the code has: run benchmarks.questions.quality.")
    return report


def _each(found: dict[str, Any], key: str) -> str:
    """One figure for each recogniser."""
    return " / ".join(f"{value[key]:.1f}" for value in found.values() if isinstance(value, dict))


def _docstrings(kind: type) -> dict[str, str]:
    """The docstring below each assignment in a class."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for assignment, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(assignment, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
            target = assignment.target if isinstance(assignment, ast.AnnAssign) else assignment.targets[0]
            found[ast.unparse(target)] = " ".join(ast.literal_eval(below.value).split())
    return found
