"""How this process reaches other machines: the proxy and the certificates that the environment names.

httpx reads the same variables, but raises errors of its own for those that it cannot use, networks in `NO_PROXY` among
them. Machines are reached directly that `NO_PROXY` names, and this one always.
"""

import importlib.util
import ipaddress
import os
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.request import getproxies

import httpx

from arcface_api.errors import SettingInvalid

CLIENT_CERTIFICATE = "SSL_CLIENT_CERT"
"""The variable that names a PEM file with a client's certificate and key, as uv has it."""
_SOCKS = ("socks5", "socks5h")
_ENTRY = re.compile(r"(?:.*://)?(?:(\[[^\]]*\]|[^:]*)(?::([0-9]+))?|(.*))", re.DOTALL)
"""Of `NO_PROXY`: a name, an address or a network, and a port; an IPv6 address with a port stands in brackets."""


def proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy to this URL; None: it is reached directly. Raises `SettingInvalid` if a variable cannot be used."""
    host, found = url.host.lower(), getproxies()
    scheme = next((scheme for scheme in (url.scheme, "all") if found.get(scheme)), None)
    port = url.port or (443 if url.scheme == "https" else 80)
    if scheme is None or _is_this_machine(host) or _is_direct(host, port, found.get("no", "").split(",")):
        return None
    value = found[scheme] if "://" in found[scheme] else f"http://{found[scheme]}"
    try:
        proxy = httpx.Proxy(value)
        is_usable = bool(proxy.url.host) and (proxy.url.port or 1) < 65536
    except (ValueError, httpx.InvalidURL):
        is_usable = False
    if not is_usable:
        # without its value, which may hold a password
        raise SettingInvalid(
            f"{_variable(scheme)} is not the URL of a proxy. Write it as http://host:port, or"
            " http://user:password@host:port with special characters as %XX, or unset it."
        )
    if proxy.url.scheme in _SOCKS and importlib.util.find_spec("socksio") is None:
        raise SettingInvalid(
            f"{_variable(scheme)} names a SOCKS proxy, for which the package socksio is missing. Install it (pip"
            f" install socksio), or name an HTTP proxy in {url.scheme.upper()}_PROXY."
        )
    return proxy


def tls_context(url: httpx.URL) -> ssl.SSLContext:
    """The certificates to trust at this URL. Raises `SettingInvalid` if those that the environment names are unusable.

    A URL without TLS needs none of them; where it leads on to one with it, the system's own are trusted.
    """
    if url.scheme != "https":
        return ssl.create_default_context()
    name = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
    try:
        if name == "SSL_CERT_DIR":
            next(Path(os.environ[name]).iterdir())  # OpenSSL does not report a folder that is missing
        return httpx.create_ssl_context()
    except (OSError, StopIteration) as error:
        if name is None:
            raise
        reason = "it is a folder without certificates"
        if isinstance(error, ssl.SSLError):
            reason = "it holds no certificate"
        elif isinstance(error, OSError):
            reason = error.strerror or str(error)
        raise SettingInvalid(
            f"{name}={os.environ[name]} cannot be used: {reason}. It must name certificates in PEM format that this"
            " user may read; correct it, or unset it to trust the usual authorities."
        ) from None


def service_tls(url: httpx.URL) -> ssl.SSLContext:
    """As `tls_context`, with the certificate that this client shows a service. Raises `SettingInvalid` as well."""
    context = tls_context(url)
    if url.scheme == "https" and (file := os.environ.get(CLIENT_CERTIFICATE)):

        def no_passphrase() -> str:
            raise _no_client_certificate(file, "its key is encrypted")

        try:
            context.load_cert_chain(file, password=no_passphrase)
        except ssl.SSLError:
            raise _no_client_certificate(file, "it does not hold both, or they do not belong together") from None
        except OSError as error:
            raise _no_client_certificate(file, error.strerror or str(error)) from None
    return context


def _no_client_certificate(file: str, why: str) -> SettingInvalid:
    return SettingInvalid(
        f"{CLIENT_CERTIFICATE}={file} cannot be used: {why}. It must name a file in PEM format with this client's"
        " certificate and its private key without a passphrase; correct it, or unset it."
    )


def _is_this_machine(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _is_direct(host: str, port: int, entries: Sequence[str]) -> bool:
    """Whether an entry of `NO_PROXY` names the host: `*`, a name with its sub-domains, an address, or a network."""
    for given in entries:
        found = _ENTRY.fullmatch(given.strip().lower())
        assert found is not None  # noqa: S101  # it matches everything
        entry, number = found[1] or found[3] or "", found[2]
        if number and int(number) != port:
            continue
        try:
            network = ipaddress.ip_network(entry.strip("[]"), strict=False)
            if ipaddress.ip_address(host) in network:
                return True
        except ValueError:  # one of them is a name
            name = entry.lstrip("*.")
            if entry == "*" or (name and (host == name or host.endswith(f".{name}"))):
                return True
    return False


def _variable(scheme: str) -> str:
    """The variable that names the proxy; the one in lower case wins, as everywhere."""
    name = f"{scheme}_proxy"
    return name if os.environ.get(name) else name.upper()
