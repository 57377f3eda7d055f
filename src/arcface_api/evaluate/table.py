"""An evaluation as text for a terminal."""

from arcface_api.evaluate.advice import INDEPENDENCE, SCOPE, one_in, percent, percents, shown_threshold, thresholds
from arcface_api.evaluate.operating_points import LEAST_FALSE_ACCEPTS, OperatingPoint, different_pairs_needed
from arcface_api.evaluate.run import Evaluation
from arcface_api.wire import Alignment


def text(evaluation: Evaluation) -> str:
    """What was compared, a row for each wanted false accept rate, and the figures of the whole."""
    found, facts = evaluation.figures, evaluation.facts
    titles = f"{'FAR at most':>12} {'threshold':>10} {'(95 % sure)':>17} {'TAR':>8} {'(95 % sure)':>17}"
    rows = [_row(wanted, point, found.different) for wanted, point in found.operating_points.items()]
    return "\n".join(
        [
            f"{facts.model} ({facts.fingerprint}) on {facts.provider} in {facts.precision}; {told_crops(evaluation)}",
            f"{found.same:,} pairs of one person and {found.different:,} of two, {len(evaluation.pairs.pictures):,}"
            " pictures",
            "",
            titles,
            *rows,
            "",
            whole(evaluation),
            "Accept two pictures as one person when their similarity is at least the threshold. " + SCOPE,
            INDEPENDENCE,
        ]
    )


def whole(evaluation: Evaluation) -> str:
    """Accuracy, equal error rate and area under the curve in a line."""
    found = evaluation.figures
    if found.accuracy is None:
        told = "accuracy cannot be told: each kind needs 10 pairs"
    else:
        folds = len(found.accuracy.folds)
        told = f"accuracy {percent(found.accuracy.mean)} ± {100 * found.accuracy.std:.2f} over {folds} folds"
    return f"{told}; equal error rate {percent(found.equal_error_rate)}; area under the ROC {found.area_under_roc:.5f}"


def told_crops(evaluation: Evaluation) -> str:
    """How pictures became crops: `face boxes x1.2, align=auto, fit=stretch, 3 of 4,964 unsure and not aligned`."""
    facts, unsure = evaluation.facts, evaluation.alignments.get(Alignment.UNSURE, 0)
    told = [] if evaluation.margin is None else [f"face boxes x{evaluation.margin:g}"]
    told += [f"align={facts.align}", f"fit={facts.fit}"]
    if facts.flip:
        told.append("flip=true")
    if unsure:
        told.append(f"{unsure:,} of {sum(evaluation.alignments.values()):,} unsure and not aligned")
    return ", ".join(told)


def _row(wanted: float, point: OperatingPoint | None, different: int) -> str:
    if point is None:
        needed = different_pairs_needed(wanted)
        return (
            f"{one_in(wanted):>12}  cannot be told: it takes {needed:,} pairs of two people, so that"
            f" {LEAST_FALSE_ACCEPTS} pass; there are {different:,}"
        )
    return (
        f"{one_in(wanted):>12} {shown_threshold(point.threshold):>10} {thresholds(point.threshold_interval):>17}"
        f" {percent(point.tar):>8} {percents(point.tar_interval):>17}"
    )
