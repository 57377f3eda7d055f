"""What do uploads cost the others that once killed or stopped the service? Time, memory, and whether it still ends.

    python -m benchmarks.questions.hostile --faces FOLDER --output benchmarks/results/hostile-iresnet100.json

On a service that it starts: good callers alone; then beside 20 more good uploads at once; then, for each kind, beside
20 hostile ones at once, and alone again. At the end SIGTERM. Exit status 1 where a check does not hold. Pictures that
can be read are work like any other, so what good callers see beside them is compared with the 20 good uploads.

| kind | what each of the 20 sends |
| --- | --- |
| animation | an animated PNG of 200 bytes by which OpenCV 5.0.0 writes beyond its memory |
| damaged | an animated PNG with a damaged frame |
| announced | 53 bytes of PNG that announce 2 GB behind their end |
| exif | a WebP of 0.8 MB whose EXIF directory has 65,535 entries for one long string; and a PNG |
| head | a head of 10 MB |
| held | 20 MB of a picture, whose last byte never comes |
"""

import argparse
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import cv2
import numpy as np

from arcface_api.bench.connection import Address, raw_request
from benchmarks.lib import faces, machine, options, recogniser
from benchmarks.lib.checks import at_most, broken_of_kinds, p99
from benchmarks.lib.load import LoadReport, closed_loop, embed_request, progress
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, free_port, own_command, running_service, write_report
from benchmarks.lib.usage import UsageWatch

AT_ONCE = 20
MOST_P99 = 2.0
"""Afterwards, of good callers alone; meanwhile, of good callers beside as many good uploads."""
MOST_RSS = 1.1
"""Afterwards, of before."""
GRACE_SECONDS = 8
SETTLE_SECONDS = 3.0
PATIENCE_SECONDS = 40.0


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    model = recogniser.find(arguments.recogniser)
    port = free_port()
    requests = [embed_request(Address("127.0.0.1", port), picture) for picture in faces.load(arguments.faces)]
    options = ["--shutdown-grace-seconds", str(GRACE_SECONDS), *arguments.serve_options]
    measured: dict[str, Any] = {}
    with running_service(own_command(model, port, *options), port, requests[0]) as service:
        run = _runner(service, requests, arguments)
        run()
        alone, rss = run()
        with hostile_callers(service.address, [requests[number] for number in range(AT_ONCE)]):
            ordinary, _ = run()
        for name in arguments.kinds or KINDS:
            say(f"{AT_ONCE} of the kind {name}")
            with hostile_callers(service.address, KINDS[name](service.address)) as answers:
                beside, _ = run()
            time.sleep(SETTLE_SECONDS)
            after, rss_after = run()
            measured[name] = _summary(alone, ordinary, beside, after, rss_after / rss) | {"answers": Counter(answers)}
            alone, rss = after, rss_after
        began = time.monotonic()
    ended_seconds = time.monotonic() - began  # the block's end sends SIGTERM, and waits
    failed = broken_of_kinds(measured)
    if ended_seconds > GRACE_SECONDS:
        failed.append("SIGTERM")
    write_report(
        {
            "benchmark": "hostile",
            "recogniser": recogniser.describe(model),
            "faces": faces.describe(arguments.faces),
            "good_callers": arguments.clients,
            "at_once": AT_ONCE,
            "kinds": measured,
            "sigterm": {"ended_seconds": round(ended_seconds, 2), "grace_seconds": GRACE_SECONDS},
            "machine": machine.describe(),
        },
        arguments.output,
    )
    if failed:
        sys.exit(f"Does not hold: {', '.join(failed)}.")


def _runner(
    service: Service, requests: Sequence[bytes], arguments: argparse.Namespace
) -> Callable[[], tuple[LoadReport, int]]:
    def run() -> tuple[LoadReport, int]:
        """What good callers see, and the memory that the service has at the end, in bytes."""
        with UsageWatch(service.pid, every_seconds=0.2) as watch:
            report = closed_loop(
                service.address,
                requests,
                clients=arguments.clients,
                seconds=arguments.seconds,
                warm_up_seconds=1,
                on_progress=progress,
            )
        return report, watch.samples[-1].rss_bytes

    return run


