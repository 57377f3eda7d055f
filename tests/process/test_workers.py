"""Promises of `--workers`: one port, and every process behind it is used, drained and replaced."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import onnx
import pytest

from arcface_api.cpus import available_cpus
from arcface_api.loading import _capacity
from arcface_api.serving import metrics_folder
from arcface_api.serving.supervisor import LONGEST_PAUSE_SECONDS, pause_seconds
from arcface_api.settings import Settings
from authority import Authority
from pictures import picture_bytes
from serving import Command, Run, Service, descendants, free_port, is_running, until
from tiny_models import linear_model

PICTURE = picture_bytes()
CONNECTIONS = 32
"""By chance alone all of them reach the same one of two workers once in two thousand million runs."""


class SlowPack:
    """A pack whose worker waits while it loads: the record of its hashes is a pipe, which `let_in` writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model = folder / "model.onnx"
        self._record = folder / "pack.lock.toml"
        onnx.save(linear_model(112, 512), self._model)
        os.mkfifo(self._record)
        self._pipe: int | None = None

    def loading_worker(self, command: Command) -> int:
        """Wait until the first worker opens the pipe; returns its process id."""
        self._pipe = until(self._opened)
        (worker,) = filter(is_worker, descendants(command.process.pid))
        return worker

    def _opened(self) -> int | None:
        with suppress(OSError):  # nobody waits at the other end yet
            return os.open(self._record, os.O_WRONLY | os.O_NONBLOCK)
        return None

    def let_in(self) -> None:
        """Let the waiting worker go on."""
        assert self._pipe is not None
        content = self._model.read_bytes()
        record = f"size_bytes = {len(content)}\nsha256 = '{hashlib.sha256(content).hexdigest()}'"
        os.write(self._pipe, f"[files.'{self._model.name}']\n{record}\n".encode())
        self.close()

    def close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


@pytest.fixture
def slow_pack(tmp_path: Path) -> Iterator[SlowPack]:
    (tmp_path / "slow").mkdir()
    with closing(SlowPack(tmp_path / "slow")) as pack:
        yield pack


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


