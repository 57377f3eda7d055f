"""Measures one service with ever more clients: one that runs, or one that is started here, ours or any other.

One module, because the process is started, watched and stopped for the measurement alone.
"""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import psutil

from arcface_api import __version__
from arcface_api.bench.connection import Address, form_request, raw_request
from arcface_api.bench.load import LoadReport, closed_loop
from arcface_api.cpus import machine
from arcface_api.errors import MeasurementFailed
from arcface_api.session.self_test import probe_crops
from arcface_api.wording import counted

HEIGHT, WIDTH, JPEG_QUALITY = 160, 128, 90
"""Of the pictures that are sent, in pixels: a face as a detector cuts it from a picture of medium size."""
WARM_UP_SECONDS = 2.0
"""Load before each step that does not count; a quarter of the step where that is less."""
COMPILE_SECONDS = 1800.0
"""The first start with a model may compile it for minutes; TensorRT does."""
START_SECONDS = 180.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
OPEN_TO_US = {
    f"ARCFACE_{name}": ""
    for name in (
        "API_KEYS_FILE",
        "RATE_LIMIT",
        "MAX_CONNECTIONS_PER_ADDRESS",
        "TLS_CERTIFICATE_FILE",
        "TLS_KEY_FILE",
        "TLS_CLIENT_CA_FILE",
    )
}
"""Variables of a service that is started here, and that nobody else can reach: as if they were not set."""
ANSWER_SECONDS = 60.0
"""Longest silence of a service that is asked one thing."""
_REMEDIES = {
    "status 401": "Give the service's API key: --api-key-file FILE.",
    "status 403": "Name your certificate in SSL_CLIENT_CERT, in a file with its key.",
    "status 421": "Use an address, or a name that the service's ARCFACE_ALLOWED_HOSTS has.",
}
"""What to do about answers that say who may call."""
_HEALTH = {"model", "provider", "precision", "threads", "batch_sizes", "self_test_cosine", "reason"}
"""Members of `/health` that are shown."""


OnProgress = Callable[[str, float], None]
"""Called with what is going on, and how much of the whole is done, 0 to 1."""


