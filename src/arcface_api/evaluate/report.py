"""An evaluation as a table for a terminal, and as files: figures (JSON), plots (PNG), and one self-contained web page.

`report.html` beside this module is the frame of the page.
"""

import html
import json
import math
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from arcface_api.errors import ArcFaceError, EvaluationFailed
from arcface_api.evaluate.curve import LEAST_FALSE_ACCEPTS, Interval, OperatingPoint, different_pairs_needed
from arcface_api.evaluate.pictures import Pictures, Preparation
from arcface_api.evaluate.run import ComparedPair, Evaluation
from arcface_api.wire import Alignment

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
    "The intervals are of 95 % and assume independent pairs; where the same pictures and people occur in many pairs,"
    " they are too narrow."
)
GRAY = (
    f"Gray: thresholds so strict that fewer than {LEAST_FALSE_ACCEPTS} different-person pairs are accepted, too few to"
    " measure a rate."
)
FOLDS = (
    "Accuracy is the mean of the shares of both kinds of pairs that are verified correctly, each fold at the threshold"
    " that is best on the others; ± is the standard deviation of the folds. Folds:"
)
WITH_FACES = (
    "This page shows faces and names of files, which are personal data: keep it as you keep the pictures. --no-faces"
    " leaves the faces out."
)
WITHOUT_FACES = "The faces were left out (--no-faces)."


def text(evaluation: Evaluation) -> str:
    """A row for each wanted false accept rate, and the figures of the whole."""
    found, facts = evaluation.figures, evaluation.facts
    lines = [
        f"{facts.model} ({facts.fingerprint}) on {facts.provider} in {facts.precision}; {_crops(evaluation)}",
        f"{found.same:,} same-person and {found.different:,} different-person pairs of"
        f" {len(evaluation.pairs.pictures):,} pictures",
        "",
        f"{'FAR at most':>12} {'threshold':>10} {'(95 % interval)':>17} {'TAR':>8} {'(95 % interval)':>17}",
    ]
    for wanted, point in found.operating_points.items():
        if point is None:
            lines.append(f"{one_in(wanted):>12}  {_too_few(wanted, found.different)}")
        else:
            lines.append(
                f"{one_in(wanted):>12} {shown_threshold(point.threshold):>10}"
                f" {thresholds(point.threshold_interval):>17} {percent(point.tar):>8}"
                f" {percents(point.tar_interval):>17}"
            )
    advice = "Accept two pictures as the same person when their similarity is at least the threshold."
    return "\n".join([*lines, "", _whole(evaluation), f"{advice} {SCOPE}", INDEPENDENCE])


def one_in(rate: float) -> str:
    """0.01 as `1 in 100`."""
    return "none" if rate == 0 else f"1 in {1 / rate:,.0f}" if rate < 0.095 else f"1 in {1 / rate:.3g}"


def shown_threshold(threshold: float) -> str:
    """Four digits, rounded up: rounded down, it would accept more than was measured."""
    return f"{math.ceil(threshold * 10_000 - 1e-9) / 10_000:.4f}"


def percent(share: float) -> str:
    """Two digits, and 100 only where nothing is missing."""
    rounded = f"{100 * share:.2f}"
    return ("100" if share == 1 else "99.99" if rounded == "100.00" else rounded) + " %"


def percents(interval: Interval) -> str:
    """`98.10 to 99.20 %`."""
    return f"{percent(interval.low).removesuffix(' %')} to {percent(interval.high)}"


def thresholds(interval: Interval) -> str:
    """`0.2011 to 0.2267`."""
    return f"{shown_threshold(interval.low)} to {shown_threshold(interval.high)}"


def prepare_folder(folder: Path) -> None:
    """Make the folder, before anything is embedded.

    Raises:
        EvaluationFailed: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, "no permission")


def write(evaluation: Evaluation, folder: Path, faces: Mapping[str, bytes]) -> str:
    """Write the figures, the report with these thumbnails (`face_thumbnails`), and the plots where matplotlib is there.

    Files of the same names are replaced, and plots of an earlier run removed.

    Returns:
        A sentence that names what was written.

    Raises:
        EvaluationFailed: A file cannot be written.
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
    names = {name: None for pair in pairs for name in (pair.image_a, pair.image_b)}
    faces = {}
    for name, content in pictures.read([*names]):
        try:
            faces[name] = preparation.thumbnail(name, content)
        except ArcFaceError:  # a service may take larger pictures than this process
            continue
    return faces


