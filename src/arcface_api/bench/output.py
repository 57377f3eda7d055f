"""A measurement as files: all figures as JSON, and the plot beside it."""

import json
from pathlib import Path

from arcface_api.bench.measure import Measurement
from arcface_api.bench.plot import svg
from arcface_api.errors import MeasurementFailed


def write(measurement: Measurement, output: Path) -> Path:
    """Write FILE.json and FILE.svg.

    Args:
        measurement: What was measured.
        output: The file for the figures, ending in `.json`.

    Returns:
        The plot's file.

    Raises:
        MeasurementFailed: A file cannot be written.
    """
    plot = output.with_suffix(".svg")
    try:
        output.write_text(json.dumps(measurement.to_json(), indent=2) + "\n", encoding="utf-8")
        plot.write_text(svg(measurement), encoding="utf-8")
    except OSError as error:
        raise MeasurementFailed(
            f"{error.filename or output} cannot be written: {error.strerror}. Name another --output; the figures stand"
            " above."
        ) from error
    return plot
