"""TLS of the port: the files that the settings name, checked at the start, and read again when they change.

    settings ──of──▶ Tls.context ──▶ the next connection        files change ──watch──▶ another context
                                                                └─ and are wrong ──▶ an error in the log, once

A context is never changed: connections that are open keep theirs, and a wrong file leaves the last good one in use.
"""

import asyncio
import logging
import math
import ssl
import stat
import time
from contextlib import suppress
from pathlib import Path

from arcface_api.errors import SettingInvalid
from arcface_api.settings import ENVIRONMENT_PREFIX, Settings

CHECK_SECONDS = 1.0
"""Between two looks at the files. They are read when two looks in a row see the same: writers need a moment."""
LOG_SECONDS = 1.0
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name: dates are compared here."""
_CERTIFICATE, _KEY, _CLIENT_CA = "tls_certificate_file", "tls_key_file", "tls_client_ca_file"
_HINTS = {
    _CERTIFICATE: "It must hold the certificate in PEM format, followed by those of the authorities between it and the"
    " root",
    _KEY: "It must hold the certificate's private key in PEM format, without a passphrase",
    _CLIENT_CA: "It must hold the certificates, in PEM format, of the authorities that sign callers' certificates",
}

_log = logging.getLogger(__name__)
_Seen = tuple[tuple[int, int, int, int] | None, ...]
"""Of each file: device, inode, size and time in ns. A link that leads elsewhere changes it; None: it is not there."""


class Tls:
    """What the next connection is secured with. Belongs to the event loop."""

    context: ssl.SSLContext
    expires_seconds: float
    """Unix time at which the certificate ends."""
    doubt: str
    """Why callers may refuse it, if they may."""
    handshakes_failed = 0
    _logged_failure = -math.inf

    def __init__(self, files: dict[str, Path], *, names_callers: bool = False) -> None:
        """`files` by the names of their settings. Raises `SettingInvalid` if one of them cannot be used.

        `names_callers`: the log may have their addresses.
        """
        self._files, self._names_callers = files, names_callers
        self._seen = self._look()
        self.context, self.expires_seconds, self.doubt = _read(files)

    @classmethod
    def of(cls, settings: Settings) -> "Tls | None":
        """None: the port speaks plain HTTP. Raises `SettingInvalid` if a file is missing or cannot be used."""
        given = {name: getattr(settings, name) for name in (_CERTIFICATE, _KEY, _CLIENT_CA)}
        files = {name: path for name, path in given.items() if path is not None}
        if files and _CERTIFICATE not in files:
            raise SettingInvalid(
                f"{_variable(next(iter(files)))} is set, and no certificate: name it in {_variable(_CERTIFICATE)}, or"
                " leave both out to serve plain HTTP."
            )
        return cls(files, names_callers=settings.access_log) if files else None

    async def watch(self) -> None:
        """Use what the files hold, also after they change, until it is cancelled."""
        self._announce()
        before = self._seen
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            seen = await asyncio.to_thread(self._look)  # a network's folder may hang
            if seen == before != self._seen:
                self._seen = seen
                try:
                    self.context, self.expires_seconds, self.doubt = await asyncio.to_thread(_read, self._files)
                    self._announce()
                except SettingInvalid as error:
                    _log.error("The changed TLS files are not used, the last ones still are: %s", error)
            before = seen

    def failed(self, caller: tuple[str, int] | None, error: ssl.SSLError) -> None:
        """A handshake failed, or what came behind it is not TLS. Anybody can cause it: one a second is logged."""
        self.handshakes_failed += 1
        if time.monotonic() - self._logged_failure >= LOG_SECONDS:
            self._logged_failure = time.monotonic()
            reason = getattr(error, "verify_message", "") or error.reason or error
            who = caller[0] if caller and self._names_callers else "a caller"
            _log.info("TLS with %s failed: %s (%d in all).", who, reason, self.handshakes_failed)

    def _announce(self) -> None:
        who = "callers with a certificate" if _CLIENT_CA in self._files else "every caller"
        where = self._files[_CERTIFICATE]
        _log.info("TLS with the certificate in %s, valid until %s, for %s.", where, _day(self.expires_seconds), who)
        if self.doubt:
            _log.warning("%s", self.doubt)

    def _look(self) -> _Seen:
        return tuple(map(_seen, self._files.values()))


def _seen(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(files: dict[str, Path]) -> tuple[ssl.SSLContext, float, str]:
    """The context, when its certificate ends, and why callers may refuse it, if they may.

    Raises `SettingInvalid`, which names the file and the remedy.
    """
    for name, path in files.items():
        try:
            if stat.S_ISFIFO(path.stat().st_mode):  # opening it would wait for a writer
                raise _unusable(name, path, "it is a named pipe, and has to be a file")
            path.open("rb").close()
        except OSError as error:
            raise _unusable(name, path, error.strerror or str(error)) from None
    certificate, key = files[_CERTIFICATE], files.get(_KEY)
    key_setting = _KEY if key else _CERTIFICATE
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])

    def no_passphrase() -> str:
        raise _unusable(
            key_setting, key or certificate, "the key is encrypted, and nobody is there to type a passphrase"
        )

    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except (ssl.SSLError, OSError) as error:
        raise _not_a_pair(certificate, key, error) from None
    expires_seconds, doubt = _tried(context, certificate)
    if (authorities := files.get(_CLIENT_CA)) is not None:
        try:
            context.load_verify_locations(authorities)
        except (ssl.SSLError, OSError):
            raise _unusable(_CLIENT_CA, authorities, "it holds no certificate") from None
        # OPTIONAL: a caller without one reads in HTTP why it is refused, and probes, which have none, get in.
        context.verify_mode = ssl.CERT_OPTIONAL
    return context, expires_seconds, doubt


def _tried(server: ssl.SSLContext, certificate: Path) -> tuple[float, str]:
    """Shake hands in memory with a client that trusts this certificate alone. Returns when the certificate ends.

    Also returns why callers may refuse it, or nothing. That keeps no service from starting: the clock may be wrong.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    try:
        client.load_verify_locations(certificate)
    except OSError:  # `ssl.SSLError` is one: it reads all of the file, and above only the certificates were read
        raise _unusable(_CERTIFICATE, certificate, "a part of it cannot be read") from None
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller, answering = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    try:
        for side in (caller, answering) * 3:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        facts = caller.getpeercert() or {}
    except (ssl.SSLError, ValueError) as error:  # ValueError: no end was reached
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        return 0.0, f"Callers will refuse the certificate in {certificate}: {reason}. Have another one issued."
    begins, expires = (ssl.cert_time_to_seconds(str(facts[name])) for name in ("notBefore", "notAfter"))
    doubt = ""
    if expires < time.time():
        doubt = f"The certificate in {certificate} ended on {_day(expires)}: callers refuse it. Renew it."
    elif begins > time.time():
        doubt = (
            f"The certificate in {certificate} is valid only from {_day(begins)} on: callers refuse it until then."
            " Check this machine's clock."
        )
    return float(expires), doubt


