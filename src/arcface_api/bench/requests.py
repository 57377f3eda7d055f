"""Requests as bytes, made before the run: during it a request costs the client one write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

BOUNDARY = "arcface-api-bench-5f0c1d7be2"
"""Separates the parts of a form; does not occur in a picture but by a chance of 1 in 2^200."""


@dataclass(frozen=True)
class Address:
    """Where a service listens, and the path below which its operations are."""

    host: str
    port: int
    prefix: str = ""

    @classmethod
    def of(cls, url: str) -> Self:
        """The address in `http://host[:port][/prefix]`.

        Raises:
            ValueError: It is no such URL. TLS would measure the cipher as well, so `https` is none.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not allowed. Give http://host:port: TLS would be measured too.")
        return cls(parts.hostname, parts.port or 80, parts.path.rstrip("/"))

    @property
    def host_header(self) -> str:
        """Value of `Host`; an IPv6 address stands in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def embed_request(address: Address, picture: bytes, *, path: str = "/embed", part: str = "file") -> bytes:
    """A form with one picture, as `curl -F file=@face.jpg` sends it.

    Args:
        address: Of the service.
        picture: The file's bytes.
        path: Of the operation, with its query.
        part: Name of the form's part.
    """
    return _form_request(address, path, part, [picture])


def batch_request(
    address: Address, pictures: Sequence[bytes], *, path: str = "/embed/batch", part: str = "files"
) -> bytes:
    """A form with many pictures, as `curl -F files=@a.jpg -F files=@b.jpg` sends it; arguments as `embed_request`."""
    return _form_request(address, path, part, pictures)


def _form_request(address: Address, path: str, part: str, pictures: Sequence[bytes]) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{part}"; filename="face.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    body = b"".join(head + picture + b"\r\n" for picture in pictures) + f"--{BOUNDARY}--\r\n".encode()
    return raw_request(address, "POST", path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def raw_request(
    address: Address, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Any HTTP/1.1 request."""
    lines = [f"{method} {address.prefix}{path} HTTP/1.1", f"Host: {address.host_header}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