def page(evaluation: Evaluation, plots: Mapping[str, bytes], faces: Mapping[str, bytes]) -> str:
    """The report, with plots (PNG) and faces (JPEG) inside it."""
    found, left_out = evaluation.figures, evaluation.left_out
    warning = (
        f"{len(left_out):,} of {len(evaluation.pairs.pictures):,} pictures could not be embedded, and"
        f" {evaluation.pairs_left_out:,} pairs are left out of all figures. The pictures are listed below, with the"
        " reasons."
    )
    images = [
        f'<img src="data:image/png;base64,{b64encode(plots[name]).decode()}" alt="{text}">'
        for name, text in PLOTS.items()
        if name in plots
    ]
    listed = "" if not left_out else _left_out(left_out)
    return Template((files(__package__) / "report.html").read_text(encoding="utf-8")).substitute(
        model=html.escape(evaluation.facts.model),
        about=html.escape(
            f"{evaluation.facts.model}; {_crops(evaluation)}: {found.same:,} same-person and {found.different:,}"
            f" different-person pairs from {evaluation.pairs.file}."
        ),
        warning=f'<p class="card warning">{warning}</p>' if left_out else "",
        advice="\n".join(_card(wanted, point, found.different) for wanted, point in found.operating_points.items()),
        scope=SCOPE,
        independence=INDEPENDENCE,
        plots="\n".join(images) or f"<p>{html.escape(WITHOUT_PLOTS)}</p>",
        gray=f'<p class="quiet">{GRAY}</p>' if plots else "",
        whole=_sentence(_whole(evaluation)),
        folds=f'<p class="quiet">{FOLDS} {found.accuracy.division}.</p>' if found.accuracy else "",
        figures=_figures(evaluation),
        faces=WITH_FACES if faces else WITHOUT_FACES,
        different=_doubtful(evaluation.doubtful_different, faces),
        same=_doubtful(evaluation.doubtful_same, faces),
        left_out=listed,
        facts=_facts(evaluation),
    )


def _card(wanted: float, point: OperatingPoint | None, different: int) -> str:
    threshold, sentences = "", [_sentence(_too_few(wanted, different)) + "."]
    if point is not None:
        threshold = f'<div class="threshold">{shown_threshold(point.threshold)}</div>'
        rates = f"{one_in(point.far_interval.high)} and {one_in(point.far_interval.low)}"
        sentences = [
            f"Accept two pictures as the same person when their similarity is at least"
            f" {shown_threshold(point.threshold)}.",
            f"This verifies {percent(point.tar)} of same-person pairs correctly (95 % interval:"
            f" {percents(point.tar_interval)}).",
            f"{point.false_accepts:,} of {different:,} different-person pairs were accepted, so the true rate is"
            f" between {rates}. The threshold for exactly {one_in(wanted)} is between"
            f" {thresholds(point.threshold_interval).replace(' to ', ' and ')}.",
        ]
    return (
        f'<div class="card advice"><div><div class="wanted">At most {one_in(wanted)}</div><div class="quiet">different'
        f" people accepted</div>{threshold}</div><div>{''.join(f'<p>{each}</p>' for each in sentences)}</div></div>"
    )


def _figures(evaluation: Evaluation) -> str:
    rows = [
        (
            one_in(wanted),
            shown_threshold(point.threshold),
            thresholds(point.threshold_interval),
            percent(point.far),
            percents(point.far_interval),
            percent(point.tar),
            percents(point.tar_interval),
        )
        if point
        else (one_in(wanted), "too few pairs", *[""] * 5)
        for wanted, point in evaluation.figures.operating_points.items()
    ]
    return _table(("FAR at most", "threshold", "95 %", "FAR measured", "95 %", "TAR", "95 %"), rows, kind="figures")


