"""What does Ray cost a job of `arcface-api embed` on one machine?

    python -m benchmarks.questions.ray_data --faces FOLDER --recogniser FILE --output benchmarks/results/ray-data.json

The same crops with `--engine local` and with `--engine ray`, a cluster of this machine alone, into a folder, in
interleaved rounds; medians. The rate is that between the first and the last part that was stored, so that it has no
part of the start; how long all of it took is stated, too. The outputs must be equal, row for row.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from pyarrow import parquet

from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.checks import broken
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import write_report

ENGINES = ("local", "ray")
PART_ROWS = 50


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    recogniser.add_option(parser)
    faces.add_option(parser)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    measured = measure(arguments)
    write_report({"machine": machine.describe(), **measured}, arguments.output)
    if found := broken(measured["checks"]):
        sys.exit(f"Broken: {', '.join(found)}")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both engines, in turn."""
    model = recogniser.find(arguments.recogniser)
    rounds: list[dict[str, dict[str, float]]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "crops").mkdir()
        for number, content in enumerate(faces.load(arguments.faces, arguments.pictures)):
            (folder / f"crops/{number:06}.jpg").write_bytes(content)
        embed(folder, model, "local", "first/")  # what the first start finds out is remembered
        while len(rounds) < arguments.rounds:
            found = {}
            for engine in ENGINES:
                say(f"round {len(rounds) + 1}: {engine}")
                found[engine] = embed(folder, model, engine, f"{engine}-{len(rounds)}/")
            rounds.append(found)
        outputs = [parquet.read_table(folder / f"{each}-0").replace_schema_metadata() for each in ENGINES]
        row_bytes = sum(path.stat().st_size for path in (folder / "local-0").glob("*.parquet")) / len(outputs[0])
        pictures = len(outputs[0])
    rates = {each: round(median(one[each]["pictures_per_second"] for one in rounds), 1) for each in ENGINES}
    seconds = {each: round(median(one[each]["seconds"] for one in rounds), 1) for each in ENGINES}
    equal = bool(outputs[0].equals(outputs[1]))
    return {
        "recogniser": recogniser.describe(model),
        "faces": faces.describe(arguments.faces),
        "pictures": pictures,
        "part_rows": PART_ROWS,
        "bytes_per_row": round(row_bytes),
        "rounds": rounds,
        "pictures_per_second": rates,
        "seconds": seconds,
        "of_local": round(rates["ray"] / rates["local"], 3),
        "checks": {"rows_are_equal": {"value": equal, "holds": equal}},
    }


def embed(folder: Path, model: Path, engine: str, out: str) -> dict[str, float]:
    """Run the job; the rate is that of the parts behind the first one."""
    command = [sys.executable, "-m", "arcface_api", "embed", "crops", "--out", out, "--pack", str(model)]
    command += ["--engine", engine, "--part-rows", str(PART_ROWS)]
    began = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    seconds = time.monotonic() - began
    stored = sorted(path.stat().st_mtime for path in (folder / out).glob("part-*"))
    rate = (len(stored) - 1) * PART_ROWS / (stored[-1] - stored[0])
    return {"pictures_per_second": round(rate, 1), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main()
