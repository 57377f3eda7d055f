"""Used naively, how much of the service's speed does the Python client reach, and does it lose a picture?

    python -m benchmarks.questions.client --recogniser MODEL.onnx --faces FOLDER --output benchmarks/results/client.json

Eight threads embed batches of 64 pictures each, together twice what the service holds (`ARCFACE_QUEUE_CAPACITY`): with
one client that they share, and with a client for each. Beside it, in the same rounds, the load generator of `load.py`:
single pictures of 16 callers, and batches of 64 of four callers, together as many as the service holds.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from arcface_api.bench.connection import Address
from arcface_api.client import Client, Embedding
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.load import batch_request, closed_loop, embed_request
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import free_port, own_command, running_service, write_report

THREADS, BATCH, CALLERS, BATCH_CALLERS = 8, 64, 16, 4
IMPORTS = 20
_IMPORT = """
import sys, time
sys.modules["click"] = None  # not in the bare package; with it, httpx loads its own command line
begin = time.perf_counter()
import arcface_api.client
print(time.perf_counter() - begin)
"""


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model, pictures = recogniser.find(arguments.recogniser), faces.load(arguments.faces)
    port = free_port()
    address = Address("127.0.0.1", port)
    url, seconds, warm_up = f"http://127.0.0.1:{port}", arguments.seconds, arguments.warm_up
    batches = [
        batch_request(address, [pictures[(start + each) % len(pictures)] for each in range(BATCH)])
        for start in range(8)
    ]
    candidates: dict[str, Callable[[], dict[str, Any]]] = {
        "load, single pictures": lambda: _load(
            address, [embed_request(address, each) for each in pictures], CALLERS, 1, seconds, warm_up
        ),
        "load, batches": lambda: _load(address, batches, BATCH_CALLERS, BATCH, seconds, warm_up),
        "client, shared": lambda: _naive(url, pictures, seconds, warm_up, shares=True),
        "client, one a thread": lambda: _naive(url, pictures, seconds, warm_up, shares=False),
    }
    rounds: list[dict[str, dict[str, Any]]] = []
    command = own_command(model, port, *arguments.serve_options)
    with running_service(command, port, embed_request(address, pictures[0])):
        for number in range(arguments.rounds):
            say(f"round {number + 1} of {arguments.rounds}")
            order = list(candidates.items())[:: -1 if number % 2 else 1]
            rounds.append({name: measure() for name, measure in order})
    loads, clients = ([name for name in candidates if name.startswith(kind)] for kind in ("load", "client"))
    write_report(
        {
            "benchmark": "client",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "threads": THREADS,
            "batch": BATCH,
            "pictures_per_second": {
                name: _median(rounds, lambda of, name=name: of[name]["pictures_per_second"]) for name in candidates
            },
            "ratios": {
                f"{client} / {load}": _median(
                    rounds,
                    lambda of, client=client, load=load: (
                        of[client]["pictures_per_second"] / of[load]["pictures_per_second"]
                    ),
                )
                for client in clients
                for load in loads
            },
            "lost": sum(of[name]["errors"] for of in rounds for name in candidates),
            "import_ms": _import_ms(),
            "rounds": rounds,
            "machine": machine.describe(),
        },
        arguments.output,
    )


def _median(rounds: Sequence[dict[str, dict[str, Any]]], figure: Callable[[dict[str, dict[str, Any]]], float]) -> float:
    return round(median(figure(of) for of in rounds), 3)


def _load(
    address: Address, requests: Sequence[bytes], callers: int, pictures: int, seconds: float, warm_up: float
) -> dict[str, Any]:
    report = closed_loop(address, requests, clients=callers, seconds=seconds, warm_up_seconds=warm_up)
    return {
        "pictures_per_second": report.served_per_second * pictures,
        "refused": report.refused,
        "errors": sum(report.failed.values()),
        "costs": report.costs,
    }


def _naive(url: str, pictures: Sequence[bytes], seconds: float, warm_up: float, *, shares: bool) -> dict[str, Any]:
    """Threads that embed batches until the time is over. Results within the measured time count."""
    begin = time.monotonic() + warm_up
    shared, came, errors, lock = Client(url), 0, [], threading.Lock()
    cpu = time.process_time()

    def job(thread: int) -> int:
        nonlocal came
        client, total = shared if shares else Client(url), 0
        while time.monotonic() < begin + seconds:
            batch = [pictures[(thread + each) % len(pictures)] for each in range(BATCH)]
            results = 0
            for result in client.embed_many(batch):
                results += 1
                now = time.monotonic()
                with lock:
                    came += begin <= now < begin + seconds
                    if not isinstance(result, Embedding):
                        errors.append(str(result))
            if results != BATCH:
                errors.append(f"{results} results for {BATCH} pictures")
            total += results
        return total

    with ThreadPoolExecutor(THREADS) as threads:
        total = sum(threads.map(job, range(THREADS)))
    return {
        "pictures_per_second": round(came / seconds, 3),
        "errors": len(errors),
        "embedded": total,
        "client_cpu_ms_a_picture": round((time.process_time() - cpu) * 1000 / total, 3),
    }


def _import_ms() -> float:
    """Of `import arcface_api.client` in a new process; its files are in the system's cache."""
    times = [
        float(subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True).stdout)
        for _ in range(IMPORTS)
    ]
    return round(median(times) * 1000, 1)


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    options.add_service(parser)
    parser.add_argument("--seconds", type=float, default=10, help="measured time of each run (default 10)")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before it that do not count (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    return parser


if __name__ == "__main__":
    main()
