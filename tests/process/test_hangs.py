"""Promises about time, whatever a thread or a process does: every caller is answered, and what hangs is replaced.

The inference really hangs: its model has a loop that does not end on a white picture. The decoder that hangs waits.
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Self

import httpx
import onnx
import pytest
from PIL import Image as Pillow

from arcface_api.api.app import DirectApp
from arcface_api.batching import Batcher
from arcface_api.errors import ArcFaceError, ModelFailed, QueueFull
from arcface_api.serving.process import HUNG_STATUS
from pictures import picture_bytes
from serving import PATIENT_END, Run, Service, is_running, until
from tiny_models import endless_model

ROUNDS = int(os.environ.get("ARCFACE_TEST_ROUNDS", "1"))
"""How often each worker is made to hang."""
PICTURE = picture_bytes()
WAITS_IN_DECODER, ENDS_THREAD = picture_bytes("PNG", (33, 44)), picture_bytes("PNG", (44, 33))

FAULTS = """
import time
import cv2
from arcface_api.batching import Batcher

real_decode, real_run, fatal = cv2.imdecode, Batcher._run_batch, []

def imdecode(content, flags):
    picture = real_decode(content, flags)
    while picture is not None and picture.shape[:2] == (44, 33):
        time.sleep(1)
    if picture is not None and picture.shape[:2] == (33, 44):
        fatal.append(True)
    return picture

def run_batch(self, *batch):
    if fatal and self.name == "recogniser":
        raise SystemExit
    real_run(self, *batch)

def fail_all(self, error):
    raise error  # as nothing in there does, so that the thread really ends

