"""Promises of decoders in separate processes: a crash or a hang costs one picture, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from arcface_api.errors import ImageDamaged, RuntimeUnfit
from arcface_api.image import Decoders, ImageLimits, decode, isolation
from arcface_api.image.container import Container, ImageFormat
from arcface_api.image.decode import take_apart
from arcface_api.image.decoder_process import decode_pixels
from arcface_api.loading import open_decoders
from arcface_api.settings import Settings
from containers import frame, gray_animation_cleared_to_the_background, webp_extended, webp_picture
from pictures import picture_bytes
from serving import Run, Service, descendants, is_running, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="decoders in processes of their own need Linux")

ANY_SIZE = ImageLimits(max_pixels=10**9)
GOOD = picture_bytes()
CRASHES = Container(ImageFormat.PNG, 32, 32, gray_animation_cleared_to_the_background())
"""A file as no container is taken apart to, by which OpenCV 5.0.0 writes beyond its memory."""


LEAST_SECONDS = isolation.LEAST_SECONDS


@pytest.fixture(autouse=True)
def time_for_small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that a busy machine keeps waiting is not taken for one that hangs."""
    monkeypatch.setattr(isolation, "LEAST_SECONDS", 20.0)


def is_decoder(pid: int) -> bool:
    try:
        return b"decoder_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_decoders_of(
    *, max_pixels: int = 50_000_000, max_bytes: int = 20_000_000, most_seconds: float = 20.0
) -> Decoders:
    return Decoders(max_pixels=max_pixels, max_bytes=max_bytes, most_seconds=most_seconds)


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with closing(open_decoders_of()) as decoders:
        yield decoders


def decoded(decoders: Decoders, content: bytes = GOOD, least_side: int | None = None) -> NDArray[np.uint8]:
    return decode(content, ANY_SIZE, least_side, decoders.pixels).image


def is_good(image: NDArray[np.uint8]) -> bool:
    return np.array_equal(image, decode(GOOD, ANY_SIZE).image)


def pids(decoders: Decoders) -> list[int]:
    """Of the decoders that are idle."""
    return [decoder.pid for decoder in decoders._idle]


def one_pid(decoders: Decoders) -> int:
    """Of the one decoder that is there once a picture was decoded, while no thread is busy."""
    assert is_good(decoded(decoders))
    (pid,) = pids(decoders)
    return pid


def status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}:"))


def resident_bytes(pid: int) -> int:
    return int(status(pid, "VmRSS").split()[0]) * 1024


def is_stopped(pid: int) -> bool:
    return status(pid, "State").startswith("T")


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    until(lambda: is_stopped(pid))


# ── pixels ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def sixteen_bits(channels: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 2**16, (60, 45, channels), np.uint16)
    written, content = cv2.imencode(".png", pixels)
    assert written
    return content.tobytes()


def animation() -> bytes:
    """A WebP whose first frame does not cover the picture."""
    part = webp_picture(picture_bytes("WEBP", (20, 30)))
    return webp_extended(90, 120, frame((4, 6), (20, 30), part), flags=0x02)


