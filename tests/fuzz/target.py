"""What a target of the fuzzer is, and what is a finding beside an exception: too much time or memory."""

import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

HANG_SECONDS = 1.0
"""Of CPU time: the machine may be busy."""
CURRENT = "FUZZ_CURRENT"
"""Environment variable: the file in which a target that `checks_blocks` keeps the input that it is running."""


@dataclass(frozen=True)
class Target:
    """One road of bytes into the program."""

    run: Callable[[bytes], str]
    """Takes an input and says in a word how it ended; anything that it raises is a finding."""
    seeds: Callable[[], Iterable[bytes]]
    """Valid inputs, from which others are made."""
    mutate: Callable[[bytes, int, int], bytes] | None = None
    """Damages an input as its format allows; takes the most bytes that it may have, and a seed. Without one, and every
    second time with one, libFuzzer damages its bytes."""
    max_bytes: int = 64_000
    growth_mib: int = 100
    """Most that one input may add to the process's peak RSS; a picture of 2 million pixels takes up to 30."""
    checks_blocks: bool = False
    """Whether glibc checks each block's borders, because code in C reads the input. It takes time."""


def run(target: Target, content: bytes) -> str:
    """Run one input; returns how it ended.

    Raises:
        AssertionError: It takes more than `HANG_SECONDS` or `growth_mib`.
        Exception: Whatever the target raises.
    """
    before_kib, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    outcome = target.run(content)
    took = time.thread_time() - began
    growth_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    assert took <= HANG_SECONDS, f"it took {took:.1f} s"
    assert growth_mib <= target.growth_mib, f"memory grew by {growth_mib:.0f} MiB"
    return outcome
