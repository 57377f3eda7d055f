"""The short way to the operations that embed: past the framework's routing and its dozen layers.

FastAPI describes these operations (OpenAPI, `/docs`) and serves all others. But its road to a handler costs more CPU
than all that this service does on its event loop for one crop, and on a GPU that would be the limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from arcface_api.api.answers import InfoAnswer
from arcface_api.api.caller import waiting_caller
from arcface_api.api.connections import Connections
from arcface_api.api.health import Health
from arcface_api.api.problems import Handler


@dataclass(frozen=True)
class DirectApp:
    """An ASGI app: some operations go straight to their handlers, everything else goes to the framework."""

    framework: FastAPI
    handlers: Mapping[tuple[str, str], Handler]
    """By method and path. Every error that they can meet becomes their answer."""
    info: InfoAnswer
    """What `/info` answers."""
    health: Health
    """Its `why_hung` says when the process has to be replaced."""
    connections: Connections
    """What is allowed to those on which it is served."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the app's lifespan."""
        handler = self.handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None:
            await self.framework(scope, receive, send)
        else:
            with waiting_caller(scope):
                response = await handler(Request(scope, receive))
            await response(scope, receive, send)
