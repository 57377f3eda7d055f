"""Where callers find the service: under which path a proxy publishes it, and from which web pages."""

import ipaddress
import re
from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Scope

from arcface_api.api.connections import PEER
from arcface_api.settings import PREFIX

_FORWARDED_PREFIX = b"x-forwarded-prefix"


class Prefix:
    """The path prefix of each request."""

    def __init__(self, root_path: str, trusted: Iterable[str]) -> None:
        """A `root_path` holds for every request; without one, the `X-Forwarded-Prefix` of trusted proxies does."""
        self._root_path = root_path
        self._trusts_all = "*" in trusted
        self._trusted = [ipaddress.ip_network(entry, strict=False) for entry in trusted if entry != "*"]

    def split(self, scope: Scope) -> tuple[str, str]:
        """A request's prefix, or nothing, and its path without that, whether or not the proxy has taken it away."""
        prefix, path = self._root_path or self._forwarded(scope), str(scope["path"])
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path[len(prefix) :] or "/"
        return prefix, path

    def _forwarded(self, scope: Scope) -> str:
        value = next((value for name, value in scope["headers"] if name == _FORWARDED_PREFIX), None)
        if value is None or not self._is_trusted(scope.get(PEER) or scope.get("client")):
            return ""
        prefix = str(value, "latin-1").strip().rstrip("/")
        return prefix if re.fullmatch(PREFIX, prefix) else ""

    def _is_trusted(self, peer: tuple[str, int] | None) -> bool:
        if self._trusts_all or peer is None:
            return self._trusts_all
        address = ipaddress.ip_address(peer[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address  # as a listener on [::] sees IPv4
        return any(mapped in network for network in self._trusted)


def for_pages_of(app: ASGIApp, origins: Iterable[str]) -> ASGIApp:
    """The app for web pages of these origins, too, which read all headers of its answers (CORS)."""
    headers = ["*"]
    return CORSMiddleware(
        app,
        allow_origins=[*origins],
        allow_methods=["GET", "POST"],
        allow_headers=headers,
        expose_headers=headers,
    )
