"""The port: taken at once, opened when the service can embed, shared by workers.

    take ──▶ bound, callers find it closed ──open_up──▶ callers get in
      └─share──▶ only held ──join, in each worker──▶ bound, a socket of its own ──open_up──▶ some callers get in

Workers do not listen on one socket but each on its own (SO_REUSEPORT), so that the kernel spreads the connections:
docs/adr/0008-workers.md.
"""

import socket
import sys

from arcface_api.errors import SettingInvalid

BACKLOG = 2048
"""Connections that may wait to be accepted; uvicorn's default."""

Address = tuple[str, int] | tuple[str, int, int, int]
"""What `getsockname` gives: host and port; for IPv6 also flow and scope."""


def take(host: str, port: int) -> socket.socket:
    """Bind before anything slow happens, so that a taken port is told at once; callers still find it closed.

    Raises:
        SettingInvalid: The port is taken or may not be used, or the machine lacks the address.
    """
    listener = _new_socket(host)
    try:
        listener.bind((host, port))
    except socket.gaierror as error:
        listener.close()
        raise SettingInvalid(
            f"Cannot listen on {host}: this machine has no such address. Give --host or ARCFACE_HOST one that it has:"
            " 127.0.0.1 for itself alone, 0.0.0.0 for every network it is in."
        ) from error
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def open_up(listener: socket.socket) -> None:
    """Let callers in.

    Raises:
        SettingInvalid: Something else opened the port since `take`, which SO_REUSEADDR allows.
    """
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def share(listener: socket.socket) -> Address:
    """Let workers `join`, and nobody else: `take` has made sure that nobody is there, and from now on nobody can take.

    Raises:
        SettingInvalid: Not on Linux, whose kernel alone spreads connections over such sockets.
    """
    if sys.platform != "linux":
        raise SettingInvalid(
            "Several workers need Linux, which spreads connections over them. Set --workers or ARCFACE_WORKERS to 1."
        )
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    address: Address = listener.getsockname()
    return address


def join(address: Address) -> socket.socket:
    """A worker's own socket on the shared port; the kernel gives it no connection before it is opened.

    Raises:
        SettingInvalid: The port cannot be joined.
    """
    host, port = address[:2]
    listener = _new_socket(host)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where callers find it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _new_socket(host: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> SettingInvalid:
    return SettingInvalid(
        f"Cannot listen on {host} port {port}: {error.strerror or error}. Another program may have the port; choose"
        " another with --port or ARCFACE_PORT, or another address with --host or ARCFACE_HOST."
    )
