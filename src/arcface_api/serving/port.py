"""The port: bound at once, opened when the service can embed, shared by workers.

    bind ──▶ bound, callers find it closed ──open_up──▶ callers get in
      └─share──▶ only held ──bind, in each worker──▶ bound, with its own socket ──open_up──▶ some callers get in

Each worker listens on its own socket (SO_REUSEPORT), so that the kernel spreads the connections:
docs/adr/0008-workers.md. All functions raise SettingInvalid, which says how to choose another port or address.
"""

import errno
import socket
import sys

from arcface_api.errors import SettingInvalid

BACKLOG = 2048
"""Connections that may wait to be accepted; uvicorn's default."""
SEND_BUFFER_BYTES = 256 * 1024
"""Of an answer that its caller does not read, what the system takes from the service. Linux alone would take 4 MB: that
much memory for each of 500 such callers, and the processor's time to fill it."""

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # what is listened on, where that is all addresses
Address = tuple[str, int] | tuple[str, int, int, int]
"""As `getsockname` returns it: host and port; for IPv6 also flow and scope."""


def bind(address: Address, *, is_shared: bool = False) -> socket.socket:
    """Bind a port early, so that a port in use is reported before anything slow happens; callers still find it closed.

    `is_shared`: the socket of a worker, on the port that `share` returned. It gets no connections before it is opened.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # a kernel without IPv6
        raise _cannot_listen(address, error) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # its connections inherit it
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: what can be no name
        listener.close()
        raise _cannot_listen(address, error) from error
    return listener


def open_up(listener: socket.socket) -> None:
    """Let callers in. It fails if another program opened the port since `bind`, which SO_REUSEADDR allows."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(listener.getsockname(), error) from error


def share(listener: socket.socket) -> Address:
    """Let workers `bind` it. After `bind` nobody else has the port, and from now on nobody else can take it."""
    if sys.platform != "linux":
        raise SettingInvalid(
            "Several workers need Linux, which spreads connections over them. Set --workers or ARCFACE_WORKERS to 1."
        )
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return listener.getsockname()  # type: ignore[no-any-return]  # an `Address`


def url_of(listener: socket.socket, scheme: str = "http", *, from_here: bool = False) -> str:
    """The URL of the service; `from_here`: one that a browser on this machine can open."""
    host, port = listener.getsockname()[:2]
    if from_here and host in _EVERY_ADDRESS:
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _cannot_listen(address: Address, error: OSError | UnicodeError) -> SettingInvalid:
    host, port = address[:2]
    if isinstance(error, PermissionError):
        return SettingInvalid(
            f"Cannot listen on {host} port {port}: {error.strerror}. Most systems allow only root a port below 1024:"
            " choose a higher one with --port or ARCFACE_PORT."
        )
    if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
        return SettingInvalid(
            f"Cannot listen on {host}: this machine has no such address. Give --host or ARCFACE_HOST one that it has:"
            " 127.0.0.1 for this machine only, 0.0.0.0 for every network it is in."
        )
    return SettingInvalid(
        f"Cannot listen on {host} port {port}: {error.strerror or error}. Another program may have the port; choose"
        " another with --port or ARCFACE_PORT, or another address with --host or ARCFACE_HOST."
    )