# ── serving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_worker_serves_on_the_one_port(run: Run, tiny_recogniser: Path) -> None:
    command = run("--workers", "2", "--pack", tiny_recogniser, "--access-log")
    pids, url = command.serving(), f"http://127.0.0.1:{command.port}"
    embeddings = set()
    for _ in range(CONNECTIONS):
        embeddings.add(httpx.post(f"{url}/embed", files={"file": PICTURE}, timeout=100).text)
    assert len(embeddings) == 1
    answering = set(map(int, command.logged(r"\[(\d+)\] \S+ - \"POST /embed HTTP/1.1\" 200", CONNECTIONS)))
    assert answering == set(pids)
    info = httpx.get(f"{url}/info", timeout=100).json()
    assert (info["workers"], info["threads"]) == (2, max(1, available_cpus() // 2))


def test_one_worker_is_the_command_itself(run: Run, tiny_recogniser: Path) -> None:
    command = run("--pack", tiny_recogniser)
    info = httpx.get(f"http://127.0.0.1:{command.port}/info", timeout=100).json()
    assert (info["workers"], info["threads"]) == (1, available_cpus())
    assert not descendants(command.process.pid)


@pytest.mark.parametrize(
    ("settings", "capacity"),
    [
        ({"workers": 1, "queue_capacity": 256}, 256),
        ({"workers": 2, "queue_capacity": 257}, 129),
        ({"workers": 16, "queue_capacity": 256}, 64),  # one full batch request
        ({"workers": 16, "queue_capacity": 8}, 8),  # more than that one worker alone would not take either
    ],
)
def test_workers_share_the_capacity(settings: dict[str, int], capacity: int) -> None:
    assert _capacity(Settings(**settings)) == capacity  # type: ignore[arg-type]  # they are numbers


def test_threads_that_are_given_are_those_of_each_worker(
    run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    assert run_service(tiny_recogniser, workers=100).get("/info").json()["threads"] == 1
    assert run_service(tiny_recogniser, workers=100, threads=2).get("/info").json()["threads"] == 2


# ── stopping ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stop", ["SIGTERM", "Ctrl-C, twice"])
def test_at_the_end_every_worker_answers_what_is_in_flight(run: Run, tiny_recogniser: Path, stop: str) -> None:
    """Uploads that are half done in both workers: each is read to its end and answered."""
    command = run("--workers", "2", "--pack", tiny_recogniser, "--access-log", "--shutdown-grace-seconds", "60")
    pids, port = command.serving(), command.port
    head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(PICTURE)}\r\n"
    half = len(PICTURE) // 2
    with ExitStack() as at_end:
        callers = [
            at_end.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=100)))
            for _ in range(CONNECTIONS)
        ]
        for caller in callers:
            caller.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert caller.recv(4096).startswith(b"HTTP/1.1 100 ")
            caller.sendall(PICTURE[:half])
        if stop == "SIGTERM":
            command.process.terminate()
        else:
            os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does
        command.logged("Stopping", times=2)
        if stop != "SIGTERM":
            os.killpg(command.process.pid, signal.SIGINT)
        for caller in callers:
            caller.sendall(PICTURE[half:])
            assert caller.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    log = command.end()
    assert command.process.returncode == 0
    answering = set(map(int, re.findall(r"\[(\d+)\] \S+ - \"POST /embed HTTP/1.1\" 200", log)))
    assert answering == set(pids)
    assert "Traceback" not in log
    assert "A new one starts" not in log


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the parent", "to everybody"])
def test_a_stop_while_workers_load_is_no_failure(
    run: Run, slow_pack: SlowPack, send: Callable[[int, int], None]
) -> None:
    command = run("--workers", "2", "--pack", slow_pack.folder)
    worker = slow_pack.loading_worker(command)
    send(command.process.pid, signal.SIGTERM)
    assert "Traceback" not in command.end()
    assert command.process.returncode == 0
    assert not is_running(worker)


@pytest.mark.parametrize("when", ["serving", "loading"])
def test_workers_do_not_outlive_a_parent_that_was_killed(
    run: Run, tiny_recogniser: Path, slow_pack: SlowPack, when: str
) -> None:
    command = run("--workers", "2", "--pack", tiny_recogniser if when == "serving" else slow_pack.folder)
    if when == "serving":
        command.serving()
    else:
        slow_pack.loading_worker(command)
    family = descendants(command.process.pid)
    command.process.kill()
    until(lambda: not any(map(is_running, family)))
    assert "Traceback" not in command.end()


