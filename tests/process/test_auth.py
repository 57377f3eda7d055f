"""Promises of API keys in the real processes: every worker follows the file, and no key is written anywhere."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from pictures import picture_bytes
from serving import Run, until

PICTURE = picture_bytes()
KEY, NEW_KEY = "correct-horse-battery-staple", "another-key-of-the-same-caller"
WRONG = "a-key-that-nobody-has-given-out"


def statuses(port: int, key: str, times: int) -> set[int]:
    """Of requests on a new connection each, which the kernel gives to any worker."""
    return {
        httpx.get(f"http://127.0.0.1:{port}/info", headers={"X-API-Key": key}, timeout=100, verify=False).status_code
        for _ in range(times)
    }


def test_every_worker_follows_the_file(run: Run, tiny_recogniser: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"archive {KEY}\n")
    command = run("--pack", tiny_recogniser, "--workers", "2", "--api-keys-file", keys)
    command.serving()
    assert statuses(command.port, KEY, 20) == {200}
    assert statuses(command.port, NEW_KEY, 20) == {401}
    (tmp_path / "new").write_text(f"archive {NEW_KEY}\n")
    (tmp_path / "new").replace(keys)
    until(lambda: statuses(command.port, KEY, 20) == {401})
    until(lambda: statuses(command.port, NEW_KEY, 20) == {200})


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The bodies that a collector of traces gets."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield bodies
        server.shutdown()


def forms(secret: str) -> list[bytes]:
    """A secret as it might be written."""
    content, digest = secret.encode(), hashlib.sha256(secret.encode())
    in_base64 = [base64.b64encode(b" " * shift + content)[4:-4] for shift in range(3)]  # wherever it begins
    return [content, content.hex().encode(), *in_base64, digest.hexdigest().encode(), base64.b64encode(digest.digest())]


def test_no_key_is_written_anywhere(
    run: Run, tiny_recogniser: Path, tmp_path: Path, collected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCFACE_LOG_FORMAT", "json")
    keys = tmp_path / "keys"
    keys.write_text(f"archive {KEY}\n")
    command = run(
        *("--pack", tiny_recogniser, "--api-keys-file", keys, "--log-level", "debug", "--access-log"),
        *("--trace-share", "1", "--slow-request-seconds", "0.000001", "--rate-limit", "3/hour"),
    )
    url, written = f"http://127.0.0.1:{command.port}", list[bytes]()
    for key in (KEY, WRONG):
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}, {"Authorization": f"Basic {key}"}):
            for method, path, body in (
                ("GET", "/info", b""),
                ("GET", "/metrics", b""),
                ("GET", "/nothing", b""),
                ("PUT", "/embed", b""),
                ("POST", "/embed", PICTURE),
                ("POST", "/embed", b"no picture"),
                ("POST", "/embed?align=what", PICTURE),
                ("POST", "/embed/batch", b"no form"),
            ):
                sent = headers | ({"Content-Type": "image/jpeg"} if body else {})
                answer = httpx.request(method, url + path, content=body, headers=sent, timeout=100, verify=False)
                written += [answer.content, *(value for header in answer.headers.raw for value in header)]
    keys.write_text(f"archive {KEY}\nbroken {WRONG} {NEW_KEY}\n")
    command.logged("line 2 is not")
    keys.write_text(f"archive {NEW_KEY}\n")
    command.logged("Callers need an API key", times=2)
    command.process.terminate()
    written += [command.end().encode(), *collected]
    assert collected
    assert any(b"archive" in each for each in written), "the name of a key is no secret"
    everything = b"\0".join(written)
    assert b"rate_limited" in everything
    for secret in (KEY, NEW_KEY, WRONG):
        assert not [form for form in forms(secret) if form in everything]
