"""Promises of decoding: what libraries write about uploads is dropped, what they write as the process ends is not."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="only glibc lets a program change `stderr`"
)

BEGINNING = """
import ctypes, faulthandler, os, struct, sys, threading, zlib
import cv2, numpy as np
from arcface_api.image import decoder_process
from arcface_api.image.decoder_process import decode_pixels, _quiet
libc = ctypes.CDLL(None)
libc.fputs.argtypes = ctypes.c_char_p, ctypes.c_void_p

def say(text):
    stderr = ctypes.c_void_p.in_dll(libc, "stderr").value
    libc.fputs(text + b"\\n", stderr)

def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

def png(data):
    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND")

jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8))[1].tobytes()
bad = [png(b"no data"), png(zlib.compress(bytes(9))), png(zlib.compress(b"\\xff" * 4000)), jpeg[:3000] + b"\\xff\\xd9"]
say(b"before")
"""
"""`say` writes as C code does, to the variable `stderr`."""


def stderr_of(program: str) -> tuple[list[str], int]:
    """What a program writes to stderr, and its exit status."""
    done = subprocess.run([sys.executable, "-c", BEGINNING + program], capture_output=True, text=True, check=False)
    return done.stderr.splitlines(), done.returncode


def test_the_libraries_inside_opencv_would_write_a_line_for_each() -> None:
    """Otherwise the next test proves nothing."""
    said, _ = stderr_of("for file in bad: cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)")
    assert len(said) == 1 + 4
    assert [line.split()[0] for line in said[1:]] == ["libpng", "libpng", "libpng", "Corrupt"]


def test_nothing_of_an_upload_is_written_and_afterwards_all_is_as_before() -> None:
    said, status = stderr_of("""
threads = [threading.Thread(target=lambda: [decode_pixels(file, 1) for file in bad * 50]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
say(b"after")
""")
    assert (said, status) == (["before", "after"], 0)


def test_what_is_decoded_at_once_is_quiet_to_the_last() -> None:
    said, _ = stderr_of("""
with _quiet():
    with _quiet():
        say(b"two")
    say(b"one")
say(b"none")
""")
    assert said == ["before", "none"]


@pytest.mark.parametrize(
    ("ends", "seen"),
    [
        ("faulthandler.enable(); ctypes.string_at(0)", "Fatal Python error: Segmentation fault"),
        ("libc.free.argtypes = [ctypes.c_void_p]; libc.free(ctypes.addressof(ctypes.c_int()) + 1)", "free(): invalid"),
        ("os.write(2, b'as it is'); os._exit(1)", "as it is"),
        ("print('as it is', file=sys.stderr, flush=True); os._exit(1)", "as it is"),
    ],
)
def test_how_a_process_ends_is_seen_also_while_it_decodes(ends: str, seen: str) -> None:
    said, status = stderr_of(f"with _quiet():\n    {ends}")
    assert status != 0
    assert any(seen in line for line in said), said
