"""Promises of API keys: callers who have none get in nowhere, and a change of the file needs no restart.

What the log has is promised in tests/process/test_auth.py, and the time that a wrong key takes is measured in
benchmarks/questions/auth.py.
"""

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from arcface_api import errors
from arcface_api.api import auth
from arcface_api.api.app import DirectApp, create_app
from arcface_api.api.auth import Keys
from arcface_api.api.page import page_routes
from arcface_api.cli import cli
from arcface_api.client import Client
from arcface_api.errors import SettingInvalid, Unauthenticated
from arcface_api.evaluate import backend
from arcface_api.packs import PackLocations, locate
from arcface_api.session import openvino_cpu
from arcface_api.settings import Settings
from pictures import picture_bytes
from raw_http import Caller, request
from serving import Service, until

JPEG = picture_bytes()
KEY, HASHED_KEY = "correct-horse-battery-staple", "another-key-of-somebody-else"
LINES = f"""
# who may call
archive {KEY}
door-3  sha256:{hashlib.sha256(HASHED_KEY.encode()).hexdigest()}
"""
WITH_KEY = {"Authorization": f"Bearer {KEY}"}
EMBEDDING = {"/embed": "file", "/embed/batch": "files"}
OPEN = ["/health", "/livez", "/readyz", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css", *page_routes()]


def file_with(folder: Path, text: str = LINES) -> Path:
    path = folder / "keys"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, tiny_recogniser: Path) -> Iterator[Service]:
    """One service for all tests that change nothing."""
    folder = tmp_path_factory.mktemp("keyed")
    settings = Settings(
        pack=str(tiny_recogniser), api_keys_file=file_with(folder), lanes=1, max_batch=2, cache_dir=folder / "compiled"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_cpu, "is_openvino_installed", lambda: False)
        locations = PackLocations(None, folder / "cache", folder / "insightface")
        app = create_app(locate(str(tiny_recogniser), locations), settings)
    service = Service(app)
    with service:
        yield service
        service.stop()


def send(service: httpx.Client, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    files = {EMBEDDING[path]: JPEG} if path in EMBEDDING else None
    return service.request(method, path, files=files, headers=headers)


# ── who gets in ────────────────────────────────────────────────────────────────────────────────────────────────────

GUARDED = [
    *(("POST", path) for path in EMBEDDING),
    ("GET", "/info"),
    ("HEAD", "/info"),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize(("method", "path"), [*GUARDED, ("GET", "/nothing"), ("HEAD", "/metrics"), ("PUT", "/embed")])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": ""},
        {"X-API-Key": f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"},
        {**WITH_KEY, "X-API-Key": HASHED_KEY},
        {**WITH_KEY, "X-API-Key": "wrong"},
    ],
    ids=lambda headers: "+".join(headers) or "none",
)
def test_who_has_no_key_gets_in_nowhere(keyed: Service, method: str, path: str, headers: dict[str, str]) -> None:
    answer = send(keyed, method, path, headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]
    if method != "HEAD":
        problem = answer.json()
        assert (problem["code"], problem["title"]) == ("unauthenticated", "Unauthorized")
        assert "Authorization: Bearer KEY, or as X-API-Key: KEY" in problem["detail"]


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        WITH_KEY,
        {"authorization": f"bearer {KEY}"},
        {"X-API-Key": KEY},
        {"X-API-Key": HASHED_KEY},
        {"Authorization": "Basic bmFtZTpwYXNz", "X-API-Key": KEY},
        {**WITH_KEY, "X-API-Key": KEY},
    ],
)
def test_who_has_a_key_gets_in(keyed: Service, method: str, path: str, headers: dict[str, str]) -> None:
    assert send(keyed, method, path, headers).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", OPEN)
def test_probes_and_pages_need_no_key(keyed: Service, method: str, path: str) -> None:
    assert keyed.request(method, path).status_code in ({200} if method == "GET" else {200, 405})


def test_wrong_key_is_refused_before_the_body_is_read(keyed: Service) -> None:
    with Caller(keyed) as caller:
        caller.send(request("POST /embed", "X-API-Key: wrong", "Content-Type: image/jpeg", "Content-Length: 20000000"))
        assert caller.answer().problem()["code"] == "unauthenticated"


def test_sentence_says_nothing_about_how_wrong_a_key_is(keyed: Service) -> None:
    wrong = [KEY[:-1] + "x", "x" + KEY[1:], "x", HASHED_KEY + "x"]
    answers = {send(keyed, "GET", "/info", {"X-API-Key": key}).text for key in wrong}
    assert len(answers) == 1
    assert not [key for key in wrong if len(key) > 1 and key in str(answers)]


