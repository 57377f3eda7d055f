"""The real service, run for a test."""

import threading

import httpx
import uvicorn

from arcface_api.api.direct import DirectApp
from arcface_api.api.protocol import HttpProtocol


class Service(httpx.Client):
    """A client of a real service that runs in a thread of this process."""

    def __init__(self, app: DirectApp) -> None:
        """Start the service on a free port and wait until it is ready."""
        self._server = uvicorn.Server(uvicorn.Config(app, ws="none", http=HttpProtocol, log_config=None, port=0))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            assert self._thread.is_alive(), "the service ended before it was ready"
        port = self._server.servers[0].sockets[0].getsockname()[1]
        super().__init__(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def stop(self) -> None:
        """Do what SIGTERM does, and wait for the end."""
        self._server.should_exit = True
        self._thread.join()
