"""The running service: a port, and one process or several that answer on it.

serve ──1 worker──▶ server.run
      └─several───▶ supervisor ──spawns──▶ worker ──▶ server.run, in each process
"""

import logging
import socket

from arcface_api.packs import InstalledPack
from arcface_api.serving import port, supervisor
from arcface_api.serving.process import leave_no_core_file
from arcface_api.settings import Settings

_log = logging.getLogger(__name__)


def serve(pack: InstalledPack, settings: Settings, listener: socket.socket) -> None:
    """Serve a pack on the socket that `port.bind` returned, until SIGTERM or SIGINT; answers what is in flight first.

    Raises what `server.run` or `supervisor.run` raises.
    """
    scheme = "https" if settings.tls_certificate_file else "http"

    def announce() -> None:
        _log.info("Listening on %s, API at /docs.", port.url_of(listener, scheme))
        if settings.page:
            _log.info("To try it, open %s/ in a browser.", port.url_of(listener, scheme, from_here=True))

    if not settings.core_files:
        leave_no_core_file()
    if settings.workers > 1:
        supervisor.run(pack, settings, listener, announce)
    else:
        from arcface_api.serving import server  # noqa: PLC0415  # takes 1.5 s, which a supervisor saves

        server.run(pack, settings, listener, announce)
