"""What is used of uvicorn and httptools beside their interfaces is as when it was last read.

Our protocol and server are subclasses (docs/adr/0006-http.md), so that each change there may break them in silence. To
use a new version, read what these tests name, run the tests of `tests/api` and `tests/process` with it, and write the
new digests here and the new bound into `pyproject.toml`.
"""

import hashlib
import inspect
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httptools
import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols import utils
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState

ROOT = Path(__file__).parents[2]
PROTOCOL, SERVER = "src/arcface_api/api/protocol.py", "src/arcface_api/serving/server.py"

READ: dict[Callable[..., Any], tuple[str, str]] = {
    HttpToolsProtocol.__init__: (
        "eefda6875ebd",
        f"{PROTOCOL} uses what it sets: parser, cycle, headers, scope, flow, client, loop",
    ),
    HttpToolsProtocol.connection_made: (
        "c8b2230c91b4",
        f"`connection_made` in {PROTOCOL} gives it a `GentleTransport`",
    ),
    HttpToolsProtocol.connection_lost: (
        "1b99df458c3b",
        f"`connection_lost` in {PROTOCOL} calls it, then ends the request's task",
    ),
    HttpToolsProtocol.eof_received: ("1db22b08a5f3", f"{PROTOCOL} leaves it: a caller's end must end the connection"),
    HttpToolsProtocol._unset_keepalive_if_required: ("df160182c46a", f"{PROTOCOL} stops its own timers with it"),
    HttpToolsProtocol.on_message_begin: ("453ed691ca9d", f"`on_message_begin` in {PROTOCOL} calls it for each head"),
    HttpToolsProtocol.on_headers_complete: (
        "f48ec6bbe75d",
        f"`on_headers_complete` in {PROTOCOL} empties `headers` behind it",
    ),
    HttpToolsProtocol._start_asgi_task: (
        "62f5730cb4eb",
        f"`_start_asgi_task` in {PROTOCOL} wraps the app that it runs",
    ),
    HttpToolsProtocol.on_body: ("a02fa52bdf33", f"`on_body` in {PROTOCOL} counts, then calls it"),
    HttpToolsProtocol.on_message_complete: (
        "87e5be1faf50",
        f"`on_message_complete` in {PROTOCOL} resumes reading behind it",
    ),
    HttpToolsProtocol.on_response_complete: (
        "4dfe4f257f50",
        f"`on_response_complete` in {PROTOCOL} starts the next request",
    ),
    HttpToolsProtocol.shutdown: ("3fc90dd3d36a", f"`shutdown` in {PROTOCOL} cuts off callers that still send"),
    HttpToolsProtocol.timeout_keep_alive_handler: (
        "16ae57aa33cd",
        f"`_watch` in {PROTOCOL} calls it when a connection was silent",
    ),
    RequestResponseCycle.__init__: (
        "f882611e893b",
        f"{PROTOCOL} reads response_started, response_complete, sets disconnected",
    ),
    RequestResponseCycle.send: (
        "089bd8725f6a",
        f"{PROTOCOL} changes default_headers and keep_alive before it writes the head",
    ),
    RequestResponseCycle.receive: ("e7a392a4367a", f"{PROTOCOL} wakes it with message_event; `leave` ends its task"),
    RequestResponseCycle.run_asgi: (
        "0a5f7f242f6a",
        "src/arcface_api/api/app.py answers every error, so that it never has to",
    ),
    flow_control.FlowControl: ("0d483a9718e8", f"{PROTOCOL} pauses and resumes reading with it"),
    utils.is_ssl: ("dd759c560a41", "src/arcface_api/api/tls.py gives it `sslcontext`"),
    Server.startup: ("b912bccc00bb", f"`startup` in {SERVER} gives it the listener"),
    Server.shutdown: ("839636395b3d", f"`shutdown` in {SERVER} calls it: it closes the port, then waits for answers"),
    Server.handle_exit: ("82738a43d9a4", f"`handle_exit` in {SERVER} calls it at SIGTERM"),
    Server.main_loop: ("c45ab2374086", f"{SERVER} ends it by should_exit"),
    ServerState.__init__: ("0e6862ee399e", f"{PROTOCOL} reads default_headers, connections and tasks"),
}
"""Code of uvicorn that ours is built upon, by a digest of its text without white space; and what to look at."""


