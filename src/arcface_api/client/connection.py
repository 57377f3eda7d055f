"""What both clients are made of: where the service is, how httpx reaches it, and how its failures read."""

import ssl
from contextlib import suppress
from typing import Any

import httpx

from arcface_api import __version__
from arcface_api.client.core import Core
from arcface_api.client.effects import Send
from arcface_api.client.problems import ServiceUnreachable
from arcface_api.outbound import proxy_for, tls_context

DEFAULT_URL = "http://localhost:5555"
IDLE_SECONDS = 30.0
"""How long an unused connection is kept: less than the service (75 s) and usual proxies (60 s) keep theirs."""


class Connection:
    """What both clients are made of."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        fingerprint: str | None = None,
        recipe: str | None = None,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 60.0,
        requests_at_once: int = 4,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: Where the service is, with the path under which a proxy publishes it, if any.
            api_key: Sent as `Authorization: Bearer …`. The service itself has no authentication; a proxy may.
            fingerprint: Of your stored embeddings: a service with another model is refused (`FingerprintDiffers`).
            recipe: Of your stored embeddings: a picture that would get another one is refused (`RecipeDiffers`).
            timeout_seconds: How long one attempt may take to connect, and then to answer.
            retry_seconds: How long a request is repeated while the service is full, restarts or is unreachable; 0: not.
            requests_at_once: Of one `embed_many`, each with up to 32 pictures.

        Raises:
            ValueError: `url` is not an address, or a number is not positive.
            SettingInvalid: A variable for proxies or certificates (`HTTPS_PROXY`, `SSL_CERT_FILE` …) cannot be used.
        """
        self.url = url.rstrip("/")
        address = _address(self.url)
        if not (timeout_seconds > 0 and retry_seconds >= 0 and requests_at_once > 0):
            raise ValueError("timeout_seconds and requests_at_once must be more than 0, and retry_seconds 0 or more.")
        self._timeout_seconds, self._requests_at_once = timeout_seconds, requests_at_once
        self._core = Core(
            fingerprint=fingerprint,
            recipe=recipe,
            retry_seconds=retry_seconds,
            timeout_seconds=timeout_seconds,
            requests=requests_at_once,
        )
        headers = {"User-Agent": f"arcface-api/{__version__}", "Accept": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._open(
            headers=headers,
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS),
            proxy=proxy_for(address),
            # Redirects are not followed, so other addresses need no certificates, which take long to load.
            verify=tls_context(address) if address.scheme == "https" else False,
            trust_env=False,  # `outbound` has read the environment
        )

    def _open(self, **settings: Any) -> None:
        """Make httpx's client."""
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
        advice = "Start the service there (arcface-api serve), or check the address."
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            why = f"gives no answer within {self._timeout_seconds:g} s"
            return ServiceUnreachable(f"{self.url} {why}. Its log may say why; or allow more with timeout_seconds.")
        if _is_certificate(error):
            sentence = f"The certificate of {self.url} is not trusted: {error}. Name its authority in SSL_CERT_FILE."
            return ServiceUnreachable(sentence, may_pass=False)
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            return ServiceUnreachable(f"Nothing answers at {self.url}: {error}. {advice}")
        return ServiceUnreachable(
            f"The connection to {self.url} broke before the answer was whole: {error or type(error).__name__}. The"
            " service's log may say why."
        )


def _address(url: str) -> httpx.URL:
    address = None
    with suppress(httpx.InvalidURL):
        address = httpx.URL(url)
    if address is None or address.scheme not in ("http", "https") or not address.host:
        raise ValueError(f"{url!r} is no address of a service. Write it as {DEFAULT_URL}.")
    return address


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
