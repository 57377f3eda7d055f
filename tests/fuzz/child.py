"""One target under atheris, whose libFuzzer makes inputs that reach new code: `python -m fuzz.child TARGET …`.

What follows the target are libFuzzer's own options and folders. The process ends at the first finding, with the input
in a file: libFuzzer's, or CURRENT if code in C crashed.
"""

import logging
import os
import random
import sys
import traceback

import atheris
import cv2

with atheris.instrument_imports(include=["arcface_api", "multipart", "tomllib", "uvicorn", "zipfile"]):
    from fuzz.target import CURRENT, run
    from fuzz.targets import target as target_of

    _TARGET = target_of(sys.argv[1])


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    name, *arguments = sys.argv[1:]
    target = _TARGET
    logging.disable()
    cv2.setNumThreads(1)  # as the service does

    damage = target.mutate

    def mutate(content: bytes, max_bytes: int, seed: int) -> bytes:
        if damage is not None and random.Random(seed).random() < 0.5:
            return damage(content, max_bytes, seed) or b"\0"
        return bytes(atheris.Mutate(content, max_bytes))

    # libFuzzer starts itself again by its first word when it minimises a corpus
    itself = f"{sys.executable} -m fuzz.child {name}"
    options = [f"-max_len={target.max_bytes}", "-rss_limit_mb=1500", "-timeout=60", "-print_final_stats=1"]
    options += ["-close_fd_mask=2", "-mutate_depth=2", "-len_control=0"]
    said = os.fdopen(os.dup(2), "w")

    current = None
    if target.checks_blocks:
        # Where glibc finds the heap damaged, libFuzzer's own handlers would wait for its lock for ever.
        options += ["-handle_abrt=0", "-handle_segv=0", "-handle_bus=0"]
        current = os.open(os.environ[CURRENT], os.O_CREAT | os.O_WRONLY)

    def one(content: bytes) -> None:
        if current is not None:
            os.ftruncate(current, os.pwrite(current, content, 0))
        try:
            run(target, content)
        except BaseException:
            traceback.print_exc(file=said)
            said.flush()
            raise

    custom = {"custom_mutator": mutate} if damage is not None else {}
    atheris.Setup([itself, *options, *arguments], one, **custom)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
