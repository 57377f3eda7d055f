"""Promises of docs/privacy.md: whatever callers send and whatever goes wrong, nothing of a picture, its name, a header,
a query, a vector or an attribute is written anywhere, and nobody is called.

Secrets are planted in everything that a caller can send, to a service that says as much as it can. Some pictures make
it fail inside, with what it works on in the exception.
"""

import base64
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from collectors import Collector, collecting
from serving import PATIENT_END, Run, descendants, until

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace (Debian: apt-get install strace)"
)

FAULTS = """
import asyncio, base64, threading
from arcface_api.api import app
from arcface_api.embedder.prepare import Preparer
from arcface_api.session.onnx_cpu import OnnxCpuSession

prepare, run, embed_body, answers_to_break = Preparer.prepare, OnnxCpuSession.run, app.embed_body, []

def fail(data):
    raise LookupError(data)

def preparing(self, picture, options, limits):
    content = picture.content
    if b"fails-in-decode" in content:
        raise ValueError(content, content.hex(), base64.b64encode(content), list(content))
    if b"fails-in-thread" in content:
        threading.Thread(target=fail, args=(content,)).start()
    if b"fails-in-answer" in content:
        answers_to_break.append(True)
    prepared = prepare(self, picture, options, limits)
    if b"fails-in-model" in content:
        prepared.crop[:] = 7
    return prepared

def running(self, crops):
    features = run(self, crops)
    if any((crop == 7).all() for crop in crops):
        raise RuntimeError(f"{features.tolist()} of {crops[0].tolist()}")
    return features

def answering(embedded, *others):
    if answers_to_break:
        answers_to_break.pop()
        vector = embedded.embedding.tolist()
        asyncio.get_running_loop().call_soon(fail, vector)
        asyncio.get_running_loop().create_task(failing(vector))
        raise KeyError(vector, embedded)
    return embed_body(embedded, *others)

async def failing(vector):
    raise ArithmeticError(vector)

Preparer.prepare, OnnxCpuSession.run, app.embed_body = preparing, running, answering
"""
"""Defects that hold what they work on: of the decoder, of a thread, of the model, and of the event loop."""


