"""Promises of the load generator: everything is counted, latency is the caller's, broken answers are failures."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from arcface_api.bench.connection import Address, raw_request
from arcface_api.bench.load import LoadReport, closed_loop
from benchmarks.lib.load import OpenReport, embed_request, open_loop, poisson_arrivals
from benchmarks.lib.usage import Usage, UsageWatch, pss_bytes, usage_of
from pictures import picture_bytes
from scripted_server import Script, ScriptedServer, answer
from serving import Service, free_port

ROOT = Path(__file__).parents[2]


def always(said: bytes | None, after_seconds: float = 0) -> Script:
    async def script(_: int) -> bytes | None:
        await asyncio.sleep(after_seconds)
        return said

    return script


def posts(server: ScriptedServer, *bodies: bytes) -> list[bytes]:
    return [raw_request(server.address, "POST", "/embed", body) for body in bodies or (b"face",)]


def burst(server: ScriptedServer, count: int, **options: object) -> OpenReport:
    return open_loop(server.address, posts(server), arrivals=np.zeros(count), seconds=0.1, **options)  # type: ignore[arg-type]


# ── on the real service ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_service_serves_all_and_reports_its_stages(service: Service) -> None:
    address = Address.of(str(service.base_url))
    requests = [embed_request(address, picture_bytes(size=(40 + n, 60))) for n in range(3)]
    reports: list[LoadReport] = [
        closed_loop(address, requests, clients=4, seconds=0.5),
        open_loop(address, requests, arrivals=poisson_arrivals(50, 0.5, 0), seconds=0.5),
    ]
    for report in reports:
        assert report.failed == report.refused == {}
        assert report.latency_ms is not None
        assert report.latency_ms.n == report.served > 0
        assert set(report.stages_ms) == {"receive", "decode", "crop", "queue", "inference", "total"}
        assert all(stage.n == report.served for stage in report.stages_ms.values())
        assert report.stages_ms["total"].mean <= report.latency_ms.mean
        assert json.loads(json.dumps(report.to_json()))["served"] == report.served


# ── counting ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_closed_loop_keeps_its_clients_busy_and_counts_all() -> None:
    with ScriptedServer(always(answer(), 0.02)) as server:
        report = closed_loop(server.address, posts(server, b"a", b"b", b"c"), clients=5, seconds=0.5)
    assert server.most_at_once == server.connections == report.costs["connections_opened"] == 5
    assert report.costs["attempts"] == len(server.bodies)
    assert len(server.bodies) - 5 <= report.served <= len(server.bodies)  # the last of each client came too late
    assert report.served_per_second == report.served / 0.5
    assert {server.bodies.count(body) for body in (b"a", b"b", b"c")} <= {n := len(server.bodies) // 3, n + 1}


def test_an_open_loop_sends_every_arrival_and_waits_for_nobody() -> None:
    arrivals = np.linspace(0, 0.2, 40)
    all_came = asyncio.Event()

    async def script(number: int) -> bytes:
        if number == 39:
            all_came.set()
        await all_came.wait()
        await asyncio.sleep(1)
        return answer()

    with ScriptedServer(script) as server:
        report = open_loop(server.address, posts(server), arrivals=arrivals, seconds=0.2)
    assert report.served == len(server.bodies) == server.most_at_once == 40
    assert report.offered_per_second == 200
    assert report.served_per_second == 0  # nobody was served before the last came


def test_throughput_is_of_the_answers_within_the_time_and_latency_of_all_who_came_then() -> None:
    with ScriptedServer(always(answer(), 0.5)) as server:
        arrivals = np.array([0.0, 0.1, 0.3, 7.9])
        report = open_loop(server.address, posts(server), arrivals=arrivals, seconds=8, warm_up_seconds=0.2)
    assert report.served == 2
    assert report.served_per_second == pytest.approx(3 / 7.8, abs=0.001)  # with two of the warm-up, without the last


def test_what_comes_during_the_warm_up_does_not_count() -> None:
    with ScriptedServer(always(answer())) as server:
        arrivals = np.array([0.0, 0.1, 0.5, 0.6])
        opened = open_loop(server.address, posts(server), arrivals=arrivals, seconds=0.7, warm_up_seconds=0.4)
        assert (opened.served, len(server.bodies)) == (2, 4)
    with ScriptedServer(always(answer(), 0.05)) as server:
        closed = closed_loop(server.address, posts(server), clients=1, seconds=0.2, warm_up_seconds=4.0)
        assert closed.served <= 5 < len(server.bodies)


def test_poisson_arrivals_follow_from_the_seed() -> None:
    arrivals = poisson_arrivals(100, 50, 7)
    assert (arrivals == poisson_arrivals(100, 50, 7)).all()
    assert len(arrivals) != len(poisson_arrivals(100, 50, 8))
    assert abs(len(arrivals) - 5000) < 5 * 5000**0.5
    gaps = np.diff(arrivals)
    assert gaps.min() >= 0
    assert arrivals[-1] <= 50
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as of an exponential distribution


def test_the_mean_batch_counts_batches_and_not_requests() -> None:
    async def script(number: int) -> bytes:
        return answer(X_Batch_Size="1" if number == 0 else "4")

    with ScriptedServer(script) as server:
        report = burst(server, 5)
    assert report.mean_batch == 5 / 2  # one batch of one, one of four


# ── latency ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_stalls_is_felt_by_all_who_arrive_meanwhile() -> None:
    stall_seconds = 0.6
    first: list[float] = []

    async def script(_: int) -> bytes:
        first.append(time.monotonic())
        await asyncio.sleep(first[0] + stall_seconds - time.monotonic())
        return answer()

    arrivals = np.linspace(0, 0.5, 51)
    with ScriptedServer(script) as server:
        report = open_loop(server.address, posts(server), arrivals=arrivals, seconds=0.5)
    assert report.latency_ms is not None
    assert report.latency_ms.mean >= median(stall_seconds - arrivals) * 1000


def test_latency_counts_from_the_arrival_also_where_the_client_sent_late() -> None:
    stalls = [0.5]

    def stall_the_client(_: float) -> None:
        if stalls:
            time.sleep(stalls.pop())

    with ScriptedServer(always(answer())) as server:
        report = open_loop(
            server.address, posts(server), arrivals=np.full(10, 0.1), seconds=0.2, on_progress=stall_the_client
        )
    assert report.latency_ms is not None
    assert report.late_ms is not None
    assert report.latency_ms.p50 >= report.late_ms.p50 >= 300


# ── refusals ───────────────────────────────────────────────────────────────────────────────────────────────────────


def refuses_first(count: int, status: int = 429, **headers: str) -> Script:
    async def script(number: int) -> bytes:
        return answer(status, **headers) if number < count else answer()

    return script


@pytest.mark.parametrize("status", [429, 503])
def test_refusals_are_counted_apart(status: int) -> None:
    with ScriptedServer(refuses_first(3, status, Retry_After="1")) as server:
        report = burst(server, 8)
    assert (report.served, report.refused, report.failed) == (5, {str(status): 3}, {})
    assert report.retries is None
    assert report.refusal_ms is not None
    assert report.refusal_ms.n == 3
    assert report.retry_after_seconds is not None
    assert (report.retry_after_seconds.n, report.retry_after_seconds.max) == (3, 1)
    assert report.refusals_without_retry_after == 0
    assert len(server.bodies) == 8


def test_retry_after_is_obeyed_and_reported() -> None:
    with ScriptedServer(refuses_first(3, Retry_After="5")) as server:
        report = open_loop(
            server.address,
            posts(server, *(b"%d" % n for n in range(5))),
            arrivals=np.linspace(0, 0.1, 5),
            seconds=0.1,
            obeys_retry_after=True,
        )
    assert server.bodies[5:] == server.bodies[:3]  # the same again
    assert all(again - before >= 4.99 for before, again in zip(server.came, server.came[5:], strict=False))
    assert (report.served, report.refused, report.failed) == (5, {"429": 3}, {})
    assert report.retries is not None
    assert report.retries.callers == report.retries.served_at_second_attempt == report.retries.served_in_the_end == 3
    assert report.retries.max_attempts == 2
    assert report.retries.until_served_ms is not None
    assert report.retries.until_served_ms.p50 >= 5000
    assert report.latency_ms is not None
    assert report.latency_ms.max < 5000  # the wait that was asked for is no latency of the service
    assert report.offered_per_second == 50  # a second attempt is no arrival


def test_who_is_refused_again_is_not_served_at_the_second_attempt() -> None:
    with ScriptedServer(refuses_first(3, Retry_After="0")) as server:
        report = burst(server, 2, obeys_retry_after=True)
    assert report.retries is not None
    assert report.retries.callers == report.retries.served_in_the_end == 2
    assert report.retries.served_at_second_attempt == 1
    assert report.retries.max_attempts == 3


@pytest.mark.parametrize("headers", [{}, {"Retry_After": "soon"}, {"Retry_After": "3600"}])
def test_nobody_waits_for_ever(headers: dict[str, str]) -> None:
    with ScriptedServer(always(answer(429, **headers))) as server:
        report = burst(server, 3, obeys_retry_after=True)
    assert (report.refused, len(server.bodies)) == ({"429": 3}, 3)
    assert report.refusals_without_retry_after == (0 if headers.get("Retry_After") == "3600" else 3)


def test_a_service_that_always_refuses_is_left_in_the_end() -> None:
    with ScriptedServer(always(answer(429, Retry_After="0"))) as server:
        report = burst(server, 1, obeys_retry_after=True)
    assert report.retries is not None
    assert report.retries.served_in_the_end == 0
    assert report.retries.max_attempts == len(server.bodies) == 20


# ── failures ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is no HTTP/1.1"),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n", "the answer is no HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "the answer has no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nX-Content-Length: 2\r\n\r\n{}", "the answer has no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", "the answer is longer than its Content-Length"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Long: x\r\n" * 7000, "the answer's head has no end"),
        (None, "the connection was closed before the answer was whole"),
        (answer(500), "status 500"),
        (answer(422), "status 422"),
        (answer(204), "status 204"),
    ],
)
def test_a_broken_answer_is_a_failure_and_the_run_goes_on(said: bytes | None, why: str) -> None:
    async def script(number: int) -> bytes | None:
        return said if number < 2 else answer()

    with ScriptedServer(script) as server:
        report = burst(server, 6)
    assert (report.failed, report.served, report.refused) == ({why: 2}, 4, {})


def test_a_truncated_answer_is_a_failure() -> None:
    async def script(_: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"

    with ScriptedServer(script) as server:
        report = burst(server, 2, timeout_seconds=0.3)
    assert (report.failed, report.served) == ({"no answer within 0.3 s": 2}, 0)


def test_bytes_that_nobody_asked_for_are_a_failure() -> None:
    async def script(number: int) -> bytes:
        return answer()

    class Talkative(ScriptedServer):
        async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer())
            await asyncio.sleep(0.1)
            writer.write(answer())
            await writer.drain()
            writer.close()

    with Talkative(script) as server:
        report = open_loop(server.address, posts(server), arrivals=np.zeros(1), seconds=3)
    assert (report.failed, report.served) == ({"bytes after the end of an answer": 1}, 1)


def test_a_service_that_never_answers_does_not_hold_the_run() -> None:
    with ScriptedServer(always(None, 2)) as server:
        report = closed_loop(server.address, posts(server), clients=2, seconds=0.5, timeout_seconds=0.2)
    assert report.served == 0
    assert set(report.failed) == {"no answer within 0.2 s"}


def test_a_service_that_is_gone_is_a_failure_and_no_busy_loop() -> None:
    with ScriptedServer(always(answer()), free_port()) as server:
        address, requests = server.address, posts(server)
    report = closed_loop(address, requests, clients=2, seconds=0.45)
    assert report.served == 0
    assert all(why.startswith("cannot connect: ") for why in report.failed)
    assert 2 <= sum(report.failed.values()) <= 10  # each pauses 0.1 s


@pytest.mark.parametrize(
    "close", [answer(connection="close"), answer().replace(b"HTTP/1.1", b"HTTP/1.0")], ids=["close", "HTTP/1.0"]
)
def test_a_server_that_closes_after_each_answer_gets_new_connections(close: bytes) -> None:
    with ScriptedServer(always(close)) as server:
        report = open_loop(server.address, posts(server), arrivals=np.linspace(0, 0.2, 5), seconds=0.2)
    assert (report.served, report.failed, server.connections) == (5, {}, 5)


def test_an_answer_may_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.lib.load.REUSE_SECONDS", 600)

    class Slow(ScriptedServer):
        async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(2):
                await reader.readuntil(b"\r\n\r\nface")
                for byte in answer():
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.001)
            writer.close()

    with Slow(always(None)) as server:
        report = open_loop(server.address, posts(server), arrivals=np.array([0, 4.8]), seconds=5)
    assert (report.served, report.failed, report.costs["connections_opened"]) == (2, {}, 1)


# ── addresses and processes ────────────────────────────────────────────────────────────────────────────────────────


def test_an_address_is_read_from_its_url() -> None:
    assert Address.of("http://localhost:5555/") == Address("localhost", 5555)
    assert Address.of("http://[::1]:80/faces/").host_header == "[::1]:80"
    assert Address.of("https://a/").url == "https://a:443"
    assert raw_request(Address.of("http://a/faces"), "GET", "/livez").startswith(b"GET /faces/livez HTTP/1.1\r\n")
    for wrong in ("ftp://a", "a:5555", "http://a/?b=c"):
        with pytest.raises(ValueError, match="http://host:port"):
            Address.of(wrong)


def test_usage_covers_children() -> None:
    code = (
        "import time; memory = bytearray(b'1') * 60_000_000; sum(range(10_000_000)); print(flush=True); time.sleep(600)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        usage = usage_of(process.pid)
        assert usage.processes == 2
        assert usage.rss_bytes > 60_000_000
        assert usage.cpu_seconds > 0.02
        pss = pss_bytes(process.pid)
        assert pss is None or 60_000_000 < pss <= usage.rss_bytes
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    with pytest.raises(ProcessLookupError):
        usage_of(process.pid)


def test_a_watch_sees_work_and_growth() -> None:
    with UsageWatch(os.getpid(), every_seconds=0.01) as watch:
        while time.process_time() == 0 or len(watch.samples) < 20:
            sum(range(100_000))
    assert len(watch.samples) >= 20
    assert watch.cpu_seconds > 0
    watch.samples = [Usage(at, rss, 0, 1) for at, rss in enumerate([1] * 5 + [100] * 10 + [110] * 5)]
    assert watch.rss_growth == pytest.approx(1.1)
    watch.samples = watch.samples[:9]
    assert watch.rss_growth is None


def test_the_script_measures_and_reports(tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    command = [sys.executable, "-m", "benchmarks.questions.load", "--canned", "--clients", "2", "--seconds", "0.5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        [*command, "--warm-up", "0", "--output", str(output)],
        check=True,
        cwd=ROOT,
        env=environment,
        capture_output=True,
    )
    report = json.loads(output.read_text())
    assert report["served"] > 0
    assert report["failed"] == {}
    assert report["machine"]["processor"]