cv2.imdecode, Batcher._run_batch, Batcher._fail_all = imdecode, run_batch, fail_all
"""
"""On pictures of one size the decoder does not end; those of another end the thread of the model."""


def white() -> bytes:
    content = BytesIO()
    Pillow.new("RGB", (112, 112), "white").save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("endless") / "endless.onnx"
    onnx.save(endless_model(), path)
    return path


def post(url: str, picture: bytes, timeout_seconds: float | None = None) -> httpx.Response:
    headers = {} if timeout_seconds is None else {"X-Request-Timeout": f"{timeout_seconds}"}
    return httpx.post(f"{url}/embed", files={"file": picture}, headers=headers, timeout=100)


def hanging(what: str) -> bytes:
    """The picture by which this hangs."""
    return {"inference": white(), "decode": WAITS_IN_DECODER, "thread": ENDS_THREAD}[what]


def pictures_inside(url: str) -> int:
    metrics = httpx.get(f"{url}/metrics", timeout=100).text
    return int(float(metrics.partition("\narcface_pictures_inside ")[2].split()[0]))


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "sitecustomize.py").write_text(FAULTS + PATIENT_END)
    return folder


# ── one process ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", ["inference", "decode", "thread"])
def test_what_hangs_is_answered_by_its_deadline_and_ends_the_process(
    what: str, run: Run, endless: Path, faults: Path
) -> None:
    options = ["--hang-seconds", "15", "--decode-threads", "1", "--lanes", "1"]
    command = run("--pack", endless, *options, faults=faults)
    url = f"http://127.0.0.1:{command.port}"
    assert post(url, PICTURE).status_code == 200
    with ThreadPoolExecutor(20) as pool:
        short = [pool.submit(post, url, picture, 1) for picture in (hanging(what), *[PICTURE] * 4)]
        answers = [each.result() for each in short]
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert answers[0].json()["code"] == "deadline_exceeded"
        assert httpx.get(f"{url}/livez", timeout=100).status_code == 200, "nobody waited for the hang to be noticed"
        patient = [pool.submit(post, url, PICTURE) for _ in range(5)]
        assert [each.result().status_code for each in patient] == [503] * 5
        assert {each.result().json()["code"] for each in patient} == {"service_closing"}
        assert all("Retry-After" in each.result().headers for each in patient)
    log = command.end()
    assert command.process.returncode == HUNG_STATUS
    said = {
        "inference": "an inference of the model recogniser does not end",
        "decode": "decoding a picture does not end",
        "thread": "a thread of the model recogniser has ended",
    }[what]
    assert f"The service has to be replaced: {said}" in log
    assert f"Ended with status {HUNG_STATUS}: {said}" in log
    assert what == "thread" or "Traceback" not in log  # a thread that has ended is a defect of ours


@pytest.mark.parametrize(
    "where", ["arcface_api.session.onnx_cpu.OnnxCpuSession.run", "arcface_api.embedder.prepare.decode"]
)
def test_probes_report_a_hang(
    where: str, run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run_service(tiny_recogniser, hang_seconds=1, decode_threads=1)
    assert service.get("/livez").json() == {"status": "alive", "reason": None}
    go_on = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(where, lambda *_: go_on.wait(60))
        assert service.post("/embed", files={"file": PICTURE}, headers={"X-Request-Timeout": "0.1"}).status_code == 503
        until(lambda: service.get("/livez").status_code == 503)
        said = service.get("/livez").json()
        assert said["status"] == "hung"
        assert "does not end" in said["reason"]
        assert service.get("/readyz").json() == {"status": "not ready", "reason": said["reason"]}
        assert service.get("/health").json()["reason"] == said["reason"]
        refused = service.post("/embed", files={"file": PICTURE})
        assert (refused.status_code, refused.json()["code"]) == (503, "service_closing")
        go_on.set()


def test_readiness_is_proved_by_decoding_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["arcface_api.image.decode"], "decode_pixels", lambda *_: None)
        answer = service.get("/readyz")
    assert answer.status_code == 503
    assert "cannot be decoded" in answer.json()["reason"]
    assert service.get("/readyz").status_code == 200


@pytest.mark.parametrize("what", ["inference", "decode", "thread"])
def test_the_service_ends_within_the_grace_period_whatever_hangs(
    what: str, run: Run, endless: Path, faults: Path
) -> None:
    command = run("--pack", endless, "--shutdown-grace-seconds", "2", "--decode-threads", "1", faults=faults)
    url = f"http://127.0.0.1:{command.port}"
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(post, url, hanging(what))
        until(lambda: pictures_inside(url))
        command.process.terminate()
        assert answer.result().json()["code"] == "service_closing"
        command.end()
    assert command.process.returncode == 0
    assert "Ended without waiting longer" in command.log


def test_a_process_that_was_stopped_for_a_while_does_not_take_its_work_for_hung(run: Run, endless: Path) -> None:
    """As a container that is paused: when it goes on, all that it was doing seems to have taken that long."""
    command = run("--pack", endless, "--hang-seconds", "10")
    url = f"http://127.0.0.1:{command.port}"
    with ThreadPoolExecutor() as pool:
        many = [pool.submit(post, url, PICTURE) for _ in range(50)]
        os.kill(command.process.pid, signal.SIGSTOP)
        time.sleep(15)
        os.kill(command.process.pid, signal.SIGCONT)
        assert {each.result().status_code for each in many} == {200}
    time.sleep(3)  # two checks of the threads
    assert post(url, PICTURE).status_code == 200
    assert "hangs" not in command.log


# ── several processes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(600 * ROUNDS)
@pytest.mark.parametrize("what", ["inference", "decode", "thread", "stopped"])
def test_worker_that_hangs_is_replaced_and_the_other_loses_nothing(
    what: str, run: Run, endless: Path, faults: Path
) -> None:
    """Under load: every caller has an answer by its deadline, or loses its connection if the process was stopped."""
    options = ["--workers", "2", "--pack", endless, "--hang-seconds", "10", "--decode-threads", "1"]
    command = run(*options, faults=faults)
    for _ in range(ROUNDS):
        hung, other = command.serving()
        with Callers(command.port, [hung, other]) as callers:
            until(lambda: all(len(callers.answers[pid]) > 5 for pid in (hung, other)))  # noqa: B023  # called at once
            if what == "stopped":
                os.kill(hung, signal.SIGSTOP)
            else:
                head = "POST /embed HTTP/1.1\r\nHost: localhost\r\nX-Request-Timeout: 1\r\nContent-Type: image/png\r\n"
                with connection_to(command.port, hung) as caller:
                    picture = hanging(what)
                    caller.sendall(f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture)
                    assert caller.recv(4096).startswith(b"HTTP/1.1 503 ")
            until(lambda: not is_running(hung))  # noqa: B023  # called at once
            assert other in command.serving()
        assert set(callers.answers[other]) == {200}
        assert set(callers.answers[hung]) <= ({200, None} if what == "stopped" else {200, 503, None})
        assert callers.longest_seconds < Callers.PATIENCE_SECONDS


class Callers:
    """A few callers at each worker, with a deadline, and the answers to their requests, by worker."""

    DEADLINE_SECONDS, PATIENCE_SECONDS = 40, 90

    def __init__(self, port: int, workers: list[int]) -> None:
        self._port, self._end = port, threading.Event()
        self.answers: dict[int, list[int | None]] = {worker: [] for worker in workers}
        """Statuses; None: the connection ended."""
        self.longest_seconds = 0.0
        self._threads = [threading.Thread(target=self._call, args=(worker,)) for worker in workers * 2]
        self._all_connected = threading.Barrier(len(self._threads) + 1, timeout=100)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self._all_connected.wait()  # before a worker is stopped, which would reset one that connects
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _call(self, worker: int) -> None:
        head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nX-Request-Timeout: {self.DEADLINE_SECONDS}\r\n"
        request = f"{head}Content-Type: image/jpeg\r\nContent-Length: {len(PICTURE)}\r\n\r\n".encode() + PICTURE
        with connection_to(self._port, worker) as link, link.makefile("rb") as answers:
            self._all_connected.wait()
            while not self._end.is_set():
                began = time.monotonic()
                try:
                    link.sendall(request)
                    status = answers.readline().split()[1:2]
                    length = next(int(line[15:]) for line in answers if line.lower().startswith(b"content-length:"))
                    while answers.readline().strip():
                        pass
                    answers.read(length)
                except (OSError, StopIteration):
                    status = []
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
                self.answers[worker].append(int(status[0]) if status else None)
                if not status:
                    return


def connection_to(port: int, worker: int) -> socket.socket:
    """A connection that this worker has accepted; the kernel deals them out by chance."""
    while True:
        link = socket.create_connection(("127.0.0.1", port), timeout=100)
        link.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = link.recv(4096)
        assert b"alive" in answer or b"alive" in link.recv(4096)
        if f"socket:[{socket_inode(port, link.getsockname()[1])}]" in open_files(worker):
            return link
        link.close()


def socket_inode(port: int, other_port: int) -> str:
    """Of the accepted end of a connection on loopback. Source: proc(5), /proc/net/tcp."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (fields[1].split(":")[1], fields[2].split(":")[1]) == (f"{port:04X}", f"{other_port:04X}"):
            return fields[9]
    raise AssertionError("no such connection")


