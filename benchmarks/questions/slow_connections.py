"""What do callers cost that are slow on purpose, or send what is far too large? Memory, and the others' time.

    python -m benchmarks.questions.slow_connections --faces FOLDER --output FILE.json

On a service that it starts: good callers alone; then, for each kind of slow connection, good callers while 500 of that
kind are held (who is closed or answered comes again after 10 s), and alone again. Exit status 1 where a check does not
hold.

| kind | what each does |
| --- | --- |
| head | 60 kB of a head, then a byte a second |
| body | 1 MB of a picture, then 2 kB a second |
| refused | a body that was refused at its head, 2 kB a second |
| upgrade | as body, behind a head in two pieces that offers h2c |
| reading | asks for a document of 1.5 MB five times, and reads nothing |
| huge | a head of 10 MB at once; 20 connections |
"""

import argparse
import asyncio
import multiprocessing
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any

from arcface_api.bench.connection import Address
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.checks import Check, at_most, broken_of_kinds, p99
from benchmarks.lib.load import LoadReport, closed_loop, embed_request, progress
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, free_port, own_command, running_service, write_report
from benchmarks.lib.usage import UsageWatch

CONNECTIONS = 500
HUGE_CONNECTIONS = 20
MOST_RSS = 1.5
"""Of the service that served good callers alone."""
MOST_P99 = 2.0
"""Of good callers alone, before and after."""
EVERY_SECONDS = 1.0
AGAIN_SECONDS = 10.0
"""Until a caller who was answered or closed comes again: these are slow, and no flood."""
SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Kind:
    """How one kind of slow connection behaves."""

    first: tuple[bytes, ...]
    """Sent at once, each in a piece of its own."""
    then: bytes
    """Sent every second."""
    connections: int = CONNECTIONS
    comes_again_when_answered: bool = True


def _post(path: str, *headers: str) -> bytes:
    about = ("Host: localhost", "Content-Type: image/jpeg", "Content-Length: 20000000", *headers)
    return "\r\n".join([f"POST {path} HTTP/1.1", *about, "", ""]).encode()


