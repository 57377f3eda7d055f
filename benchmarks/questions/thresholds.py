"""Thresholds of recognisers on LFW, by how crops are made: `arcface-api evaluate`, run for docs/thresholds.md.

    python -m benchmarks.questions.thresholds RECOGNISER.onnx [RECOGNISER.onnx …] --lfw FOLDER --output FILE.json

Also what a threshold does that was chosen for another crop or recogniser: that is why there is no universal one.
`lfw.py` says what the folder holds. Embeddings are those of float32 on the CPU, so that the figures hardly depend on
the machine. A recogniser of 10 ms a face takes about ten minutes on two CPUs.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from arcface_api.evaluate import report, run
from arcface_api.evaluate.backend import open_local
from arcface_api.evaluate.inputs import Pairs, Pictures, read_pairs
from arcface_api.image import ImageLimits
from arcface_api.packs import PackLocations, locate
from arcface_api.progress import BarProgress, Progress
from arcface_api.settings import Settings
from arcface_api.wire import Align, Fit
from benchmarks.lib import lfw, machine, options

BORROWED_FAR = 1e-2
"""The threshold of this false accept rate is tried elsewhere."""
LIMITS = ImageLimits(250 * 250)
"""LFW's pictures."""
NOT_KEPT = ("doubtful_same", "doubtful_different", "left_out", "histogram", "machine", "evaluation", "version")
"""Of an evaluation, what a result leaves out: names of people, what is large, what the whole result says once."""


@dataclass(frozen=True)
class Cut:
    """A way to make crops."""

    name: str
    preparation: run.Preparation
    align: Align = Align.NONE
    fit: Fit = Fit.STRETCH


def cuts(labels: dict[str, lfw.Label]) -> list[Cut]:
    """The ways that are compared."""
    boxes = {name: label.box.tolist() for name, label in labels.items()}
    landmarks = {name: label.landmarks.ravel().tolist() for name, label in labels.items()}
    named = {"box": 1.0, "box x1.2": 1.2, "box x1.5": 1.5}
    cut = {name: run.Preparation(LIMITS, boxes, margin) for name, margin in named.items()}
    return [
        *(Cut(f"{name}, stretched", cut[name]) for name in named),
        Cut("box, letterboxed", cut["box"], fit=Fit.LETTERBOX),
        *(Cut(f"{name}, `align=auto`", cut[name], Align.AUTO) for name in named),
        Cut("aligned by labelled landmarks", run.Preparation(LIMITS, landmarks=landmarks), Align.LANDMARKS),
    ]


def evaluate(recogniser: Path, cut: Cut, pairs: Pairs, images: Path, progress: Progress) -> Any:
    """One recogniser on one kind of crops."""
    pack = locate(str(recogniser), PackLocations.default(None))
    settings = Settings(pack=str(recogniser), device="cpu", precision="float32")
    backend = open_local(pack, settings, align=cut.align, fit=cut.fit)
    return run.evaluate(pairs, Pictures(images, pairs.pictures), cut.preparation, backend, progress)


def borrowed(done: dict[tuple[str, str], run.Evaluation]) -> list[dict[str, Any]]:
    """What each threshold does where it was not chosen."""
    rows = []
    for (recogniser, cut), lender in done.items():
        point = lender.figures.operating_points[BORROWED_FAR]
        if point is None:
            raise SystemExit(f"Too few pairs to choose a threshold for a false accept rate of {BORROWED_FAR:g}.")
        for (other_recogniser, other_cut), borrower in done.items():
            if (recogniser == other_recogniser) != (cut == other_cut):  # one thing differs
                curve = borrower.figures.curve
                accepting = int(np.searchsorted(-curve.thresholds, -point.threshold, side="right")) - 1
                rows.append(
                    {
                        "chosen_for": {"recogniser": recogniser, "cut": cut},
                        "used_for": {"recogniser": other_recogniser, "cut": other_cut},
                        "threshold": point.threshold,
                        "far": float(curve.far[accepting]),
                        "tar": float(curve.tar[accepting]),
                    }
                )
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("recognisers", type=Path, nargs="+", metavar="RECOGNISER.onnx")
    parser.add_argument("--lfw", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.lfw / "pairs.csv")
    ways = cuts(lfw.read_labels(arguments.lfw))
    done: dict[tuple[str, str], run.Evaluation] = {}
    runs = [(recogniser, cut) for recogniser in arguments.recognisers for cut in ways]
    with BarProgress("Evaluating") as bar:

        def show(number: int, _: str, share: float, __: float | None) -> None:
            bar(f"{runs[number][0].stem}, {runs[number][1].name}", (number + share) / len(runs), 1.0)

        for number, (recogniser, cut) in enumerate(runs):
            done[recogniser.stem, cut.name] = evaluate(
                recogniser, cut, pairs, arguments.lfw / "images.tar", partial(show, number)
            )
    for (name, cut_name), evaluated in done.items():
        print(f"\n{name}, {cut_name}\n{report.text(evaluated)}")
    result = {
        "benchmark": "thresholds",
        "borrowed_far": BORROWED_FAR,
        "results": [
            {
                "recogniser": name,
                "cut": cut_name,
                **{key: value for key, value in evaluated.to_json().items() if key not in NOT_KEPT},
            }
            for (name, cut_name), evaluated in done.items()
        ],
        "borrowed": borrowed(done),
        "machine": machine.describe(),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