def open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(str(link.readlink()))
    return found


def test_worker_that_does_not_end_is_killed_after_the_grace_period(run: Run, endless: Path) -> None:
    command = run("--workers", "2", "--pack", endless, "--shutdown-grace-seconds", "0", "--hang-seconds", "600")
    pids = command.serving()
    os.kill(pids[0], signal.SIGSTOP)
    command.process.terminate()
    assert "Workers do not end within 10 s and are killed." in command.end()
    assert command.process.returncode == 0
    assert not any(map(is_running, pids))


# ── the batcher's thread ───────────────────────────────────────────────────────────────────────────────────────────


class SilentError(Exception):
    """Raises when it is converted to text."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "raised",
    [
        SilentError(),
        QueueFull(1, 2, 3, 4),
        ModelFailed("poisoned"),
        SystemExit(3),
        KeyboardInterrupt(),
        MemoryError(),
        RecursionError(),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_whatever_a_batch_raises_its_callers_are_answered_and_the_thread_goes_on(raised: BaseException) -> None:
    fails = [True]

    def model(items: list[int]) -> list[int]:
        if fails.pop() if fails else False:
            raise raised
        return items

    async def check() -> None:
        queue: Batcher[int, int] = Batcher(model, name="test", sizes=(1, 2), capacity=9)  # type: ignore[arg-type]  # a list is a sequence
        with pytest.raises(type(raised) if isinstance(raised, ArcFaceError) else ModelFailed) as error:
            await queue.submit(1)
        said = str(raised) if isinstance(raised, ArcFaceError) else type(raised).__name__
        assert said in str(error.value)
        assert error.value is not raised
        assert getattr(error.value, "retry_after_seconds", 4) == 4
        assert (await queue.submit(2)).row == 2
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_a_defect_in_the_queue_answers_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        queue: Batcher[int, int] = Batcher(list, name="test", sizes=(1,), capacity=9)
        with monkeypatch.context() as patched:
            patched.setattr(Batcher, "_take_batch", lambda _: 1 / 0)
            with pytest.raises(ModelFailed, match="ZeroDivisionError"):
                await queue.submit(1)
        assert (await queue.submit(2)).row == 2
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_an_exception_thrown_into_the_waiting_thread_does_not_end_it() -> None:
    async def check() -> None:
        queue: Batcher[int, int] = Batcher(list, name="test", sizes=(1,), capacity=9)
        assert (await queue.submit(1)).row == 1
        identity = queue._threads[0].ident
        assert identity is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(identity), ctypes.py_object(SystemExit))
        answers = await asyncio.gather(*(queue.submit(number) for number in range(3)), return_exceptions=True)
        assert all(isinstance(answer, ModelFailed) or answer.row == number for number, answer in enumerate(answers))  # type: ignore[union-attr]  # no other can be there
        assert (await queue.submit(9)).row == 9
        assert not queue.has_lost_a_thread
        await queue.close()

    asyncio.run(asyncio.wait_for(check(), 100))


def test_a_batch_that_ends_while_hangs_are_looked_for_is_no_hang(
    make_app: Callable[..., DirectApp], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start is there at one moment and gone at the next."""
    embedder = make_app(tiny_recogniser).embedder
    moments = iter([time.monotonic()])
    monkeypatch.setattr(Batcher, "running_since", property(lambda _: next(moments, None)))
    assert embedder.why_stuck(60) is None


def test_a_thread_that_has_ended_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        monkeypatch.setattr(Batcher, "_work", lambda *_: None)
        queue: Batcher[int, int] = Batcher(list, name="test", sizes=(1,), capacity=9)
        waiting = asyncio.create_task(queue.submit(1))
        while not queue.has_lost_a_thread:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.01)
        waiting.cancel()

    asyncio.run(asyncio.wait_for(check(), 100))