def digest(code: Any) -> str:
    return hashlib.sha256("".join(inspect.getsource(code).split()).encode()).hexdigest()[:12]


@pytest.mark.parametrize("code", READ, ids=lambda code: code.__qualname__)
def test_code_that_ours_is_built_upon_is_as_when_it_was_read(code: Callable[..., Any]) -> None:
    known, where = READ[code]
    assert digest(code) == known, (
        f"uvicorn {version('uvicorn')} changed `{code.__qualname__}`. Read it, and what depends on it: {where}."
        f" If ours still holds, write {digest(code)!r} here."
    )


@pytest.mark.parametrize("package", ["uvicorn", "httptools"])
def test_no_version_is_installed_that_was_not_tried(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = next(each for each in map(Requirement, project["optional-dependencies"]["server"]) if each.name == package)
    assert {each.operator for each in needed.specifier} == {">=", "<"}, "both ends: this file says why"
    assert needed.specifier.contains(version(package)), f"Try {package} {version(package)} as this file says."


def test_status_lines_are_ready_to_be_sent() -> None:
    """`HttpProtocol._refuse` begins its answers with them."""
    assert httptools_impl.STATUS_LINE[431] == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"


def test_access_log_has_the_five_arguments_that_its_fields_are_made_of() -> None:
    """`serving/logs.py` names them."""
    text = inspect.getsource(RequestResponseCycle.send)
    assert re.search(r"'%s - \"%s %s HTTP/%s\" %d',\s+get_client_addr\(self\.scope\),", text), (
        "uvicorn's access log has other arguments: change `_ACCESS_FIELDS` in src/arcface_api/serving/logs.py."
    )


# ── httptools ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Seen:
    """What a parser calls."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.called: list[str] = []
        self.body = b""

    def on_message_begin(self) -> None:
        self.called.append("begin")

    def on_headers_complete(self) -> None:
        self.called.append("headers")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.called.append("complete")


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"


def test_parser_takes_a_view_of_a_growing_buffer_and_calls_at_once() -> None:
    """`HttpProtocol._parse_body` feeds views, and then shortens the buffer that they are of."""
    seen, buffer = Seen(), bytearray(b"ab")
    seen.parser.feed_data(HEAD)
    assert seen.called == ["begin", "headers"], "look at `HttpProtocol._parse_head`, which expects the end of the head"
    with memoryview(buffer) as view:
        seen.parser.feed_data(view[:2])
    del buffer[:]  # raises if the parser still holds the view
    seen.parser.feed_data(b"cd")
    assert (seen.called, seen.body) == (["begin", "headers", "complete"], b"abcd")


def test_parser_calls_for_every_message_that_it_is_fed() -> None:
    """`HttpProtocol.on_message_begin` refuses the second one."""
    seen = Seen()
    seen.parser.feed_data(HEAD + b"abcd" + HEAD)
    assert seen.called == ["begin", "headers", "complete", "begin", "headers"]


def test_error_in_a_callback_is_one_of_the_parser() -> None:
    """`HttpProtocol._go_on` answers it with 400."""

    class Refusing(Seen):
        def on_message_begin(self) -> None:
            raise ValueError

    with pytest.raises(httptools.HttpParserError):
        Refusing().parser.feed_data(HEAD)


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    ],
)
def test_parser_refuses_what_can_be_read_in_two_ways(head: bytes) -> None:
    """Nothing of ours checks it again."""
    with pytest.raises(httptools.HttpParserError):
        Seen().parser.feed_data(head)


def test_parser_without_callbacks_looks_ahead() -> None:
    """`heads.look_ahead` feeds one."""
    httptools.HttpRequestParser(object()).feed_data(b"GET / HT")


def test_server_of_ours_overrides_what_exists() -> None:
    """A method that uvicorn no longer calls would do nothing, in silence."""
    for name in ("capture_signals", "handle_exit", "startup", "shutdown"):
        assert callable(getattr(uvicorn.Server, name)), f"uvicorn.Server has no `{name}` any more: look at {SERVER}."