FILES = {
    **{f"JPEG {mode}": picture_bytes("JPEG", mode=mode) for mode in ("RGB", "L", "CMYK")},
    "JPEG progressive": picture_bytes("JPEG", progressive=True),
    "JPEG, one pixel": picture_bytes("JPEG", (1, 1)),
    **{f"PNG {mode}": picture_bytes("PNG", mode=mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")},
    **{f"PNG, 16 bits, {channels} channels": sixteen_bits(channels) for channels in (3, 4)},
    **{f"WebP {mode}": picture_bytes("WEBP", mode=mode) for mode in ("RGB", "RGBA", "L")},
    "WebP lossless": picture_bytes("WEBP", lossless=True),
    "WebP, a frame on a canvas": animation(),
    "JPEG of 3 million pixels": picture_bytes("JPEG", (2000, 1501), quality=95),
    "PNG of 3 million pixels": picture_bytes("PNG", (1501, 2000)),
    "WebP of 3 million pixels": picture_bytes("WEBP", (2000, 1501)),
}


@pytest.fixture(scope="module")
def long_lived() -> Iterator[Decoders]:
    with closing(open_decoders_of()) as decoders:
        yield decoders


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("least_side", [None, 150, 300, 700])
def test_pixels_equal_those_of_the_services_own_process(
    long_lived: Decoders, name: str, least_side: int | None
) -> None:
    content = FILES[name]
    here = decode(content, ANY_SIZE, least_side)
    there = decode(content, ANY_SIZE, least_side, long_lived.pixels)
    assert np.array_equal(there.image, here.image)
    assert there.reduction == here.reduction
    assert there.image.flags.writeable


@pytest.mark.parametrize("size", [(7071, 7071), (20, 50_000)])
def test_pixels_of_the_largest_pictures_are_equal_too(long_lived: Decoders, size: tuple[int, int]) -> None:
    container = take_apart(picture_bytes("JPEG", size, quality=30))
    there, here = long_lived.pixels(container, 1), decode_pixels(container.pixel_file, 1)
    assert there is not None
    assert there is not None
    assert here is not None
    assert np.array_equal(there.array, here.array)


def test_damaged_picture_costs_no_decoder(decoders: Decoders) -> None:
    pid = one_pid(decoders)
    content = picture_bytes("PNG")
    at = content.index(b"IDAT") + 40
    with pytest.raises(ImageDamaged, match="truncated or corrupt"):
        decoded(decoders, content[:at] + bytes(100) + content[at + 100 :])
    assert one_pid(decoders) == pid


# ── crashing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def crash(decoders: Decoders) -> None:
    with pytest.raises(ImageDamaged, match=r"The PNG of 32x32 pixels cannot be decoded: the decoder crashes on it\."):
        decoders.pixels(CRASHES, 1)


def test_crash_costs_one_picture(decoders: Decoders) -> None:
    pid = one_pid(decoders)
    crash(decoders)
    assert not pids(decoders)
    assert not is_running(pid)
    assert one_pid(decoders) != pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_decoder_that_was_killed_costs_no_picture(decoders: Decoders, number: signal.Signals) -> None:
    """Idle, or with a picture: it may have died of an earlier one."""
    pid = one_pid(decoders)
    os.kill(pid, number)
    until(lambda: not is_running(pid))
    pid = one_pid(decoders)
    stop(pid)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(decoded, decoders)
        until(lambda: not pids(decoders))  # taken
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
        assert is_good(waiting.result())
    assert one_pid(decoders) != pid


def test_pictures_go_on_beside_twenty_crashes(decoders: Decoders) -> None:
    with ThreadPoolExecutor(8) as threads:
        good = [threads.submit(decoded, decoders) for _ in range(100)]
        bad = [threads.submit(crash, decoders) for _ in range(20)]
        good += [threads.submit(decoded, decoders) for _ in range(100)]
        for each in bad:
            each.result()
        assert all(is_good(each.result()) for each in good)
    assert len(pids(decoders)) <= 8


def test_reply_of_a_decoder_is_not_trusted(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that sends more pixels than the picture has is killed, as if it had crashed."""
    pid = one_pid(decoders)
    container = take_apart(GOOD)
    with pytest.raises(ImageDamaged, match="crashes on it"):
        decoders.pixels(Container(ImageFormat.JPEG, 9, 12, container.pixel_file), 1)
    assert not is_running(pid)
    assert is_good(decoded(decoders))


# ── hanging ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hang_costs_one_picture_after_its_share_of_time() -> None:
    with closing(open_decoders_of(most_seconds=5.0)) as decoders:
        pid = one_pid(decoders)
        stop(pid)
        begin = time.monotonic()
        with pytest.raises(ImageDamaged, match=r"The JPEG of 90x120 pixels took longer to decode than the 5 s"):
            decoded(decoders)
        assert time.monotonic() - begin >= 5.0
        assert not is_running(pid)
        assert one_pid(decoders) != pid


def test_hang_with_more_to_read_than_a_socket_holds_ends_too() -> None:
    with closing(open_decoders_of(most_seconds=5.0)) as decoders:
        stop(one_pid(decoders))
        content = np.random.default_rng(0).bytes(3_000_000)
        with pytest.raises(ImageDamaged, match="took longer"):
            decoders.pixels(Container(ImageFormat.JPEG, 10, 10, content), 1)
        assert is_good(decoded(decoders))


@pytest.mark.parametrize(
    ("width", "height", "file_bytes", "seconds"),
    [
        (112, 112, 10_000, 2),  # the least
        (5_000, 5_000, 10_000, 10),  # half of the pixels
        (112, 112, 15_000_000, 15),  # three quarters of the bytes
        (5_000, 10_000, 20_000_000, 20),  # all of both
    ],
)
def test_share_of_time_follows_pixels_and_bytes(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch, width: int, height: int, file_bytes: int, seconds: float
) -> None:
    monkeypatch.setattr(isolation, "LEAST_SECONDS", LEAST_SECONDS)
    assert decoders.seconds_for(Container(ImageFormat.PNG, width, height, bytes(file_bytes))) == seconds


# ── starting ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("program", ["/bin/false", "/nonexistent"])
def test_process_that_cannot_be_started_is_refused(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(RuntimeUnfit, match=r"decoder process .* set ARCFACE_DECODE_ISOLATION=none"):
        open_decoders_of()


def test_decoders_that_cannot_decode_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_PROBE", CRASHES)
    with pytest.raises(RuntimeUnfit, match=r"do not work .* set ARCFACE_DECODE_ISOLATION=none"):
        open_decoders_of()


def test_processes_are_refused_without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_decoders(Settings()) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeUnfit, match="need Linux"):
        open_decoders(Settings(decode_isolation="process"))


# ── what is left behind ────────────────────────────────────────────────────────────────────────────────────────────


def test_closing_ends_every_process() -> None:
    decoders = open_decoders_of()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: decoded(decoders), range(40)))
    family = pids(decoders)
    hung = family[0]
    stop(hung)
    decoders.close()
    assert not any(map(is_running, family))


def test_decoder_outlives_the_thread_that_needed_it_first(decoders: Decoders) -> None:
    os.kill(one_pid(decoders), signal.SIGKILL)
    with ThreadPoolExecutor(1) as threads:
        pid = threads.submit(one_pid, decoders).result()
    assert one_pid(decoders) == pid


@pytest.mark.parametrize("does", ["waits", "hangs"])
def test_no_process_outlives_a_service_that_was_killed(does: str) -> None:
    program = (
        "import sys, pathlib\n"
        "from arcface_api.image import Decoders, ImageLimits, decode\n"
        "decoders = Decoders(max_pixels=10**6, max_bytes=10**6, most_seconds=60)\n"
        "decode(sys.stdin.buffer.read(), ImageLimits(10**6), None, decoders.pixels)\n"
        "print('ready', flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        service.stdin.write(GOOD)
        service.stdin.close()
        assert service.stdout.readline() == b"ready\n"
        family = descendants(service.pid)
        assert len(family) == 1, "a decoder"
        if does == "hangs":
            stop(max(family))
        service.kill()
    until(lambda: not any(map(is_running, family)))


def test_nothing_leaks_in_twenty_replacements(decoders: Decoders) -> None:
    one_pid(decoders)
    processes = len(descendants(os.getpid()))
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # iterdir opens one more
    for _ in range(20):
        os.kill(one_pid(decoders), signal.SIGKILL)
    assert is_good(decoded(decoders))
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208  # as above
    assert len(descendants(os.getpid())) == processes


def test_memory_of_a_large_picture_is_given_back(decoders: Decoders) -> None:
    pid = one_pid(decoders)
    before = resident_bytes(pid)
    largest = take_apart(picture_bytes("JPEG", (6000, 4000), quality=30))
    for _ in range(3):
        assert decoders.pixels(largest, 1) is not None
    assert pids(decoders) == [pid]
    until(lambda: resident_bytes(pid) - before < 30_000_000)  # less than half of one picture's pixels


# ── rights ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_decoder_holds_and_may_do_next_to_nothing(decoders: Decoders) -> None:
    pid = one_pid(decoders)
    held = {file.name: str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    connections = [name for name, target in held.items() if target.startswith("socket:")]
    assert len(connections) == 1
    assert {target for name, target in held.items() if name not in connections} == {"/dev/null"}
    assert len(held) == 4  # the standard three, and /dev/null once more for what libpng writes
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name, value in (("file size", 0), ("open files", 0), ("core file size", 1)):
        assert (
            f"Max {name} {value}".split()
            == next(line for line in limits.splitlines() if line.startswith(f"Max {name}")).split()[
                : len(name.split()) + 2
            ]
        )
    assert status(pid, "NoNewPrivs") == "1"
    assert status(pid, "Threads") == "1"


def test_decoder_takes_no_more_memory_than_the_largest_picture_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that needs more is refused, and the decoder goes on."""
    monkeypatch.setattr(isolation, "MEMORY_BYTES", 30_000_000)
    with closing(open_decoders_of(max_pixels=1_000_000, max_bytes=1_000_000)) as decoders:
        one_pid(decoders)
        too_large = take_apart(picture_bytes("JPEG", (6000, 4000), quality=30))
        with pytest.raises(ImageDamaged):
            decode_container(too_large, decoders)
        assert is_good(decoded(decoders))


def decode_container(container: Container, decoders: Decoders) -> None:
    if decoders.pixels(container, 1) is None:
        raise ImageDamaged


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP])
def test_decoder_ignores_signals_that_every_process_gets(decoders: Decoders, number: signal.Signals) -> None:
    """Ctrl-C, Ctrl-Z, and what a service manager sends to every process: pictures in flight need their decoders."""
    pid = one_pid(decoders)
    os.kill(pid, number)
    assert one_pid(decoders) == pid
    os.kill(pid, signal.SIGKILL)
    assert is_good(decoded(decoders))


# ── the log ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_log_says_what_happened_and_is_not_flooded(
    decoders: Decoders, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        crash(decoders)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "A PNG of 32x32 pixels was refused: decoders die of it (SIG" in record.message
    monkeypatch.setattr(decoders, "_next_log", time.monotonic())
    crash(decoders)
    assert caplog.records[-1].message.endswith("So were 2 more pictures since the last such line.")


# ── the service ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_service_answers_a_crash_with_422_and_goes_on(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_it_came(content: bytes) -> Container:
        return CRASHES if content == CRASHES.pixel_file else take_apart(content)

    monkeypatch.setattr(sys.modules["arcface_api.image.decode"], "take_apart", as_it_came)
    apart = run_service(tiny_recogniser, decode_isolation="process")
    here = run_service(tiny_recogniser, decode_isolation="none")
    expected = here.post("/embed", files={"file": GOOD}).json()
    for _ in range(3):
        problem = apart.post("/embed", files={"file": CRASHES.pixel_file})
        assert (problem.status_code, problem.json()["code"]) == (422, "image_damaged")
        assert apart.post("/embed", files={"file": GOOD}).json() == expected
    several = apart.post("/embed/batch", files=[("files", GOOD), ("files", CRASHES.pixel_file), ("files", GOOD)])
    codes = [result.get("problem", {}).get("code") for result in several.json()["results"]]
    assert codes == [None, "image_damaged", None]


def decoders_of(pid: int) -> set[int]:
    return set(filter(is_decoder, descendants(pid)))


def test_each_worker_has_decoders_of_its_own(run: Run, tiny_recogniser: Path, tmp_path: Path) -> None:
    least = "from arcface_api.image import isolation\nisolation.LEAST_SECONDS = 10.0\n"  # as above
    (tmp_path / "sitecustomize.py").write_text(least)
    options = ("--decode-isolation", "process", "--decode-timeout-seconds", "10", "--decode-threads", "1")
    command = run("--workers", "2", "--pack", tiny_recogniser, *options, faults=tmp_path)
    workers = command.serving()
    url = f"http://127.0.0.1:{command.port}/embed"

    def answers() -> list[int]:
        return [httpx.post(url, files={"file": GOOD}, timeout=100).status_code for _ in range(32)]

    assert set(answers()) == {200}
    for worker in workers:
        (decoder,) = decoders_of(worker)
        stop(decoder)
    assert sorted(answers())[-3:] == [200, 422, 422]
    assert set(answers()) == {200}
    family = descendants(command.process.pid)
    command.process.terminate()
    command.end()
    assert command.process.returncode == 0
    until(lambda: not any(map(is_running, family)))  # multiprocessing's resource tracker ends after the parent


def test_decoders_start_where_limits_are_lower_already() -> None:
    """As in a container that may leave no core file."""
    program = """
import resource
from arcface_api.image import Decoders
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
Decoders(max_pixels=50_000_000, max_bytes=20_000_000, most_seconds=20).close()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
