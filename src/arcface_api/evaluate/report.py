"""An evaluation as a table for a terminal, and as files: figures (JSON), plots (PNG), a page framed by report.html.

One module, because all forms show the same figures.
"""

import html
import json
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.resources import files
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from string import Template

from arcface_api.errors import ArcFaceError, EvaluationError
from arcface_api.evaluate.curve import (
    LEAST_FALSE_ACCEPTS,
    Figures,
    OperatingPoint,
    different_pairs_needed,
    one_in,
    percent,
    percents,
    shown_threshold,
    thresholds,
)
from arcface_api.evaluate.inputs import Pictures
from arcface_api.evaluate.run import ComparedPair, Evaluation, Preparation
from arcface_api.wire import Alignment
from arcface_api.wording import counted

JSON_NAME, REPORT_NAME = "evaluation.json", "report.html"
PLOTS = {
    "histogram": "Histogram of the similarities of both kinds of pairs, with the thresholds",
    "roc": "ROC curve: true accept rate over false accept rate",
    "det": "DET curve: false rejects over false accepts",
}
"""Name of the file without `.png`, and what it shows."""
LISTED_PICTURES = 1000
"""Of those that could not be embedded; the JSON lists all."""
WITHOUT_PLOTS = "Plots need matplotlib, which is not installed: pip install 'arcface-api[evaluate]', then run it again."
SCOPE = (
    "A threshold holds for one model (recognised by its fingerprint), for crops made and embedded in the same way, and"
    " for people and pictures like those of the pairs."
)
INDEPENDENCE = (
    "The 95 % intervals assume independent pairs; where the same pictures and people occur in many pairs, they are too"
    " narrow."
)


def text(evaluation: Evaluation) -> str:
    """What was compared, the table of figures, and how to read it."""
    facts = evaluation.facts
    return "\n".join(
        [
            f"{facts.model} ({facts.fingerprint}) on {facts.provider} in {facts.precision}; {_crops(evaluation)}",
            f"{_counts(evaluation.figures)} of {counted(len(evaluation.pairs.pictures), 'picture')}",
            "",
            *_table(evaluation.figures),
            "",
            "Accept two pictures as the same person when their similarity is at least the threshold.",
            SCOPE,
            INDEPENDENCE,
        ]
    )


def prepare_folder(folder: Path) -> None:
    """Make the folder, before anything is embedded. Raises EvaluationError if it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, "no permission")


def write(evaluation: Evaluation, folder: Path, faces: Mapping[str, bytes]) -> str:
    """Write the figures, the report with these thumbnails (`face_thumbnails`), and the plots where matplotlib is there.

    Files of the same names are replaced, and plots of an earlier run removed. Returns a sentence that names what was
    written; raises EvaluationError if a file cannot be written.
    """
    plots: dict[str, bytes] = {}
    if find_spec("matplotlib") is not None:
        from arcface_api.evaluate.plots import draw  # noqa: PLC0415  # an extra's library

        plots = draw(evaluation.figures)
    contents = {f"{name}.png": plot for name, plot in plots.items()}
    contents[JSON_NAME] = (json.dumps(evaluation.to_json(), indent=2, allow_nan=False) + "\n").encode()
    contents[REPORT_NAME] = page(evaluation, plots, faces).encode()
    try:
        for name in PLOTS:
            (folder / f"{name}.png").unlink(missing_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    written = f"The report is {folder / REPORT_NAME}; the figures{' and plots' if plots else ''} are beside it."
    return written if plots else f"{written} {WITHOUT_PLOTS}"


def face_thumbnails(evaluation: Evaluation, pictures: Pictures, preparation: Preparation) -> dict[str, bytes]:
    """Small JPEGs of the least plausible pairs, by the pictures' names; none of what this process cannot decode."""
    pairs = (*evaluation.doubtful_different, *evaluation.doubtful_same)
    faces = {}
    for name, content in pictures.read(sorted({name for pair in pairs for name in (pair.image_a, pair.image_b)})):
        with suppress(ArcFaceError):  # a service may take larger pictures than this process
            faces[name] = preparation.thumbnail(name, content)
    return faces


