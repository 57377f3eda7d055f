"""Measure the landmark regressor on people it never saw, and write the figures and their tables.

    python -m training.landmarks.evaluate LFW_FOLDER --models MODELS_FOLDER

Errors are in per cent of the eye distance. Verification compares crops aligned by the regressor (or left as they are
where it is unsure) with crops aligned by the labels, from the same pixels.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import TEMPLATE, Image, InputSpec, Points, to_tensor
from arcface_api.face.geometry import align, lies_aligned
from arcface_api.face.landmarks import Landmarks, regressor
from arcface_api.face.quality import MAX_EYES_HIDDEN, MAX_LOWER_FACE_HIDDEN
from training.landmarks.check_set import check_set
from training.landmarks.conditions import AUGMENTED, EVERY
from training.landmarks.faces import PARTS, Face, read_faces
from training.landmarks.finding import Run, find, find_with_rows, load
from training.landmarks.verification import balanced_accuracy, make_pairs, tar_at_far

HERE = Path(__file__).parent
RECOGNISERS = {"w600k_mbf": "w600k_mbf_from_int8.onnx", "edgeface_xs": "edgeface_xs.onnx"}
RECOGNISER_INPUT = InputSpec(None, 112, 112, 127.5, 127.5)
SEED = 7
CARD_BEGIN, CARD_END = "<!-- figures -->", "<!-- end of figures -->"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images.tar, labels.csv, pairs.csv")
    parser.add_argument("--models", type=Path, help="folder of recognisers; without it, no verification")
    parser.add_argument("--regressor", type=Path, help="another ONNX file than the package's")
    parser.add_argument("--part", choices=(*PARTS, "pairs"), default="test", help="pairs: LFW's own, all people")
    parser.add_argument("--recognisers", nargs="*", default=list(RECOGNISERS), choices=list(RECOGNISERS))
    parser.add_argument("--conditions", nargs="*", default=list(EVERY), choices=list(EVERY))
    parser.add_argument("--output", type=Path, help="JSON")
    parser.add_argument("--card", action="store_true", help="put the tables into MODEL_CARD.md")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    run = load(options.regressor or regressor())
    parts = tuple(PARTS) if options.part == "pairs" else (options.part,)
    faces = read_faces(options.folder, parts)
    figures: dict[str, object] = {"part": options.part, "faces": len(faces)}
    if options.part != "pairs":
        figures["errors"] = errors_by_condition(run, faces, options.conditions)
        figures["non_faces"] = non_faces(run)
    if options.models:
        if options.part == "pairs":
            pairs = official_pairs(options.folder, faces)
            faces, pairs = only_paired(faces, pairs)
        else:
            faces, pairs = only_paired(faces, make_pairs([face.name for face in faces], SEED))
        figures["pairs"] = len(pairs)
        figures["verification"] = {
            name: verification(load(options.models / RECOGNISERS[name]), run, faces, pairs, options.conditions)
            for name in options.recognisers
        }
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    if options.card:
        put_into_card(table(figures))
    print(table(figures))


# ── landmarks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def errors_by_condition(run: Run, faces: Sequence[Face], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Errors, predicted errors and shares of unsure crops, for each condition and for all together."""
    figures = {}
    everything: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    by_point: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for name, condition in ({n: EVERY[n] for n in names} | AUGMENTED).items():
        samples = [condition.crop(face, SEED) for face in faces]
        with_rows = find_with_rows(run, [sample.image for sample in samples])
        passes, rows = [each[:2] for each in with_rows], np.stack([row for _, _, row in with_rows])
        both = list(zip(passes, samples, strict=True))
        first = np.array([_error(one, sample.labels) for (one, _), sample in both])
        second = np.array([_error(two, sample.labels) for (_, two), sample in both])
        errors = np.stack([_errors(two, sample.points) for (_, two), sample in both])
        unshifted, uncertainty = errors.mean(axis=1), rows[:, -2]
        is_sure = np.array([two.are_sure for _, two in passes])
        mirrored = find(run, [np.ascontiguousarray(sample.image[:, ::-1]) for sample in samples])
        apart = [
            _mirror_error(straight, mirror, sample.image.shape[1])
            for ((_, straight), sample), (_, mirror) in zip(both, mirrored, strict=True)
        ]
        figures[name] = {
            "first_pass_percent": _percent(first.mean()),
            "error_percent": _percent(second.mean()),
            "unshifted_percent": _percent(unshifted.mean()),
            "unshifted_percent_p50": _percent(np.median(unshifted)),
            "unshifted_percent_p95": _percent(np.quantile(unshifted, 0.95)),
            "error_percent_where_sure": _percent(second[is_sure].mean()),
            "predicted_percent": _percent(uncertainty.mean()),
            "spearman": round(_spearman(uncertainty, second), 3),
            "spearman_unshifted": round(_spearman(uncertainty, unshifted), 3),
            "mirror_percent": _percent(np.mean(apart)),
            "unsure_percent": _percent(1 - is_sure.mean()),
            "eyes_covered_percent": _percent(np.mean(rows[:, 15] > MAX_EYES_HIDDEN)),
            "lower_face_covered_percent": _percent(np.mean(rows[:, 16] > MAX_LOWER_FACE_HIDDEN)),
        }
        if name in EVERY:  # AUGMENTED has training's own covers
            by_point.append((rows[:, 10:15].ravel(), errors.ravel()))
            everything.append((uncertainty, unshifted))
        print(name, figures[name], file=sys.stderr, flush=True)
    uncertainty, unshifted = (np.concatenate(column) for column in zip(*everything, strict=True))
    figures["all of these"] = {"spearman_unshifted": round(_spearman(uncertainty, unshifted), 3)}
    columns = (np.concatenate(column) for column in zip(*by_point, strict=True))
    figures["all of these"]["spearman_by_point"] = round(_spearman(*columns), 3)
    return figures


