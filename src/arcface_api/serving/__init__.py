"""The running service: a port, and one process or several that answer on it.

serve ──1 worker──▶ server.run
      └─several───▶ supervisor ──spawns──▶ worker ──▶ server.run, in each process
"""

import logging
import socket

from arcface_api.packs import InstalledPack
from arcface_api.serving import port
from arcface_api.settings import Settings

_log = logging.getLogger(__name__)


def serve(pack: InstalledPack, settings: Settings, listener: socket.socket) -> None:
    """Serve a pack on the socket that `port.take` returned, until SIGTERM or SIGINT; answers what is in flight first.

    Raises:
        PackError, ModelFailed, RuntimeUnfit: As `api.app.create_app`.
        SettingInvalid: Another program opened the port meanwhile, or this system cannot run several workers.
        WorkerEnded: A worker ended before it could serve.
    """

    def announce() -> None:
        _log.info("Listening on %s, API at /docs.", port.url_of(listener))

    # Imported late: the models' libraries take 1.5 s, and a supervisor needs none of them.
    if settings.workers == 1:
        from arcface_api.serving import server  # noqa: PLC0415

        server.run(pack, settings, listener, announce)
    else:
        from arcface_api.serving import supervisor  # noqa: PLC0415

        supervisor.run(pack, settings, listener, announce)
