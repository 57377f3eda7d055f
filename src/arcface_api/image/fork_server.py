"""The service's side of `decoder_process`: a decoder as a thread sees it, and what decoders are forked from."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from arcface_api.arrays import Image
from arcface_api.errors import RuntimeUnfit
from arcface_api.image import decoder_process
from arcface_api.image.container import Container
from arcface_api.image.decoder_process import NUMBER, REPLY, REQUEST, send

START_SECONDS = 60.0
"""What the fork server may take to start: a third of a second, unless the machine is busy with models."""
ANSWER_SECONDS = 10.0
"""What it may take to fork or to end a decoder: milliseconds, else it hangs."""
CLOSE_SECONDS = 2.0
"""What it may take to end."""
WITHOUT = "To decode in the service's own process, set ARCFACE_DECODE_ISOLATION=none."

_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # it would start threads, and after a fork they are gone
    # glibc: memory of pictures up to 2.6 million pixels is kept for the next one, that of larger ones given back.
    "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024 * 1024),
}


class Decoder:
    """One process, as a thread of the service sees it."""

    def __init__(self, server: "ForkServer", pid: int, connection: socket.socket) -> None:
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


class ForkServer:
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
            raise RuntimeUnfit(f"The decoder process cannot be started: {error}. {WITHOUT}") from error
        self.is_lost = False
        try:
            _limit_waiting(self._control, START_SECONDS)
            self._answer()
            _limit_waiting(self._control, ANSWER_SECONDS)
        except ConnectionError:
            raise RuntimeUnfit(
                f"The decoder process does not start (status {self._process.returncode}); the log above may say why."
                f" {WITHOUT}"
            ) from None

    def fork(self) -> Decoder:
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
        return Decoder(self, pid, connection)

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