_OFFER = _post("/embed", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAAB", "Upgrade: h2c")
_PICTURE = b"\xff\xd8\xff" + bytes(1_000_000)
_DOCUMENT = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
KINDS = {
    "head": Kind((b"GET /livez HTTP/1.1\r\n" + b"".join(b"X: %b\r\n" % (b"v" * 15_000) for _ in range(4)),), b"X"),
    "body": Kind((_post("/embed"), _PICTURE), bytes(2_000)),
    "refused": Kind((_post("/embed?unknown=1"),), bytes(2_000), comes_again_when_answered=False),
    "upgrade": Kind((_OFFER[:150], _OFFER[150:], _PICTURE), bytes(2_000)),
    "reading": Kind((_DOCUMENT * 5,), b"", comes_again_when_answered=False),
    "huge": Kind((b"GET /livez HTTP/1.1\r\nAccept: " + b"a" * 10_000_000,), b"", HUGE_CONNECTIONS),
}


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    port = free_port()
    requests = [embed_request(Address("127.0.0.1", port), picture) for picture in faces.load(arguments.faces)]
    measured: dict[str, Any] = {}
    with running_service(own_command(model, port, *arguments.serve_options), port, requests[0]) as service:
        alone, idle = good_callers(service, requests, arguments)
        for name in arguments.kinds or KINDS:
            say(f"{KINDS[name].connections} of the kind {name}")
            with slow_callers(service.address, KINDS[name]) as (opened, answered):
                beside, peak = good_callers(service, requests, arguments)
                counts = {"opened": opened.value, "answered": answered.value}
            after, rss_after = good_callers(service, requests, arguments)
            measured[name] = summary(alone, beside, after) | counts
            measured[name] |= {"rss_mb": {"alone": _mb(idle), "beside": _mb(peak), "after": _mb(rss_after)}}
            measured[name]["checks"] = check(alone, beside, after, peak / idle)
            alone = after
    write_report(
        {
            "benchmark": "slow_connections",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "good_callers": arguments.clients,
            "connections": CONNECTIONS,
            "kinds": measured,
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if failed := broken_of_kinds(measured):
        sys.exit(f"Does not hold: {', '.join(failed)}.")


def good_callers(service: Service, requests: Sequence[bytes], arguments: argparse.Namespace) -> tuple[LoadReport, int]:
    """What good callers see, and the most memory that the service took meanwhile, in bytes."""
    with UsageWatch(service.pid, every_seconds=0.2) as watch:
        report = closed_loop(
            service.address,
            requests,
            clients=arguments.clients,
            seconds=arguments.seconds,
            warm_up_seconds=2,
            on_progress=progress,
        )
    return report, max(sample.rss_bytes for sample in watch.samples)


def summary(alone: LoadReport, beside: LoadReport, after: LoadReport) -> dict[str, Any]:
    """What good callers saw before, beside and after the slow ones."""
    runs = {"alone": alone, "beside": beside, "after": after}
    return {
        "p99_ms": {name: round(p99(report), 2) if report.latency_ms else None for name, report in runs.items()},
        "served_per_second": {name: round(report.served_per_second, 1) for name, report in runs.items()},
        "refused": beside.refused,
        "failed": beside.failed,
    }


def check(alone: LoadReport, beside: LoadReport, after: LoadReport, rss_ratio: float) -> dict[str, Check]:
    """Each promise: what was measured, what is allowed, whether it holds."""
    p99_ratio = p99(beside) / ((p99(alone) + p99(after)) / 2)
    lost = sum(beside.failed.values()) + sum(beside.refused.values())
    values = {"rss_of_alone": (rss_ratio, MOST_RSS), "p99_of_alone": (p99_ratio, MOST_P99), "not_served": (lost, 0)}
    return {name: at_most(*value_and_limit) for name, value_and_limit in values.items()}


@contextmanager
def slow_callers(address: Address, kind: Kind) -> Iterator[tuple[Any, Any]]:
    """Hold the connections, in a process of their own; how many were opened, and how many were answered or closed."""
    spawn = multiprocessing.get_context("spawn")
    opened, answered, all_open, end = spawn.Value("i", 0), spawn.Value("i", 0), spawn.Event(), spawn.Event()
    process = spawn.Process(target=_hold, args=(address, kind, opened, answered, all_open, end), daemon=True)
    process.start()
    try:
        if not all_open.wait(60):
            sys.exit(f"Only {opened.value} of {kind.connections} connections could be opened in 60 seconds.")
        time.sleep(SETTLE_SECONDS)
        yield opened, answered
    finally:
        end.set()
        process.join(20)
        process.kill()
        time.sleep(SETTLE_SECONDS)


def _hold(address: Address, kind: Kind, *shared: Any) -> None:
    asyncio.run(_hold_all(address, kind, *shared))


async def _hold_all(
    address: Address,
    kind: Kind,
    opened: "Synchronized[int]",
    answered: "Synchronized[int]",
    all_open: Event,
    end: Event,
) -> None:
    async def one() -> None:
        while True:
            with suppress(OSError):
                await _connection(address, kind, opened)
            answered.value += 1
            await asyncio.sleep(AGAIN_SECONDS)

    tasks = []
    for _ in range(kind.connections):
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0.005)  # a burst would only measure the kernel's backlog
    while not end.is_set():
        if opened.value >= kind.connections:
            all_open.set()
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _connection(address: Address, kind: Kind, opened: "Synchronized[int]") -> None:
    """One connection of the kind, until the service ends it."""
    link = socket.socket()
    link.setblocking(False)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(link, (address.host, address.port))
    reader, writer = await asyncio.open_connection(sock=link, limit=1)
    opened.value += 1
    try:
        for piece in kind.first:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        while not reader.at_eof():
            await asyncio.sleep(EVERY_SECONDS)
            if kind.comes_again_when_answered and reader._buffer:  # noqa: SLF001  # reading would wait
                return
            if kind.then:
                writer.write(kind.then)
                await writer.drain()
    finally:
        writer.transport.abort()


def _mb(size: int) -> float:
    return round(size / 1e6, 1)


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each run of good callers (default 20)")
    parser.add_argument("--clients", type=int, default=4, help="good callers (default 4)")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, help="default: all")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