def _not_a_pair(certificate: Path, key: Path | None, error: Exception) -> SettingInvalid:
    """Why OpenSSL does not take the two: its own words name neither the file nor a remedy."""
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return _unusable(
            _KEY if key else _CERTIFICATE,
            key or certificate,
            f"the key does not belong to the certificate {certificate}",
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except (ssl.SSLError, OSError):
        return _unusable(_CERTIFICATE, certificate, "it holds no certificate")
    if reason in (None, "NO_START_LINE", "BAD_BASE64_DECODE", "UNSUPPORTED"):
        if key is None:
            return SettingInvalid(
                f"{_variable(_CERTIFICATE)}={certificate} holds no private key. Name the file that holds it in"
                f" {_variable(_KEY)}."
            )
        return _unusable(_KEY, key, "it holds no private key")
    return _unusable(_CERTIFICATE, certificate, f"OpenSSL refuses it or its key ({reason})")


def _unusable(name: str, path: Path, why: str) -> SettingInvalid:
    remedy = _HINTS[name]
    if name == _KEY and "encrypted" in why:
        remedy += " (openssl pkey -in old.pem -out new.pem writes it without)"
    return SettingInvalid(
        f"{_variable(name)}={path} cannot be used: {why}. {remedy}, and this user must be able to read it."
    )


def _variable(name: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{name.upper()}"


def _day(seconds: float) -> str:
    if not seconds:
        return "an unknown day"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
