"""Decoding in processes of their own: what a decoder's crash or hang costs is one picture.

    decode thread ──takes one of──▶ idle decoders ──file──▶ decoder_process ──pixels──▶ decode thread, puts it back
                                       └──crashed, hung: ended, and another one forked──▲

As many decoders as threads ask at once are forked, each when it is needed first. Why sockets and not shared memory, why
a fork server of our own, and what all this costs: docs/adr/0012-decoder-process.md.
"""

import logging
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2
import numpy as np

from arcface_api.arrays import Image
from arcface_api.errors import ImageDamaged, RuntimeUnfit
from arcface_api.image import decoder_process
from arcface_api.image.container import Container, ImageFormat
from arcface_api.image.decoder_process import NUMBER, REPLY, REQUEST, send

LEAST_SECONDS = 2.0
"""What every picture may take, however small: a busy machine is no fault of it."""
MEMORY_BYTES_A_PIXEL = 16
"""What a decoder may take. Progressive CMYK JPEGs take the most: 11, of which 8 are coefficients."""
MEMORY_BYTES = 256 * 1024 * 1024
"""What a decoder may take beside that."""
START_SECONDS = 60.0
"""What the fork server may take to start: a third of a second, unless the machine is busy with models."""
ANSWER_SECONDS = 10.0
"""What it may take to fork or to end a decoder: milliseconds, else it hangs."""
CLOSE_SECONDS = 2.0
"""What it may take to end."""
LOG_SECONDS = 10.0
"""Strangers' pictures write no more than one line in so many seconds."""

_PROBE = Container(ImageFormat.PNG, 1, 1, cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
_REMEDY = "Save the picture again, as a plain JPEG or PNG."
_WITHOUT = "To decode in the service's own process, set ARCFACE_DECODE_ISOLATION=none."

_log = logging.getLogger(__name__)

_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # it would start threads, and after a fork they are gone
    # glibc: memory of pictures up to 2.6 million pixels is kept for the next one, that of larger ones given back.
    "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024 * 1024),
}