@contextmanager
def hostile_callers(address: Address, requests: Sequence[bytes]) -> Iterator[list[str]]:
    """Send all at once, each on a connection of its own; the statuses of the answers, or how it ended."""
    answers: list[str] = []

    def call(request: bytes) -> None:
        try:
            with socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS) as link:
                with suppress(OSError):  # it may be refused before it is sent
                    link.sendall(request)
                answers.append(link.recv(64).split(b"\r\n")[0].decode() or "closed")
        except OSError as error:
            answers.append(type(error).__name__)

    callers = [threading.Thread(target=call, args=(request,)) for request in requests]
    for caller in callers:
        caller.start()
    yield answers
    for caller in callers:
        caller.join()


def _summary(
    alone: LoadReport, ordinary: LoadReport, beside: LoadReport, after: LoadReport, rss: float
) -> dict[str, Any]:
    reports = {"alone": alone, "beside_good_ones": ordinary, "beside": beside, "after": after}
    times = {name: p99(report) for name, report in reports.items()}
    lost = sum(beside.failed.values()) + sum(after.failed.values()) + sum(after.refused.values())
    values = {
        "p99_beside": (times["beside"] / times["beside_good_ones"], MOST_P99),
        "p99_after": (times["after"] / times["alone"], MOST_P99),
        "rss_after": (rss, MOST_RSS),
        "not_served": (lost, 0),
    }
    return {
        "p99_ms": {name: round(value, 2) for name, value in times.items()},
        "refused": beside.refused,
        "checks": {name: at_most(*value_and_limit) for name, value_and_limit in values.items()},
    }


# ── what is sent ───────────────────────────────────────────────────────────────────────────────────────────────────


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(*chunks: bytes, colour_type: int = 0, side: int = 32) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(chunks)


def _animation(frame: bytes, *, disposes: int, colour_type: int) -> bytes:
    channels = {0: 1, 2: 3}[colour_type]
    data = zlib.compress((b"\0" + bytes(32 * channels)) * 32)
    controls = [
        _chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 32, 32, 0, 0, 1, 10, disposes, 0)) for number in (0, 1)
    ]
    second = _chunk(b"fdAT", struct.pack(">I", 2) + (frame or data))
    pieces = (_chunk(b"acTL", struct.pack(">II", 2, 0)), controls[0], _chunk(b"IDAT", data), controls[1], second)
    return _png(*pieces, _chunk(b"IEND"), colour_type=colour_type)


def _exif_of_one_long_string() -> bytes:
    entry = struct.pack("<HHII", 0x010E, 2, 65_000, 8)
    return b"II*\0" + struct.pack("<IH", 8, 65_535) + entry * 65_535


def _webp_with(exif: bytes) -> bytes:
    picture = cv2.imencode(".webp", np.zeros((64, 64, 3), np.uint8))[1].tobytes()[12:]
    side = (63).to_bytes(3, "little")
    header = b"VP8X" + struct.pack("<I", 10) + bytes([8, 0, 0, 0]) + side + side
    chunks = header + picture + b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) & 1)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _png_with(exif: bytes) -> bytes:
    return _png(_chunk(b"eXIf", exif), _chunk(b"IDAT", zlib.compress(bytes(33 * 32))), _chunk(b"IEND"))


def _uploads(*pictures: bytes) -> Callable[[Address], list[bytes]]:
    return lambda address: [embed_request(address, pictures[number % len(pictures)]) for number in range(AT_ONCE)]


def _heads(address: Address) -> list[bytes]:
    head = f"GET /livez HTTP/1.1\r\nHost: {address.host}\r\nAccept: ".encode()
    return [head + b"a" * 10_000_000 + b"\r\n\r\n"] * AT_ONCE


def _held(address: Address) -> list[bytes]:
    whole = raw_request(address, "POST", "/embed", b"\xff\xd8\xff" + bytes(20_000_000), {"Content-Type": "image/jpeg"})
    return [whole[:-1]] * AT_ONCE


KINDS: dict[str, Callable[[Address], list[bytes]]] = {
    "animation": _uploads(_animation(b"", disposes=1, colour_type=0)),
    "damaged": _uploads(_animation(b"not packed at all", disposes=0, colour_type=2)),
    "announced": _uploads(_png(_chunk(b"IEND"), struct.pack(">I4s", 2**31 - 1, b"IDAT"))),
    "exif": _uploads(_webp_with(_exif_of_one_long_string()), _png_with(_exif_of_one_long_string())),
    "head": _heads,
    "held": _held,
}


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=15, help="of each run of good callers (default 15)")
    parser.add_argument("--clients", type=int, default=4, help="good callers (default 4)")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, help="default: all")
    options.add_service(parser)
    return parser


if __name__ == "__main__":
    main()
