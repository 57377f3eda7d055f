"""The service of any source tree, in a process of its own."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 300
STOP_SECONDS = 20
HIDE_OPENVINO = "import sys\nsys.modules['openvino'] = None\n"
"""A hook with which the service runs on ONNX Runtime, on every CPU: no trial chooses."""


class Served(NamedTuple):
    """A service that answers."""

    port: int
    pid: int


@contextmanager
def served(
    tree: Path,
    folder: Path,
    pack: str,
    options: Sequence[str] = (),
    *,
    hook: str = "",
    variables: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """The service of a source tree, ready.

    Args:
        tree: The folder that holds `arcface_api`.
        folder: For the service's caches and its log; services that share it share what a start remembers.
        pack: As `--pack`.
        options: More options of `arcface-api serve`.
        hook: Python code that each of its processes runs first.
        variables: More environment variables. No `ARCFACE_…` variable of this process is passed on.

    Raises:
        SystemExit: It ends, or is not ready in time, or another source tree would be served.
    """
    hooks = folder / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(hook)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ARCFACE_")}
    environment = {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(tree), str(hooks)]),
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        **(variables or {}),
    }
    where = [sys.executable, "-c", "import arcface_api; print(arcface_api.__file__)"]
    found = subprocess.run(where, env=environment, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    if tree not in Path(found.strip()).parents:
        sys.exit(f"{found.strip()} would be served, not {tree}.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = folder / "service.log"
    command = [sys.executable, "-m", "arcface_api", "serve", "--pack", pack, "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=folder, stderr=output, start_new_session=True)
    try:
        _wait_until_ready(process, port, log)
        yield Served(port, process.pid)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        connection.close()
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"The service did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