def test_preflight_of_an_allowed_page_needs_no_key(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path
) -> None:
    """Browsers send none with it."""
    page = "https://app.example"
    service = run_service(tiny_recogniser, api_keys_file=file_with(tmp_path), cors_origins={page})
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    asked = service.options("/embed", headers={"Origin": page, **asks})
    assert (asked.status_code, asked.headers["access-control-allow-headers"]) == (200, "authorization")
    refused = send(service, "POST", "/embed", {"Origin": page})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, page)
    assert send(service, "POST", "/embed", {"Origin": page, **WITH_KEY}).status_code == 200


def test_pictures_are_counted_by_the_name_of_the_key(keyed: Service) -> None:
    def counted() -> float:
        text = keyed.get("/metrics", headers=WITH_KEY).text
        found = re.search(r'^arcface_pictures_by_key_total\{key="door-3"\} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = counted()
    files = [("files", JPEG), ("files", JPEG), ("files", b"no picture")]
    assert keyed.post("/embed/batch", files=files, headers={"X-API-Key": HASHED_KEY}).status_code == 200
    assert counted() == before + 2


def test_without_a_file_everybody_may_call(service: Service) -> None:
    assert service.get("/info", headers={"X-API-Key": "whatever"}).status_code == 200
    assert "arcface_pictures_by_key_total{" not in service.get("/metrics").text


# ── the file ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a 0123456789abcdefsecret\nb short-secret", "the key in line 2 has fewer than 16 characters"),
        ("secret-without-a-name", "line 1 is not `name key`"),
        ("# x\n\na b secret-secret-secret", "line 3 is not `name key`"),
        ("a/b secret-secret-secret", "line 1 is not `name key`"),
        ("a sha256:secret", "behind sha256: line 1 does not have the 64 hexadecimal digits"),
        ("a secret-secret-secret-\u00e9", "the key in line 1 has characters other than printable ASCII"),
        ("a secret-secret-secret\nb secret-secret-secret", "lines 1 and 2 have the same key under two names"),
        ("\n".join(f"n{n} secret-secret-{n:06}" for n in range(1001)), "it has 1,001 keys, and 1,000 are allowed"),
        ("#" * (1024 * 1024 + 1), "it has more than 1,048,576 bytes"),
    ],
)
def test_wrong_line_is_named_and_not_repeated(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingInvalid, match=r"ARCFACE_API_KEYS_FILE=.* cannot be used: ") as caught:
        Keys(file_with(tmp_path, text))
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (Path.mkdir, "Is a directory"),
        (Path.exists, "No such file"),
        (os.mkfifo, "it is a named pipe"),
    ],
)
def test_file_that_cannot_be_read_is_named(tmp_path: Path, make: Callable[[Path], Any], sentence: str) -> None:
    make(tmp_path / "keys")
    with pytest.raises(SettingInvalid, match=f"keys' cannot be used: {sentence}.*Name a file"):
        Keys(tmp_path / "keys")


def test_wrong_file_keeps_the_service_from_starting(
    make_app: Callable[..., DirectApp], tiny_recogniser: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingInvalid, match="openssl rand -hex 32"):
        make_app(tiny_recogniser, api_keys_file=file_with(tmp_path, "a short"))


def knows(keys: Keys, key: str) -> bool:
    try:
        keys.name_of([(b"x-api-key", key.encode())])
    except Unauthenticated:
        return False
    return True


def test_hash_is_a_hash_however_its_prefix_is_written(tmp_path: Path) -> None:
    word = f"SHA256:{hashlib.sha256(KEY.encode()).hexdigest().upper()}"
    keys = Keys(file_with(tmp_path, f"archive {word}"))
    assert knows(keys, KEY)
    assert not knows(keys, word)


def test_several_keys_may_have_one_name_and_files_of_windows_are_read(tmp_path: Path) -> None:
    text = f"\ufeffarchive {KEY}\r\narchive {HASHED_KEY}\r\n"
    keys = Keys(file_with(tmp_path, text))
    assert {keys.name_of([(b"x-api-key", key.encode())]) for key in (KEY, HASHED_KEY)} == {"archive"}


def test_keys_are_not_kept(tmp_path: Path) -> None:
    keys = Keys(file_with(tmp_path))
    assert KEY not in repr(vars(keys))
    assert KEY.encode() not in [value for key in keys._keys for value in vars(key).values()]
    assert hashlib.sha256(KEY.encode()).hexdigest() not in repr(keys._keys)


