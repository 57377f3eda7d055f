"""Runs `arcface-api` again and again, each time in another environment, from one process that has loaded it once.

    stdin: a line of JSON for each run: arguments, environment, uid (null: this one), limits, umask
    stdout: a line for each: the exit status, and all it wrote; a service is stopped when it listens

Root loses its privileges first, so that folders can be closed to it.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from arcface_api.__main__ import main

SECONDS = 300.0
CAP_DAC_READ_SEARCH = 1 << 2
"""To read whatever modes say: another user may not read a Python that is installed in root's home."""
PR_SET_KEEPCAPS = 8
CAPABILITY_VERSION = 0x20080522


def run(given: dict[str, Any]) -> tuple[int, str]:
    with tempfile.NamedTemporaryFile("r", prefix="output-") as output:
        child = os.fork()
        if child == 0:
            become(given, Path(output.name))
        end, has_stopped = time.monotonic() + SECONDS, False
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), Path(output.name).read_text()
            time.sleep(0.02)
            if not has_stopped and "Listening on" in Path(output.name).read_text():
                has_stopped = True
                os.kill(child, signal.SIGTERM)
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)


def drop_privileges(uid: int | None) -> None:
    """Stay root without any privilege, or become a user that may read everything and write nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    kept = 0
    if uid is not None:
        kept = CAP_DAC_READ_SEARCH
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)(kept, kept)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "the privileges of root cannot be dropped")


def become(given: dict[str, Any], output: Path) -> None:
    """Never returns."""
    status = 70
    try:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.environ.clear()
        os.environ.update(given["environment"])
        os.umask(given["umask"])
        for name, limit in given["limits"].items():
            resource.setrlimit(getattr(resource, name), (limit, limit))
        if os.getuid() == 0:
            drop_privileges(given["uid"])
        sys.argv = ["arcface-api", *given["arguments"]]
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:  # noqa: BLE001  # shown as Python would
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()
