"""TLS of one connection: between the bytes of the network and those of HTTP (docs/adr/0026-tls.md).

    network ──▶ received ──▶ HttpProtocol ──▶ GentleTransport ──▶ write ──▶ network
                OpenSSL                                           OpenSSL

The event loop's own TLS has no half-closed connection, which a gentle end needs, keeps 256 KiB for each connection, and
hides connections until their handshake is done, so that nobody would count them.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Any

HANDSHAKE_SECONDS = 10.0
"""How long a handshake may take, from the connection's beginning."""
_READ_BYTES = 64 * 1024
_HANDSHAKE = b"\x16"
"""The first byte of TLS: a record of type handshake (RFC 8446 section 5.1). No HTTP method begins with it."""


class TlsTransport(asyncio.Transport):
    """What HTTP writes to a caller with TLS. Until the handshake is done, it is kept."""

    def __init__(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        """`transport` is the network's; its protocol gives what arrives to `received`."""
        super().__init__()
        self._transport, self._context = transport, context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._early = bytearray()  # written before the handshake was done
        self._is_begun = self._is_shaken = False
        self._is_ended = False  # nothing more is read or written
        self._ends_early = False  # it is to be half-closed when the handshake is done
        self.is_plain = False
        """Whether the caller speaks no TLS: then bytes are sent as they are, so that it can read why."""
        self.lacks_certificate = False
        """Whether certificates are asked for, and this caller has none. Wrong ones end the handshake."""
        self._late = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, transport.abort)
        for delegated in ("pause_reading", "resume_reading", "is_closing", "abort"):
            setattr(self, delegated, getattr(transport, delegated))

    def received(self, data: bytes) -> bytes:
        """What a caller sent, decrypted; nothing behind an end. Raises `ssl.SSLError` if it cannot be."""
        if not self._is_begun:
            self._is_begun = True
            self.is_plain = not data.startswith(_HANDSHAKE)
            if self.is_plain:
                self._late.cancel()
        if self._is_ended or self.is_plain:
            return b""
        self._incoming.write(data)
        pieces: list[bytes] = []
        try:
            if not self._is_shaken:
                self._tls.do_handshake()
                self._on_shaken()
            while not self._is_ended:
                piece = self._tls.read(_READ_BYTES)
                if not piece:  # the caller's end
                    self.close()
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._is_ended = True
            self._late.cancel()
            raise
        finally:
            self._send()  # an alert says why it failed
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _on_shaken(self) -> None:
        self._is_shaken = True
        self._late.cancel()
        is_asked = self._context.verify_mode != ssl.CERT_NONE
        self.lacks_certificate = is_asked and self._tls.getpeercert(binary_form=True) is None
        early, self._early = bytes(self._early), bytearray()
        if early:
            self.write(early)
        if self._ends_early:
            self.write_eof()

    def write(self, data: Any) -> None:
        """Send this, or keep it until the handshake is done."""
        if self.is_plain:
            self._transport.write(data)
        elif not self._is_shaken:
            self._early += data
        elif not self._is_ended and data:
            try:
                self._tls.write(data)  # into memory, which takes everything
            except ssl.SSLError:  # the caller has begun a message of TLS, and nothing may be sent before its end
                self._is_ended = True
                self._transport.abort()
                return
            self._send()

    def write_eof(self) -> None:
        """Send nothing more, and drop what still arrives."""
        if not (self._is_shaken or self._is_ended or self.is_plain):
            self._ends_early = True
            return
        self._end()
        self._transport.write_eof()

    def close(self) -> None:
        """End it when everything is sent; before the handshake is done, at once."""
        self._end()
        self._transport.close()

    def _end(self) -> None:
        if self._is_shaken and not self._is_ended:
            with suppress(ssl.SSLError):  # it would wait for the caller's end
                self._tls.unwrap()
            self._send()
        self._is_ended = True
        self._late.cancel()

    def _send(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def closed(self) -> None:
        """The connection is gone."""
        self._is_ended = True
        self._late.cancel()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent."""
        return self._transport.get_write_buffer_size() + len(self._early)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the event loop's transports; `sslcontext` says that there is TLS."""
        if name == "sslcontext":
            return None if self.is_plain else self._context
        return self._transport.get_extra_info(name, default)
