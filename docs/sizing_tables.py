"""The tables of sizing.md: what the code would do, and rates computed from what a benchmark measured on few cores."""

import math

from arcface_api.session.lanes import candidates, fits, unmeasured_lanes
from results import read

CORES = (2, 4, 16, 64)
WEIGHTS, CONVOLUTION_VALUES = 65_154_240, 19_355_392
"""Of an IResNet100: numbers that are read once a batch, and numbers that its convolutions read and write for a face.
Counted in the graph that `benchmarks/lib/iresnet.py` builds; a test counts them again."""
VALUE_BYTES = 2
"""In bfloat16."""
CHANNEL_BYTES_PER_SECOND = 25.6e9
"""Of a channel of DDR4-3200: 3,200 million transfers of 8 bytes a second (JEDEC JESD79-4)."""
CORES_PER_CHANNEL = 8
BATCHES = (8, 1)
MEBIBYTE = 2**20


def settings() -> str:
    """A row for each number of cores: lanes that are tried, lanes by rule, and the memory limit that trying needs."""
    rows = [
        "| cores | lanes that the first start tries | by rule | memory limit with which it tries all of them |",
        "| --- | --- | --- | --- |",
    ]
    for cores in CORES:
        tried = candidates(cores)
        limit = f"{_memory_limit(tried) / 1024:.1f} GiB"
        rows.append(f"| {cores} | {', '.join(map(str, tried))} | {unmeasured_lanes(cores)} | {limit} |")
    return "\n".join(rows)


def _memory_limit(lanes: tuple[int, ...]) -> int:
    """The smallest limit, in MiB, for copies of an IResNet100 in bfloat16, one for each number of lanes."""
    return next(limit for limit in range(1, 2**20) if fits(WEIGHTS * VALUE_BYTES, limit * MEBIBYTE, *lanes))


def rates() -> str:
    """A row for each number of cores: computed rates, and what bounds them."""
    rows = [
        "| cores | memory | as fast as its cores | as fast as its memory, batches of 8 | batches of 1 |"
        " computed, batches of 8 | batches of 1 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cores, sockets in (*((cores, 1) for cores in CORES), (CORES[-1], 2)):
        bandwidth, from_cores = sockets * _bandwidth(cores), sockets * _rate_per_core() * cores
        from_memory = [bandwidth / bytes_per_face(batch) for batch in BATCHES]
        figures = [from_cores, *from_memory, *(min(from_cores, rate) for rate in from_memory)]
        name = f"{sockets} sockets of {cores}" if sockets > 1 else str(cores)
        shown = " | ".join(_two_digits(figure) for figure in figures)
        rows.append(f"| {name} | {bandwidth / 1e9:.0f} GB/s | {shown} |")
    return "\n".join(rows)


def limits_sentence() -> str:
    """Where the memory and not the cores is the limit."""
    said = []
    for batch in BATCHES:
        bounded = [cores for cores in CORES if _bandwidth(cores) / bytes_per_face(batch) < _rate_per_core() * cores]
        who = f"the memory from {bounded[0]} cores on" if bounded else "the cores in every row"
        said.append(f"with batches of {batch} it is {who}")
    return f"The limit: {', and '.join(said)}."


def rate_sentence() -> str:
    """Where the rate per core comes from, and how much memory is read and written for a face."""
    report = read("batch-sizes-iresnet100.json")
    cpus, processor = report["machine"]["cpus"], report["machine"]["processor"]
    bytes_8, bytes_1 = (bytes_per_face(batch) / 1e6 for batch in BATCHES)
    return (
        f"The rate per core is measured: {_best_rate():.1f} faces/s through the service on {cpus} cores of {processor},"
        f" so {_rate_per_core():.1f} per core, with an IResNet100 in bfloat16. A batch reads"
        f" {WEIGHTS * VALUE_BYTES / 1e6:.0f} MB of weights, and its convolutions read and write at most"
        f" {CONVOLUTION_VALUES * VALUE_BYTES / 1e6:.0f} MB for a face, so a face takes {bytes_8:.0f} MB in a batch of 8"
        f" and {bytes_1:.0f} MB alone. The rate of the memory is its bandwidth divided by that."
    )


def process_sentence() -> str:
    """How many requests one process can serve, if it has all its work done on one core."""
    microseconds = read("stages-iresnet100.json")["road"]["16 clients"]["service_cpu_us"]
    return (
        f"Without the model a request costs {microseconds / 1000:.2f} ms of CPU time, part of it under Python's lock."
        f" Even if all of it were, one process would serve {_two_digits(1e6 / microseconds)} requests per second."
    )


def bytes_per_face(batch: int) -> float:
    """Read from memory and written to it, if no cache holds anything."""
    return (WEIGHTS / batch + CONVOLUTION_VALUES) * VALUE_BYTES


def _bandwidth(cores: int) -> float:
    """Of a socket's memory, in bytes per second."""
    return max(1, cores // CORES_PER_CHANNEL) * CHANNEL_BYTES_PER_SECOND


def _best_rate() -> float:
    service: dict[str, dict[str, float]] = read("batch-sizes-iresnet100.json")["service"]
    return max(figures["faces_per_second"] for figures in service.values())


def _rate_per_core() -> float:
    return _best_rate() / float(read("batch-sizes-iresnet100.json")["machine"]["cpus"])


def _two_digits(value: float) -> str:
    """More would look measured."""
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.0f}"
