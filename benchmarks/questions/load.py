"""How fast does a service answer, and what do its callers feel?

    python -m benchmarks.questions.load --recogniser MODEL.onnx --clients 16              closed loop, its own service
    python -m benchmarks.questions.load --url http://host:5555 --rate 120 --seconds 60    open loop, any service
    python -m benchmarks.questions.load --canned --clients 16                             what this client itself costs

Prints the result as JSON; `--output` also writes it to a file.
"""

import argparse
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from arcface_api.bench.connection import Address
from benchmarks.lib import canned, faces, machine, options
from benchmarks.lib.load import LoadReport, closed_loop, embed_request, open_loop, poisson_arrivals, progress
from benchmarks.lib.service import Service, free_port, own_command, running_service, write_report
from benchmarks.lib.usage import UsageWatch


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    pictures = faces.load(arguments.faces)
    with ExitStack() as running:
        address, pid = arguments.url, arguments.pid
        if address is None:
            service = running.enter_context(_start(arguments, pictures[0]))
            address, pid = service.address, service.pid
        requests = [embed_request(address, picture, path=arguments.path) for picture in pictures]
        with UsageWatch(pid) if pid else nullcontext() as watch:
            report = _load(arguments, address, requests)
    write_report(
        {
            "benchmark": "load",
            "recogniser": arguments.recogniser.name if arguments.recogniser else None,
            **report.to_json(),
            "process": watch.summary(report) if watch else None,
            "machine": machine.describe(),
        },
        arguments.output,
    )


def _load(arguments: argparse.Namespace, address: Address, requests: list[bytes]) -> LoadReport:
    seconds, warm_up = arguments.seconds, arguments.warm_up
    shared = {"warm_up_seconds": warm_up, "timeout_seconds": arguments.timeout, "on_progress": progress}
    if arguments.rate is None:
        return closed_loop(address, requests, clients=arguments.clients, seconds=seconds, **shared)
    arrivals = poisson_arrivals(arguments.rate, warm_up + seconds, arguments.seed)
    obeys = arguments.obey_retry_after
    return open_loop(address, requests, arrivals=arrivals, seconds=warm_up + seconds, obeys_retry_after=obeys, **shared)


def _start(arguments: argparse.Namespace, picture: bytes) -> AbstractContextManager[Service]:
    port = free_port()
    first = embed_request(Address("127.0.0.1", port), picture)
    if arguments.canned:
        return running_service([sys.executable, "-m", canned.__name__, str(port)], port, first)
    return running_service(own_command(arguments.recogniser, port, *arguments.serve_options), port, first)


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", type=Address.of, help="of a service that runs")
    where.add_argument("--recogniser", type=Path, help="start a service of this checkout with this model")
    where.add_argument("--canned", action="store_true", help="start a server that does nothing")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--clients", type=int, default=16, help="closed loop: so many at once (default 16)")
    how.add_argument("--rate", type=float, help="open loop: Poisson arrivals a second")
    parser.add_argument("--seconds", type=float, default=20, help="measured time (default 20)")
    parser.add_argument("--warm-up", type=float, default=3, help="seconds before it that do not count (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--timeout", type=float, default=60, help="seconds after which a request has failed")
    parser.add_argument("--obey-retry-after", action="store_true", help="with --rate: refused callers come back")
    parser.add_argument("--path", default="/embed", help="operation and query (default /embed)")
    parser.add_argument("--pid", type=int, help="with --url: watch memory and CPU of this process and its children")
    parser.add_argument("serve_options", nargs="*", help="with --recogniser, after --: options of arcface-api serve")
    faces.add_option(parser)
    return parser


if __name__ == "__main__":
    main()
