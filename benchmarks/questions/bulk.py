"""How fast is `arcface-api embed`, and how much memory does a long job take?

    python -m benchmarks.questions.bulk rate --faces FOLDER --output benchmarks/results/bulk-iresnet100.json
    python -m benchmarks.questions.bulk memory --output benchmarks/results/bulk-memory.json

rate: the job on a folder of face crops, the bare session with one and two lanes, and a plain loop over the insightface
package's recogniser (`get_feat` on each file, one by one), in interleaved rounds; medians. The job's rate counts
everything from the loaded model to the finished file. memory: a job of many
small pictures with a tiny recogniser, so that what grows with the number of pictures shows; resident memory of the
process, sampled.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import onnx

from benchmarks.lib import faces, machine, networks, options, recogniser
from benchmarks.lib.bare import run_bare
from benchmarks.lib.checks import at_least, at_most, broken
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import write_report
from benchmarks.lib.usage import UsageWatch

FACES = 64
BATCHES = (8,)
PICTURES_A_FOLDER = 1000
PLAIN_LOOP = """
import sys, time
from pathlib import Path
import cv2
from insightface.model_zoo.arcface_onnx import ArcFaceONNX

recogniser = ArcFaceONNX(sys.argv[1])
recogniser.prepare(ctx_id=-1)
paths = sorted(map(str, Path(sys.argv[2]).iterdir()))
recogniser.get_feat(cv2.imread(paths[0]))
started, done = time.perf_counter(), 0
while time.perf_counter() < started + float(sys.argv[3]):
    recogniser.get_feat(cv2.imread(paths[done % len(paths)]))
    done += 1
print(done / (time.perf_counter() - started))
"""


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    rate = kinds.add_parser("rate")
    recogniser.add_option(rate)
    faces.add_option(rate)
    rate.add_argument("--rounds", type=int, default=3)
    rate.add_argument("--seconds", type=float, default=12, help="of a plain loop; the job gets five times as many")
    memory = kinds.add_parser("memory")
    memory.add_argument("--pictures", type=int, default=100_000)
    for kind in (rate, memory):
        kind.add_argument("--output", type=Path, help="also write the result, JSON, to this file")
    arguments = parser.parse_args()
    measured = measure_rate(arguments) if arguments.kind == "rate" else measure_memory(arguments.pictures)
    write_report({"machine": machine.describe(), **measured}, arguments.output)
    if found := broken(measured["checks"]):
        sys.exit(f"Broken: {', '.join(found)}")


def measure_rate(arguments: argparse.Namespace) -> dict[str, Any]:
    """The three ways, in turn."""
    model, seconds = recogniser.find(arguments.recogniser), arguments.seconds
    rounds: list[dict[str, float]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        crops = folder / "crops"
        crops.mkdir()
        contents = faces.load(arguments.faces, FACES)
        for number, content in enumerate(contents):
            (crops / f"{number:06}.jpg").write_bytes(content)
        embed(folder, model, "first.parquet")  # what the first start finds out is remembered
        while len(rounds) < arguments.rounds:
            found: dict[str, float] = {}
            for lanes in (1, 2):
                say(f"round {len(rounds) + 1}: the bare session, {lanes} lanes")
                bare = run_bare(model, arguments.faces, BATCHES, seconds / 2, lanes=lanes)["batches"]
                found |= {f"bare, {lanes} lanes, batch {each['batch']}": each["faces_per_second"] for each in bare}
            best = max(found.values())
            for number in range(len(contents), round(best * seconds * 5)):  # as many as it takes
                path = crops / f"{number:06}.jpg"
                if not path.exists():
                    path.write_bytes(contents[number % len(contents)])
            say(f"round {len(rounds) + 1}: the job")
            found["job"] = embed(folder, model, f"{len(rounds)}.parquet")["faces_per_second"]
            say(f"round {len(rounds) + 1}: a plain loop")
            loop = [sys.executable, "-W", "ignore", "-c", PLAIN_LOOP, str(model), str(crops), str(seconds)]
            found["plain loop"] = float(
                subprocess.run(loop, check=True, capture_output=True, text=True).stdout.split()[-1]
            )
            rounds.append(found)
        pictures = len(list(crops.iterdir()))
    rates = {name: round(median(each[name] for each in rounds), 2) for name in rounds[0]}
    best = max(rate for name, rate in rates.items() if name.startswith("bare"))
    best_round = max(rate for each in rounds for name, rate in each.items() if name.startswith("bare"))
    return {
        "recogniser": recogniser.describe(model),
        "faces": faces.describe(arguments.faces),
        "pictures": pictures,
        "rounds": rounds,
        "faces_per_second": rates,
        "of_bare_in_its_best_round": round(rates["job"] / best_round, 4),
        "of_bare": round(rates["job"] / best, 4),
        "of_plain_loop": round(rates["job"] / rates["plain loop"], 2),
        "checks": {"of_bare": at_least(rates["job"] / best, 0.97)},
    }


def embed(folder: Path, model: Path, out: str, *more: str, crops: str = "crops") -> dict[str, Any]:
    """Run the job, with its memory; the rate is what its summary says."""
    command = [sys.executable, "-m", "arcface_api", "embed", crops, "--out", out, "--pack", str(model), *more]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=os.environ) as job:
        with UsageWatch(job.pid, 0.25) as watch:
            assert job.stdout is not None
            said = job.stdout.read()
        if job.wait():
            raise SystemExit(f"The job failed: {said}")
    rate = re.search(r"in ([\d,.]+) s, ([\d,.]+) a second", said)
    assert rate, said
    return {"faces_per_second": float(rate[2].replace(",", "")), "watch": watch, "said": said}


def measure_memory(pictures: int) -> dict[str, Any]:
    """A job of this many small pictures."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        say(f"Making {pictures:,} pictures ...")
        rng = np.random.default_rng(0)
        for number in range(pictures):
            path = folder / "crops" / f"{number // PICTURES_A_FOLDER:04}" / f"{number:07}.jpg"
            if number % PICTURES_A_FOLDER == 0:
                path.parent.mkdir(parents=True)
            coarse = rng.integers(0, 256, (3, 3, 3)).astype(np.uint8)
            path.write_bytes(cv2.imencode(".jpg", cv2.resize(coarse, (32, 32)))[1].tobytes())
        onnx.save(networks.linear(112, 112, 512), folder / "tiny.onnx")
        say("Embedding them ...")
        began = time.monotonic()
        found = embed(folder, folder / "tiny.onnx", "out.parquet")
        seconds = time.monotonic() - began
    watch: UsageWatch = found["watch"]
    rss = [round(sample.rss_bytes / 1e6, 1) for sample in watch.samples if sample.rss_bytes]
    fifth = len(rss) // 5
    return {
        "pictures": pictures,
        "faces_per_second": found["faces_per_second"],
        "seconds": round(seconds, 1),
        "rss_mb": {
            "after_warm_up": median(rss[fifth : 2 * fifth]),
            "last_fifth": median(rss[-fifth:]),
            "most": max(rss),
            "tenths": [median(rss[len(rss) * tenth // 10 : len(rss) * (tenth + 1) // 10]) for tenth in range(10)],
        },
        "growth": round(watch.rss_growth or 0, 4),
        "checks": {
            "growth": at_most(watch.rss_growth, 1.1),
            "most": at_most(max(rss) / median(rss[fifth : 2 * fifth]), 1.1),  # while the file is written
        },
    }


if __name__ == "__main__":
    main()