@dataclass
class Secrets:
    """What was planted, and how it would look if something wrote it."""

    texts: set[bytes] = field(default_factory=set)
    patterns: set[bytes] = field(default_factory=set)

    def text(self, name: str) -> str:
        """A word to plant."""
        self.texts.add(f"jane-doe-{name}-4711".encode())
        return f"jane-doe-{name}-4711"

    def pixels(self, array: Any) -> None:
        """Of a picture: any row of it as bytes or as decimals."""
        for row in array.reshape(array.shape[0], -1)[:: array.shape[0] // 8]:
            self.texts.add(row[:12].tobytes())
            self.patterns.add(rb"[],\s[]+".join(str(number).encode() for number in row[:6].tolist()))

    def vector(self, numbers: list[float]) -> None:
        """As bytes, or two of its first numbers behind each other, to three digits."""
        self.texts.add(np.array(numbers[:3], "<f4").tobytes())
        shown = []
        for number in numbers[:5]:
            plain, mantissa = (
                re.escape(re.match(r"-?[0.]*\d\.?\d\.?\d", text)[0])  # type: ignore[index]  # any number has as many
                for text in (f"{number:.9f}", f"{number:.9e}")
            )
            shown.append(rf"(?:{plain}\d*|{mantissa}\d*e[+-]?\d+)".encode())
        self.patterns |= {one + rb"[,\s]+" + other for one, other in pairwise(shown)}

    def found_in(self, written: bytes) -> list[bytes]:
        """What of them is there: as it is, as Python shows bytes, in hex, in base64 at any of its three alignments."""
        forms: set[bytes] = set()
        for text in self.texts:
            forms |= {text, text.hex().encode(), text.hex().upper().encode(), repr(text)[2:-1].encode()}
            forms.add(b", ".join(str(byte).encode() for byte in text))
            for skipped in range(3):
                inner = base64.b64encode(b"\0" * skipped + text)[4 if skipped else 0 :]
                inner = inner[: -(len(inner) % 4 or 4)]  # whole groups: the last one depends on what follows
                forms |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
        found = [form for form in forms if len(form) > 7 and form in written]
        return found + [match[0] for pattern in self.patterns if (match := re.search(pattern, written))]


def test_what_the_search_finds() -> None:
    """Each form of each secret, wherever it begins: a search that finds nothing must be able to."""
    secrets, numbers = Secrets(), [-0.1234567, 0.0512345, 12.5123, 1.23456e-3]
    word = secrets.text("x").encode()
    secrets.pixels(pixels := np.arange(2 * 8 * 3 * 8, dtype=np.uint8).reshape(16, 8, 3))
    secrets.vector(numbers)
    assert not secrets.found_in(b'{"time": 0.12, "seconds": [0.1234567, 0.7], "pixels": 12}')
    for skipped in range(3):
        for text in (word, pixels[2].tobytes()):
            around = b"abc"[:skipped] + text + b"xyz"
            for form in (around, base64.b64encode(around), base64.urlsafe_b64encode(around), around.hex().encode()):
                assert secrets.found_in(b"log: " + form), form
    row = pixels[4]
    for shown in (repr(row.tolist()), str(row.ravel()), repr(row.tobytes()), str(list(word))):
        assert secrets.found_in(shown.encode()), shown
    single = np.array(numbers, np.float32)
    for shown in (str(numbers), str(single), repr(single), str(tuple(single.tolist()))):
        assert secrets.found_in(shown.encode()), shown
    assert secrets.found_in(base64.b64encode(single.tobytes()))


# ── a service that says all it can ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting(monkeypatch) as collector:
        yield collector


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All folders that a program writes to if nobody names one; and the service's faults."""
    rooms = tmp_path / "rooms"
    for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        (rooms / variable).mkdir(parents=True)
        monkeypatch.setenv(variable, str(rooms / variable))
    monkeypatch.chdir(rooms / "HOME")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # as in the image
    (tmp_path / "faults").mkdir()
    patient = "from arcface_api.api import traces\ntraces.CLOSE_SECONDS = 60\n"
    (tmp_path / "faults" / "sitecustomize.py").write_text(FAULTS + PATIENT_END + patient)
    return rooms


TALKATIVE = (
    *("--log-level", "debug", "--access-log", "--slow-request-seconds", "0.000001"),
    *("--trace-share", "1", "--self-check-seconds", "0.5"),
)


def picture(secrets: Secrets, kind: str, name: str) -> bytes:
    """A picture with a secret in its pixels and in everything that a file of its kind can hold beside them."""
    array = np.random.default_rng(len(name)).integers(0, 255, (112, 112, 3), np.uint8)
    secrets.pixels(array)
    content, image, word = BytesIO(), Pillow.fromarray(array), secrets.text(name)
    about = Pillow.Exif()
    about[0x010E], about[0x9286] = word, word  # ImageDescription, UserComment
    if kind == "PNG":
        chunks = PngInfo()
        chunks.add_text("Comment", f"{word} {name}")
        chunks.add_itxt("Title", word)
        image.save(content, kind, pnginfo=chunks, exif=about)
    else:
        image.save(content, kind, quality=95, exif=about, **({"comment": f"{word} {name}"} if kind == "JPEG" else {}))
    return content.getvalue()


def call_everything(port: int, secrets: Secrets) -> None:
    """Every operation, in all its forms, well and badly; what comes back is a secret, too."""
    say = secrets.text
    headers = {
        "Authorization": f"Bearer {say('bearer')}",
        "X-API-Key": say("key"),
        "Cookie": f"session={say('cookie')}",
        f"X-{say('header-name')}": say("header"),
        "User-Agent": say("agent"),
        "Referer": f"https://x.example/{say('referer')}",
        "baggage": f"user={say('baggage')}",
    }
    query = {"include_attributes": "true", "include_quality": "true", "include_landmarks": "true", "align": "auto"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=300) as client:
        document = client.get("/openapi.json").json()
        for path, methods in document["paths"].items():
            for method in methods:
                client.request(method, path, params={say("query-name"): say("query")})
                client.request(method, path, content=say("body").encode(), headers={"Content-Type": say("type")})
        for path in ("/", "/docs", "/nothing", "/embed"):
            client.get(path, params={"person": say("person")})
        faults = ("fails-in-decode", "fails-in-thread", "fails-in-model", "fails-in-answer")
        contents = [picture(secrets, kind, f"{kind}-well") for kind in ("JPEG", "PNG", "WEBP")]
        contents += [picture(secrets, "JPEG", fault) for fault in faults]
        contents += [contents[0][: len(contents[0]) // 2], contents[1][:500], b"GIF89a" + say("gif").encode(), b""]
        for number, content in enumerate(contents):
            name = f"{say(f'file-{number % 3}')}.jpg"
            landmarks = json.dumps([[38.123457, 52], [74, 52], [56, 72], [42, 92], [71, 92]])
            secrets.texts.add(b"38.123457")
            forms: Iterable[dict[str, Any]] = (
                {"files": {"file": (name, content)}},
                {"files": {"file": (name, content)}, "params": query},
                {
                    "files": {"file": (name, content)},
                    "data": {"landmarks": landmarks},
                    "params": {"align": "landmarks"},
                },
                {"files": {say("field"): (name, content)}, "data": {say("field-2"): say("value")}},
                {"content": content, "headers": {"Content-Type": "image/jpeg"}},
                {"json": {"image": base64.b64encode(content).decode()}},
                {"json": {"image": base64.b64encode(content).decode(), say("json-key"): say("json-value")}},
                {"json": {"image": say("no-base64") + ".jpg"}},
            )
            for form in forms:
                remember(secrets, client.post("/embed", **form))
        for some in (contents[:4], contents[4:]):
            files = [("files", (f"{say('batch-file')}.png", content)) for content in some]
            remember(secrets, client.post("/embed/batch", files=files, params=query))
            encoded = [base64.b64encode(content).decode() for content in some]
            remember(secrets, client.post("/embed/batch", json={"images": encoded}))


def remember(secrets: Secrets, answer: httpx.Response) -> None:
    """The vectors of an answer."""
    assert answer.status_code < 500 or "problem" in answer.headers["content-type"]
    body = answer.json()
    for result in [body, *body.get("results", ())]:
        vector = result.get("embedding")
        if isinstance(vector, str):
            vector = np.frombuffer(base64.b64decode(vector), "<f4").tolist()
        if vector:
            secrets.vector(vector)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_nothing_of_a_request_is_written_anywhere(
    log_format: str, run: Run, tiny_pack: Path, rooms: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCFACE_LOG_FORMAT", log_format)
    secrets = Secrets()
    several = ("--workers", "2", "--decode-isolation", "process") if log_format == "text" else ()
    command = run("--pack", tiny_pack, *TALKATIVE, *several, faults=rooms.parent / "faults")
    assert command.port
    before = everything_in(rooms)
    call_everything(command.port, secrets)
    metrics = httpx.get(f"http://127.0.0.1:{command.port}/metrics", timeout=100).content
    shared = [file.read_bytes() for file in shared_files()]
    command.process.terminate()
    log = command.end().encode()
    assert command.process.returncode == 0

    assert b"ValueError" in log, "the defects were there"
    assert b"RuntimeError" in log
    assert b"LookupError" in log
    assert b"in preparing" in log, "with the place where they were raised"
    written = {"log": log, "metrics": metrics, "traces": bytes(collector.received), "memory": b"".join(shared)}
    written |= {path: content for path, content in everything_in(rooms).items() if before.get(path) != content}
    assert b"/embed" in written["traces"]
    leaks = {where: found for where, content in written.items() if (found := secrets.found_in(content))}
    assert not leaks
    for where in ("log", "metrics", "traces"):
        assert not re.search(rb'"gender"|\b(?:fe)?male\b|"yaw"|\bage=', written[where]), where


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shared_files() -> Iterator[Path]:
    """Of the workers' counts."""
    return Path("/dev/shm").glob("arcface-counts-*/*.db")  # Linux's folder for files in memory


# ── what the system sees ───────────────────────────────────────────────────────────────────────────────────────────

OPENED_TO_WRITE = re.compile(r'(?:open|openat|openat2|creat)\((?:[^,"]+, )?"([^"]*)".*O_(?:WRONLY|RDWR|CREAT)')
OTHER_CHANGES = re.compile(r'(?:mkdir|rename|link|symlink|mknod)\w*\((?:[^,"]+, )?"([^"]*)"')
CONNECTED = re.compile(r"connect\(\d+, \{(sa_family=.*?)\}, \d+\)")


@needs_strace
@pytest.mark.parametrize("is_traced", [True, False])
def test_a_service_writes_no_file_and_calls_nobody(
    run: Run, tiny_pack: Path, rooms: Path, collector: Collector, tmp_path: Path, *, is_traced: bool
) -> None:
    """But its cache and the record of trusted files at start, several workers' counts, and the collector of traces."""
    calls = tmp_path / "calls"
    names = (
        "open,openat,openat2,creat,connect,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod"
    )
    watched = ("strace", "-f", "-D", "--seccomp-bpf", "-s", "300", "-o", str(calls), "-e", f"trace={names}")
    command = run("--pack", tiny_pack, *(("--workers", "2", *TALKATIVE) if is_traced else ()), within=watched)
    if is_traced:
        command.serving()
    assert command.port
    before = len(calls.read_text().splitlines())
    call_everything(command.port, Secrets())
    command.process.terminate()
    command.end()
    until(lambda: re.search(rf"^{command.process.pid} +\+\+\+ exited", calls.read_text(), re.MULTILINE))
    lines = calls.read_text().splitlines()
    assert len(lines) > before > 100, "something was seen"

    allowed_later = r"/dev/(?:null|tty)$|/dev/shm/arcface-counts-"
    cache, trusted = f"{rooms}/XDG_CACHE_HOME/arcface-api", rf"{tiny_pack}(?:$|/\.?pack\.lock\.toml)"
    allowed_at_start = rf"{allowed_later}|{cache}\b|{trusted}"
    for number, line in enumerate(lines):
        for found in (OPENED_TO_WRITE.search(line), OTHER_CHANGES.search(line)):
            allowed = allowed_at_start if number < before else allowed_later
            assert found is None or "ENOENT" in line or re.match(allowed, found[1]), line
    called = {found[1] for line in lines if (found := CONNECTED.search(line))}
    port = f"htons({collector.server.server_port})"
    others = {address for address in called if not (is_traced and port in address)}
    assert not others
    assert bool(called) == is_traced


def test_a_service_that_crashes_leaves_no_core_file(run: Run, tiny_recogniser: Path) -> None:
    command = run("--pack", tiny_recogniser, "--workers", "2")
    for pid in (*command.serving(), command.process.pid, *descendants(command.process.pid)):
        limit = re.search(r"Max core file size +(\d+) +(\d+)", Path(f"/proc/{pid}/limits").read_text())
        assert limit is not None
        assert {int(limit[1]), int(limit[2])} <= {0, 1}
    command.stop()
    allowed = run("--pack", tiny_recogniser, "--core-files")
    assert allowed.port
    own = Path("/proc/self/limits").read_text()
    theirs = Path(f"/proc/{allowed.process.pid}/limits").read_text()
    assert re.search("Max core.*", own)[0] == re.search("Max core.*", theirs)[0]  # type: ignore[index]  # it is there
