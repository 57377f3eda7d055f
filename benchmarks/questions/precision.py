"""What each precision costs a recogniser in accuracy, and what it saves in time, on real weights and real faces.

    python -m benchmarks.questions.precision RECOGNISER.onnx [RECOGNISER.onnx …] --lfw FOLDER --output FILE.json

Every precision that a CPU can be asked for is compared with float32 on ONNX Runtime's own CPU provider: how far the
embeddings turn, and whether people are still distinguished. OpenVINO is called directly, with the options that its
plugin for ONNX Runtime would pass on. int8 is calibrated on people who are in no pair. FOLDER is as in `lfw.py`.
Needs the dependency group `precision`; a recogniser of a few milliseconds a face takes five to ten minutes on two CPUs.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import Crop, to_tensor
from benchmarks.lib import engines, lfw, machine, options
from benchmarks.lib.accuracy import balanced_accuracy, fold_thresholds, true_accept_rate
from benchmarks.lib.engines import Engine, progress

SEED = 0
COSINE_CROPS = 1000
CALIBRATION_CROPS = 400
FALSE_ACCEPT_RATE = 1e-2
BATCH_SIZES = (1, 8)
ROUNDS = 21
BATCH = 8


def embed(engine: Engine, crops: Sequence[Crop], label: str) -> NDArray[np.float64]:
    """Normalised embeddings, (n, dim)."""
    parts = []
    for start in range(0, len(crops), BATCH):
        parts.append(engine.run(to_tensor(crops[start : start + BATCH], engine.spec)))
        if start % (50 * BATCH) == 0:
            progress(f"{label}: {start}/{len(crops)}")
    features = np.concatenate(parts).astype(np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def compare(
    found: NDArray[np.float64], reference: NDArray[np.float64], sample: NDArray[np.intp], pairs: lfw.Pairs
) -> dict[str, float | int]:
    """Cosines to the reference on the sample; accuracy and TAR on all pairs, and their difference to the reference's.

    Accuracy is stated twice: with thresholds chosen again, and with the reference's, as of a caller who keeps one.

    Args:
        found: (n, dim) normalised embeddings of `pairs.pictures`, in that order.
        reference: The same by the reference.
        sample: Rows to take cosines of.
        pairs: What is to be verified.
    """
    cosines = (found[sample] * reference[sample]).sum(axis=1)
    own, its = similarities(found, pairs), similarities(reference, pairs)
    thresholds = fold_thresholds(its, pairs.same)
    accuracy = balanced_accuracy(own, pairs.same, fold_thresholds(own, pairs.same))
    kept = balanced_accuracy(own, pairs.same, thresholds)
    reference_accuracy = balanced_accuracy(its, pairs.same, thresholds)
    tar, reference_tar = (true_accept_rate(found, pairs.same, FALSE_ACCEPT_RATE) for found in (own, its))
    return {
        "cosine_min": round(float(cosines.min()), 5),
        "cosine_1_percent": round(float(np.percentile(cosines, 1)), 5),
        "cosine_median": round(float(np.median(cosines)), 5),
        "crops_below_0.999": int((cosines < 0.999).sum()),
        "crops_below_0.99": int((cosines < 0.99).sum()),
        "accuracy_percent": round(accuracy, 3),
        "accuracy_difference_points": round(accuracy - reference_accuracy, 3),
        "accuracy_difference_kept_threshold_points": round(kept - reference_accuracy, 3),
        "tar_percent": round(tar, 3),
        "tar_difference_points": round(tar - reference_tar, 3),
    }


def similarities(embeddings: NDArray[np.float64], pairs: lfw.Pairs) -> NDArray[np.float64]:
    """Of each pair, (n,); the embeddings are normalised and in the order of `pairs.pictures`."""
    row = {name: number for number, name in enumerate(pairs.pictures)}
    left, right = (embeddings[[row[name] for name in side]] for side in (pairs.left, pairs.right))
    return (left * right).sum(axis=1)


def measure_times(built: Sequence[Engine], crops: Sequence[Crop]) -> list[dict[str, float]]:
    """Milliseconds a face for each engine and batch size: medians over rounds in which each has its turn."""
    tensors = {
        (size, engine.spec.std): to_tensor(crops[:size], engine.spec) for size in BATCH_SIZES for engine in built
    }
    took: dict[tuple[int, int], list[float]] = {}
    for turn in range(-2, ROUNDS):  # two rounds more, to warm up
        progress(f"times: round {max(turn, 0)}/{ROUNDS}")
        for number, engine in enumerate(built):
            for size in BATCH_SIZES:
                tensor = tensors[size, engine.spec.std]
                started = time.perf_counter()
                engine.run(tensor)
                if turn >= 0:
                    took.setdefault((number, size), []).append((time.perf_counter() - started) * 1000 / size)
    return [
        {f"batch_{size}": round(float(np.median(took[number, size])), 3) for size in BATCH_SIZES}
        for number in range(len(built))
    ]


def draw(names: Iterable[str], pairs: lfw.Pairs) -> tuple[list[str], NDArray[np.intp]]:
    """Pictures of people in no pair, to calibrate with, and rows of `pairs.pictures`, to take cosines of."""
    random = np.random.default_rng(SEED)
    people = pairs.people
    strangers = sorted(name for name in names if name.split("/")[0] not in people)
    chosen = random.permutation(strangers)[:CALIBRATION_CROPS]
    return list(chosen), random.permutation(len(pairs.pictures))[:COSINE_CROPS]


def measure(
    built: Sequence[Engine],
    recogniser: str,
    crops: dict[lfw.Cut, dict[str, Crop]],
    pairs: lfw.Pairs,
    sample: NDArray[np.intp],
) -> list[dict[str, Any]]:
    """One row for each precision of one recogniser; cosines of the pictures in `sample`, accuracy of all pairs."""
    own = {cut: [crops[cut][name] for name in pairs.pictures] for cut in lfw.Cut}
    times = measure_times(built, own[lfw.Cut.ALIGNED])
    reference: dict[lfw.Cut, NDArray[np.float64]] = {}
    rows = []
    for engine, milliseconds in zip(built, times, strict=True):
        row: dict[str, Any] = {
            "recogniser": recogniser,
            "precision": engine.precision,
            "runtime": engine.runtime,
            "recipe": engine.recipe,
            "layers_by_arithmetic": engine.arithmetic,
            "ms_a_face": milliseconds,
        }
        for cut in lfw.Cut:
            label = f"{recogniser}: {engine.precision}, {engine.runtime}, {engine.recipe}, {cut}"
            found = embed(engine, own[cut], label)
            row[cut.value] = compare(found, reference.setdefault(cut, found), sample, pairs)
        rows.append(row)
    return rows


def renew_times(
    built: Sequence[Engine], recogniser: str, crops: dict[lfw.Cut, dict[str, Crop]], kept: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The finished rows of one recogniser with their times measured again."""
    rows = [row for row in kept if row["recogniser"] == recogniser]
    if [(row["precision"], row["runtime"], row["recipe"]) for row in rows] != [
        (engine.precision, engine.runtime, engine.recipe) for engine in built
    ]:
        raise SystemExit(f"The finished result has other precisions of {recogniser}: measure all of it again.")
    times = measure_times(built, list(crops[lfw.Cut.ALIGNED].values()))
    return [{**row, "ms_a_face": milliseconds} for row, milliseconds in zip(rows, times, strict=True)]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """The rows, short."""
    print(f"{'':58}{'cosine min':>17}{'accuracy, points':>21}{'TAR, points':>18}{'ms a face':>17}")
    print(f"{'':58}{'aligned  stretched':>19}{'aligned  stretched':>19}{'aligned stretched':>18}{'b1        b8':>17}")
    for row in rows:
        aligned, stretched, times = row["aligned"], row["stretched"], row["ms_a_face"]
        print(
            f"{row['recogniser']:20} {row['precision']:9}{row['runtime']:13}{row['recipe']:19}"
            f"{aligned['cosine_min']:9.5f}{stretched['cosine_min']:9.5f}"
            f"{aligned['accuracy_difference_points']:+9.3f}{stretched['accuracy_difference_points']:+9.3f}"
            f"{aligned['tar_difference_points']:+9.3f}{stretched['tar_difference_points']:+9.3f}"
            f"{times['batch_1']:9.2f}{times['batch_8']:9.2f}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("recognisers", type=Path, nargs="+", metavar="RECOGNISER.onnx")
    parser.add_argument("--lfw", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--only-times", action="store_true", help="keep the accuracies in --output, measure its times again (minutes)"
    )
    arguments = parser.parse_args()
    if arguments.only_times and not (arguments.output and arguments.output.exists()):
        parser.error("--only-times renews the times in a finished result: name it with --output.")
    progress("reading pictures")
    pairs = lfw.read_pairs(arguments.lfw)
    crops = lfw.read_crops(arguments.lfw, lfw.read_labels(arguments.lfw))
    kept = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.only_times else None
    if kept and kept["machine"] != machine.describe():
        parser.error(f"{arguments.output} is of another machine or other packages: measure all of it here.")
    chosen, sample = draw(crops[lfw.Cut.ALIGNED], pairs)
    # Half in each cut: ranges taken from aligned crops alone do badly on stretched ones.
    cuts = list(lfw.Cut)
    calibration = to_tensor([crops[cuts[turn % len(cuts)]][name] for turn, name in enumerate(chosen)], engines.SCALED)
    rows: list[dict[str, Any]] = []
    for path in arguments.recognisers:
        built = engines.build(path, calibration, arguments.threads)
        if kept:
            rows += renew_times(built, path.stem, crops, kept["results"])
        else:
            rows += measure(built, path.stem, crops, pairs, sample)
    progress("")
    print_table(rows)
    report = {
        "benchmark": "precision",
        "cosine_crops": COSINE_CROPS,
        "calibration_crops": CALIBRATION_CROPS,
        "pairs": {"same": int(pairs.same.sum()), "different": int((~pairs.same).sum())},
        "threads": arguments.threads,
        "rounds": ROUNDS,
        "results": rows,
        "machine": machine.describe(),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
