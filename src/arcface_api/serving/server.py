"""One process of the service: loads and runs the models, then opens the port and answers requests until the end.

The process ends whatever its threads do: after the grace period, or with `HUNG_STATUS` when one of them hangs.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

import uvicorn

from arcface_api.api.app import CLOSE_SECONDS, DirectApp, create_app
from arcface_api.api.connections import allow_open_files
from arcface_api.api.metrics import SharedMetrics
from arcface_api.api.protocol import HttpProtocol
from arcface_api.packs import InstalledPack
from arcface_api.serving import port
from arcface_api.serving.process import HUNG_STATUS
from arcface_api.settings import Settings
from arcface_api.wording import counted

LAST_SECONDS = 5
"""The kernel ends the process this long after the grace period and the time for closing."""
LAST_LOOKS, LAST_LOOK_SECONDS = 5, 0.02
"""The event loop takes in connections and requests at least so often before the port is closed: one look for a
connection, one for its request, and some for a long queue."""
BEAT_SECONDS = 1.0
"""Between two signs of life."""

_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn's server, which ends when the app hangs.

    `run` sets the signal handlers: uvicorn's own raise the signal again at the end, but a requested stop is no failure.
    """

    def __init__(self, app: DirectApp, config: uvicorn.Config, on_beat: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._on_beat = app, on_beat
        self._life: asyncio.Task[None] | None = None

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # only a context is needed
        return nullcontext()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the kernel ends the process if the event loop does not get that far."""
        if not self.should_exit:
            grace_seconds = self.config.timeout_graceful_shutdown or 0
            self._app.health.closes_before = time.monotonic() + grace_seconds + CLOSE_SECONDS
            signal.setitimer(signal.ITIMER_REAL, grace_seconds + CLOSE_SECONDS + LAST_SECONDS)
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._life = asyncio.create_task(self._live())

    async def _live(self) -> None:
        """Show signs of life until the event loop ends, and end the server when the app hangs."""
        while True:
            self._on_beat()
            if self._app.health.why_hung is not None:
                self.should_exit = True
            await asyncio.sleep(BEAT_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("Stopping: requests in flight may take %d s more.", self.config.timeout_graceful_shutdown)
        # What callers sent before the signal may still wait in the kernel, and closing would drop it unread.
        for _ in range(LAST_LOOKS):
            await asyncio.sleep(LAST_LOOK_SECONDS)
        await super().shutdown(sockets)


def run(
    pack: InstalledPack,
    settings: Settings,
    listener: socket.socket,
    on_open: Callable[[], None],
    on_beat: Callable[[], None] = lambda: None,
    shared: SharedMetrics | None = None,
) -> None:
    """Serve a pack until SIGTERM or SIGINT, or until it hangs: then the process ends here.

    The bound listener is opened when the models have run. `on_open` is called then, and `on_beat` each second from then
    on, as long as the event loop runs. `shared`: of a worker among several. Raises what `create_app` and
    `port.open_up` raise.
    """
    _log.info("Loading the pack %s.", pack.manifest.name)
    app = create_app(pack, settings, shared)
    about = app.info
    threads = counted(about.threads, "thread")
    lanes = f"{counted(about.lanes, 'lane')}{' and a wide one' if about.has_wide_lane else ''}"
    _log.info(
        f"Loaded the pack {about.pack}: model {about.model} on {about.provider} ({about.precision}, {threads},"
        f" {lanes}), fingerprint {about.fingerprint}."
    )
    _log.info("CPUs that it may use: %s.", about.cpus)
    if about.reason is not None:
        _log.info("Why nothing faster is used: %s.", about.reason.rstrip("."))
    for sentence in pack.manifest.assumptions:
        _log.warning("Assumed: %s", sentence)
    if about.doubt is not None:
        _log.warning("%s", about.doubt)
    config = uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=settings.access_log,
        proxy_headers=settings.access_log,  # the caller's address is only logged
        forwarded_allow_ips="*" if "*" in settings.trusted_proxies else [*settings.trusted_proxies],
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
        server_header=False,
    )
    server = _Server(app, config, on_beat)
    # Set here and not only while uvicorn runs: a signal that arrives in between must not be lost.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    allow_open_files(settings.max_connections)
    port.open_up(listener)
    on_open()
    server.run(sockets=[listener])
    hung, unfinished = app.health.why_hung, app.health.unfinished
    if hung is not None:
        _log.critical("Ended with status %d: %s.", HUNG_STATUS, hung)
    if hung is not None or unfinished is not None:
        logging.shutdown()
        os._exit(HUNG_STATUS if hung is not None else 0)  # a regular exit would wait for the thread