def page(evaluation: Evaluation, plots: Mapping[str, bytes], faces: Mapping[str, bytes]) -> str:
    """The report, with plots (PNG) and faces (JPEG) inside it."""
    found, facts, left_out = evaluation.figures, evaluation.facts, evaluation.left_out
    about = f"{facts.model}; {_crops(evaluation)}: {_counts(found)} from {evaluation.pairs.file}."
    warning = unlisted = listed = ""
    if left_out:
        warning = (
            f'<p class="card warning">{len(left_out):,} of {len(evaluation.pairs.pictures):,} pictures could not be'
            f" embedded, which leaves {counted(evaluation.pairs_left_out, 'pair')} out of all figures. The pictures"
            " are listed below, with the reasons.</p>"
        )
        if len(left_out) > LISTED_PICTURES:
            unlisted = f"<p>And {len(left_out) - LISTED_PICTURES:,} more, which {JSON_NAME} lists.</p>"
        listed = f"<h2>Pictures left out</h2>\n{_rows(islice(left_out.items(), LISTED_PICTURES))}{unlisted}"
    images = [f'<img src="{_data("png", content)}" alt="{PLOTS[name]}">' for name, content in plots.items()]
    gray = (
        f"Gray: thresholds so strict that fewer than {LEAST_FALSE_ACCEPTS} different-person pairs are accepted, too few"
        " to measure a rate."
    )
    return Template((files(__package__) / "report.html").read_text(encoding="utf-8")).substitute(
        model=html.escape(facts.model),
        about=html.escape(about),
        warning=warning,
        advice="\n".join(_card(target, point, found) for target, point in found.operating_points.items()),
        scope=SCOPE,
        independence=INDEPENDENCE,
        plots=f'<div class="plots">{"".join(images)}</div><p class="quiet">{gray}</p>'
        if plots
        else f"<p>{html.escape(WITHOUT_PLOTS)}</p>",
        faces="This page shows faces and names of files, which are personal data: keep it as you keep the pictures."
        " --no-faces leaves the faces out."
        if faces
        else "The faces were left out (--no-faces).",
        different="\n".join(_pair(pair, faces) for pair in evaluation.doubtful_different),
        same="\n".join(_pair(pair, faces) for pair in evaluation.doubtful_same),
        left_out=listed,
        table="\n".join(_table(found)),
        folds="Accuracy is the mean of the shares of both kinds of pairs that are verified correctly, each fold at the"
        " threshold that is best on the others; ± is the standard deviation of the folds. Folds:"
        f" {found.accuracy.division}."
        if found.accuracy
        else "",
        facts=_facts(evaluation),
    )


def _card(wanted: float, point: OperatingPoint | None, found: Figures) -> str:
    threshold, sentences = "", [f"{_too_few(wanted, found).capitalize()}."]
    if point is not None:
        shown, low_and_high = shown_threshold(point.threshold), thresholds(point.threshold_interval)
        threshold = f'<div class="threshold">{shown}</div>'
        sentences = [
            f"Accept two pictures as the same person when their similarity is at least {shown}.",
            f"This verifies {percent(point.tar)} of same-person pairs correctly (95 % interval:"
            f" {percents(point.tar_interval)}).",
            f"{point.false_accepts:,} of {found.curve.different:,} different-person pairs were accepted, so the true"
            f" rate is between {one_in(point.far_interval.high)} and {one_in(point.far_interval.low)}. The threshold"
            f" for exactly {one_in(wanted)} is between {low_and_high.replace(' to ', ' and ')}.",
        ]
    # Numbers stay on one line with what belongs to them.
    paragraphs = "".join(f"<p>{sentence}</p>" for sentence in sentences)
    paragraphs = paragraphs.replace(" %", "&nbsp;%").replace("1 in ", "1&nbsp;in&nbsp;")
    return (
        f'<div class="card advice"><div><div class="wanted">At most {one_in(wanted)}</div><div class="quiet">different'
        f" people accepted</div>{threshold}</div><div>{paragraphs}</div></div>"
    )