@dataclass(frozen=True)
class Measurement:
    """What was measured, and on what."""

    service: Mapping[str, Any]
    """What its `/health` answered."""
    url: str | None
    """Of a service that was running already, on any machine."""
    steps: tuple[LoadReport, ...]
    """One for each number of clients; each has served some requests."""
    process: Mapping[str, float] | None = None
    """If it was started here: `ready_seconds` until it could embed, and `rss_mb`, the resident memory after the load of
    all its processes together, in 10^6 bytes."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "benchmark": "arcface-api bench",
            "version": __version__,
            "service": dict(self.service),
            "url": self.url,
            "process": self.process,
            "steps": [step.to_json() for step in self.steps],
            "machine": machine(),
        }

    def check(self) -> None:
        """Raises `MeasurementFailed` if requests failed."""
        where = "The service's log" if self.url else "The log of `arcface-api serve` with the same options"
        for step in self.steps:
            if step.failed:
                raise MeasurementFailed(
                    f"With {counted(step.clients, 'client')} requests failed ({_reasons(step)}), so the figures mean"
                    f" little. {where} may say why."
                )


def measure_own(
    options: Mapping[str, str], clients: Sequence[int], seconds: float, on_progress: OnProgress
) -> Measurement:
    """Starts a service on a free port of the loopback, measures it as `measure` does, and stops it.

    `options` are settings by name, as given on the command line; the environment gives the rest.

    Raises:
        MeasurementFailed: It cannot be started, or serves nothing.
    """
    port = free_port()
    command = [sys.executable, "-m", "arcface_api", "serve", "--host", "127.0.0.1", "--port", str(port)]
    for name, value in options.items():
        command += ["--" + name.replace("_", "-"), value]
    first = raw_request(Address("127.0.0.1", port), "GET", "/health")
    on_progress("starting the service", 0)
    with tempfile.TemporaryDirectory(prefix="arcface-api-bench-") as folder:
        log = Path(folder) / "service.log"
        with running(command, port, first, log=log, variables=OPEN_TO_US, start_seconds=COMPILE_SECONDS) as service:
            measured = measure(service.address, clients, seconds, on_progress)
            rss_mb = round(service.rss_bytes() / 1e6, 1)
    process = {"ready_seconds": round(service.ready_seconds, 2), "rss_mb": rss_mb}
    return replace(measured, process=process, url=None)


def measure(address: Address, clients: Sequence[int], seconds: float, on_progress: OnProgress) -> Measurement:
    """Measures a service that is running: for each number of `clients` at once, for some seconds.

    Raises:
        MeasurementFailed: Nothing answers there, it cannot embed, or serves nothing.
    """
    url = address.url
    about = _health(address, url)
    # The faces of the self-test: everybody sends the same, and pictures of nobody.
    crops = (cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in probe_crops(HEIGHT, WIDTH))
    jpegs = [cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes() for crop in crops]
    requests = [form_request(address, "/embed", "file", [jpeg]) for jpeg in jpegs]
    steps: list[LoadReport] = []
    for number, count in enumerate(clients):
        who = counted(count, "client")

        def of_the_whole(share: float, number: int = number, who: str = who) -> None:
            on_progress(who, (number + share) / len(clients))

        step = closed_loop(
            address,
            requests,
            clients=count,
            seconds=seconds,
            warm_up_seconds=min(WARM_UP_SECONDS, seconds / 4),
            on_progress=of_the_whole,
        )
        if step.latency_ms is None:
            why = _reasons(step) or f"none was answered within {seconds:g} s; give more --seconds"
            remedies = "".join(f" {remedy}" for status, remedy in _REMEDIES.items() if status in step.failed)
            raise MeasurementFailed(f"With {who} no request was served: {why}.{remedies}")
        steps.append(step)
    on_progress("done", 1)
    return Measurement(about, url, tuple(steps))


def _reasons(step: LoadReport) -> str:
    """Why requests were not served."""
    refused = {f"refused with {status}": count for status, count in step.refused.items()}
    return ", ".join(f"{count} x {why}" for why, count in (step.failed | refused).items())


def _health(address: Address, url: str) -> Mapping[str, Any]:
    try:
        status, body = ask(address, raw_request(address, "GET", "/health"))
        about = json.loads(body)
    except ssl.SSLError as error:
        raise MeasurementFailed(
            f"TLS with {url} failed: {error}. Name its authority in SSL_CERT_FILE, and, if it asks for"
            " one, a file with your certificate and its key in SSL_CLIENT_CERT."
        ) from None
    except OSError as error:
        raise MeasurementFailed(
            f"Nothing answers at {url}: {error.strerror or error}. Start the service there, or leave out --url to start"
            " one here."
        ) from None
    except (http.client.HTTPException, ValueError):
        about, status = None, 0
    if not isinstance(about, dict) or not about.keys() >= _HEALTH:
        raise MeasurementFailed(f"What answers at {url}/health is not arcface-api. Check the address.")
    if status != http.HTTPStatus.OK:
        raise MeasurementFailed(f"The service at {url} cannot embed: {about['reason']}.")
    return about


# ── a service in a process of its own ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Service:
    """A service that runs and answers."""

    address: Address
    pid: int
    """Of its first process."""
    ready_seconds: float
    """From the start of the process to the first answer of status 200, whose body is `first_answer`."""
    first_answer: bytes

    def rss_bytes(self) -> int:
        """Resident memory of all its processes together; pages that they share count for each."""
        first = psutil.Process(self.pid)
        return sum(process.memory_info().rss for process in (first, *first.children(recursive=True)))


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(address: Address, request: bytes) -> tuple[int, bytes]:
    """Sends a prebuilt request once; returns the answer's status and body.

    Raises:
        OSError: Nothing answers there.
        http.client.HTTPException: What answers does not speak HTTP.
    """
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((address.host, address.port), timeout=ANSWER_SECONDS))
        if address.tls is not None:
            connection = stack.enter_context(address.tls.wrap_socket(connection, server_hostname=address.host))
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    first_request: bytes,
    *,
    log: Path | None = None,
    variables: Mapping[str, str] | None = None,
    start_seconds: float = START_SECONDS,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Service]:
    """Starts a service and waits until it answers `first_request` with 200; all its processes end with the block.

    It has to listen on a port of the loopback. `log` receives its output, by default this process's standard error;
    `variables` are added to its environment. `tls`: it speaks HTTPS, which is spoken in this way.

    Raises:
        MeasurementFailed: It ended, or did not answer in time.
    """
    started = time.monotonic()
    address = Address("127.0.0.1", port, tls=tls)
    output = log.open("ab") if log else None
    with _signals_held() as received:  # one that comes before the process has its name would leave it running
        process = subprocess.Popen(  # noqa: S603  # the command is the caller's, and no shell reads it
            command,
            env={**os.environ, **(variables or {})},
            stdout=output or sys.stderr,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,  # a group of its own: its children are stopped with it
        )
    try:
        for number in received:
            signal.raise_signal(number)
        answer = None
        last = "it never answered"
        while answer is None:
            if process.poll() is not None:
                raise MeasurementFailed(f"The service ended before it could serve. {_last_words(process, log)}")
            if time.monotonic() > started + start_seconds:
                raise MeasurementFailed(f"The service was not ready after {start_seconds:g} s: {last}.")
            time.sleep(POLL_SECONDS)
            try:
                status, body = ask(address, first_request)
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
            else:
                answer = body if status == http.HTTPStatus.OK else None
                last = f"it answered {status}: {body[:500]!r}"
        yield Service(address, process.pid, time.monotonic() - started, answer)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever is left of its group
        process.wait()
        if output:
            output.close()


def _last_words(process: subprocess.Popen[bytes], log: Path | None) -> str:
    """The line of the log in which our service says why it ended, else the last one, else its command and status."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log else []
    if lines:
        why = next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1])
        return why.removeprefix("Error: ")
    return f"{process.args!r} ended with status {process.returncode}."


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Only note SIGINT and SIGTERM. Blocked, they would stay blocked in the process that is started here."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # where no signal is handled anyway
        yield received
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda caught, _: received.append(caught)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
