"""A request's body while it arrives: counted, paid for out of what all uploads may take, and bounded in time."""

import asyncio
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from arcface_api.api.memory import Trimmer
from arcface_api.errors import BodyTooLarge, DeadlineExceeded, UploadsFull, UploadStalled

STALL_SECONDS = 30.0
"""Longest silence in the middle of an upload: a caller that went to sleep must not hold a connection for ever."""
SLOW_START_SECONDS = 5.0
"""For so long an upload may be as slow as it is."""
SMALL_BYTES = 64 * 1024
"""What detectors' crops have, and more."""
LARGE_SHARE = 3 / 4
"""Of the room, for uploads that are not small: a few large ones that come slowly leave room for all the others."""


class Uploads:
    """All uploads of one process that are inside: their bytes have arrived, or arrive, and are not answered."""

    def __init__(self, capacity: int, largest: int, seconds: float, min_bytes_per_second: int) -> None:
        """Nothing is inside.

        Args:
            capacity: Bytes of all of them together.
            largest: Bytes that one may have; it always fits, or it would be refused for ever.
            seconds: Longest time for one to arrive.
            min_bytes_per_second: Of one, on the average, after its first seconds.
        """
        self.capacity = max(capacity, largest)
        self.large_capacity = max(int(LARGE_SHARE * capacity), largest)
        self.seconds, self.min_bytes_per_second = seconds, min_bytes_per_second
        self.inside = 0
        """Bytes."""
        self._trimmer = Trimmer()

    @contextmanager
    def one(self, deadline: float) -> "Iterator[Admission]":
        """Room for one upload; what it took is given back when the block ends, however it ends.

        Args:
            deadline: On `time.monotonic`'s clock: when its request has to be answered.
        """
        admission = Admission(self, deadline)
        try:
            yield admission
        finally:
            self.inside -= admission.taken
            if admission.taken > SMALL_BYTES:
                self._trimmer.note()


class Admission:
    """What one upload has taken of the room for all of them."""

    def __init__(self, uploads: Uploads, deadline: float) -> None:
        """Nothing."""
        self.uploads, self.deadline = uploads, deadline
        self.taken = 0
        """Bytes."""

    def take(self, size: int) -> None:
        """Take so many bytes more.

        Raises:
            UploadsFull: Then they were not taken.
        """
        uploads = self.uploads
        room = uploads.capacity if self.taken + size <= SMALL_BYTES else uploads.large_capacity
        if uploads.inside + size > room:
            raise UploadsFull.of(room)
        uploads.inside += size
        self.taken += size


class Body:
    """The chunks of a request's body, as an async iterator; refused at the first byte too many, or too late."""

    def __init__(self, request: Request, admission: Admission, max_bytes: int, too_large: BodyTooLarge) -> None:
        """Nothing is read.

        Args:
            request: Nothing of its body was read.
            admission: Pays for it.
            max_bytes: Of the body.
            too_large: Raised where it has more.

        Raises:
            BodyTooLarge: More bytes are announced.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > max_bytes:
            raise too_large
        self._receive, self._admission = request.receive, admission
        self._max_bytes, self._too_large = max_bytes, too_large
        self._started = time.monotonic()
        self._received = 0
        self._has_more = True

    def __aiter__(self) -> "Body":
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next chunk, never empty.

        Raises:
            BodyTooLarge: The body has more bytes than allowed.
            UploadsFull: All uploads together have.
            UploadStalled: It stopped coming, came too slowly, or took too long.
            DeadlineExceeded: It was not there in time to be answered.
            starlette.requests.ClientDisconnect: The caller left.
        """
        while self._has_more:
            message = await self._next_message()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._has_more = message.get("more_body", False)
            chunk: bytes = message.get("body", b"")
            self._received += len(chunk)
            if self._received > self._max_bytes:
                raise self._too_large
            if chunk:
                self._admission.take(len(chunk))
                return chunk
        raise StopAsyncIteration

    async def _next_message(self) -> MutableMapping[str, Any]:
        now, uploads = time.monotonic(), self._admission.uploads
        deadline, whole = self._admission.deadline, self._started + uploads.seconds
        slow = self._started + SLOW_START_SECONDS + self._received / uploads.min_bytes_per_second
        end = min(deadline, whole, slow, now + STALL_SECONDS)
        try:
            async with asyncio.timeout(end - now):
                return await self._receive()
        except TimeoutError:
            if end == deadline:
                raise DeadlineExceeded.told() from None
            if end == whole:
                broken = f"The upload took longer than the {uploads.seconds:g} seconds that it may take"
            elif end == slow:
                broken = f"The upload is slower than {uploads.min_bytes_per_second:,} bytes a second"
            else:
                broken = f"Nothing came for {STALL_SECONDS:g} seconds in the middle of the upload"
            raise UploadStalled(f"{broken}. Send the request again, over a faster connection.") from None
