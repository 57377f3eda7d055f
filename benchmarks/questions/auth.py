"""Does the time of a refusal say anything about the key that was guessed, and what does a check cost?

    python -m benchmarks.questions.auth --output benchmarks/results/auth.json

Wrong keys of several kinds are tried in turn, in an order that changes with each round: at the function that compares
them, and over HTTP on one connection. Each kind is compared with keys that are wrong everywhere: `higher` is the share
of pairs in which it took longer (0.5: no difference), and `p` the probability of such a share without any difference
(Mann-Whitney test). Keys that are wrong everywhere are a kind, too: what their share differs from 0.5 is noise. Exit
status 1 where a share differs from 0.5 by more than `MOST_SHARE`.
"""

import json
import math
import random
import socket
import sys
import tempfile
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcface_api.api.access import Access
from arcface_api.api.auth import Keys
from arcface_api.api.published import Proxies
from arcface_api.bench.connection import Address, raw_request
from arcface_api.errors import Unauthenticated
from benchmarks.lib import machine, options
from benchmarks.lib.service import free_port, own_command, running_service, write_report

KEY = f"{random.Random(1).getrandbits(256):064x}"
BASELINE = "wrong everywhere"
KEYS_IN_FILE = 10
MOST_SHARE = 0.03
"""Of the pairs, beyond one half: below it, more than a thousand guesses would be needed for one bit."""
CALLS = 20
"""Of the function in one sample: the clock is coarser than one call."""
COSTS = (0, 1, 10, 1000)
"""Keys in a file whose check is timed; 0: none is needed."""


def guesses(chance: random.Random) -> dict[str, bytes]:
    """A key of each kind; the random parts are new each time."""
    wrong, another = f"{chance.getrandbits(256):064x}", f"{chance.getrandbits(256):064x}"
    first, last = ("0" if digit != "0" else "1" for digit in (KEY[0], KEY[-1]))
    kinds = {
        BASELINE: wrong,
        f"{BASELINE}, again": another,
        "wrong first byte": first + KEY[1:],
        "wrong last byte": KEY[:-1] + last,
        "right first half": KEY[:32] + wrong[32:],
        "too short": KEY[:-1],
        "too long": KEY + "0",
        "one byte": KEY[0],
        "hash of the key": "sha256:" + "0" * 57,
    }
    return {kind: key.encode() for kind, key in kinds.items()}


def sampled(rounds: int, take: Callable[[bytes], int]) -> dict[str, NDArray[np.float64]]:
    """Nanoseconds of each kind, one of each in a round."""
    chance = random.Random(2)
    took: dict[str, list[int]] = {kind: [] for kind in guesses(chance)}
    for number in range(rounds + rounds // 20):
        tried = list(guesses(chance).items())
        chance.shuffle(tried)
        for kind, key in tried:
            nanoseconds = take(key)
            if number >= rounds // 20:  # the first ones warm up
                took[kind].append(nanoseconds)
    return {kind: np.array(values, np.float64) for kind, values in took.items()}


def compared(took: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """The median of each kind, and how it stands to the keys that are wrong everywhere."""
    found = {}
    for kind, values in took.items():
        found[kind] = {"median_us": round(float(np.median(values)) / 1000, 3)}
        if kind != BASELINE:
            share, p = mann_whitney(values, took[BASELINE])
            found[kind] |= {"higher": round(share, 4), "p": round(p, 4)}
    return found


def mann_whitney(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """The share of pairs in which one is higher, ties counting half, and its two-sided p (normal approximation)."""
    together = np.concatenate([one, other])
    _, which, counts = np.unique(together, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    n, m = len(one), len(other)
    share = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
    ties = (counts**3 - counts).sum() / ((n + m) * (n + m - 1))
    deviation = math.sqrt((n + m + 1 - ties) / (12 * n * m))
    return float(share), math.erfc(abs(share - 0.5) / deviation / math.sqrt(2))


def at_the_function(keys: Keys, rounds: int) -> dict[str, dict[str, float]]:
    """Times of `Keys.name_of`, of one call."""

    def take(key: bytes) -> int:
        headers = [(b"x-api-key", key)]
        started = perf_counter_ns()
        for _ in range(CALLS):
            try:
                keys.name_of(headers)
            except Unauthenticated:
                continue
            raise SystemExit("a wrong key was taken for a right one")
        return (perf_counter_ns() - started) // CALLS

    return compared(sampled(rounds, take))


def over_http(file: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Times until the answer of a real service, on one connection."""
    port = free_port()
    address = Address("127.0.0.1", port)
    first, command = raw_request(address, "GET", "/livez"), own_command(Path("open"), port, "--device", "cpu")
    with (
        running_service(command, port, first, variables={"ARCFACE_API_KEYS_FILE": str(file)}),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def take(key: bytes) -> int:
            request = raw_request(address, "GET", "/info", headers={"X-API-Key": key.decode()})
            started = perf_counter_ns()
            connection.sendall(request)
            answer = connection.recv(65536)
            took = perf_counter_ns() - started
            if not answer.startswith(b"HTTP/1.1 401") or not answer.endswith(b"}"):
                raise SystemExit(f"an unexpected answer: {answer[:200]!r}")
            return took

        return compared(sampled(rounds, take))


def costs(folder: Path) -> dict[str, float]:
    """Microseconds of all that is checked of one request with a right key, by the number of keys in the file."""
    found = {}
    usual = [
        (name, b"x" * 20)
        for name in (b"accept", b"accept-encoding", b"user-agent", b"content-type", b"content-length", b"connection")
    ]
    headers = [(b"host", b"localhost:5555"), *usual, (b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/embed", "headers": headers}
    for number in COSTS:
        file = folder / f"{number}.keys"
        file.write_text("".join(f"n{each} {each:020}\n" for each in range(number - 1)) + f"right {KEY}\n")
        access = Access(("localhost",), (), Proxies(()), Keys(file) if number else None)
        times = timeit.repeat(lambda access=access: access.check(scope, "/embed"), repeat=7, number=2000)
        found[f"{number} keys"] = round(min(times) / 2000 * 1e6, 2)  # others are slowed down by something else
    return found


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10_000, help="of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "keys"
        others = "".join(f"other{number} {number:032}\n" for number in range(KEYS_IN_FILE - 1))
        file.write_text(f"{others}mine {KEY}\n")
        result: dict[str, Any] = {
            "benchmark": "auth",
            "keys_in_file": KEYS_IN_FILE,
            "rounds": arguments.rounds,
            "check_us": costs(folder),
            "function": at_the_function(Keys(file), arguments.rounds),
            "http": over_http(file, arguments.rounds),
        }
    shares = {
        f"{where}, {kind}": figures["higher"]
        for where in ("function", "http")
        for kind, figures in result[where].items()
        if "higher" in figures
    }
    beyond = {what: share for what, share in shares.items() if abs(share - 0.5) > MOST_SHARE}
    result |= {"most_share_beyond_half": MOST_SHARE, "beyond_it": beyond, "machine": machine.describe()}
    write_report(result, arguments.output)
    if beyond:
        sys.exit(f"The time differs: {json.dumps(beyond)}")


if __name__ == "__main__":
    main()
