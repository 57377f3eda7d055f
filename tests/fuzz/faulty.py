"""Target: faults that have to be found, one for each first byte. The fuzzer is tested by it."""

import os
import struct
import time

from fuzz.target import Target


def faulty(content: bytes) -> str:
    """Each fault behind its own byte."""
    match content[:1]:
        case b"a":
            os.abort()
        case b"r":
            struct.unpack("I", b"")
        case b"m":
            bytearray(300_000_000)
        case b"h":
            deadline = time.thread_time() + 3
            while time.thread_time() < deadline:
                pass
    return "good"


TARGETS = {"faulty": Target(faulty, lambda: [b"x"], max_bytes=8)}
