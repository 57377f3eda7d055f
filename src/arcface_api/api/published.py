"""Where callers are and find the service: behind which proxies, under which path, from which web pages."""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Scope

from arcface_api.api.connections import PEER, plain_address
from arcface_api.settings import PREFIX

_FORWARDED_PREFIX = b"x-forwarded-prefix"
_FORWARDED_FOR = b"x-forwarded-for"
_PORT = re.compile(r"^\[(.*)\](?::\d+)?$|^([^:]+):\d+$")
"""Behind an address in `X-Forwarded-For`, as some proxies write it."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(entries: Iterable[str]) -> list[Network]:
    """Addresses and networks as the settings have them."""
    return [ipaddress.ip_network(entry, strict=False) for entry in entries]


class Proxies:
    """The proxies whose headers are believed, and the callers behind them."""

    def __init__(self, trusted: Iterable[str]) -> None:
        """Addresses and networks; `*` for all."""
        self._trusts_all = "*" in trusted
        self._trusted = networks(entry for entry in trusted if entry != "*")
        self._is_trusted = lru_cache(1024)(self._is_in_networks)

    def trusts(self, scope: Scope) -> bool:
        """Whether the other end of this request's connection is one of them."""
        peer = scope.get(PEER) or scope.get("client")
        return self._trusts_all or (peer is not None and self.trusts_address(peer[0]))

    def trusts_address(self, address: str) -> bool:
        """Whether this address is one of theirs."""
        return self._trusts_all or self._is_trusted(plain_address(address))

    def caller(self, scope: Scope) -> str:
        """The address of the caller: the other end, or the last one before the proxies that are trusted; may be empty.

        If all are trusted, it is what the nearest one has seen: a caller can write everything before that.
        """
        peer = scope.get(PEER) or scope.get("client")
        address = plain_address(peer[0]) if peer else ""
        if (self._trusts_all or self._trusted) and self.trusts(scope):
            sent = b",".join(value for name, value in scope["headers"] if name == _FORWARDED_FOR).decode("latin-1")
            for entry in reversed(sent.split(",")):
                with_port = _PORT.match(entry.strip())
                before = plain_address(with_port[1] or with_port[2] if with_port else entry.strip())
                if not _is_address(before):
                    break  # what stands before it may be made up
                address = before
                if self._trusts_all or not self._is_trusted(address):
                    break
        return address

    def _is_in_networks(self, address: str) -> bool:
        return _is_address(address) and any(ipaddress.ip_address(address) in network for network in self._trusted)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Prefix:
    """The path prefix of each request."""

    def __init__(self, root_path: str, proxies: Proxies) -> None:
        """A `root_path` holds for every request; without one, the `X-Forwarded-Prefix` of trusted proxies does."""
        self._root_path, self._proxies = root_path, proxies

    def split(self, scope: Scope) -> tuple[str, str]:
        """A request's prefix, or nothing, and its path without that, whether or not the proxy has taken it away."""
        prefix, path = self._root_path or self._forwarded(scope), str(scope["path"])
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path[len(prefix) :] or "/"
        return prefix, path

    def _forwarded(self, scope: Scope) -> str:
        value = next((value for name, value in scope["headers"] if name == _FORWARDED_PREFIX), None)
        if value is None or not self._proxies.trusts(scope):
            return ""
        prefix = str(value, "latin-1").strip().rstrip("/")
        return prefix if re.fullmatch(PREFIX, prefix) else ""


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
