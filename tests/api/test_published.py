"""Promises of a service behind a proxy: all of it works under a prefix, and web pages get in only where set."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from arcface_api.api.connections import PEER
from arcface_api.api.published import Prefix, Proxies
from pictures import picture_bytes
from raw_http import Caller, picture
from serving import Service

JPEG = picture_bytes()
BEHIND = {"trusted_proxies": {"127.0.0.1"}}
"""The settings of a service behind a proxy on this machine."""
Run = Callable[..., Service]


@pytest.mark.parametrize("is_stripped", [True, False], ids=["stripped", "unstripped"])
@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"root_path": "/apis/face"}, {}),
        ({"root_path": "/apis/face/"}, {}),
        (BEHIND, {"X-Forwarded-Prefix": "/apis/face"}),
    ],
)
def test_everything_works_under_a_prefix(
    run_service: Run, tiny_recogniser: Path, settings: dict[str, object], headers: dict[str, str], *, is_stripped: bool
) -> None:
    service = run_service(tiny_recogniser, **settings)

    def get(published: str) -> httpx.Response:
        """What a proxy asks for when a browser asks it for this path."""
        assert published.startswith("/apis/face/")
        return service.get(published.removeprefix("/apis/face") if is_stripped else published, headers=headers)

    page = get("/apis/face/docs")
    assert page.status_code == 200
    links = re.findall(r"""(?:href|src)="([^"]+)\"|url: '([^']+)'""", page.text)
    paths = [urljoin("/apis/face/docs", "".join(link)) for link in links]
    assert len(paths) == 4
    assert all(get(path).status_code == 200 for path in paths)
    schema = get("/apis/face/openapi.json").json()
    assert schema["servers"] == [{"url": "/apis/face"}]
    assert '<base href="/apis/face/">' in get("/apis/face/").text
    assert get("/apis/face/page/page.js").status_code == 200
    assert get("/apis/face/health").json()["status"] == "ok"
    assert "are listed at /apis/face/docs." in get("/apis/face/nothing").json()["detail"]
    for path in ("/embed", "/embed/batch"):
        published = path if is_stripped else f"/apis/face{path}"
        part = "file" if path == "/embed" else "files"
        answer = service.post(published, files={part: JPEG}, headers=headers)
        assert answer.status_code == 200, answer.text


def test_without_a_prefix_there_is_none(service: Service) -> None:
    assert "servers" not in service.get("/openapi.json").json()
    assert service.get("/face/docs").status_code == 404
    assert '<base href="./">' in service.get("/").text, "which is right behind a proxy that nobody has named"


@pytest.mark.parametrize(
    "value", ["//evil.example", "/..", "/a/./b", "/a/../b'\"><", "face", "/", "", "/a b", "https://evil.example/a"]
)
def test_prefix_that_is_none_is_ignored(run_service: Run, tiny_recogniser: Path, value: str) -> None:
    service = run_service(tiny_recogniser, **BEHIND)
    assert "servers" not in service.get("/openapi.json", headers={"X-Forwarded-Prefix": value}).json()


@pytest.mark.parametrize(
    ("trusted", "peer", "is_believed"),
    [
        ({"127.0.0.1", "::1"}, "127.0.0.1", True),
        ({"127.0.0.1", "::1"}, "10.1.2.3", False),
        ({"10.0.0.0/8"}, "10.1.2.3", True),
        ({"10.0.0.0/8"}, "::ffff:10.1.2.3", True),
        ({"fd00::/8"}, "fd00::7", True),
        ({"*"}, "203.0.113.9", True),
        (set(), "127.0.0.1", False),
    ],
)
def test_prefix_is_believed_from_trusted_proxies_alone(trusted: set[str], peer: str, *, is_believed: bool) -> None:
    """The other end of the connection, not the caller that an access log shows."""
    headers = [(b"x-forwarded-prefix", b"/face")]
    scope = {"path": "/docs", "headers": headers, "client": ("127.0.0.1", 1), PEER: (peer, 1)}
    assert Prefix("", Proxies(trusted)).split(scope) == ("/face" if is_believed else "", "/docs")


def test_prefix_is_not_believed_by_default(service: Service) -> None:
    assert "servers" not in service.get("/openapi.json", headers={"X-Forwarded-Prefix": "/face"}).json()


def test_setting_wins_over_the_header(run_service: Run, tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, root_path="/set", access_log=True, **BEHIND)
    answer = service.get("/openapi.json", headers={"X-Forwarded-Prefix": "/sent", "X-Forwarded-For": "203.0.113.9"})
    assert answer.json()["servers"] == [{"url": "/set"}]


def test_proxy_is_believed_also_where_the_log_shows_the_caller_behind_it(
    run_service: Run, tiny_recogniser: Path
) -> None:
    service = run_service(tiny_recogniser, access_log=True, **BEHIND)
    answer = service.get("/openapi.json", headers={"X-Forwarded-Prefix": "/face", "X-Forwarded-For": "203.0.113.9"})
    assert answer.json()["servers"] == [{"url": "/face"}]


# ── web pages ──────────────────────────────────────────────────────────────────────────────────────────────────────

PAGE = "https://app.example"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-require-fingerprint,content-type",
}


def test_web_pages_are_kept_out_by_default(service: Service) -> None:
    answer = service.post("/embed", files={"file": JPEG}, headers={"Origin": PAGE})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert service.options("/embed", headers={"Origin": PAGE, **PREFLIGHT}).status_code == 405


@pytest.mark.parametrize(("origins", "allowed"), [({PAGE}, PAGE), ({"*"}, "*")])
def test_web_pages_of_these_origins_get_in(
    run_service: Run, tiny_recogniser: Path, origins: set[str], allowed: str
) -> None:
    service = run_service(tiny_recogniser, cors_origins=origins)
    asked = service.options("/embed", headers={"Origin": PAGE, **PREFLIGHT})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, allowed)
    assert "x-require-fingerprint" in asked.headers["access-control-allow-headers"]
    for answer in (
        service.post("/embed", files={"file": JPEG}, headers={"Origin": PAGE}),
        service.post("/embed", files={"file": b"x"}, headers={"Origin": PAGE}),  # a page reads why
        service.get("/info", headers={"Origin": PAGE}),
    ):
        assert answer.headers["access-control-allow-origin"] == allowed
        assert answer.headers["access-control-expose-headers"] == "*"
    elsewhere = service.post("/embed", files={"file": JPEG}, headers={"Origin": "https://evil.example"})
    assert ("access-control-allow-origin" in elsewhere.headers) == (allowed == "*")
    assert elsewhere.status_code == (200 if allowed == "*" else 403)
    with Caller(service) as caller:
        caller.send(picture(JPEG))
        assert caller.answer().status == 200, "and callers that are no pages as before"
