"""Promises of names and web pages: no page that a browser shows makes it send pictures to a service of its own network.

And of proxies: who a caller is, is believed only from those that are configured.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arcface_api.api.access import Access, hosts_of
from arcface_api.api.connections import PEER
from arcface_api.api.published import Proxies
from arcface_api.errors import Forbidden, HostNotAllowed
from arcface_api.settings import Settings
from pictures import picture_bytes
from raw_http import Caller, request
from serving import Service

JPEG = picture_bytes()
HOST, PEER_ADDRESS = "face.example", "192.0.2.1"


def scope(method: str = "POST", peer: str = PEER_ADDRESS, **headers: str) -> dict[str, Any]:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": "/embed", "headers": sent, PEER: (peer, 1)}


# ── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_allowed(host: str, *names: str) -> bool:
    try:
        Access(names, (), Proxies(())).check(scope(host=host), "/embed")
    except HostNotAllowed:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:5555", True),
        ("localhost.", True),
        ("app.localhost:80", True),
        ("127.0.0.1:5555", True),
        ("192.0.2.7", True),
        ("[::1]:5555", True),
        ("[fd00::7]", True),
        ("", True),  # an HTTP/1.1 client that has none must send this
        ("evil.example", False),
        ("evil.example:5555", False),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("127.0.0.1.evil.example", False),
        ("0x7f.1", False),  # a browser writes an address as an address
        ("[::1].evil.example", False),
        ("localhost:5555@evil.example", False),
        ("x" * 5000, False),
    ],
)
def test_name_of_another_is_refused(host: str, *, allowed: bool) -> None:
    """A name can be made to lead to this machine (DNS rebinding), an address cannot."""
    assert is_allowed(host, "localhost", "*.localhost") == allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:80", True),
        ("arcface-api:5555", True),
        ("a.localhost", True),
        ("evil.example", False),
        ("x@y", False),
    ],
)
def test_names_without_a_dot_are_nobody_elses(host: str, *, allowed: bool) -> None:
    assert is_allowed(host, *hosts_of(Settings())) == allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("a.face.example", True), ("b.a.face.example:443", True), ("face.example", False), ("aface.example", False)],
)
def test_star_stands_for_all_below_a_name(host: str, *, allowed: bool) -> None:
    assert is_allowed(host, "*.face.example") == allowed
    assert is_allowed(host, "*")


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ({}, {".", "*.localhost"}),
        ({"host": "::1"}, {".", "*.localhost"}),
        ({"host": "localhost"}, {".", "*.localhost"}),
        ({"host": "0.0.0.0"}, {"*"}),
        ({"host": "192.0.2.7"}, {"*"}),
        ({"host": "0.0.0.0", "allowed_hosts": "Face.Example., *.b.example"}, {"face.example", "*.b.example"}),
    ],
)
def test_service_of_this_machine_alone_has_its_name(settings: dict[str, Any], hosts: set[str]) -> None:
    assert hosts_of(Settings(**settings)) == hosts


@pytest.mark.parametrize("path", ["/", "/docs", "/info", "/metrics", "/openapi.json", "/embed", "/nothing"])
def test_every_operation_refuses_another_name(service: Service, path: str) -> None:
    method = "POST" if path == "/embed" else "GET"
    answer = service.request(method, path, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")
    assert "ARCFACE_ALLOWED_HOSTS" in answer.json()["detail"]


def test_probes_and_old_callers_may_have_any_name_or_none(service: Service) -> None:
    for path in ("/health", "/livez", "/readyz"):
        assert service.get(path, headers={"Host": "evil.example"}).status_code == 200
    with Caller(service) as caller:
        caller.send(b"GET /info HTTP/1.0\r\n\r\n")
        assert caller.answer().status == 200


def test_long_name_is_not_repeated_whole(service: Service) -> None:
    with Caller(service) as caller:
        caller.send(request("GET /info").replace(b"localhost", b"evil" * 1000))
        assert len(caller.answer().problem()["detail"]) < 400


# ── web pages ──────────────────────────────────────────────────────────────────────────────────────────────────────


def gets_in(headers: dict[str, str], *origins: str, trusted: tuple[str, ...] = (), method: str = "POST") -> bool:
    access = Access(("*",), origins, Proxies(trusted))
    try:
        access.check(scope(method, **{"host": HOST} | headers), "/embed")
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),  # no browser
        ({"sec_fetch_site": "same-origin", "origin": "https://face.example"}, True),
        ({"sec_fetch_site": "same-origin", "origin": "https://other.example"}, True),  # a proxy has changed Host
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "cross-site", "origin": "https://evil.example"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site", "origin": "https://evil.face.example"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "http://face.example"}, False),
        ({"sec_fetch_site": "unheard-of", "origin": "http://face.example"}, False),
        ({"origin": "http://face.example"}, True),
        ({"origin": "HTTP://Face.Example:80"}, True),
        ({"origin": "https://face.example:443"}, True),
        ({"origin": "http://face.example:8080", "host": "face.example:8080"}, True),
        ({"origin": "http://face.example:8080"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://face.example.evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "null", "host": ""}, False),
        ({"origin": ""}, False),
        ({"origin": "http://evil.example", "x_forwarded_host": "evil.example"}, False),
    ],
)
def test_post_of_another_page_is_refused(headers: dict[str, str], *, allowed: bool) -> None:
    assert gets_in(headers) == allowed
    assert gets_in(headers, "*"), "all pages may"
    assert gets_in(headers, method="GET"), "whose answer the browser keeps from other pages"


def test_page_of_an_allowed_origin_gets_in() -> None:
    page = {"origin": "https://app.example", "sec_fetch_site": "cross-site"}
    assert gets_in(page, "https://app.example")
    assert not gets_in(page, "https://other.example")
    assert not gets_in(page | {"origin": "null"}, "https://app.example")


def test_proxy_that_changes_the_host_says_what_it_was() -> None:
    page = {"origin": "https://public.example", "x_forwarded_host": "public.example, inner.example"}
    assert gets_in(page, trusted=(PEER_ADDRESS,))
    assert not gets_in(page, trusted=("192.0.2.9",))
    assert not gets_in(page | {"origin": "https://inner.example"}, trusted=(PEER_ADDRESS,))


@pytest.mark.parametrize("path", ["/embed", "/embed/batch", "/health", "/nothing"])
def test_every_path_refuses_posts_of_other_pages(service: Service, path: str) -> None:
    answer = service.post(path, content=JPEG, headers={"Origin": "https://evil.example"})
    if path == "/health":
        assert answer.status_code == 405, "which costs nothing"
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "ARCFACE_CORS_ORIGINS" in answer.json()["detail"]


# ── proxies ────────────────────────────────────────────────────────────────────────────────────────────────────────

CALLER = "203.0.113.9"


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "caller"),
    [
        ((), PEER_ADDRESS, CALLER, PEER_ADDRESS),  # anybody can send the header
        (("10.0.0.0/8",), PEER_ADDRESS, CALLER, PEER_ADDRESS),
        ((PEER_ADDRESS,), PEER_ADDRESS, CALLER, CALLER),
        ((PEER_ADDRESS,), PEER_ADDRESS, f"198.51.100.1, {CALLER}", CALLER),  # the first one is the caller's own word
        ((PEER_ADDRESS, "10.0.0.0/8"), PEER_ADDRESS, f"198.51.100.1, {CALLER}, 10.1.2.3", CALLER),
        ((PEER_ADDRESS, "10.0.0.0/8"), PEER_ADDRESS, "10.0.0.1, 10.1.2.3", "10.0.0.1"),
        ((PEER_ADDRESS,), PEER_ADDRESS, f"{CALLER}:4711", CALLER),
        ((PEER_ADDRESS,), PEER_ADDRESS, "[2001:db8::7]:4711", "2001:db8::7"),
        ((PEER_ADDRESS,), PEER_ADDRESS, "2001:db8::7", "2001:db8::7"),
        ((PEER_ADDRESS,), PEER_ADDRESS, f"{CALLER}, unknown", PEER_ADDRESS),
        ((PEER_ADDRESS,), PEER_ADDRESS, "", PEER_ADDRESS),
        ((PEER_ADDRESS,), f"::ffff:{PEER_ADDRESS}", CALLER, CALLER),
        ((), f"::ffff:{PEER_ADDRESS}", CALLER, PEER_ADDRESS),
        ((), "fe80::1%eth0", CALLER, "fe80::1"),
        ((PEER_ADDRESS, "10.0.0.0/8"), PEER_ADDRESS, f"{CALLER}, ::ffff:a01:203", CALLER),
        (("*",), PEER_ADDRESS, f"198.51.100.1, {CALLER}", CALLER),  # only the nearest proxy's word is sure
    ],
)
def test_caller_behind_proxies_is_the_last_that_none_of_them_vouches_for(
    trusted: tuple[str, ...], peer: str, forwarded: str, caller: str
) -> None:
    assert Proxies(trusted).caller(scope(peer=peer, x_forwarded_for=forwarded)) == caller


def test_header_in_several_lines_is_one() -> None:
    sent = scope()
    sent["headers"] = [(b"x-forwarded-for", value.encode()) for value in ("198.51.100.1", CALLER)]
    assert Proxies((PEER_ADDRESS,)).caller(sent) == CALLER


def test_access_log_believes_no_proxy_by_default(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    settings = Settings(pack=str(tiny_recogniser))
    assert not settings.trusted_proxies
