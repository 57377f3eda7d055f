"""Does the event loop stay free? Latency of /livez while eight callers embed without a pause.

    python -m benchmarks.questions.livez RECOGNISER.onnx PICTURE [--seconds 20]

Starts the service on loopback, stops it, and prints the result as JSON; `--output` also writes it to a file.
"""

import threading
import time
from pathlib import Path

import httpx
import numpy as np

from arcface_api.bench.connection import Address
from benchmarks.lib import machine, options
from benchmarks.lib.load import embed_request
from benchmarks.lib.service import free_port, own_command, running_service, write_report

CALLERS = 8


def measure(service: str, picture: bytes, seconds: float) -> dict[str, object]:
    """Latencies of /livez in milliseconds, alone and under load, and what the load was."""
    end = threading.Event()
    embeds: list[float] = []

    def embed() -> None:
        with httpx.Client(base_url=service, timeout=60) as client:
            while not end.is_set():
                started = time.perf_counter()
                client.post("/embed", files={"file": picture}).raise_for_status()
                embeds.append((time.perf_counter() - started) * 1000)

    alone = poll(service, seconds / 4)
    callers = [threading.Thread(target=embed) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    time.sleep(2)
    loaded = poll(service, seconds)
    end.set()
    for caller in callers:
        caller.join()
    return {"callers": CALLERS, "livez_alone_ms": alone, "livez_loaded_ms": loaded, "embed_ms": summary(embeds)}


def poll(service: str, seconds: float) -> dict[str, float]:
    """Ask /livez every 10 ms."""
    took = []
    end = time.perf_counter() + seconds
    with httpx.Client(base_url=service, timeout=60) as client:
        while time.perf_counter() < end:
            started = time.perf_counter()
            client.get("/livez").raise_for_status()
            took.append((time.perf_counter() - started) * 1000)
            time.sleep(0.01)
    return summary(took)


def summary(took_ms: list[float]) -> dict[str, float]:
    """Count, median, 99th percentile and maximum, in milliseconds."""
    median, p99 = np.percentile(took_ms, [50, 99])
    return {"n": len(took_ms), "p50": round(median, 2), "p99": round(p99, 2), "max": round(max(took_ms), 2)}


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("recogniser", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    picture, port = arguments.picture.read_bytes(), free_port()
    first = embed_request(Address("127.0.0.1", port), picture)
    with running_service(own_command(arguments.recogniser, port, "--device", "cpu"), port, first):
        result = measure(f"http://127.0.0.1:{port}", picture, arguments.seconds)
    write_report(
        {"benchmark": "livez", "recogniser": arguments.recogniser.name, **result, "machine": machine.describe()},
        arguments.output,
    )


if __name__ == "__main__":
    main()