def test_file_without_a_key_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys(file_with(tmp_path, "# nobody yet\n"))
    assert not knows(keys, KEY)
    assert not knows(keys, "")
    assert "has no API key: nobody may call." in caplog.text


def test_half_written_file_is_not_used(tmp_path: Path) -> None:
    keys = Keys(file_with(tmp_path))
    file_with(tmp_path, LINES[: LINES.index(KEY) + 20])
    keys.look()
    assert knows(keys, KEY)
    file_with(tmp_path, f"archive {HASHED_KEY}")
    keys.look()
    assert knows(keys, KEY)
    keys.look()
    assert not knows(keys, KEY)
    assert knows(keys, HASHED_KEY)


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(f"a {KEY}\nwrong-secret\n"),
        become_a_pipe,
    ],
    ids=["gone", "wrong line", "pipe"],
)
def test_file_that_is_spoilt_later_keeps_the_keys_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], object]
) -> None:
    keys = Keys(file_with(tmp_path))
    spoil(tmp_path / "keys")
    for _ in range(5):
        keys.look()
    assert knows(keys, KEY)
    assert knows(keys, HASHED_KEY)
    errors_logged = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors_logged) == 1
    assert "The keys that were read before stay valid." in errors_logged[0]
    assert "wrong-secret" not in errors_logged[0]
    (tmp_path / "keys").unlink(missing_ok=True)
    file_with(tmp_path, f"archive {KEY}")
    keys.look()
    keys.look()
    assert not knows(keys, HASHED_KEY)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is looked at more often."""
    monkeypatch.setattr(auth, "CHECK_SECONDS", 0.05)


@pytest.mark.usefixtures("hurried")
def test_key_is_changed_without_a_restart(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path
) -> None:
    """As Kubernetes changes a mounted Secret: a link in the path leads to another folder."""

    def publish(version: str, text: str) -> None:
        folder = tmp_path / version
        folder.mkdir()
        file_with(folder, text)
        (tmp_path / "new").symlink_to(version)
        (tmp_path / "new").rename(tmp_path / "data")

    def status(key: str) -> int:
        return service.get("/info", headers={"X-API-Key": key}).status_code

    publish("1", f"archive {KEY}")
    (tmp_path / "keys").symlink_to(Path("data") / "keys")
    service = run_service(tiny_recogniser, api_keys_file=tmp_path / "keys")
    assert (status(KEY), status(HASHED_KEY)) == (200, 401)
    publish("2", f"archive {KEY}\narchive {HASHED_KEY}")
    until(lambda: status(HASHED_KEY) == 200)
    assert status(KEY) == 200, "both, until all callers have the new one"
    publish("3", f"archive {HASHED_KEY}")
    until(lambda: status(KEY) == 401)
    assert status(HASHED_KEY) == 200
    publish("4", "")
    until(lambda: status(HASHED_KEY) == 401)


# ── callers of ours ────────────────────────────────────────────────────────────────────────────────────────────────


def test_client_sends_its_key(keyed: Service) -> None:
    url = str(keyed.base_url)
    with Client(url, api_key=KEY) as client:
        assert client.embed(JPEG).vector.shape == (512,)
        assert len([*client.embed_many([JPEG] * 3)]) == 3
    with Client(url, api_key="wrong") as client, pytest.raises(Unauthenticated, match="does not know this API key"):
        client.embed(JPEG)
    with Client(url) as client:
        assert client.health().is_ok
        with pytest.raises(Unauthenticated, match="needs an API key"):
            client.info()


def test_evaluation_sends_its_key(keyed: Service) -> None:
    async def dim(key: str | None) -> int:
        async with backend.open_remote(str(keyed.base_url), api_key=key) as opened:
            return opened.facts.embedding_dim

    assert asyncio.run(dim(KEY)) == 512
    with pytest.raises(errors.EvaluationError, match="answers 401: This service needs an API key"):
        asyncio.run(dim(None))


def test_bench_sends_its_key(keyed: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    command = ["bench", "--url", str(keyed.base_url), "--seconds", "0.2", "--clients", "1"]
    given = CliRunner().invoke(cli, [*command, "--api-key-file", str(tmp_path / "key")])
    assert given.exit_code == 0, given.output
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, errors.MeasurementFailed)
    assert re.search(r"x status 401\. Give the service's API key: --api-key-file", str(refused.exception))
    monkeypatch.setenv("ARCFACE_API_KEY", KEY)
    assert CliRunner().invoke(cli, command).exit_code == 0