def _pair(pair: ComparedPair, faces: Mapping[str, bytes]) -> str:
    sides = []
    for name in (pair.image_a, pair.image_b):
        image = f'<img src="{_data("jpeg", faces[name])}" alt="">' if name in faces else ""
        sides.append(f"<figure>{image}<figcaption>{html.escape(name)}</figcaption></figure>")
    return f'<div class="pair"><div class="similarity">{pair.similarity:.4f}</div>{"".join(sides)}</div>'


def _facts(evaluation: Evaluation) -> str:
    """The facts of evaluation.json under their names there."""
    values = evaluation.to_json()
    machine = values["machine"]
    machine["packages"] = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    pairs = {f"pairs {name}": value for name, value in values["pairs"].items()}
    shown = {**values["model"], "crops": _crops(evaluation), **pairs, **machine}
    return _rows((name.replace("_", " "), str(value)) for name, value in shown.items() if value is not None)


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    cells = [f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows]
    return "\n".join(['<div class="scroll"><table>', *cells, "</table></div>"])


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def _table(found: Figures) -> list[str]:
    """Lines: a row for each wanted false accept rate, then the figures of the whole."""
    lines = [f"{'FAR at most':>12} {'threshold':>10} {'(95 % interval)':>17} {'TAR':>8} {'(95 % interval)':>17}"]
    for wanted, point in found.operating_points.items():
        if point is None:
            lines.append(f"{one_in(wanted):>12}  {_too_few(wanted, found)}")
        else:
            lines.append(
                f"{one_in(wanted):>12} {shown_threshold(point.threshold):>10}"
                f" {thresholds(point.threshold_interval):>17} {percent(point.tar):>8}"
                f" {percents(point.tar_interval):>17}"
            )
    accuracy = "no accuracy, which needs 10 pairs of each kind"
    if found.accuracy is not None:
        folds = len(found.accuracy.folds)
        accuracy = f"accuracy {percent(found.accuracy.mean)} ± {100 * found.accuracy.std:.2f} over {folds} folds"
    error_rate = f"equal error rate {percent(found.curve.equal_error_rate)}"
    return [*lines, "", f"{accuracy}; {error_rate}; area under the ROC {found.curve.area_under:.5f}"]


def _crops(evaluation: Evaluation) -> str:
    """How pictures became crops: `face boxes x1.2, align=auto, fit=stretch, 3 of 4,964 unsure and not aligned`."""
    facts, unsure = evaluation.facts, evaluation.alignments.get(Alignment.UNSURE, 0)
    words = [] if evaluation.margin is None else [f"face boxes x{evaluation.margin:g}"]
    words += [f"align={facts.align}", f"fit={facts.fit}", *(["flip=true"] if facts.flip else [])]
    if unsure:
        words.append(f"{unsure:,} of {sum(evaluation.alignments.values()):,} unsure and not aligned")
    return ", ".join(words)


def _counts(found: Figures) -> str:
    return f"{found.curve.same:,} same-person and {counted(found.curve.different, 'different-person pair')}"


def _too_few(wanted: float, found: Figures) -> str:
    return (
        f"too few pairs: this rate needs {counted(different_pairs_needed(wanted), 'different-person pair')}, so that"
        f" {LEAST_FALSE_ACCEPTS} are accepted; you have {found.curve.different:,}"
    )


def _unwritable(folder: Path, why: str | None) -> EvaluationError:
    return EvaluationError(f"{folder} cannot be written: {why}. Name another folder with --output.")
