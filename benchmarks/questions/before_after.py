"""What does a change cost a request? The road of `stages.py`, of two checkouts in turn.

    python -m benchmarks.questions.before_after ../before --faces FOLDER --output benchmarks/results/before-after.json

Each round measures the other checkout and this one, each with its own `stages.py`: CPU of each part alone,
and the service with a model that costs nothing. Medians of the rounds, and the ratio round by round.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lib import faces, machine, options
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import ROOT, write_report

_PROGRAM = """
import json, sys
from pathlib import Path
if Path("benchmarks/questions").is_dir():
    from benchmarks.lib import faces
    from benchmarks.questions import stages
else:  # a checkout in which benchmarks are no package yet
    import faces, stages
folder = Path(sys.argv[1]) if sys.argv[1] else None
json.dump(stages.measure_road(faces.load(folder), float(sys.argv[2])), sys.stdout)
"""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    trees = {"before": arguments.before.resolve(), "after": ROOT}
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(arguments.rounds):
        say(f"round {number + 1} of {arguments.rounds}")
        order = list(trees.items())[:: 1 if number % 2 else -1]  # neither is always the one that warms the machine up
        rounds.append({name: figures(measure(tree, arguments)) for name, tree in order})
    compared = {
        name: {
            "before": round(median(of["before"][name] for of in rounds), 2),
            "after": round(median(of["after"][name] for of in rounds), 2),
            "ratio": round(median(of["after"][name] / of["before"][name] for of in rounds), 4),
        }
        for name in rounds[0]["before"]
    }
    write_report(
        {
            "benchmark": "before_after",
            "before": _revision(trees["before"]),
            "faces": faces.describe(arguments.faces),
            "seconds": arguments.seconds,
            "compared": compared,
            "rounds": rounds,
            "machine": machine.describe(),
        },
        arguments.output,
    )


def measure(tree: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """`stages.measure_road` of a checkout, in a process that finds its modules and no others."""
    paths = os.pathsep.join([str(tree / "src"), str(tree), str(tree / "benchmarks")])
    command = [sys.executable, "-c", _PROGRAM, str(arguments.faces or ""), str(arguments.seconds)]
    environment = os.environ | {"PYTHONPATH": paths}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=tree).stdout
    found: dict[str, Any] = json.loads(output)
    return found


def figures(road: dict[str, Any]) -> dict[str, float]:
    """The numbers of one road by name."""
    alone = {f"{name}, alone, CPU us": value for name, value in road["alone_us"].items()}
    served = {
        f"{clients}, {what}": load[what]
        for clients, load in road.items()
        if clients.endswith(" clients")
        for what in ("requests_per_second", "p50_ms", "service_cpu_us")
    }
    return alone | served


def _revision(tree: Path) -> str:
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("before", type=Path, help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4, help="for each load (default 4)")
    faces.add_option(parser)
    return parser


if __name__ == "__main__":
    main()
