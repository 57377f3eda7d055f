"""What both clients are made of: where the service is, how httpx reaches it, and how its failures read."""

import os
import re
import ssl
from contextlib import suppress
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import httpx

from arcface_api import __version__
from arcface_api.client.core import Core
from arcface_api.client.effects import Send
from arcface_api.client.problems import ServiceUnreachable
from arcface_api.outbound import proxy_for, service_tls

DEFAULT_URL = "http://localhost:5555"
MAX_TIMEOUT_SECONDS = 86_400.0
IDLE_SECONDS = 30.0
"""How long an unused connection is kept: less than the service (75 s) and usual proxies (60 s) keep theirs."""

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)


class Connection(Generic[Http]):
    """What both clients are made of."""

    def __init__(  # noqa: PLR0913  # each is a setting of the client
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        fingerprint: str | None = None,
        recipe: str | None = None,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 60.0,
        requests_at_once: int = 4,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: Where the service is, with the path under which a proxy publishes it, if any. A name and a password
                (`https://name:password@host`) are sent as `Authorization: Basic …`, and appear in no message.
            api_key: Sent as `Authorization: Bearer …`, for a service, or a proxy before it, that asks for one.
            fingerprint: Of your stored embeddings: a service with another model is refused (`FingerprintDiffers`).
            recipe: Of your stored embeddings: a picture that would get another one is refused (`RecipeDiffers`).
            timeout_seconds: How long one attempt may take to connect, and then to answer.
            retry_seconds: How long a request is repeated while the service is full, restarts or is unreachable; 0: not.
            requests_at_once: Of one `embed_many`, each with up to 32 pictures.
            ssl_context: At an `https://` address, which certificates to trust and which one to show. Default: those in
                `SSL_CERT_FILE` or of the usual authorities, and the one in `SSL_CLIENT_CERT`, if it is set.

        Raises:
            ValueError: `url` is not an address, a header cannot carry a value, or a number is out of its range.
            SettingInvalid: A variable for proxies or certificates (`HTTPS_PROXY`, `SSL_CERT_FILE` …) cannot be used.
        """
        address = _address(url)
        if not (0 < timeout_seconds <= MAX_TIMEOUT_SECONDS and retry_seconds >= 0 and requests_at_once > 0):
            raise ValueError(
                "timeout_seconds must be more than 0 and at most a day, requests_at_once more than 0, and retry_seconds"
                " 0 or more."
            )
        self.url = str(address.copy_with(username=None, password=None)).rstrip("/")
        self._timeout_seconds, self._requests_at_once = timeout_seconds, requests_at_once
        self._proxy = proxy_for(address)
        self._core_settings: dict[str, Any] = {
            "fingerprint": _header_value("fingerprint", fingerprint),
            "recipe": _header_value("recipe", recipe),
            "retry_seconds": retry_seconds,
            "timeout_seconds": timeout_seconds,
            "requests": requests_at_once,
        }
        headers = {"User-Agent": f"arcface-api/{__version__}", "Accept": "application/json"}
        if key := _header_value("api_key", api_key):
            headers["Authorization"] = f"Bearer {key}"
        self._http_settings: dict[str, Any] = {
            "auth": (address.username, address.password) if address.userinfo else None,
            "headers": headers,
            "timeout": timeout_seconds,
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS),
            "proxy": self._proxy,
            # Redirects are not followed, so other addresses need no certificates, which take long to load.
            "verify": (ssl_context or service_tls(address)) if address.scheme == "https" else False,
            "trust_env": False,  # `outbound` has read the environment
        }
        self._begin()
        _clients.add(self)

    def _begin(self) -> None:
        """Be as new: without connections, and with nobody inside the gate."""
        self._core = Core(**self._core_settings)
        self._http: Http = self._open(**self._http_settings)

    def _begin_again(self) -> None:
        """Where the connections and locks are another process's or event loop's."""
        if not self._http.is_closed:
            self._begin()

    def _open(self, **settings: Any) -> Http:
        """The client of httpx."""
        raise NotImplementedError

    def _request(self, send: Send) -> dict[str, Any]:
        return {
            "method": send.method,
            "url": self.url + send.path,
            "params": send.query,
            "headers": send.headers,
            "content": send.content or None,
        }

    def _unreachable(self, error: Exception) -> ServiceUnreachable:
        """What httpx met, for a person."""
        if self._http.is_closed:
            raise RuntimeError("The client was closed before the answer came.") from error
        where, advice = self.url, "Start the service there (arcface-api serve), or check the address."
        if self._proxy:
            where = f"{self.url} through the proxy {self._proxy.url}"  # httpx keeps the password elsewhere
            advice = "Check the address, and the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY."
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            why = f"gives no answer within {self._timeout_seconds:g} s"
            return ServiceUnreachable(f"{where} {why}. Its log may say why; or allow more with timeout_seconds.")
        if sentence := _about_tls(error, self.url):
            return ServiceUnreachable(sentence, may_pass=False)
        if isinstance(error, httpx.LocalProtocolError):  # its text may repeat a secret header
            return ServiceUnreachable(f"A request to {where} cannot be written as HTTP. {advice}", may_pass=False)
        why = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            return ServiceUnreachable(f"Nothing answers at {where}: {why}. {advice}")
        return ServiceUnreachable(
            f"The connection to {where} broke before the answer was whole: {why}. The service's log may say why."
        )


_clients: WeakSet[Connection[Any]] = WeakSet()


def _begin_all_again() -> None:
    for client in _clients:
        client._begin_again()  # noqa: SLF001  # of this module


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # On a connection that parent and child share, each would read the other's answers.
    os.register_at_fork(after_in_child=_begin_all_again)


def _address(url: str) -> httpx.URL:
    address = None
    with suppress(httpx.InvalidURL):
        address = httpx.URL(url)
    if address is None or address.scheme not in ("http", "https") or not address.host or set("?#") & set(url):
        shown = re.sub("//.*@", "//…@", url)  # without a password
        raise ValueError(f"{shown!r} is no address of a service. Write it as {DEFAULT_URL}, without ? and #.")
    return address


def _header_value(name: str, value: str | None) -> str:
    """Without spaces and line ends around it, as files have them; never shown, as it may be a secret."""
    value = (value or "").strip()
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{name} has characters that no HTTP header can carry. Allowed is printable ASCII.")
    return value


def _about_tls(met: Exception, url: str) -> str:
    """What is wrong with TLS, if that is why a request failed, and goes on to be."""
    error: BaseException | None = met
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate of {url} is not trusted: {met}. Name its authority in SSL_CERT_FILE."
    reason = (error.reason if error else None) or ""
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):  # the second one from OpenSSL 3.2 on
        return f"What answers at {url} has no TLS. Write its address with http://."
    if "ALERT" in reason and any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "DECRYPT_ERROR")):
        return (
            f"{url} refuses this client's certificate ({reason}). Name the file with one that its operator has signed,"
            " and its key, in SSL_CLIENT_CERT."
        )
    return ""
