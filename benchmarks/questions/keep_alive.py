"""Is a request lost that comes on a connection which was kept, at the moment at which the service closes it?

    python -m benchmarks.questions.keep_alive [--connections 200]

Four clients at once (a socket, Python's requests, Java's HttpClient, Node's fetch, where installed), each with so many
connections, post a face, wait, and post again on the same connection. `on_kept_connections` counts in the service's
access log how many of these requests came on a connection that had served one before: the others could not be lost. A
client that reads `Keep-Alive: timeout=` (Node's) opens a new one when the time is over. Beside the service, the same on
uvicorn as it comes shows that requests can be lost; it also refuses those that offer HTTP/2, as Java's do. Fails if the
service loses one until its time is over; what happens when it closes, 3 seconds later, is shown beside. The model is a
tiny one.
"""

import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import cv2
import onnx

from arcface_api.bench.connection import Address
from arcface_api.session.self_test import probe_crops
from benchmarks.lib import idle_clients, machine, networks, options
from benchmarks.lib.checks import at_least, at_most, broken_of_kinds
from benchmarks.lib.idle_clients import Step, Tally
from benchmarks.lib.load import embed_request
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import free_port, own_command, running_service, write_report

LEAST_KEPT = 0.95
"""The share of requests on connections that had served one; Node's fetch opens a new one after 74 seconds."""
STAGGER_SECONDS = 0.02
"""Between two connections of a client: the pauses are what counts, not a crowd."""
DEFAULTS = (
    "include_attributes=false",
    "include_quality=false",
    "flip=false",
    "normalize=false",
    "resize=auto",
    "encoding=float",
)
"""They change nothing; each client and pause has a combination of its own, which the access log shows."""


@dataclass(frozen=True)
class Pause:
    """What a connection does between two requests, several times, each a little longer."""

    shortest: float
    longest: float
    times: int = 1
    may_lose: bool = False


FIRST = Pause(0, 0)
"""Before the first request on a connection."""
AT_UVICORNS = Pause(4.9, 5.1, times=3)
RIGHT_AT_UVICORNS = Pause(4.995, 5.005, times=3)
PAUSES = (
    AT_UVICORNS,
    RIGHT_AT_UVICORNS,
    Pause(15, 15),
    Pause(30, 30),
    Pause(60, 60),
    Pause(74.9, 75.1),
    Pause(77.9, 78.1, may_lose=True),
)
SERVERS = {"arcface-api": PAUSES, "uvicorn": (AT_UVICORNS, RIGHT_AT_UVICORNS)}


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("--connections", type=int, default=200, help="of each client (default 200)")
    parser.add_argument("--servers", nargs="*", choices=SERVERS, default=list(SERVERS), help="default: both")
    arguments = parser.parse_args()
    found = idle_clients.versions()
    with tempfile.TemporaryDirectory(prefix="keep-alive-") as folder:
        files = Path(folder)
        onnx.save(networks.linear(112, 112, 512), files / "tiny.onnx")
        cv2.imwrite(str(files / "face.jpg"), next(iter(probe_crops(160, 128))))
        measured = {
            server: measure(server, SERVERS[server], list(found), arguments.connections, files)
            for server in arguments.servers
        }
    report = {
        "benchmark": "keep_alive",
        "connections_of_each_client": arguments.connections,
        "clients": found,
        "servers": measured,
        "machine": machine.describe(),
    }
    write_report(report, arguments.output)
    if failed := broken_of_kinds(measured):
        sys.exit(f"Does not hold: {', '.join(failed)}.")


def measure(
    server: str, pauses: Sequence[Pause], clients: Sequence[str], connections: int, files: Path
) -> dict[str, Any]:
    """What became of all clients' requests to this server."""
    port, log = free_port(), files / f"{server}.log"
    model, picture = files / "tiny.onnx", files / "face.jpg"
    command = own_command(model, port, "--access-log", "--lanes", "1")
    if server == "uvicorn":
        command = [sys.executable, "-m", "benchmarks.lib.plain_uvicorn", str(model), str(port)]
    marks = chain.from_iterable(combinations(DEFAULTS, count) for count in range(1, len(DEFAULTS) + 1))
    queries = {client: {pause: "&".join(next(marks)) for pause in (FIRST, *pauses)} for client in clients}
    seconds = sum(pause.longest * pause.times for pause in pauses) + connections * STAGGER_SECONDS
    say(f"{server}: {', '.join(clients)}, {connections} connections each, {seconds:.0f} s")
    first = embed_request(Address("127.0.0.1", port), picture.read_bytes())
    with running_service(command, port, first, log=log), ThreadPoolExecutor(len(clients)) as pool:
        running = {}
        for client in clients:
            plans = planned(queries[client], connections)
            url = f"http://127.0.0.1:{port}/embed"
            running[client] = pool.submit(idle_clients.follow, client, url, picture, plans)
        outcomes = {client: future.result() for client, future in running.items()}
    arrivals = log.read_text()
    result: dict[str, Any] = {}
    promised: list[Tally] = []
    for client in clients:
        tallies = idle_clients.tallied(outcomes[client], arrivals)
        found = {pause: tallies[query] for pause, query in queries[client].items()}
        result[client] = {name_of(pause): vars(found[pause]) for pause in pauses}
        promised += [found[pause] for pause in pauses if not pause.may_lose]
    requests, lost = sum(tally.requests for tally in promised), sum(tally.lost.total() for tally in promised)
    kept = sum(tally.on_kept_connections for tally in promised) / requests
    result["together"] = {"requests": requests, "share_on_kept_connections": round(kept, 4), "lost": lost}
    result["checks"] = {"lost": at_least(lost, 1)}
    if server == "arcface-api":
        refused = sum(tally.refused.total() for tally in promised)
        checks = {"on_kept_connections": at_least(kept, LEAST_KEPT), "refused": at_most(refused, 0)}
        result["checks"] = {"lost": at_most(lost, 0), **checks}
    return result


def planned(queries: dict[Pause, str], connections: int) -> list[list[Step]]:
    """For each connection a request, and one after each pause, whose lengths are spread over all connections."""
    plans: list[list[Step]] = []
    for number in range(connections):
        plan = [(number * STAGGER_SECONDS, queries[FIRST])]
        for pause, query in [*queries.items()][1:]:
            for time in range(pause.times):
                share = (number * pause.times + time) / max(1, connections * pause.times - 1)
                plan.append((pause.shortest + share * (pause.longest - pause.shortest), query))
        plans.append(plan)
    return plans


def name_of(pause: Pause) -> str:
    """For the report."""
    return f"{pause.shortest:g} s" if pause.shortest == pause.longest else f"{pause.shortest:g} to {pause.longest:g} s"


if __name__ == "__main__":
    main()
