"""Promises of using a service: patience with refusals, one model throughout, a sentence when it cannot go on.

The service is real. Before it stands a door that refuses, cuts or relabels, as proxies and overload do.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from arcface_api.api.app import DirectApp
from arcface_api.errors import EvaluationError
from arcface_api.evaluate import backend
from evaluate.conftest import Done, Labelled
from scripted_server import ScriptedServer, answer
from serving import Service, free_port

Run = Callable[..., Done]


class Door:
    """Before a service.

    Attributes:
        came: Path and time of each request that is no `/info`.
        most_bytes: Of a request; more is refused as nginx does.
        refusals: Answers to the first requests, which the service does not see.
        fingerprints: Of the first answers, in place of the service's own.
    """

    def __init__(self, app: DirectApp) -> None:
        self._app = app
        self.connections = app.connections
        self.came: list[tuple[str, float]] = []
        self.most_bytes: int | None = None
        self.refusals: list[Response] = []
        self.fingerprints: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/info":
            await self._app(scope, receive, send)
            return
        self.came.append((scope["path"], time.monotonic()))
        length = int(dict(scope["headers"])[b"content-length"])
        if self.refusals:
            await self._instead(self.refusals.pop(0), scope, receive, send)
        elif self.most_bytes is not None and length > self.most_bytes:
            await self._instead(Response("<html>Too large</html>", 413), scope, receive, send)
        else:
            await self._app(scope, receive, self._relabelled(send))

    async def _instead(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await response(scope, receive, send)

    def _relabelled(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and self.fingerprints:
                own = [pair for pair in message["headers"] if pair[0].lower() != b"x-model-fingerprint"]
                message["headers"] = [*own, (b"x-model-fingerprint", self.fingerprints.pop(0).encode())]
            await send(message)

        return sending


@pytest.fixture
def behind_door(make_app: Callable[..., DirectApp], tiny_recogniser: Path) -> Iterator[Callable[..., tuple[Door, str]]]:
    """A service with settings; gives the door before it, and the URL."""
    with ExitStack() as at_end:

        def run(**settings: object) -> tuple[Door, str]:
            door = Door(make_app(tiny_recogniser, **settings))
            service = Service(door)  # type: ignore[arg-type]  # any ASGI app
            at_end.callback(service.stop)
            at_end.enter_context(service)
            return door, str(service.base_url)

        yield run


def test_a_refused_group_is_sent_again_when_the_service_says(
    labelled: Labelled, run_evaluate: Run, behind_door: Callable[..., tuple[Door, str]]
) -> None:
    door, url = behind_door()
    door.refusals = [Response(status_code=429, headers={"Retry-After": "2"})]
    done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert done.status == 0, done.error
    assert [path for path, _ in door.came] == ["/embed/batch"] * 3  # 48 pictures are two groups
    assert door.came[-1][1] - door.came[0][1] >= 2


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}])
def test_a_refusal_without_seconds_is_followed_by_another_try(
    labelled: Labelled,
    run_evaluate: Run,
    behind_door: Callable[..., tuple[Door, str]],
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    monkeypatch.setattr(backend, "RETRY_SECONDS", 0.01)
    door, url = behind_door()
    door.refusals = [Response(status_code=503, headers=headers) for _ in range(5)]
    assert run_evaluate(labelled.pairs, labelled.images, "--url", url).status == 0


def test_patience_has_an_end(
    labelled: Labelled,
    run_evaluate: Run,
    behind_door: Callable[..., tuple[Door, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "PATIENCE_SECONDS", 0.5)
    door, url = behind_door()
    door.refusals = [Response(status_code=429, headers={"Retry-After": "0.1"}) for _ in range(100)]
    done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert (done.status, type(done.error)) == (1, EvaluationError)
    expected = f"The service at {url} has refused a request for 0.5 s, finally with 429: without a reason;"
    assert str(done.error).startswith(expected)


def test_groups_keep_the_limits_of_the_service(
    labelled: Labelled, run_evaluate: Run, behind_door: Callable[..., tuple[Door, str]]
) -> None:
    door, url = behind_door(max_batch_files=7, queue_capacity=28)
    done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert done.status == 0, done.error
    assert [path for path, _ in door.came] == ["/embed/batch"] * 7


def test_what_a_proxy_calls_too_large_is_sent_in_smaller_groups(
    labelled: Labelled, run_evaluate: Run, behind_door: Callable[..., tuple[Door, str]]
) -> None:
    door, url = behind_door()
    door.most_bytes = 10_000
    done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert done.status == 0, done.error
    assert 2 < len(door.came) < 48


def test_a_picture_that_is_too_large_by_itself_is_left_out(
    labelled: Labelled, run_evaluate: Run, behind_door: Callable[..., tuple[Door, str]]
) -> None:
    big = labelled.images / "P05/1.png"
    big.write_bytes(big.read_bytes() + bytes(30_000))
    door, url = behind_door(max_image_bytes=20_000)
    done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert done.status == 1
    assert "P05/1.png: The image is larger than the 20,000 bytes that an image may have" in str(done.error)
    assert len(door.came) == 2


def test_another_model_in_the_middle_stops_the_evaluation(
    labelled: Labelled, run_evaluate: Run, behind_door: Callable[..., tuple[Door, str]]
) -> None:
    door, url = behind_door(max_batch_files=4)
    door.fingerprints = ["0123456789abcdef"]
    done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert "changed its model: the fingerprint was " in str(done.error)
    assert " and is now 0123456789abcdef. Embeddings of two models cannot be compared; start again." in str(done.error)


def test_nothing_behind_the_url_is_a_sentence(labelled: Labelled, run_evaluate: Run) -> None:
    async def silent(_: int) -> bytes | None:
        return answer()

    with ScriptedServer(silent, free_port()) as server:
        url = f"http://127.0.0.1:{server.address.port}"
        other = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    gone = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert (other.status, gone.status) == (1, 1)
    assert str(other.error) == f"The answer of {url}/info is not arcface-api's. Check the address."
    assert str(gone.error).startswith(f"Nothing answers at {url}: ")
    assert "Start the service there, or leave out --url" in str(gone.error)


def test_a_service_that_vanishes_is_a_sentence(labelled: Labelled, run_evaluate: Run, service: Service) -> None:
    info = service.get("/info").content

    async def only_info(number: int) -> bytes | None:
        return None if number else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(info), info)

    with ScriptedServer(only_info) as server:
        url = f"http://127.0.0.1:{server.address.port}"
        done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert str(done.error).startswith(f"The service at {url} no longer answers: ")
    assert str(done.error).endswith(". Its log may say why; start again when it runs.")


def test_a_service_that_fails_is_a_sentence(
    labelled: Labelled, run_evaluate: Run, behind_door: Callable[..., tuple[Door, str]]
) -> None:
    door, url = behind_door()
    problem = b'{"status": 500, "code": "internal_error", "detail": "A defect; the log says more."}'
    door.refusals = [Response(problem, 500)]
    done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert (done.status, type(done.error)) == (1, EvaluationError)
    assert str(done.error) == f"The service at {url} answers 500: A defect; the log says more."


@pytest.mark.parametrize("url", ["http://localhost:99999", "http://localhost:abc", "http://[::1", "ftp://localhost"])
def test_address_that_is_none_is_refused(labelled: Labelled, run_evaluate: Run, url: str) -> None:
    done = run_evaluate(labelled.pairs, labelled.images, "--url", url)
    assert done.status == 2
    assert "is not allowed. Give http://host:port or https://host:port." in done.said
