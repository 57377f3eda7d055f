"""The running service: a port, and one process or several that answer on it.

    serve ──1 worker──▶ server.run
          └─several───▶ supervisor ──spawns──▶ worker ──▶ server.run, once in each process

`port` takes the port before anything slow happens and opens it when the first process can embed.
"""

import logging
import socket

from arcface_api.packs import InstalledPack
from arcface_api.serving import port
from arcface_api.settings import Settings

_log = logging.getLogger(__name__)


def serve(pack: InstalledPack, settings: Settings, listener: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT, and first those in flight.

    Args:
        pack: What to serve.
        settings: `workers` says in how many processes.
        listener: What `port.take` gave.

    Raises:
        PackError, ModelFailed, RuntimeUnfit: As `api.app.create_app`.
        SettingInvalid: Something else took the port meanwhile, or this system cannot run several workers.
        WorkerEnded: A worker ended before it could serve.
    """

    def announce() -> None:
        _log.info("Listening on %s, API at /docs.", port.url_of(listener))

    # Imported where they run: the models' libraries take a second and a half, and a supervisor needs none of them.
    if settings.workers == 1:
        from arcface_api.serving import server  # noqa: PLC0415

        server.run(pack, settings, listener, announce)
    else:
        from arcface_api.serving import supervisor  # noqa: PLC0415

        supervisor.run(pack, settings, listener, announce)
