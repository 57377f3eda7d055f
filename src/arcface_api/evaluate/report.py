"""An evaluation as one web page that needs nothing else: plots inside it, no network, readable on a telephone.

Its frame and style are `report.html` beside this module; here it is filled.
"""

import html as escaping
from base64 import b64encode
from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template

from arcface_api.evaluate.advice import (
    INDEPENDENCE,
    SCOPE,
    Advice,
    advise,
    one_in,
    percent,
    percents,
    shown_threshold,
    thresholds,
)
from arcface_api.evaluate.operating_points import LEAST_FALSE_ACCEPTS
from arcface_api.evaluate.run import ComparedPair, Evaluation
from arcface_api.evaluate.table import told_crops, whole

PLOT_TEXTS = {
    "histogram": "Histogram of the similarities of both kinds of pairs, with the thresholds",
    "roc": "ROC curve: true over false accept rate",
    "det": "DET curve: false rejects over false accepts",
}
LISTED_PICTURES = 1000
"""Of those left out; the JSON has all of them."""


def html(evaluation: Evaluation, plots: Mapping[str, tuple[bytes, bytes]]) -> str:
    """The page.

    Args:
        evaluation: What it tells of.
        plots: PNGs by name (`histogram`, `roc`, `det`), each for light and for dark surroundings.
    """
    found, facts = evaluation.figures, evaluation.facts
    advised = zip(advise(found), found.operating_points.values(), strict=True)
    return Template((files(__package__) / "report.html").read_text(encoding="utf-8")).substitute(
        model=_text(facts.model),
        about=_text(
            f"{facts.model}; {told_crops(evaluation)}: {found.same:,} pairs of one person and {found.different:,} of"
            f" two, from {evaluation.pairs.file}."
        ),
        warning=_warning(evaluation),
        advice="\n".join(
            _card(advice, shown_threshold(point.threshold) if point else None) for advice, point in advised
        ),
        scope=_text(SCOPE),
        independence=_text(INDEPENDENCE),
        plots="\n".join(_picture(name, *both) for name, both in plots.items()),
        least=LEAST_FALSE_ACCEPTS,
        whole=_text(_sentence(whole(evaluation))),
        folds=_text(_folds(evaluation)),
        figures=_figures(evaluation),
        doubtful=_doubtful(evaluation),
        left_out=_left_out(evaluation),
        facts=_facts(evaluation),
    )


def _card(advice: Advice, threshold: str | None) -> str:
    shown = f'<div class="threshold">{threshold}</div>' if threshold else ""
    sentences = [_sentence(advice.rule), advice.effect]
    told = "".join(f"<p>{_text(sentence)}</p>" for sentence in sentences if sentence)
    certainty = f'<p class="quiet">{_text(advice.certainty)}</p>' if advice.certainty else ""
    return (
        f'<div class="card advice"><div><div class="wanted">At most {advice.wanted}</div>'
        f'<div class="quiet">strangers pass</div>{shown}</div><div>{told}{certainty}</div></div>'
    )


def _warning(evaluation: Evaluation) -> str:
    if not evaluation.left_out:
        return ""
    told = (
        f"{len(evaluation.left_out):,} of {len(evaluation.pairs.pictures):,} pictures could not be embedded, and"
        f" {evaluation.pairs_left_out:,} pairs are left out of all figures. They are listed below, with the reasons."
    )
    return f'<p class="card warning">{_text(told)}</p>'


def _picture(name: str, light: bytes, dark: bytes) -> str:
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_data(dark)}">'
        f'<img src="{_data(light)}" alt="{_text(PLOT_TEXTS[name])}"></picture>'
    )


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _folds(evaluation: Evaluation) -> str:
    accuracy = evaluation.figures.accuracy
    if accuracy is None:
        return ""
    return (
        "Accuracy is the mean of the shares of both kinds of pairs that are told right, of each fold at the threshold"
        f" that is best on the others; ± is the standard deviation of the folds. Folds: {accuracy.division}."
    )


def _figures(evaluation: Evaluation) -> str:
    titles = ("FAR at most", "threshold", "95 %", "FAR measured", "95 %", "TAR", "95 %")
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
        else (one_in(wanted), "cannot be told", *[""] * 5)
        for wanted, point in evaluation.figures.operating_points.items()
    ]
    return _table(titles, rows, kind="figures")


def _doubtful(evaluation: Evaluation) -> str:
    def rows(label: str, pairs: tuple[ComparedPair, ...]) -> list[tuple[str, ...]]:
        return [(label, f"{pair.similarity:.4f}", pair.image_a, pair.image_b) for pair in pairs]

    listed = rows("two people, and most similar", evaluation.doubtful_different)
    listed += rows("one person, and least similar", evaluation.doubtful_same)
    return _table(("labelled as", "similarity", "image_a", "image_b"), listed)


def _left_out(evaluation: Evaluation) -> str:
    if not evaluation.left_out:
        return ""
    listed = list(evaluation.left_out.items())[:LISTED_PICTURES]
    more = len(evaluation.left_out) - len(listed)
    rest = f"<p>And {more:,} more, which evaluation.json lists.</p>" if more else ""
    table = _table(("picture", "why it could not be embedded"), listed)
    return f'<h2>Pictures left out</h2>\n<div class="scroll">{table}</div>{rest}'


def _facts(evaluation: Evaluation) -> str:
    told = evaluation.to_json()
    facts, pairs, machine = told["model"], told["pairs"], told["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    rows = [
        ("model", f"{facts['model']} of the pack {facts['pack']}, {facts['embedding_dim']} numbers"),
        ("fingerprint", facts["fingerprint"]),
        *([("landmark regressor", f"SHA-256 {facts['regressor_sha256']}")] if facts["regressor_sha256"] else []),
        ("ran on", f"{facts['provider']} in {facts['precision']}, arcface-api {facts['version']}"),
        ("where", f"the service at {facts['url']}" if facts["url"] else "in this process"),
        ("crops", told_crops(evaluation)),
        ("pairs", f"{pairs['file']} (SHA-256 {pairs['sha256']}), {pairs['pictures']:,} pictures"),
        ("evaluated by", f"arcface-api {told['version']}, Python {machine['python']}, {packages}"),
        ("machine", f"{machine['cpus']} CPUs of {machine['processor'] or 'unknown make'}, {machine['system']}"),
    ]
    return _table(("", ""), rows)


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, kind: str = "names") -> str:
    head = [f"<tr>{''.join(f'<th>{_text(title)}</th>' for title in titles)}</tr>"] if any(titles) else []
    body = ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([f'<table class="{kind}">', *head, *body, "</table>"])


def _sentence(told: str) -> str:
    return told[0].upper() + told[1:]


def _text(told: str) -> str:
    return escaping.escape(told)
