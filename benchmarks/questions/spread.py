"""How do connections spread over workers: all listening on one socket, or each on its own (SO_REUSEPORT)?

    python -m benchmarks.questions.spread [--connections 32] [--rounds 20]

Counts connections, not time: each worker is an event loop that answers with its number after a millisecond of work.
They are opened in a burst, or one after the other with an answer in between, as a pool of clients grows. `busiest` is
the part of them that the busiest worker got, in the median and in the worst round; `equal` is what it would be if all
had the same. Prints JSON; `--output` also writes it to a file.
"""

import asyncio
import json
import multiprocessing
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.synchronize import Barrier

import uvloop

from arcface_api.serving import port
from benchmarks.lib import machine, options

WORK_SECONDS = 0.001
WORKERS = (2, 4, 8)


class Numbered(asyncio.Protocol):
    """One connection, which answers every byte with the number of its worker."""

    def __init__(self, number: int) -> None:
        self.number = number

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        end = time.perf_counter() + WORK_SECONDS
        while time.perf_counter() < end:
            pass
        self.transport.write(bytes([self.number]) * len(data))


def work(listener: socket.socket, number: int, ready: Barrier) -> None:
    """A worker's life."""

    async def accept() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: Numbered(number), sock=listener, backlog=port.BACKLOG
        )
        ready.wait()
        await server.serve_forever()

    uvloop.run(accept())


@contextmanager
def workers(count: int, *, own_sockets: bool) -> Iterator[tuple[str, int]]:
    """Run so many workers; gives their address."""
    spawn = multiprocessing.get_context("spawn")
    with closing(port.bind(("127.0.0.1", 0))) as holder:
        address = port.share(holder) if own_sockets else holder.getsockname()
        listeners = [port.bind(address, is_shared=True) if own_sockets else holder for _ in range(count)]
        ready = spawn.Barrier(count + 1)
        processes = [spawn.Process(target=work, args=(own, number, ready)) for number, own in enumerate(listeners)]
        for process in processes:
            process.start()
        for listener in listeners:
            listener.close()
        ready.wait()
        try:
            yield address[:2]
        finally:
            for process in processes:
                process.kill()
                process.join()


def busiest(address: tuple[str, int], connections: int, *, in_a_burst: bool) -> float:
    """Open connections and ask each for its worker; the part of them that the busiest worker has."""
    with ExitStack() as at_end:
        callers = []
        for _ in range(connections):
            callers.append(at_end.enter_context(closing(socket.create_connection(address))))
            if not in_a_burst:
                callers[-1].sendall(b"?")
                callers[-1].recv(1)
        for caller in callers:
            caller.sendall(b"?")
        counts = Counter(caller.recv(1)[0] for caller in callers)
    return max(counts.values()) / connections


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    results = []
    for own_sockets in (False, True):
        for count in WORKERS:
            with workers(count, own_sockets=own_sockets) as address:
                for in_a_burst in (True, False):
                    rounds = []
                    for _ in range(arguments.rounds):
                        rounds.append(busiest(address, arguments.connections, in_a_burst=in_a_burst))
                        time.sleep(0.05)  # until the workers have seen the connections close
                    results.append(
                        {
                            "sockets": "one for each worker" if own_sockets else "one for all",
                            "workers": count,
                            "opened": "in a burst" if in_a_burst else "one after the other",
                            "busiest_median": round(statistics.median(rounds), 3),
                            "busiest_worst": round(max(rounds), 3),
                            "equal": round(1 / count, 3),
                        }
                    )
                    sys.stderr.write(f"{results[-1]}\n")
    report = {
        "benchmark": "spread",
        "connections": arguments.connections,
        "rounds": arguments.rounds,
        "results": results,
        "machine": machine.describe(),
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