def non_faces(run: Run) -> dict[str, object]:
    """How many pictures of each kind that show no face are refused."""
    figures = {}
    refused: list[bool] = []
    for kind, pictures in check_set(SEED).items():
        unsure = [not second.are_sure for _, second in find(run, pictures)]
        figures[kind] = {"pictures": len(pictures), "unsure_percent": _percent(np.mean(unsure))}
        refused += unsure
    return {"unsure_percent": _percent(np.mean(refused)), "kinds": figures}


def _error(found: Landmarks, label: Points) -> float:
    """Mean distance in eye distances."""
    return float(_errors(found, label).mean())


def _errors(found: Landmarks, label: Points) -> NDArray[np.float64]:
    """Distance of each point in eye distances."""
    return np.asarray(np.linalg.norm(found.points - label, axis=1) / np.linalg.norm(label[1] - label[0]), np.float64)


def _mirror_error(found: Landmarks, in_mirror: Landmarks, width: int) -> float:
    """How far the landmarks of the mirrored crop are from the mirrored landmarks, in eye distances."""
    back = in_mirror.points[[1, 0, 2, 4, 3]] * [-1, 1] + [width - 1, 0]
    eyes = np.linalg.norm(found.points[1] - found.points[0])
    return float(np.linalg.norm(back - found.points, axis=1).mean() / eyes)


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Correlation of ranks; there are no ties among floats."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


def _percent(value: float) -> float:
    return round(100 * float(value), 2)


# ── verification ───────────────────────────────────────────────────────────────────────────────────────────────────

Pairs = list[tuple[int, int, bool]]


def official_pairs(folder: Path, faces: Sequence[Face]) -> Pairs:
    """LFW's own pairs as indices of faces."""
    index = {face.name: number for number, face in enumerate(faces)}
    with (folder / "pairs.csv").open(encoding="utf-8") as file:
        return [(index[r["image_a"]], index[r["image_b"]], r["same"] == "1") for r in csv.DictReader(file)]


def only_paired(faces: Sequence[Face], pairs: Pairs) -> tuple[list[Face], Pairs]:
    """Without the faces that are in no pair."""
    used = sorted({index for a, b, _ in pairs for index in (a, b)})
    place = {index: number for number, index in enumerate(used)}
    return [faces[index] for index in used], [(place[a], place[b], same) for a, b, same in pairs]


