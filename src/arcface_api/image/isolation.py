"""Decodes in separate processes: a decoder that crashes or hangs costs one picture.

    decode thread ──takes──▶ idle decoder ──file──▶ decoder_process ──pixels──▶ decode thread, which puts it back
                                └──crashed or hung: killed, and another one started

There are as many decoders as threads that decode at once, each started when it is first needed. Why this design, and
what it costs: docs/adr/0012-decoder-process.md.
"""

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import cv2
import numpy as np

from arcface_api.errors import ImageDamaged, RuntimeUnfit
from arcface_api.image import decoder_process
from arcface_api.image.container import Container, ImageFormat
from arcface_api.image.decoder_process import REPLY, REQUEST, Pixels, send

START_SECONDS = 60.0
"""Longest start of a decoder. It takes 0.15 s, but more while models load on every CPU."""
LEAST_SECONDS = 2.0
"""What every picture may take, however small, because the machine may be busy."""
MEMORY_BYTES, MEMORY_BYTES_A_PIXEL = 256 * 1024 * 1024, 16
"""What a decoder may take. Progressive CMYK JPEGs take the most: 12 bytes a pixel, of which 8 are coefficients;
14 if decoded twice."""
LOG_SECONDS = 10.0
"""Least time between two lines about refused pictures in the log."""