class Decoders:
    """Decodes pictures in other processes; several threads may call it at once. `close` ends the processes."""

    def __init__(self, *, max_pixels: int, max_bytes: int, most_seconds: float) -> None:
        """Start the process that decoders are forked from, and have a first one decode something.

        Args:
            max_pixels: Of the largest allowed picture.
            max_bytes: Of the largest allowed file.
            most_seconds: What the largest allowed picture may take.

        Raises:
            RuntimeUnfit: Not on Linux, or processes cannot be started or do not decode.
        """
        if sys.platform != "linux":
            raise RuntimeUnfit("Decoders in processes of their own need Linux. Set ARCFACE_DECODE_ISOLATION=none.")
        self._max_pixels, self._max_bytes, self._most_seconds = max_pixels, max_bytes, most_seconds
        self._memory_bytes = MEMORY_BYTES + max_bytes + MEMORY_BYTES_A_PIXEL * max_pixels
        self._idle: list[_Decoder] = []
        self._lock = threading.Lock()
        """Of the fork server, which answers one question after the other."""
        self._server = _ForkServer(self._memory_bytes)
        self._reports = _Reports()
        try:
            works = self.pixels(_PROBE, 1) is not None
        except (ImageDamaged, OSError) as error:
            _log.debug("The first decode failed.", exc_info=error)
            works = False
        if not works:
            self.close()
            raise RuntimeUnfit(f"Decoder processes do not work on this system; the log above may say why. {_WITHOUT}")

    def pixels(self, container: Container, divisor: int) -> Image | None:
        """What a decoder makes of `container.pixel_file`; None where it cannot decode it.

        A picture is to blame where a new decoder dies of it. One that has served before may have died of what an
        earlier picture did to its memory, or because the kernel needed memory.

        Args:
            container: Of no more pixels and bytes than allowed.
            divisor: As `decode_pixels`.

        Raises:
            ImageDamaged: Decoders die of it, or it takes longer than its share of time.
            OSError: No decoder can be started.
        """
        seconds = self.seconds_for(container)
        about = f"{container.format} of {container.width}x{container.height} pixels"
        try:
            with suppress(_DecoderDiedError):
                return self._decoded(self._idle_one() or self._new(), container, divisor, seconds)
            return self._decoded(self._new(), container, divisor, seconds)
        except _DecoderDiedError as error:
            self._reports.add(f"A {about} was refused: decoders die of it ({error})")
            raise ImageDamaged(f"The {about} cannot be decoded: the decoder crashes on it. {_REMEDY}") from None
        except TimeoutError:
            self._reports.add(f"A {about} was given up: decoding it took longer than its {seconds:g} s")
            raise ImageDamaged(
                f"The {about} took longer to decode than the {seconds:g} s that its size allows, and was given up."
                f" {_REMEDY}"
            ) from None

    def seconds_for(self, container: Container) -> float:
        """A picture's share of time: by its pixels or its file's bytes, whichever is the larger part of what may be."""
        pixels = container.width * container.height / self._max_pixels
        part = max(pixels, len(container.pixel_file) / self._max_bytes)
        return min(self._most_seconds, max(LEAST_SECONDS, part * self._most_seconds))

    def close(self) -> None:
        """End the processes, whatever they do. No thread may ask for pixels any more."""
        while self._idle:
            self._idle.pop().close()
        self._server.close()

    def _decoded(self, decoder: "_Decoder", container: Container, divisor: int, seconds: float) -> Image | None:
        """What this decoder makes of it. One that fails is ended, others are idle again."""
        try:
            pixels = decoder.pixels(container, divisor, seconds)
        except TimeoutError:
            self._end(decoder)
            raise
        except OSError as error:
            raise _DecoderDiedError(self._end(decoder)) from error
        except BaseException:
            self._end(decoder)
            raise
        self._idle.append(decoder)
        return pixels

    def _idle_one(self) -> "_Decoder | None":
        """The one that was used last, whose memory is the warmest."""
        while self._idle:
            decoder = self._idle.pop()
            if not decoder.server.is_lost:
                return decoder
            decoder.close()
        return None

    def _new(self) -> "_Decoder":
        """A new decoder; where the fork server has died or hangs, of a new one.

        Raises:
            OSError: The system gives no more processes.
            RuntimeUnfit: A new fork server does not start.
        """
        with self._lock:
            with suppress(ConnectionError):
                return self._server.fork()
            self._server = _ForkServer(self._memory_bytes)
            return self._server.fork()

    def _end(self, decoder: "_Decoder") -> str:
        """Have a decoder's process gone; says how it ended."""
        decoder.close()
        with self._lock:
            return decoder.server.end(decoder.pid)


class _DecoderDiedError(Exception):
    """A decoder's process ended, or answered what it should not; says how."""


