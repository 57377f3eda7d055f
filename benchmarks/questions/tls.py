"""What does TLS cost? CPU time of the service per request with and without it, and of a handshake.

    python -m benchmarks.questions.tls PACK PICTURE [--seconds 3] [--rounds 4]

Both services run at the same time and are asked in turn. CPU time of their processes is compared, not speed: other
programs disturb it less. Prints the result as JSON; `--output` also writes it to a file.
"""

import argparse
import os
import ssl
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil

from arcface_api.bench.connection import Address, raw_request
from arcface_api.bench.load import closed_loop
from benchmarks.lib import machine, options
from benchmarks.lib.load import embed_request
from benchmarks.lib.service import free_port, own_command, running_service, write_report

CLIENTS = 8


def cpu_us(pid: int, address: Address, request: bytes, seconds: float) -> float:
    """CPU microseconds of the service for each request."""
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    report = closed_loop(address, [request], clients=CLIENTS, seconds=seconds)
    if report.failed or not report.served:
        raise SystemExit(f"Requests failed: {report.failed}")
    return (sum(process.cpu_times()[:2]) - before) / report.served * 1e6


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Medians of the rounds, by what is asked."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(key), "-out", str(certificate), "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*make, *files], check=True, capture_output=True)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    picture = arguments.picture.read_bytes()
    with ExitStack() as stack:
        services = []
        for tls in (None, trusting):
            port = free_port()
            command = own_command(arguments.pack, port, "--device", "cpu")
            if tls:
                command += ["--tls-certificate-file", str(certificate), "--tls-key-file", str(key)]
            first = raw_request(Address("127.0.0.1", port), "GET", "/livez")
            running = stack.enter_context(running_service(command, port, first, tls=tls))
            services.append((running.pid, running.address))
        asked = {
            "livez": lambda address: raw_request(address, "GET", "/livez"),
            "livez, a connection each": lambda address: raw_request(
                address, "GET", "/livez", headers={"Connection": "close"}
            ),
            "embed": lambda address: embed_request(address, picture),
        }
        result: dict[str, object] = {}
        for name, request in asked.items():
            rounds = [
                [cpu_us(pid, address, request(address), arguments.seconds) for pid, address in services]
                for _ in range(arguments.rounds)
            ]
            plain, encrypted = (median(column) for column in zip(*rounds, strict=True))
            result[name] = {
                "plain_cpu_us": round(plain, 1),
                "tls_cpu_us": round(encrypted, 1),
                "ratio": round(median(each[1] / each[0] for each in rounds), 3),
                "ratios": [round(each[1] / each[0], 3) for each in rounds],
            }
        result["rss_mb"] = [round(psutil.Process(pid).memory_info().rss / 1e6, 1) for pid, _ in services]
    return result


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("pack")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    os.environ["ARCFACE_LANES"] = "1"  # finding out how many are fastest would only take time
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    write_report(
        {"benchmark": "tls", "pack": arguments.pack, **result, "machine": machine.describe()}, arguments.output
    )


if __name__ == "__main__":
    main()
