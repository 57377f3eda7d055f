"""Which requests get in, before a byte of their body is read.

    request ──▶ its Host is a name of ours ──▶ no web page of elsewhere sent it ──▶ its API key is known ──▶ operation
                   421 host_not_allowed              403 forbidden                   401 unauthenticated

Probes skip all of it; the page, `/docs` and their files need no key.
"""

import ipaddress
import re
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache

from starlette.types import Scope

from arcface_api.api.auth import KEY_NAME, Keys
from arcface_api.api.published import Proxies
from arcface_api.errors import Forbidden, HostNotAllowed
from arcface_api.settings import Settings

PROBES = frozenset({"/health", "/livez", "/readyz"})
"""Everybody may ask these: orchestrators do, under any name, without a key and without a certificate."""
DOCUMENTS = frozenset({"/", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
DOCUMENT_FOLDERS = ("/page/", "/static-offline-docs/")
"""Load without a key, because a browser has none yet: they contain nothing of this service's own."""
SHOWN_CHARACTERS = 60
"""As many of a caller's Host as an error repeats."""

_SAME_SITE = (b"same-origin", b"none")
_USUAL_PORTS = {b"http": b":80", b"https": b":443"}
_WITHOUT_DOT = "."
_HERE = frozenset({_WITHOUT_DOT, "*.localhost"})


def hosts_of(settings: Settings) -> frozenset[str]:
    """The names under which the service may be called; `*`: all, `.`: all without a dot.

    Addresses are always allowed: only a name can be made to lead here by somebody else (DNS rebinding). A name without
    a dot cannot: nobody can register one.
    """
    if settings.allowed_hosts:
        return settings.allowed_hosts
    is_here_alone = settings.host.lower() == "localhost"
    with suppress(ValueError):
        is_here_alone = ipaddress.ip_address(settings.host).is_loopback
    return _HERE if is_here_alone else frozenset({"*"})


class Access:
    """Checks requests. Belongs to the event loop."""

    def __init__(
        self, hosts: Collection[str], origins: Collection[str], proxies: Proxies, keys: Keys | None = None
    ) -> None:
        """The names of the service, the web pages that may use it, and the keys that callers need."""
        self._hosts = None if "*" in hosts else frozenset(hosts)
        self._origins = None if "*" in origins else frozenset(origin.encode() for origin in origins)
        self._proxies, self._keys = proxies, keys
        self._allows = lru_cache(256)(self._is_name)

    def check(self, scope: Scope, path: str) -> None:
        """Check a request for this path, which has no prefix.

        Raises:
            HostNotAllowed, Forbidden, Unauthenticated: It does not get in.
        """
        if path in PROBES:
            return
        headers = dict(scope["headers"])
        if self._hosts is not None and (host := headers.get(b"host")) and not self._allows(host):
            raise HostNotAllowed(
                f"The request is for the host {host[:SHOWN_CHARACTERS].decode('latin-1')!r}, under which the service"
                " may not be called. Call it by its address, or ask the operator to add the name to"
                " ARCFACE_ALLOWED_HOSTS."
            )
        method = scope["method"]
        if method == "POST" and self._origins is not None:
            self._check_page(headers, self._origins, scope)
        if self._keys is not None and method != "OPTIONS" and path not in DOCUMENTS:
            if path.startswith(DOCUMENT_FOLDERS):
                return
            scope[KEY_NAME] = self._keys.name_of(scope["headers"])

    def _is_name(self, host: bytes) -> bool:
        """Whether a Host is an address, or one of the names."""
        name = re.sub(r":\d*$", "", host.decode("latin-1")).lower().rstrip(".")
        with suppress(ValueError):
            ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
            return True
        hosts = self._hosts or frozenset()
        parents = name.split(".")[1:]
        if _WITHOUT_DOT in hosts and re.fullmatch(r"[a-z0-9_-]{1,63}", name):
            return True
        return name in hosts or any(f"*.{'.'.join(parents[at:])}" in hosts for at in range(len(parents)))

    def _check_page(self, headers: dict[bytes, bytes], allowed: frozenset[bytes], scope: Scope) -> None:
        """Raises `Forbidden` if a browser sent this for a web page of another origin.

        Browsers do that without asking where a form could have sent the same. No page can change these headers.
        """
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if site in _SAME_SITE or (site is None and (origin is None or self._is_ours(origin, headers, scope))):
            return
        if origin is None or origin.lower() not in allowed:
            shown = (origin or b"another origin")[:SHOWN_CHARACTERS].decode("latin-1")
            raise Forbidden(
                f"A web page of {shown} sent this request, and the service allows it to none but its own. Where that"
                " page should, the operator adds its origin to ARCFACE_CORS_ORIGINS; behind a proxy that changes Host,"
                " it must send X-Forwarded-Host and be one of ARCFACE_TRUSTED_PROXIES."
            )

    def _is_ours(self, origin: bytes, headers: dict[bytes, bytes], scope: Scope) -> bool:
        """Whether an origin is where the browser found the service."""
        scheme, _, where = origin.lower().partition(b"://")
        usual = _USUAL_PORTS.get(scheme, b":")
        ours = [headers.get(b"host", b"")]
        if b"x-forwarded-host" in headers and self._proxies.trusts(scope):
            ours.append(headers[b"x-forwarded-host"].partition(b",")[0].strip())
        return bool(where) and where.removesuffix(usual) in [host.lower().removesuffix(usual) for host in ours]