class _Decoder:
    """One process, as a thread of the service sees it."""

    def __init__(self, server: "_ForkServer", pid: int, connection: socket.socket) -> None:
        self.server = server
        self.pid = pid
        self._connection = connection
        self._seconds = 0.0

    def pixels(self, container: Container, divisor: int, seconds: float) -> Image | None:
        """What it makes of a file. Of what it answers only pixels are believed.

        Raises:
            TimeoutError: It does not answer in time.
            OSError: It is dead, or answers what it should not.
        """
        if seconds != self._seconds:
            _limit_waiting(self._connection, seconds)
            self._seconds = seconds
        height, width = -(-container.height // divisor), -(-container.width // divisor)
        file = memoryview(container.pixel_file)
        head, room = bytearray(REPLY.size), np.empty(height * width * 3, np.uint8)
        end = time.monotonic() + seconds
        try:
            send(self._connection, REQUEST.pack(len(file), divisor), file)
            got = self._connection.recvmsg_into([head, room.data])[0]
            rows, columns = REPLY.unpack(head)
            wanted = rows * columns * 3
            if got < len(head) or wanted > len(room):
                raise ConnectionError
            missing = room.data[got - len(head) : wanted]
            while missing:
                got = self._connection.recv_into(missing, 0, socket.MSG_WAITALL)
                if not got:
                    raise ConnectionError
                missing = missing[got:]
                if missing and time.monotonic() > end:
                    raise TimeoutError
        except BlockingIOError:  # the socket waits no longer
            raise TimeoutError from None
        return room[:wanted].reshape(rows, columns, 3) if wanted else None

    def close(self) -> None:
        """The process ends by itself then, unless it hangs."""
        self._connection.close()


class _ForkServer:
    """The process that decoders are forked from, as the service sees it; one thread at a time may ask it."""

    def __init__(self, memory_bytes: int) -> None:
        """Start it, and wait until it is ready.

        Args:
            memory_bytes: What a decoder may take.

        Raises:
            RuntimeUnfit: It does not start.
        """
        self._control, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", decoder_process.__file__, str(its_end.fileno()), str(memory_bytes)]
        try:
            with its_end, _signals_blocked():
                self._process = subprocess.Popen(  # noqa: S603  # this very Python, and a program of this package
                    command,
                    pass_fds=[its_end.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, **_ENVIRONMENT},
                )
        except OSError as error:
            self._control.close()
            raise RuntimeUnfit(f"The decoder process cannot be started: {error}. {_WITHOUT}") from error
        self.is_lost = False
        try:
            _limit_waiting(self._control, START_SECONDS)
            self._answer()
            _limit_waiting(self._control, ANSWER_SECONDS)
        except ConnectionError:
            raise RuntimeUnfit(
                f"The decoder process does not start (status {self._process.returncode}); the log above may say why."
                f" {_WITHOUT}"
            ) from None

    def fork(self) -> _Decoder:
        """A new decoder.

        Raises:
            ConnectionError: The fork server has died or hangs; it is ended.
            OSError: The system gives no more processes.
        """
        connection, its_end = socket.socketpair()
        try:
            with its_end:
                pid = self._ask(0, its_end.fileno())
        except ConnectionError:
            connection.close()
            raise
        if pid <= 0:
            connection.close()
            raise OSError(-pid, os.strerror(-pid))
        return _Decoder(self, pid, connection)

    def end(self, pid: int) -> str:
        """Kill a decoder, if it lives; says how it ended."""
        try:
            code = self._ask(pid)
        except ConnectionError:
            return "killed together with all others"
        return signal.Signals(-code).name if code < 0 else f"status {code}"

    def close(self) -> None:
        """End it; its decoders end with it."""
        self.is_lost = True
        self._control.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, number: int, *descriptors: int) -> int:
        if self.is_lost:
            raise ConnectionError
        try:
            socket.send_fds(self._control, [NUMBER.pack(number)], descriptors)
        except OSError as error:
            self.close()
            raise ConnectionError from error
        return self._answer()

    def _answer(self) -> int:
        with suppress(OSError):
            answer = self._control.recv(NUMBER.size)
            if answer:
                return int(NUMBER.unpack(answer)[0])
        self.close()
        raise ConnectionError


class _Reports:
    """Writes what happened to the log, one line in `LOG_SECONDS` at the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = -math.inf
        self._left_out = 0

    def add(self, line: str) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                self._left_out += 1
                return
            more = f" So were {self._left_out} more pictures since the last such line." if self._left_out else ""
            self._next, self._left_out = now + LOG_SECONDS, 0
        _log.warning("%s.%s", line, more)


def _limit_waiting(connection: socket.socket, seconds: float) -> None:
    """How long the kernel waits in one call. Unlike Python's own timeouts this needs no second call."""
    whole = int(seconds)
    limit = struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))  # 0 and 0 would mean for ever
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, limit)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started here never hears what terminals and service managers send to every process: the service decides.

    It answers what is in flight first, for which it needs its decoders.
    """
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP]
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