def _doubtful(pairs: Sequence[ComparedPair], faces: Mapping[str, bytes]) -> str:
    def side(name: str) -> str:
        data = f"data:image/jpeg;base64,{b64encode(faces[name]).decode()}" if name in faces else ""
        image = f'<span class="face"><img src="{data}" alt=""></span>' if data else ""
        return f"<figure>{image}<figcaption>{html.escape(name)}</figcaption></figure>"

    return "\n".join(
        f'<div class="pair"><div class="similarity">{pair.similarity:.4f}</div>{side(pair.image_a)}{side(pair.image_b)}'
        "</div>"
        for pair in pairs
    )


def _left_out(left_out: Mapping[str, str]) -> str:
    listed = list(left_out.items())[:LISTED_PICTURES]
    more = len(left_out) - len(listed)
    rest = f"<p>And {more:,} more, which {JSON_NAME} lists.</p>" if more else ""
    table = _table(("picture", "why it could not be embedded"), listed)
    return f'<h2>Pictures left out</h2>\n<div class="scroll">{table}</div>{rest}'


def _facts(evaluation: Evaluation) -> str:
    values = evaluation.to_json()
    facts, pairs, machine = values["model"], values["pairs"], values["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    rows = [
        ("model", f"{facts['model']} of the pack {facts['pack']}, {facts['embedding_dim']} numbers"),
        ("fingerprint", facts["fingerprint"]),
        *([("landmark regressor", f"SHA-256 {facts['regressor_sha256']}")] if facts["regressor_sha256"] else []),
        ("ran on", f"{facts['provider']} in {facts['precision']}, arcface-api {facts['version']}"),
        ("where", f"the service at {facts['url']}" if facts["url"] else "in this process"),
        ("crops", _crops(evaluation)),
        ("pairs", f"{pairs['file']} (SHA-256 {pairs['sha256']}), {pairs['pictures']:,} pictures"),
        ("evaluated by", f"arcface-api {values['version']}, Python {machine['python']}, {packages}"),
        ("machine", f"{machine['cpus']} CPUs of {machine['processor'] or 'unknown make'}, {machine['system']}"),
    ]
    return _table((), rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "names") -> str:
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([f'<table class="{kind}">', f"<tr>{head}</tr>" if head else "", *body, "</table>"])


def _crops(evaluation: Evaluation) -> str:
    """How pictures became crops: `face boxes x1.2, align=auto, fit=stretch, 3 of 4,964 unsure and not aligned`."""
    facts, unsure = evaluation.facts, evaluation.alignments.get(Alignment.UNSURE, 0)
    words = [] if evaluation.margin is None else [f"face boxes x{evaluation.margin:g}"]
    words += [f"align={facts.align}", f"fit={facts.fit}"]
    if facts.flip:
        words.append("flip=true")
    if unsure:
        words.append(f"{unsure:,} of {sum(evaluation.alignments.values()):,} unsure and not aligned")
    return ", ".join(words)


def _whole(evaluation: Evaluation) -> str:
    """Accuracy, equal error rate and area under the curve in a line."""
    found = evaluation.figures
    accuracy = "no accuracy, which takes 10 pairs of each kind"
    if found.accuracy is not None:
        spread = f"± {100 * found.accuracy.std:.2f} over {len(found.accuracy.folds)} folds"
        accuracy = f"accuracy {percent(found.accuracy.mean)} {spread}"
    rest = f"equal error rate {percent(found.equal_error_rate)}; area under the ROC {found.area_under_roc:.5f}"
    return f"{accuracy}; {rest}"


def _too_few(wanted: float, different: int) -> str:
    return (
        f"too few pairs: this rate takes {different_pairs_needed(wanted):,} different-person pairs, so that"
        f" {LEAST_FALSE_ACCEPTS} are accepted; there are {different:,}"
    )


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _unwritable(folder: Path, why: str | None) -> EvaluationFailed:
    return EvaluationFailed(f"{folder} cannot be written: {why}. Name another folder with --output.")
