"""An evaluation as files in a folder: all figures as JSON, the plots as PNG, and a report to read."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

from arcface_api.errors import EvaluationFailed
from arcface_api.evaluate.run import Evaluation

JSON_NAME = "evaluation.json"
REPORT_NAME = "report.html"


def prepare_folder(folder: Path) -> None:
    """Make the folder, and see that all can be written: before anything is embedded, and not after it.

    Raises:
        EvaluationFailed: It cannot be made or written, or matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise EvaluationFailed(
            "The plots of --output need matplotlib, which is not installed. Install it with pip install"
            " 'arcface-api[evaluate]', or leave out --output: then a table is printed."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, "no permission")


def write(evaluation: Evaluation, folder: Path) -> Path:
    """Write evaluation.json, histogram.png, roc.png, det.png and report.html; those that are there are replaced.

    Returns:
        The report's file.

    Raises:
        EvaluationFailed: A file cannot be written.
    """
    from arcface_api.evaluate import plots  # noqa: PLC0415  # an extra's library
    from arcface_api.evaluate.report import html  # noqa: PLC0415

    drawn = {
        draw.__name__: (draw(evaluation.figures, plots.LIGHT), draw(evaluation.figures, plots.DARK))
        for draw in (plots.histogram, plots.roc, plots.det)
    }
    files = {f"{name}.png": light for name, (light, _) in drawn.items()}
    files[JSON_NAME] = (json.dumps(evaluation.to_json(), indent=2, allow_nan=False) + "\n").encode()
    files[REPORT_NAME] = html(evaluation, drawn).encode()
    try:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    return folder / REPORT_NAME


def _unwritable(folder: Path, why: str | None) -> EvaluationFailed:
    return EvaluationFailed(f"{folder} cannot be written: {why}. Name another folder with --output.")
