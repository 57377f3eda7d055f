"""What can the model alone do on this machine?

    python -m benchmarks.questions.bare build/iresnet100.onnx --batch 1 8

One process, one caller for each lane, no HTTP: crops in, features out, one batch after the other. Prints JSON.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.lib import faces
from benchmarks.lib.bare import ENGINES, open_engine, summary, time_batches


def main() -> None:
    """Run the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", choices=ENGINES, default="own")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--lanes", type=int, default=1, help="inferences side by side; 1 for onnxruntime (default 1)")
    parser.add_argument("--threads", type=int, help="of all lanes; of our own engine only (default: all CPUs)")
    parser.add_argument("--seconds", type=float, default=10, help="for each batch size")
    faces.add_option(parser)
    arguments = parser.parse_args()
    crops = [faces.decoded(picture) for picture in faces.load(arguments.faces)]
    started = time.perf_counter()
    lanes = arguments.lanes
    run = open_engine(arguments.engine, arguments.model, arguments.batch, arguments.threads, lanes)
    run(crops[:1])
    ready_seconds = time.perf_counter() - started
    batches = [
        summary(time_batches(run, crops, batch, arguments.seconds, lanes=lanes), batch, lanes=lanes)
        for batch in arguments.batch
    ]
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    found = {"ready_seconds": round(ready_seconds, 3), "rss_mb": rss_mb, "batches": batches}
    json.dump({"engine": arguments.engine, "lanes": lanes, **found}, sys.stdout)


if __name__ == "__main__":
    main()
