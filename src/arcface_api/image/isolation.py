"""Decoding in processes of their own: what a decoder's crash or hang costs is one picture.

    decode thread ──takes one of──▶ idle decoders ──file──▶ decoder_process ──pixels──▶ decode thread, puts it back
                                       └──crashed, hung: ended, and another one forked──▲

As many decoders as threads ask at once are forked, each when it is needed first. Why sockets and not shared memory, why
a fork server of our own, and what all this costs: docs/adr/0012-decoder-process.md.
"""

import logging
import math
import sys
import threading
import time
from contextlib import suppress

import cv2
import numpy as np

from arcface_api.arrays import Image
from arcface_api.errors import ImageDamaged, RuntimeUnfit
from arcface_api.image.container import Container, ImageFormat
from arcface_api.image.fork_server import WITHOUT, Decoder, ForkServer

LEAST_SECONDS = 2.0
"""What every picture may take, however small: a busy machine is no fault of it."""
MEMORY_BYTES_A_PIXEL = 16
"""What a decoder may take. Progressive CMYK JPEGs take the most: 11, of which 8 are coefficients."""
MEMORY_BYTES = 256 * 1024 * 1024
"""What a decoder may take beside that."""
LOG_SECONDS = 10.0
"""Strangers' pictures write no more than one line in so many seconds."""

_PROBE = Container(ImageFormat.PNG, 1, 1, cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
_REMEDY = "Save the picture again, as a plain JPEG or PNG."

_log = logging.getLogger(__name__)


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
        self._idle: list[Decoder] = []
        self._lock = threading.Lock()
        """Of the fork server, which answers one question after the other."""
        self._server = ForkServer(self._memory_bytes)
        self._reports = _Reports()
        try:
            works = self.pixels(_PROBE, 1) is not None
        except (ImageDamaged, OSError) as error:
            _log.debug("The first decode failed.", exc_info=error)
            works = False
        if not works:
            self.close()
            raise RuntimeUnfit(f"Decoder processes do not work on this system; the log above may say why. {WITHOUT}")

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
        seconds, began = self.seconds_for(container), time.monotonic()
        about = f"{container.format} of {container.width}x{container.height} pixels"
        try:
            with suppress(_DecoderDiedError):
                return self._decoded(self._idle_one() or self._new(), container, divisor, seconds)
            left_seconds = max(began + seconds - time.monotonic(), LEAST_SECONDS / 10)
            return self._decoded(self._new(), container, divisor, left_seconds)
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

    def _decoded(self, decoder: Decoder, container: Container, divisor: int, seconds: float) -> Image | None:
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

    def _idle_one(self) -> Decoder | None:
        """The one that was used last, whose memory is the warmest."""
        while self._idle:
            decoder = self._idle.pop()
            if not decoder.server.is_lost:
                return decoder
            decoder.close()
        return None

    def _new(self) -> Decoder:
        """A new decoder; where the fork server has died or hangs, of a new one.

        Raises:
            OSError: The system gives no more processes.
            RuntimeUnfit: A new fork server does not start.
        """
        with self._lock:
            with suppress(ConnectionError):
                return self._server.fork()
            self._server = ForkServer(self._memory_bytes)
            return self._server.fork()

    def _end(self, decoder: Decoder) -> str:
        """Have a decoder's process gone; says how it ended."""
        decoder.close()
        with self._lock:
            return decoder.server.end(decoder.pid)


class _DecoderDiedError(Exception):
    """A decoder's process ended, or answered what it should not; says how."""


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