def verification(
    recogniser: Run, run: Run, faces: Sequence[Face], pairs: Pairs, names: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Balanced accuracy and TAR at FAR 1e-2, both in per cent, for three kinds of crops under each condition."""
    figures = {}
    for name in names:
        samples = [EVERY[name].crop(face, SEED) for face in faces]
        crops, labels = [sample.image for sample in samples], [sample.labels for sample in samples]
        found = [second for _, second in find(run, crops)]
        stretched = [cv2.resize(crop, (112, 112)) for crop in crops]
        kinds = {
            "stretched": stretched,
            "labels": [align(crop, points, 112) for crop, points in zip(crops, labels, strict=True)],
            "regressor": [_aligned(*each) for each in zip(crops, found, stretched, strict=True)],
        }
        figures[name] = {kind: _figures(recogniser, inputs, pairs) for kind, inputs in kinds.items()}
        print(name, figures[name], file=sys.stderr, flush=True)
    aligned = [align(face.image, face.points, 112) for face in faces]
    again = [_aligned(crop, second, crop) for crop, (_, second) in zip(aligned, find(run, aligned), strict=True)]
    figures["aligned already"] = {"labels": _figures(recogniser, aligned, pairs)}
    figures["aligned already"]["regressor"] = _figures(recogniser, again, pairs)
    print("aligned already", figures["aligned already"], file=sys.stderr, flush=True)
    return figures


def _aligned(image: Image, landmarks: Landmarks, plain: Image) -> Image:
    """The crop that the service makes of a picture with `align=auto`."""
    points, weights = landmarks.points, landmarks.weights
    if not landmarks.are_sure or lies_aligned(points, TEMPLATE, 112, *image.shape[:2], weights=weights):
        return plain
    return align(image, points, 112, weights=weights)


def _figures(recogniser: Run, crops: Sequence[Image], pairs: Pairs) -> list[float]:
    rows = [recogniser(to_tensor(crops[i : i + 16], RECOGNISER_INPUT)) for i in range(0, len(crops), 16)]
    embeddings = np.concatenate(rows)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    one, other, same = (np.array(column) for column in zip(*pairs, strict=True))
    scores = (embeddings[one] * embeddings[other]).sum(1).astype(np.float64)
    return [_percent(balanced_accuracy(scores, same)), _percent(tar_at_far(scores, same))]


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def put_into_card(text: str) -> None:
    """Replace the figures in the model card."""
    card = HERE / "MODEL_CARD.md"
    before, rest = card.read_text(encoding="utf-8").split(CARD_BEGIN)
    after = rest.split(CARD_END)[1]
    card.write_text(f"{before}{CARD_BEGIN}\n{text}{CARD_END}{after}", encoding="utf-8")


def table(figures: dict) -> str:
    """The figures as Markdown."""
    lines = []
    if errors := figures.get("errors"):
        columns = {
            "first pass": "first_pass_percent",
            "found": "error_percent",
            "unshifted": "unshifted_percent",
            "median": "unshifted_percent_p50",
            "95th percentile": "unshifted_percent_p95",
            "predicted": "predicted_percent",
            "mirror": "mirror_percent",
            "unsure": "unsure_percent",
            "Spearman": "spearman_unshifted",
            "eyes covered": "eyes_covered_percent",
            "lower face covered": "lower_face_covered_percent",
            "Spearman by point": "spearman_by_point",
        }
        columns = {title: key for title, key in columns.items() if any(key in row for row in errors.values())}
        lines += ["| crop | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
        for name, row in errors.items():
            cells = [_cell(key, row) for key in columns.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    if absent := figures.get("non_faces"):
        lines += ["| no face | pictures | unsure |", "| --- | --- | --- |"]
        lines += [f"| {k} | {r['pictures']} | {r['unsure_percent']:.1f} % |" for k, r in absent["kinds"].items()]
        lines += [f"| all | | {absent['unsure_percent']:.1f} % |", ""]
    if measured := figures.get("verification"):
        names = list(measured)
        lines.append("| crop | " + " | ".join(f"{n}: stretched | labels | regressor" for n in names) + " |")
        lines.append("| --- |" + " --- | --- | --- |" * len(names))
        for condition in measured[names[0]]:
            cells = []
            for name in names:
                row = measured[name][condition]
                cells += [
                    "{:.2f} / {:.2f}".format(*row[kind]) if kind in row else "" for kind in ("stretched", "labels")
                ]
                near = row["labels"][0] - row["regressor"][0]
                cells.append("{:.2f} / {:.2f}".format(*row["regressor"]) + (" (!)" if near > 0.3 else ""))
            lines.append(f"| {condition} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(key: str, row: dict[str, float]) -> str:
    if key not in row:
        return ""
    return f"{row[key]:.1f} %" if "percent" in key else f"{row[key]:.2f}"


if __name__ == "__main__":
    main()
