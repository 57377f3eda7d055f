"""Promises of examples/requests: each program, run as it stands, gets a similarity, or shows the problem."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pictures import picture_bytes
from serving import Service

pytestmark = pytest.mark.once  # other languages decide

REQUESTS = Path(__file__).parents[2] / "examples" / "requests"
PROGRAMS = {
    "similarity.sh": ["sh"],
    "similarity.py": [sys.executable],
    "similarity_with_client.py": [sys.executable],
    "similarity.mjs": ["node"],
    "Similarity.java": ["java"],
}
Run = Callable[[str, Path, Path], subprocess.CompletedProcess[str]]


@pytest.fixture(params=PROGRAMS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run a program with two pictures."""
    name = str(request.param)
    needed = [*PROGRAMS[name][:1], *(["curl", "jq"] if name.endswith(".sh") else [])]
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"needs {', '.join(missing)}")

    def run(url: str, one: Path, other: Path) -> subprocess.CompletedProcess[str]:
        text = (REQUESTS / name).read_text()
        assert "http://localhost:5555" in text
        (tmp_path / name).write_text(text.replace("http://localhost:5555", url))
        command = [*PROGRAMS[name], name, str(one), str(other)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)

    return run


def test_program_prints_the_similarity(run: Run, service: Service, tmp_path: Path) -> None:
    contents = picture_bytes(size=(90, 120)), picture_bytes(size=(190, 60))
    paths = tmp_path / "a.jpg", tmp_path / "übung b.jpg"
    vectors = []
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
        answer = service.post("/embed", files={"file": content}, params={"normalize": True})
        vectors.append(np.array(answer.json()["embedding"]))
    done = run(str(service.base_url).rstrip("/"), *paths)
    found = re.fullmatch(r"similarity (-?[\d.]+)\n", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) == pytest.approx(vectors[0] @ vectors[1], abs=0.0006)
    assert done.returncode == 0


def test_program_shows_the_problem(run: Run, service: Service, tmp_path: Path) -> None:
    good, bad = tmp_path / "a.jpg", tmp_path / "b.jpg"
    good.write_bytes(picture_bytes())
    bad.write_bytes(b"%PDF-1.7")
    done = run(str(service.base_url).rstrip("/"), good, bad)
    assert done.returncode not in (0, None)
    assert "image_format_unsupported" in done.stderr
    assert "PDF" in done.stderr
    assert "similarity" not in done.stdout


@pytest.fixture
def full_once(service: Service) -> Iterator[str]:
    """URL of a server that refuses the first request as a full service does, and passes the others on."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            if len(asked) == 1:
                self.reply(429, b'{"code": "queue_full", "detail": "Full."}', {"Retry-After": "1"})
                return
            headers = {name: self.headers[name] for name in ("Content-Type", "Accept") if name in self.headers}
            real = service.post(self.path, content=content, headers=headers)
            kept = {name: value for name, value in real.headers.items() if name.startswith(("x-", "content-type"))}
            self.reply(real.status_code, real.content, kept)

        def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:  # not on the test's standard error
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
    assert len(asked) > 1


def test_program_sends_again_when_the_service_was_full(run: Run, full_once: str, tmp_path: Path) -> None:
    paths = tmp_path / "a.jpg", tmp_path / "b.jpg"
    for path in paths:
        path.write_bytes(picture_bytes())
    done = run(full_once, *paths)
    assert re.fullmatch(r"similarity 1(\.000)?\n", done.stdout), done.stdout + done.stderr
