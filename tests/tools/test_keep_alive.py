"""Promises of kept connections, with clients that people use: none of their requests is lost, and lost ones show."""

from asyncio import Transport
from collections.abc import Callable
from pathlib import Path

import pytest

from arcface_api.api.protocol import HttpProtocol
from benchmarks.lib import idle_clients
from benchmarks.questions.keep_alive import FIRST, Pause, planned
from pictures import picture_bytes
from scripted_server import ScriptedServer, answer
from serving import Service

pytestmark = pytest.mark.once  # clients in several languages decide

SECONDS = 3
"""How long the service keeps a connection, as it announces."""
CONNECTIONS = 12
IN_TIME, AT_THE_END = Pause(0.3, 0.6), Pause(SECONDS - 0.1, SECONDS + 0.1)
QUERIES = {FIRST: "", IN_TIME: "flip=false", AT_THE_END: "normalize=false"}


@pytest.fixture(params=idle_clients.CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    if request.param not in idle_clients.versions():
        pytest.skip(f"needs {request.param}")
    return str(request.param)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "face.jpg"
    path.write_bytes(picture_bytes())
    return path


def test_request_on_a_kept_connection_is_answered(
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    picture: Path,
    client: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = []
    real = HttpProtocol.connection_made

    def connection_made(protocol: HttpProtocol, transport: Transport) -> None:
        opened.append(transport)
        real(protocol, transport)

    monkeypatch.setattr(HttpProtocol, "connection_made", connection_made)
    monkeypatch.setattr("arcface_api.api.protocol.LATE_SECONDS", 60)  # a busy machine's client is late
    url = f"{run_service(tiny_recogniser, keep_alive_seconds=SECONDS).base_url}/embed"
    outcomes = idle_clients.follow(client, url, picture, planned(QUERIES, CONNECTIONS))
    assert {outcome for _, outcome in outcomes} == {"200"}
    # Node's reads for how long a connection is kept, and does not use it in its last second, nor when it is late.
    most = CONNECTIONS * (3 if client == "node" else 1)
    assert CONNECTIONS * (2 if client == "node" else 1) <= len(opened) <= most


def test_lost_and_refused_requests_are_counted(picture: Path, client: str) -> None:
    async def script(number: int) -> bytes | None:
        return {1: None, 2: answer(503)}.get(number, answer())

    plan = [(0.0, ""), (0.1, "a"), (0.1, "b"), (0.1, "b")]
    with ScriptedServer(script) as server:
        url = f"http://127.0.0.1:{server.address.port}/embed"
        found = idle_clients.tallied(idle_clients.follow(client, url, picture, [plan]))
        assert len(server.bodies) == 4, "it is not sent again"
    assert [(found[query].requests, found[query].lost.total()) for query in ("", "a", "b")] == [(1, 0), (1, 1), (2, 0)]
    assert found["b"].refused == {"503": 1}


def test_requests_that_arrive_on_kept_connections_are_counted() -> None:
    log = "".join(
        f'12:00 INFO 127.0.0.1:{port} - "POST /embed{query} HTTP/1.1" 200\n'
        for port, query in ((1, "?a"), (2, "?other"), (1, "?b"), (2, "?b"), (2, "?b"), (3, ""))
    )
    found = idle_clients.tallied([("a", "200"), ("b", "200")], log)
    assert [found[query].on_kept_connections for query in "ab"] == [0, 2]
