"""The service as an application of Ray Serve: the same ASGI app in each replica.

What uvicorn with our protocol does for `arcface-api serve`, Serve's proxy does here, with limits of its own.
docs/ray.md lists the differences.
"""

from typing import Any

import ray
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arcface_api.api.app import create_app
from arcface_api.errors import SettingInvalid
from arcface_api.packs import obtain
from arcface_api.progress import LoggedProgress
from arcface_api.settings import Settings, read_settings

SERVES_OWN = {
    "access_log",
    "host",
    "head_timeout_seconds",
    "keep_alive_seconds",
    "log_format",
    "log_level",
    "log_lines_per_minute",
    "max_connections",
    "max_connections_per_address",
    "max_head_bytes",
    "max_header_bytes",
    "max_headers",
    "max_unread_answer_bytes",
    "port",
    "shutdown_grace_seconds",
    "upload_min_bytes_per_second",
    "upload_timeout_seconds",
    "workers",
}
"""Settings of what Serve does itself."""


class Replica:
    """One process with the models, as many threads as it has CPUs of its node, and the ASGI app."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is loaded yet: Serve asks for the app next."""
        self._settings = settings

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Serve's name
        """Load the models; what fails stands in the replica's log, and in `serve status`."""
        cpus = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        own = {name: getattr(self._settings, name) or cpus for name in ("threads", "decode_threads")}
        hosts = self._settings.allowed_hosts or {"*"}  # the default looks at `host`, which Serve decides
        settings = self._settings.model_copy(update={**own, "workers": 1, "allowed_hosts": hosts})
        self._app = create_app(obtain(settings, LoggedProgress()), settings)
        return without_request_id(self._app)

    async def check_health(self) -> None:
        """Asked by Serve now and then: a replica whose decode or inference does not end is replaced."""
        if why := self._app.health.why_hung:
            raise RuntimeError(why)


def without_request_id(app: ASGIApp) -> ASGIApp:
    """The app without a header that Serve's proxy adds to every answer, with the same value."""

    async def serve_once(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [each for each in message["headers"] if each[0].lower() != b"x-request-id"]
            await send(message)

        await app(scope, receive, sent)

    return serve_once


def application(args: dict[str, str]) -> Any:
    """An application with one deployment, `arcface-api`."""
    unknown = sorted(set(args) - Settings.model_fields.keys())
    if unknown:
        raise SettingInvalid(
            f"{', '.join(unknown)} is no setting. Arguments are settings by their names, for example pack=antelopev2"
            " align=auto; docs/configuration.md lists them."
        )
    if useless := sorted(SERVES_OWN & set(args)):
        raise SettingInvalid(
            f"{', '.join(useless)} has no effect behind Ray Serve, which has settings of its own: docs/ray.md names"
            " them. Leave it out."
        )
    settings = read_settings(**args)
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="arcface-api",
        # More than a replica takes: it refuses the rest itself, with Retry-After, where Serve would let callers wait.
        max_ongoing_requests=2 * settings.queue_capacity,
    )
    return deployment.bind(settings)