def test_counts_of_a_supervisor_that_was_killed_are_removed_by_the_next_one(
    run: Run, tiny_recogniser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, own_memory = tmp_path / "memory", tmp_path / "own memory"  # nobody else removes anything there
    memory.mkdir()
    own_memory.mkdir()
    (own_memory / "sitecustomize.py").write_text(
        f"from arcface_api.serving import metrics_folder\nmetrics_folder.MEMORY = {str(memory)!r}\n"
    )
    monkeypatch.setattr(metrics_folder, "MEMORY", str(memory))

    def counts() -> set[Path]:
        return {*memory.iterdir()}

    killed = run("--workers", "2", "--pack", tiny_recogniser, faults=own_memory)
    killed.serving()
    (left,) = counts()
    running = run("--workers", "2", "--pack", tiny_recogniser, faults=own_memory)
    running.serving()
    assert left in counts()  # it is used
    family = descendants(killed.process.pid)
    killed.process.kill()
    until(lambda: not any(map(is_running, family)))
    assert left in counts()  # nobody was there to remove it
    (used,) = counts() - {left}
    with ExitStack() as stack:
        own = metrics_folder.make(stack)
        assert counts() == {used, own}
    assert counts() == {used}
    running.stop()
    assert not counts()


def test_folder_that_is_removed_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another supervisor that starts at the same moment."""
    monkeypatch.setattr(metrics_folder, "MEMORY", tmp_path)
    moments = ["before it is opened", "before it is locked"]

    def hold(folder: Path, hold: Callable[[Path], int] = metrics_folder.hold) -> int:
        moment = moments.pop() if moments else None
        if moment == "before it is opened":
            folder.rmdir()
        descriptor = hold(folder)
        if moment == "before it is locked":
            folder.rmdir()
        return descriptor

    monkeypatch.setattr(metrics_folder, "hold", hold)
    with ExitStack() as stack:
        folder = metrics_folder.make(stack)
        assert folder is not None
        assert folder.is_dir()
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


# ── dying ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def short_lives(tmp_path: Path) -> Path:
    """Every worker has had a short life, however slowly this machine starts another."""
    (tmp_path / "lives").mkdir()
    steady = "from arcface_api.serving import supervisor\nsupervisor.STEADY_SECONDS = 6000\n"
    (tmp_path / "lives" / "sitecustomize.py").write_text(steady)
    return tmp_path / "lives"


def test_killed_worker_is_replaced_and_the_other_goes_on(run: Run, tiny_recogniser: Path, short_lives: Path) -> None:
    command = run("--workers", "2", "--pack", tiny_recogniser, "--access-log", faults=short_lives)
    killed, other = command.serving()
    url = f"http://127.0.0.1:{command.port}"
    os.kill(killed, signal.SIGKILL)
    command.logged(rf"Worker {killed} was killed by SIGKILL\. A new one starts in 1 s; serving meanwhile: 1\.")
    for _ in range(CONNECTIONS):
        assert httpx.post(f"{url}/embed", files={"file": PICTURE}, timeout=100).status_code == 200
    answering = command.logged(r"\[(\d+)\] \S+ - \"POST /embed HTTP/1.1\" 200", CONNECTIONS)
    assert other in map(int, answering)
    command.logged("2 of 2 workers serve", times=2)
    assert other in command.serving()
    assert killed not in command.serving()


def test_replacement_that_cannot_start_ends_the_service_only_when_none_is_left(
    run: Run, tmp_path: Path, short_lives: Path
) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(linear_model(112, 512), model)
    command = run("--workers", "2", "--pack", model, faults=short_lives)
    first, second = command.serving()
    url = f"http://127.0.0.1:{command.port}"
    model.unlink()
    os.kill(first, signal.SIGKILL)
    command.logged(r"Worker \d+ could not start: .*model\.onnx.* A new one starts in 2 s; serving meanwhile: 1\.")
    assert httpx.post(f"{url}/embed", files={"file": PICTURE}, timeout=100).status_code == 200
    os.kill(second, signal.SIGKILL)
    assert re.search(r"^Error: .*model\.onnx", command.end(), re.MULTILINE)
    assert command.process.returncode == 1


def test_pause_grows_while_workers_go_on_dying() -> None:
    assert [pause_seconds(short_lives) for short_lives in range(6)] == [0, 1, 2, 4, 8, 16]
    assert pause_seconds(1000) == LONGEST_PAUSE_SECONDS


# ── starting ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_model_that_cannot_be_loaded_is_reported_once_with_status_1(run: Run, tmp_path: Path) -> None:
    model = linear_model(112, 512)
    model.graph.node[-1].op_type = "Nonsense"
    onnx.save(model, tmp_path / "model.onnx")
    command = run("--workers", "2", "--pack", tmp_path / "model.onnx")
    log = command.end()
    assert command.process.returncode == 1
    assert log.count("cannot load the model") == 1
    assert re.search(r"^Error: ONNX Runtime cannot load the model: .*Nonsense", log, re.MULTILINE)
    assert "Traceback" not in log
    assert "Listening" not in log


def test_worker_killed_while_it_loads_is_reported_with_status_1(run: Run, slow_pack: SlowPack) -> None:
    command = run("--workers", "2", "--pack", slow_pack.folder)
    worker = slow_pack.loading_worker(command)
    os.kill(worker, signal.SIGKILL)
    log = command.end()
    assert command.process.returncode == 1
    assert f"Error: Worker {worker} was killed by SIGKILL before it could serve." in log
    assert "set fewer workers" in log
    assert "Traceback" not in log


def test_port_is_held_from_the_start_and_opened_when_a_worker_can_embed(run: Run, slow_pack: SlowPack) -> None:
    port = free_port()
    command = run("--workers", "2", "--pack", slow_pack.folder, "--port", str(port))
    slow_pack.loading_worker(command)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    another = run("--workers", "2", "--pack", slow_pack.folder, "--port", str(port))
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use." in another.end()
    assert another.process.returncode == 2
    assert len(list(filter(is_worker, descendants(command.process.pid)))) == 1, "the first worker starts alone"
    slow_pack.let_in()
    assert command.port == port
    assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=100).status_code == 200
    third = run("--workers", "2", "--pack", slow_pack.folder, "--port", str(port))
    assert "Address already in use" in third.end()


# ── a test run that is killed ──────────────────────────────────────────────────────────────────────────────────────

SERVES_FOR_EVER = """
import os, signal, time
from serving import Run

def test_that_never_ends(run: Run, tiny_recogniser):
    run("--pack", tiny_recogniser).port
    several = run("--workers", "2", "--pack", tiny_recogniser)
    os.kill(several.serving()[0], signal.SIGSTOP)
    print("all serve", flush=True)
    time.sleep(600)
"""


def test_a_killed_test_run_leaves_no_process_running(tmp_path: Path) -> None:
    """Not even one that is stopped and so heeds nothing but SIGKILL."""
    (tmp_path / "test_serving.py").write_text(SERVES_FOR_EVER)
    folders = ["--rootdir", str(tmp_path), "--basetemp", str(tmp_path / "scratch"), str(tmp_path)]
    command = [sys.executable, "-m", "pytest", "-s", "-p", "conftest", "-c", os.devnull, *folders]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as tests:
        assert tests.stdout is not None
        assert any("all serve" in line for line in tests.stdout)
        family = descendants(tests.pid)
        assert len(family) >= 4, "a service, and a supervisor with two workers"
        tests.kill()
    until(lambda: not any(map(is_running, family)))


# ── TLS ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_worker_speaks_tls_and_reads_changed_files(run: Run, tiny_recogniser: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    certificate, key = authority.issue()
    files = ["--tls-certificate-file", certificate, "--tls-key-file", key]
    command = run("--workers", "2", "--pack", tiny_recogniser, *files)
    pids, url = command.serving(), f"https://127.0.0.1:{command.port}"
    assert re.search(r"try it, open https://127\.0\.0\.1:\d+/ in a browser", command.log)
    with httpx.Client(verify=authority.trusting(), timeout=100) as caller:
        assert caller.post(f"{url}/embed", files={"file": PICTURE}).status_code == 200
        until(lambda: command.log.count("TLS with the certificate in") == 2)
        authority.issue()
        until(lambda: command.log.count("TLS with the certificate in") == 4)
        logged = set(map(int, re.findall(r"\[(\d+)\] TLS with the certificate in", command.log)))
        assert logged == set(pids)
        assert caller.get(f"{url}/readyz").status_code == 200


def test_wrong_certificate_is_reported_before_anything_is_loaded(run: Run, tiny_recogniser: Path) -> None:
    command = run("--workers", "2", "--pack", tiny_recogniser, "--tls-certificate-file", "missing.crt")
    log = command.end()
    assert command.process.returncode == 2
    assert re.search("^Error: ARCFACE_TLS_CERTIFICATE_FILE=missing.crt cannot be used: No such file", log, re.MULTILINE)
    assert "Traceback" not in log
