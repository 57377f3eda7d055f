"""One process of the service: models loaded and run, then the port opened, then requests answered until the end."""

import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import uvicorn

from arcface_api.api.app import create_app
from arcface_api.api.connections import allow_open_files
from arcface_api.api.protocol import HttpProtocol
from arcface_api.packs import InstalledPack
from arcface_api.serving import port
from arcface_api.settings import Settings

_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn's server, whose signal handlers are set by `run`.

    Set by itself, they raise the signal once more when all is done; but being told to stop is no failure.
    """

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # asked only for a context
        return nullcontext()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, announced."""
        _log.info("Stopping: requests in flight may take %d s more.", self.config.timeout_graceful_shutdown)
        await super().shutdown(sockets)


def run(pack: InstalledPack, settings: Settings, listener: socket.socket, on_open: Callable[[], None]) -> None:
    """Serve a pack on a bound socket until SIGTERM or SIGINT.

    Args:
        pack: What to serve.
        settings: Of the whole service.
        listener: Bound, and not listening yet: callers get in when the models have run.
        on_open: Called when they can.

    Raises:
        PackError, ModelFailed, RuntimeUnfit: As `create_app`.
        SettingInvalid: Something else opened the port meanwhile.
    """
    _log.info(
        "Loading %s. The first start on a machine takes longer: what is fastest there is tried.", pack.manifest.name
    )
    app = create_app(pack, settings)
    about = app.info
    _log.info(
        "Serving %s: model %s on %s (%s, %d thread%s), fingerprint %s.",
        about.pack,
        about.model,
        about.provider,
        about.precision,
        about.threads,
        "s" if about.threads > 1 else "",
        about.fingerprint,
    )
    config = uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=settings.access_log,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
        server_header=False,
    )
    server = _Server(config)
    # From here on, and not only while uvicorn runs: a signal that comes in between must not be lost.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    allow_open_files(settings.max_connections)
    port.open_up(listener)
    on_open()
    server.run(sockets=[listener])
