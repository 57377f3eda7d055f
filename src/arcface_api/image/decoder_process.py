"""Decodes a file of pixels with libjpeg-turbo or OpenCV; as a program, for the service in a process of its own.

`isolation` starts the program by its path: it imports only the standard library, NumPy and the decoders, so it starts
in 0.15 s and holds nothing of the service. It may crash: it opens nothing, writes no file, and its memory is limited.
"""

import ctypes
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

# Without this, OpenCV writes lines to stderr for each damaged upload. (For libpng and libjpeg inside it: `_Quiet`.)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

REDUCTIONS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
"""OpenCV's flag for each divisor of a JPEG's sides, the largest first."""
REQUEST = struct.Struct("<QI")
"""To a decoder: the number of bytes of the file that follows, and the divisor."""
REPLY = struct.Struct("<II?")
"""From a decoder: rows and columns of the pixels that follow, and `Pixels.lack_data`. Without pixels: ready at first,
later cannot be decoded."""

_LACKING = ("premature end", "instead of RST", "bad Huffman code")
"""Words in libjpeg's warnings of a scan whose data end too early, or have lost a part."""
_NOT_LACKING = ("before marker 0xd9", "Inconsistent progression")
"""Words in those that come after all data were read."""
_MORE_DATA = bytes(range(1, 255))

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
"""Source: Linux, include/uapi/linux/prctl.h."""


class Pixels(NamedTuple):
    """A decoded file, (h, w, 3) uint8, RGB, as stored."""

    array: NDArray[np.uint8]
    lack_data: bool
    """A JPEG's data end too early or have a gap; what is missing is grey."""


class _Quiet:
    """While pictures are decoded, drops what C code writes to its `stderr`: libpng and libjpeg write about uploads.

    Of the C libraries, glibc lets a program set this variable (its manual, "Standard Streams"). What goes to file
    descriptor 2 itself is still seen: Python's own output, faulthandler's, glibc's when it finds memory damaged.
    """

    def __init__(self) -> None:
        self._lock, self._decoding = threading.Lock(), 0
        self._nowhere: int | None = None  # a FILE*
        if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
            libc.fopen.restype = ctypes.c_void_p
            self._nowhere = libc.fopen(os.devnull.encode(), b"we")
            self._variable = ctypes.c_void_p.in_dll(libc, "stderr")
            self._before = self._variable.value

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not self._nowhere:
            yield
            return
        with self._lock:
            self._decoding += 1
            self._variable.value = self._nowhere
        try:
            yield
        finally:
            with self._lock:
                self._decoding -= 1
                if not self._decoding:
                    self._variable.value = self._before


_quiet = _Quiet()


def decode_pixels(pixel_file: bytes, divisor: int) -> Pixels | None:
    """Decode a file, with a JPEG's sides divided by 1, 2, 4 or 8; None if OpenCV cannot.

    A JPEG's pixels are the same with simplejpeg, because both have libjpeg-turbo inside. OpenCV hides its warnings.
    """
    warning, least = "", {}
    if pixel_file.startswith(b"\xff\xd8"):
        try:
            if divisor > 1:
                height, width, *_ = simplejpeg.decode_jpeg_header(pixel_file)
                least = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)}
            return Pixels(simplejpeg.decode_jpeg(pixel_file, "RGB", **least), lack_data=False)
        except (ValueError, MemoryError) as error:  # the first warning or error, in libjpeg's words
            warning = str(error)
    array = _opencv_pixels(pixel_file, divisor)
    if array is None:
        return None
    lack_data = any(words in warning for words in _LACKING)
    if warning and not lack_data and not any(words in warning for words in _NOT_LACKING):
        # Another warning or error came first. More data at the end change only pixels that lack some.
        longer = pixel_file[:-2] + _MORE_DATA + pixel_file[-2:]
        lack_data = not np.array_equal(array, _opencv_pixels(longer, divisor))  # type: ignore[arg-type]  # or None
    return Pixels(array, lack_data)


def _opencv_pixels(pixel_file: bytes, divisor: int) -> NDArray[np.uint8] | None:
    flag = REDUCTIONS.get(divisor, cv2.IMREAD_COLOR_RGB) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        with _quiet():
            picture = cv2.imdecode(np.frombuffer(pixel_file, np.uint8), flag)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError("OpenCV got no memory for a picture's pixels") from error  # not the picture's fault
        return None
    if picture is not None and divisor > 1:  # OpenCV has reduced flags for BGR only
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)
    return picture  # type: ignore[return-value]  # OpenCV's stub cannot know that IMREAD_COLOR gives uint8


def send(connection: socket.socket, head: bytes, content: memoryview) -> None:
    """Send both in one message: a second one would wake the other side twice."""
    sent = connection.sendmsg([head, content])
    if sent < len(head) + len(content):
        connection.sendall(content[sent - len(head) :])


def _give_up_rights(memory_bytes: int) -> None:
    """From here on: gain no rights, open nothing, write no file, take at most `memory_bytes` more memory."""
    import resource  # noqa: PLC0415  # Unix only, and this module is imported everywhere

    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, this ends and the service stays
    status = Path("/proc/self/status").read_text().splitlines()
    used = next((line for line in status if line.startswith("VmData")), "VmData: 0 kB")
    data_bytes = int(used.split()[1]) * 1024 + memory_bytes
    # With 0, a program that the kernel pipes cores to would still get one: core(5).
    core_bytes = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    for limit, value in (
        (resource.RLIMIT_DATA, data_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_CORE, core_bytes),
    ):
        hard = resource.getrlimit(limit)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)  # a container may allow less already
        resource.setrlimit(limit, (least, least))
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    """Call Linux's prctl(2); an option that the kernel or a sandbox refuses is left out."""
    ctypes.CDLL(None).prctl(option, *[ctypes.c_ulong(number) for number in (value, 0, 0, 0)])


def main(service_pid: int, memory_bytes: int) -> None:
    """Decode one file after the other from the socket that is stdin, until the service closes it or ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # closing the socket would not end a decode that hangs
    if os.getppid() != service_pid:  # it ended before that
        return
    cv2.setNumThreads(0)
    service = socket.socket(fileno=0)
    os.dup2(1, 2)  # what the decoders' libraries write about uploaded files is dropped
    _give_up_rights(memory_bytes)
    service.sendall(REPLY.pack(0, 0, False))
    requests = service.makefile("rb")
    while head := requests.read(REQUEST.size):
        size, divisor = REQUEST.unpack(head)
        pixels = decode_pixels(requests.read(size), divisor)
        if pixels is None:
            service.sendall(REPLY.pack(0, 0, False))
        else:
            send(service, REPLY.pack(*pixels.array.shape[:2], pixels.lack_data), pixels.array.data.cast("B"))
        del pixels  # nothing of a picture is kept while waiting for the next one


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
