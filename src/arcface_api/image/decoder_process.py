"""A file of pixels to pixels, by OpenCV; and the program that does so for the service in processes of its own.

    service ──numbers, a socket──▶ fork server: has OpenCV loaded, decodes nothing for anybody
       │                               └──fork──▶ decoder: one file after the other, until its socket is closed
       └──file──▶ ◀──pixels───────────────────────────┘

`fork_server` is the service's side. The program runs by its path and imports the standard library, NumPy and OpenCV
only: so it starts fast, is small, and holds nothing of the service. A decoder is made to crash: it opens nothing,
writes no file, may take so much memory and no more, and a new one is there in milliseconds.
"""

import ctypes
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# A damaged upload is its sender's news: OpenCV would write lines to this service's stderr for each. (libpng and libjpeg
# inside it still write one.)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

REDUCTIONS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
"""OpenCV's flag for each divisor of a JPEG's sides, strongest first."""

NUMBER = struct.Struct("<q")
"""To and from the fork server. 0 with a socket: fork a decoder that serves it; the answer is its process id, or minus
an error number. A process id: end that decoder; the answer is its exit code, minus a signal's number where it died of
one. The fork server's own id comes first, unasked: it is ready."""
REQUEST = struct.Struct("<QI")
"""To a decoder: how many bytes of a file follow, and the divisor."""
REPLY = struct.Struct("<II")
"""From a decoder: rows and columns of the pixels that follow; 0 and 0 where the file cannot be decoded."""

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 15, 38
"""Source: Linux, include/uapi/linux/prctl.h."""


def decode_pixels(pixel_file: bytes | NDArray[np.uint8], divisor: int) -> NDArray[np.uint8] | None:
    """What OpenCV makes of a `Container.pixel_file`: (h, w, 3) uint8, RGB, as stored; None where it cannot.

    Args:
        pixel_file: The file.
        divisor: 1, or what the sides of a JPEG are divided by: 2, 4 or 8.
    """
    flag = REDUCTIONS.get(divisor, cv2.IMREAD_COLOR_RGB) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        picture = cv2.imdecode(np.frombuffer(pixel_file, np.uint8), flag)
    except cv2.error:
        return None
    if picture is not None and divisor > 1:  # OpenCV has reduced flags for BGR only
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)
    return picture  # type: ignore[return-value]  # OpenCV's stub cannot know that IMREAD_COLOR gives uint8


# ── the fork server ────────────────────────────────────────────────────────────────────────────────────────────────


def _serve_forks(control: socket.socket, memory_bytes: int) -> None:
    """Fork and end decoders as the service says; end with it.

    Being their parent, it alone can tell for sure whose process an id is. It runs no thread, so that forking is safe.
    """
    decoders: set[int] = set()
    while True:
        message, sockets, _, _ = socket.recv_fds(control, NUMBER.size, 1)
        if not message:
            break
        if sockets:
            pid = _fork(control, sockets[0], memory_bytes)
            os.close(sockets[0])
            if pid > 0:
                decoders.add(pid)
            control.send(NUMBER.pack(pid))
        else:
            (pid,) = NUMBER.unpack(message)
            control.send(NUMBER.pack(_end(pid) if pid in decoders else 0))
            decoders.discard(pid)
    for pid in decoders:
        _end(pid)


def _fork(control: socket.socket, serves: int, memory_bytes: int) -> int:
    """Process id of a new decoder; minus an error number where there is none."""
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or 1)
    if pid == 0:
        try:
            control.close()
            _give_up_rights(server, memory_bytes)
            _serve_pictures(socket.socket(fileno=serves))
        finally:
            os._exit(1)
    return pid


def _end(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)  # that it may have died does not matter: its id stays its own until the next line
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ── a decoder ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _give_up_rights(server: int, memory_bytes: int) -> None:
    """From here on: ends with the fork server, opens nothing, writes no file, takes no more than so much memory."""
    import resource  # noqa: PLC0415  # this module is imported where Linux is not

    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it ended before that
        os._exit(1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this goes and the service stays
    told = Path("/proc/self/status").read_text().splitlines()
    used = next((line for line in told if line.startswith("VmData")), "VmData: 0 kB")
    data_bytes = int(used.split()[1]) * 1024 + memory_bytes
    for limit, value in (
        (resource.RLIMIT_DATA, data_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_CORE, 1),  # not 0, which a program that the kernel pipes cores to gets nevertheless: core(5)
    ):
        resource.setrlimit(limit, (value, value))


def _serve_pictures(service: socket.socket) -> None:
    """One file after the other, until the service closes its end."""
    while _serve_picture(service):
        pass


def _serve_picture(service: socket.socket) -> bool:
    """The next one, of which nothing is kept; False where the service has closed its end."""
    request = bytearray(REQUEST.size)
    if not _receive(service, memoryview(request)):
        return False
    file_bytes, divisor = REQUEST.unpack(request)
    file = np.empty(file_bytes, np.uint8)
    if not _receive(service, file.data):
        return False
    pixels = decode_pixels(file, divisor)
    if pixels is None:
        service.sendall(REPLY.pack(0, 0))
    else:
        send(service, REPLY.pack(*pixels.shape[:2]), pixels.data.cast("B"))
    return True


def send(connection: socket.socket, head: bytes, content: memoryview) -> None:
    """Both in one message: a second one would wake the other side twice."""
    sent = connection.sendmsg([head, content])
    if sent < len(head) + len(content):
        connection.sendall(content[sent - len(head) :])


def _receive(connection: socket.socket, into: memoryview) -> bool:
    """Fill it; False where the connection ends."""
    while into:
        got = connection.recv_into(into, 0, socket.MSG_WAITALL)  # less where the process was stopped meanwhile
        if not got:
            return False
        into = into[got:]
    return True


def _prctl(option: int, value: int | bytes) -> None:
    """Linux's prctl(2); what this kernel or its sandbox does not know is left out."""
    number = ctypes.c_ulong(value) if isinstance(value, int) else ctypes.c_char_p(value)
    ctypes.CDLL(None).prctl(option, number, *[ctypes.c_ulong(0)] * 3)


def main() -> None:
    """Get ready, say so, and serve forks."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _prctl(_PR_SET_NAME, b"arcface-decoder")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    cv2.setNumThreads(0)
    for suffix in (".jpg", ".png", ".webp"):  # what OpenCV prepares at the first file of a kind, forks have already
        pixels = decode_pixels(cv2.imencode(suffix, np.zeros((8, 8, 3), np.uint8))[1].tobytes(), 1)
        assert pixels is not None  # noqa: S101  # this OpenCV can read what the service takes
    os.dup2(1, 2)  # what decoders' libraries say of strangers' files goes nowhere
    control.send(NUMBER.pack(os.getpid()))
    _serve_forks(control, int(sys.argv[2]))


if __name__ == "__main__":
    main()
