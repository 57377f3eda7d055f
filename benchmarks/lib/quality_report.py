"""What `quality.py` makes of its measurements: limits by rule, and tables."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from arcface_api.face import quality
from arcface_api.face.landmarks import MAX_UNCERTAINTY
from arcface_api.face.quality import QualityWarning
from benchmarks.lib.quality_errors import FAR, FAR_OF_CHOICE, Mask, Measured, Values, percent, spearman
from benchmarks.lib.spoilt import NEVER_ALIGNED

REJECTED_AT_LIMIT = 0.05
"""Same-person comparisons that fail right at a limit; or `WORSE` times as many as with ordinary pictures, if more."""
WORSE = 2
WINDOW = 100
"""Pictures over which "right at a limit" is the mean."""
OUTERMOST_PERCENT = 0.25
"""Of heads, at either end, which the limits of the pose leave out."""
LEAST_HIDDEN, FEW_PERCENT = 0.4, 1.0
"""The least share of a part that counts as covered, so that one of two eyes does; higher if otherwise more than this
per cent of uncovered faces would be warned of."""
BINS = np.linspace(0, 1, 25)
"""Shares of the pictures at which one bin of a curve ends and the next begins."""
HEAD_BINS = np.array([0, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.75, 100]) / 100
"""The same for the pose: its ends are what matters, and few heads are there."""
CONFIDENCES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0)
BLURRED = ("clean", "shrunk", "out of focus", "moved")

# ── limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def limits() -> dict[str, float]:
    """What the code has, by name."""
    return {name: value for name, value in vars(quality).items() if name.startswith(("MIN_", "MAX_"))}


def choose(measured: Measured, heads: Measured) -> dict[str, float]:
    """The limits as the rule has them, under the names they have in the code."""
    aligned = measured.values["is_aligned"].astype(bool)
    value = measured.values

    def limit(name: str, rows: Mask, *, is_low: bool) -> float:
        return round(
            limit_of(value[name][rows], measured.rejected[rows], value[name][measured.ways("clean")], is_low), 4
        )

    def hidden(name: str) -> float:
        uncovered = float(np.percentile(value[name][measured.ways("clean")], 100 - FEW_PERCENT))
        return round(max(LEAST_HIDDEN, uncovered), 4)

    squeezed, long = measured.ways("clean", "squeezed") & aligned, measured.ways(*NEVER_ALIGNED)
    outermost = (OUTERMOST_PERCENT, 100 - OUTERMOST_PERCENT)
    return {
        "MIN_FACE_SIZE_PX": limit("face_size_px", measured.ways("clean", "shrunk") & aligned, is_low=True),
        "MIN_PICTURE_ASPECT": limit("picture_aspect", long, is_low=True),
        "MAX_PICTURE_ASPECT": limit("picture_aspect", long, is_low=False),
        "MIN_FACE_ASPECT": limit("face_aspect", squeezed, is_low=True),
        "MAX_FACE_ASPECT": limit("face_aspect", squeezed, is_low=False),
        "MIN_SHARPNESS": limit("sharpness", measured.ways(*BLURRED) & aligned, is_low=True),
        "MIN_BRIGHTNESS": limit("brightness", measured.ways("clean", "darkened"), is_low=True),
        "MAX_BRIGHTNESS": limit("brightness", measured.ways("clean", "overexposed"), is_low=False),
        "MAX_EYES_HIDDEN": hidden("eyes_hidden"),
        "MAX_LOWER_FACE_HIDDEN": hidden("lower_face_hidden"),
        "MAX_TURN": round(float(np.percentile(np.abs(heads.values["turn"]), outermost[1])), 4),
        "MIN_NOD": round(float(np.percentile(heads.values["nod"], outermost[0])), 4),
        "MAX_NOD": round(float(np.percentile(heads.values["nod"], outermost[1])), 4),
    }


def limit_of(values: Values, rejected: Values, ordinary: Values, is_low: bool) -> float:
    """Where, coming from the worst value, comparisons first fail no oftener than they may at a limit.

    But no further than to the outermost hundredth of clean pictures.

    Args:
        values: (n,) of pictures, spoilt and not.
        rejected: (n,) share of their same-person comparisons that fail.
        ordinary: Values of clean pictures.
        is_low: Whether low values are the bad ones.
    """
    known = ~np.isnan(rejected)
    values, rejected = values[known], rejected[known]
    low, high = np.percentile(ordinary, (1, 99))
    usual = rejected[(values >= low) & (values <= high)].mean()
    order = np.argsort(values if is_low else -values)
    around = np.convolve(rejected[order], np.full(WINDOW, 1 / WINDOW), "valid")
    first = int(np.argmax(around <= max(REJECTED_AT_LIMIT, WORSE * usual)))
    limit = float(values[order][first + WINDOW // 2])
    return min(limit, float(low)) if is_low else max(limit, float(high))


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def tables(measured: Measured, heads: Measured) -> dict[str, Any]:
    """All that is reported of the test people (and, of the pose, of the training people)."""
    clean = measured.ways("clean")
    figures = {str(code): measured.values[code].astype(bool) for code in QualityWarning}
    count = np.sum(list(figures.values()), axis=0)
    stretched = measured.ways(*NEVER_ALIGNED)
    has_partner = ~np.isnan(measured.rejected)
    pool = has_partner & ~stretched
    aspect = figures[QualityWarning.EXTREME_ASPECT]
    return {
        "false_accept_rate": FAR,
        "false_accept_rate_of_curves": FAR_OF_CHOICE,
        "clean": {
            "pictures": int(clean.sum()),
            "any_warning_percent": percent(count[clean] > 0),
            "percentiles": {
                name: np.percentile(measured.values[name][clean], (1, 50, 99)).round(4).tolist()
                for name in ("landmark_confidence", "face_size_px", "sharpness", "brightness", "contrast")
            },
        },
        "no_warning": verification(measured, pool & (count == 0)),
        "warnings": {
            code: {
                "clean_flagged_percent": percent(flagged[clean]),
                "of_all_rejects_percent": share_of_rejects(measured, flagged, pool),
                "with": verification(measured, pool & flagged),
                "alone": verification(measured, pool & flagged & (count == 1)),
                "without": verification(measured, pool & ~flagged),
            }
            for code, flagged in figures.items()
        },
        "never_aligned": {
            "with": verification(measured, has_partner & stretched & aspect),
            "without": verification(measured, has_partner & stretched & ~aspect),
        },
        "ways": {
            way: {
                "any_warning_percent": percent(count[rows] > 0),
                "flagged_percent": {
                    code: percent(flagged[rows]) for code, flagged in figures.items() if flagged[rows].any()
                },
                "with_any": verification(measured, rows & (count > 0)),
                "without_any": verification(measured, rows & (count == 0)),
            }
            for way in dict.fromkeys(measured.way.tolist())
            if (rows := has_partner & measured.ways(way)).any()
        },
        "curves": curves(measured) | head_curves(heads),
        "confidence": confidence(measured),
        "norm": norms(measured, pool),
    }


def verification(measured: Measured, rows: Mask) -> dict[str, Any]:
    """Errors of the comparisons of some pictures with clean ones, in per cent."""
    found: dict[str, Any] = {"pictures": int(rows.sum())}
    if rows.any():
        for name, errors in measured.errors.items():
            found[name] = {
                "balanced_error_percent": percent(errors.balanced[rows]),
                "rejected_percent": percent(errors.rejected[FAR][rows]),
                "rejected_strictly_percent": percent(errors.rejected[FAR_OF_CHOICE][rows]),
            }
    return found


def share_of_rejects(measured: Measured, flagged: Mask, pool: Mask) -> dict[str, float]:
    """Of all false rejects in the pool, how many have the warning, in per cent, by recogniser."""
    return {
        name: round(100 * float(errors.rejected[FAR][pool & flagged].sum() / errors.rejected[FAR][pool].sum()), 2)
        for name, errors in measured.errors.items()
    }


def curves(measured: Measured) -> dict[str, Any]:
    """Rejects over each measure, of those pictures that were spoilt in what it measures."""
    aligned = measured.values["is_aligned"].astype(bool)
    rows = {
        "face_size_px": measured.ways("clean", "shrunk") & aligned,
        "sharpness": measured.ways(*BLURRED) & aligned,
        "brightness": measured.ways("clean", "darkened", "overexposed"),
        "landmark_confidence": measured.ways("clean", "covered"),
        "face_aspect": measured.ways("clean", "squeezed") & aligned,
        "picture_aspect": measured.ways(*NEVER_ALIGNED),
    }
    clean = measured.ways("clean")
    return {name: curve(measured, measured.values[name], mask, clean) for name, mask in rows.items()}


def head_curves(heads: Measured) -> dict[str, Any]:
    """The same over the two measures of the pose, of pictures as they are."""
    everyone = np.ones(len(heads.way), bool)
    values = {"turn": np.abs(heads.values["turn"]), "nod": heads.values["nod"]}
    return {name: curve(heads, value, everyone, everyone, HEAD_BINS) for name, value in values.items()}


def curve(measured: Measured, values: Values, rows: Mask, clean: Mask, shares: Values = BINS) -> dict[str, Any]:
    """Bins of pictures, in the order of their value; and where clean pictures lie."""
    rows = rows & ~np.isnan(measured.rejected)
    order = np.flatnonzero(rows)[np.argsort(values[rows])]
    bins = [
        {
            "middle": round(float(np.median(values[part])), 4),
            "pictures": len(part),
            "rejected_percent": {n: percent(e.rejected[FAR_OF_CHOICE][part]) for n, e in measured.errors.items()},
            "similarity": {n: round(float(e.similarity[part].mean()), 4) for n, e in measured.errors.items()},
        }
        for part in np.split(order, np.rint(shares[1:-1] * len(order)).astype(int))
        if len(part)
    ]
    return {"clean_percentiles": np.percentile(values[clean], (0.5, 2, 50, 98, 99.5)).round(4).tolist(), "bins": bins}


def confidence(measured: Measured) -> list[dict[str, Any]]:
    """Whether the confidence is what it says: how many landmarks were within the tolerance."""
    value, error = measured.values["landmark_confidence"], measured.values["landmark_error"]
    found = []
    for low, high in pairwise(CONFIDENCES):
        rows = (value >= low) & (value < high)
        mean = round(float(value[rows].mean()), 3) if rows.any() else None
        right = percent(error[rows] <= MAX_UNCERTAINTY) if rows.any() else None
        found.append({"from": low, "to": high, "pictures": int(rows.sum()), "mean": mean, "right_percent": right})
    return found


def norms(measured: Measured, rows: Mask) -> dict[str, Any]:
    """Whether a recogniser's norm predicts its similarities: rank correlation, by recogniser."""
    clean = measured.ways("clean")
    return {
        name: {
            "clean_percentiles": np.percentile(norm[clean], (1, 50, 99)).round(3).tolist(),
            "spearman": spearman(norm[rows], measured.errors[name].similarity[rows]),
        }
        for name, norm in measured.norms.items()
    }


def print_tables(result: dict[str, Any]) -> None:
    """The result, short."""
    names: Sequence[str] = result["recognisers"]
    for name, value in result["limits"].items():
        print(f"{name:22} {value:8.3f}   by the rule {result['chosen'].get(name, '')}")
    print(f"clean: {result['clean']}\nnon-faces: {result['non_faces']}")
    print(f"{'':20}{'clean flagged':>14}{'pictures':>10}{'balanced error with, alone, without':>50}")
    for code, row in result["warnings"].items():
        cells = [
            " / ".join(f"{row[kind][name]['balanced_error_percent']:.1f}" for name in names)
            if row[kind]["pictures"]
            else "-"
            for kind in ("with", "alone", "without")
        ]
        print(f"{code:20}{row['clean_flagged_percent']:14.2f}{row['with']['pictures']:10}{'':10}{'   '.join(cells)}")