_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    # glibc: keep memory of pictures up to 2.6 million pixels for the next one, and give that of larger ones back
    "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024 * 1024),
}
_PROBE = Container(ImageFormat.PNG, 1, 1, cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
_WITHOUT = "To decode in the service's own process, set ARCFACE_DECODE_ISOLATION=none."
_REMEDY = "Save the picture again, as a plain JPEG or PNG."

_log = logging.getLogger(__name__)


class Decoders:
    """Decodes pictures in other processes; several threads may call it at once."""

    def __init__(self, *, max_pixels: int, max_bytes: int, most_seconds: float) -> None:
        """Start a first decoder and try it, or raise RuntimeUnfit.

        The arguments are the pixels, the file's bytes and the seconds of decoding that the largest picture may have.
        """
        if sys.platform != "linux":
            raise RuntimeUnfit("Decoders in processes of their own need Linux. Set ARCFACE_DECODE_ISOLATION=none.")
        self._max_pixels, self._max_bytes, self._most_seconds = max_pixels, max_bytes, most_seconds
        self._memory_bytes = MEMORY_BYTES + max_bytes + MEMORY_BYTES_A_PIXEL * max_pixels
        self._idle: list[_Decoder] = []
        self._log_lock = threading.Lock()
        self._next_log, self._left_out = -math.inf, 0
        # Decoders end with the thread that started them (PR_SET_PDEATHSIG), so one thread starts all. They inherit its
        # blocked signals: the service needs them for pictures in flight when a terminal sends Ctrl-C to every process.
        sent_to_all = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
        self._starter = ThreadPoolExecutor(1, "decoders", signal.pthread_sigmask, (signal.SIG_BLOCK, sent_to_all))
        with suppress(ImageDamaged):
            if self.pixels(_PROBE, 1) is not None:
                return
        self.close()
        raise RuntimeUnfit(f"Decoder processes do not work on this system; see the log above. {_WITHOUT}")

    def pixels(self, container: Container, divisor: int) -> Pixels | None:
        """Decode `container.pixel_file`; None if it cannot be decoded.

        A picture is to blame only if a new decoder dies of it: one that has served before may have died of an earlier
        picture, or because the kernel needed memory. Then a new one tries again.

        Raises:
            ImageDamaged: Decoders die of it, or it takes longer than its share of time.
            RuntimeUnfit: No decoder can be started.
        """
        seconds = self.seconds_for(container)
        try:
            decoder = self._idle.pop()  # the one that was used last, whose memory is the warmest
        except IndexError:
            decoder = self._new()
        end = time.monotonic() + seconds
        try:
            with suppress(ConnectionError):
                return self._decoded(decoder, container, divisor, seconds)
            left_seconds = max(end - time.monotonic(), LEAST_SECONDS / 10)
            return self._decoded(self._new(), container, divisor, left_seconds)
        except ConnectionError as error:
            self._report(f"A {container} was refused: decoders die of it ({error})")
            raise ImageDamaged(f"The {container} cannot be decoded: the decoder crashes on it. {_REMEDY}") from None
        except TimeoutError:
            self._report(f"A {container} was given up: decoding it took longer than its {seconds:g} s")
            raise ImageDamaged(
                f"The {container} took longer to decode than the {seconds:g} s that its size allows, and was given up."
                f" {_REMEDY}"
            ) from None

    def seconds_for(self, container: Container) -> float:
        """A picture's share of time: by its pixels or its file's bytes, whichever is the larger part of the most."""
        pixels = container.width * container.height / self._max_pixels
        part = max(pixels, len(container.pixel_file) / self._max_bytes)
        return min(self._most_seconds, max(LEAST_SECONDS, part * self._most_seconds))

    def close(self) -> None:
        """End the processes, also those that decode."""
        while self._idle:
            self._idle.pop().kill()
        self._starter.shutdown()

    def _decoded(self, decoder: "_Decoder", container: Container, divisor: int, seconds: float) -> Pixels | None:
        """Decode; afterwards the decoder is idle or, after a failure, killed. A ConnectionError says how it ended."""
        try:
            pixels = decoder.pixels(container, divisor, seconds)
        except BaseException as error:
            how_it_ended = decoder.kill()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise ConnectionError(how_it_ended) from error
            raise
        self._idle.append(decoder)
        return pixels

    def _new(self) -> "_Decoder":
        """Start a decoder and wait until it is ready, or raise RuntimeUnfit."""
        decoder: _Decoder | None = None
        try:
            decoder = self._starter.submit(_Decoder, self._memory_bytes).result()
            decoder.reply(0, START_SECONDS)
        except OSError as error:
            why = decoder.kill() if decoder else error
            raise RuntimeUnfit(f"The decoder process does not start ({why}); see the log above. {_WITHOUT}") from error
        return decoder

    def _report(self, line: str) -> None:
        """Write to the log, at most once in `LOG_SECONDS`."""
        with self._log_lock:
            now = time.monotonic()
            if now < self._next_log:
                self._left_out += 1
                return
            more = f" So were {self._left_out} more pictures since the last such line." if self._left_out else ""
            self._next_log, self._left_out = now + LOG_SECONDS, 0
        _log.warning("%s.%s", line, more)


class _Decoder:
    """One decoder process. Its first reply says that it is ready; OSError if the system cannot start it."""

    def __init__(self, memory_bytes: int) -> None:
        command = [sys.executable, "-P", decoder_process.__file__, str(os.getpid()), str(memory_bytes)]
        self._connection, its_end = socket.socketpair()
        try:
            with its_end:
                self._process = subprocess.Popen(  # noqa: S603  # this very Python, and a program of this package
                    command, stdin=its_end.fileno(), stdout=subprocess.DEVNULL, env=os.environ | _ENVIRONMENT
                )
        except OSError:
            self._connection.close()
            raise
        self.pid = self._process.pid

    def pixels(self, container: Container, divisor: int, seconds: float) -> Pixels | None:
        """Decode a file. Raises TimeoutError if it takes longer, or another OSError if it dies."""
        file = memoryview(container.pixel_file)
        self._connection.settimeout(seconds)
        send(self._connection, REQUEST.pack(len(file), divisor), file)
        return self.reply(-(-container.height // divisor) * -(-container.width // divisor), seconds)

    def reply(self, most_pixels: int, seconds: float) -> Pixels | None:
        """Wait for a reply. It is not trusted: it can only be pixels, and no more than the picture has."""
        end = time.monotonic() + seconds
        head, room = bytearray(REPLY.size), np.empty(most_pixels * 3, np.uint8)
        self._connection.settimeout(seconds)
        got = self._connection.recvmsg_into([head, room.data])[0]
        rows, columns, lack_data = REPLY.unpack(head)
        size = rows * columns * 3
        if got < len(head) or size > len(room):
            raise ConnectionError
        missing = room.data[got - len(head) : size]
        while missing:
            got = self._connection.recv_into(missing)
            if not got:
                raise ConnectionError
            missing = missing[got:]
            if missing and time.monotonic() > end:
                raise TimeoutError
        return Pixels(room[:size].reshape(rows, columns, 3), lack_data) if size else None

    def kill(self) -> str:
        """End the process, if it lives; says how it ended."""
        self._connection.close()
        self._process.kill()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"status {code}"
