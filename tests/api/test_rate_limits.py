"""Promises of `ARCFACE_RATE_LIMIT`: one caller cannot take what others need, whatever it sends; memory is bounded."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from arcface_api.api import rate_limits
from arcface_api.api.auth import KEY_NAME
from arcface_api.api.connections import PEER
from arcface_api.api.published import Proxies
from arcface_api.api.rate_limits import RateLimits
from arcface_api.client import Client, Embedding
from arcface_api.errors import RateLimited, TooManyFiles
from pictures import picture_bytes
from raw_http import Caller, request
from serving import Service

JPEG = picture_bytes()
Run = Callable[..., Service]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The time by which windows end; it stands still."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(rate_limits, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def limits(text: str, *, workers: int = 1, exempt: tuple[str, ...] = (), trusted: tuple[str, ...] = ()) -> RateLimits:
    return RateLimits(text, workers, exempt, Proxies(trusted))


def caller(address: str = "192.0.2.1", key: str | None = None, forwarded: str | None = None) -> dict[str, Any]:
    scope: dict[str, Any] = {PEER: (address, 1), "headers": []}
    if key:
        scope[KEY_NAME] = key
    if forwarded:
        scope["headers"] = [(b"x-forwarded-for", forwarded.encode())]
    return scope


def passed(some: RateLimits, scope: dict[str, Any], most: int = 100) -> int:
    """How many pictures of this caller get in, one by one."""
    for number in range(most):
        try:
            some.count(scope)
        except RateLimited:
            return number
    return most


@pytest.mark.usefixtures("clock")
def test_each_caller_has_its_own_limit() -> None:
    some = limits("5/minute")
    assert passed(some, caller("192.0.2.1")) == 5
    assert passed(some, caller("192.0.2.2")) == 5
    assert passed(some, caller("192.0.2.1", key="archive")) == 5
    assert passed(some, caller("198.51.100.7", key="archive")) == 0, "a key is one caller wherever it is used"
    assert passed(some, caller("192.0.2.1")) == 0


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),  # a house has so many addresses
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
    ],
)
def test_ipv6_network_is_one_caller(one: str, other: str, *, is_same: bool) -> None:
    some = limits("5/minute")
    passed(some, caller(one))
    assert passed(some, caller(other)) == (0 if is_same else 5)


def test_window_ends_and_says_when(clock: SimpleNamespace) -> None:
    some = limits("2/minute")
    some.count(caller())
    clock.now += 9.5
    some.count(caller())
    clock.now += 0.4
    with pytest.raises(RateLimited, match="limit for one caller is 2 pictures per minute") as caught:
        some.count(caller())
    assert caught.value.retry_after_seconds == 51, "50.1 in whole seconds, rounded up"
    clock.now += 50.2
    assert passed(some, caller()) == 2


def test_several_limits_hold_together(clock: SimpleNamespace) -> None:
    some = limits("2/second; 3 per 2 minutes")
    assert passed(some, caller()) == 2
    clock.now += 1
    assert passed(some, caller()) == 1
    with pytest.raises(RateLimited, match="3 pictures per 2 minutes") as caught:
        some.count(caller())
    assert caught.value.retry_after_seconds == 119
    both = limits("2/second; 2/hour")
    assert passed(both, caller()) == 2
    with pytest.raises(RateLimited, match="2 pictures per hour") as caught:
        both.count(caller())
    assert caught.value.retry_after_seconds == 3600, "when all of them allow it"


@pytest.mark.usefixtures("clock")
def test_refused_pictures_are_not_counted() -> None:
    some = limits("5/minute")
    some.count(caller(), 3)
    with pytest.raises(RateLimited):
        some.count(caller(), 4)
    assert passed(some, caller()) == 2


@pytest.mark.usefixtures("clock")
def test_workers_share_the_limit() -> None:
    assert passed(limits("100/minute", workers=8), caller()) == 12
    some = limits("3/minute", workers=8)
    some.count(caller())
    with pytest.raises(RateLimited, match="1 picture per minute and worker"):
        some.count(caller())


@pytest.mark.usefixtures("clock")
def test_exempt_networks_have_no_limit() -> None:
    some = limits("5/minute", exempt=("10.0.0.0/8", "2001:db8::/32"))
    assert passed(some, caller("10.1.2.3")) == 100
    assert passed(some, caller("2001:db8::1", key="archive")) == 100
    assert passed(some, caller("192.0.2.1", forwarded="10.1.2.3")) == 5, "which anybody can write"


@pytest.mark.usefixtures("clock")
def test_caller_cannot_make_itself_another_one() -> None:
    some = limits("5/minute", trusted=("10.0.0.1",))
    assert sum(passed(some, caller("192.0.2.1", forwarded=f"203.0.113.{n}"), 1) for n in range(20)) == 5
    behind = [caller("10.0.0.1", forwarded=f"203.0.113.{n}, 198.51.100.7") for n in range(20)]
    assert sum(passed(some, each, 1) for each in behind) == 5
    assert passed(some, caller("10.0.0.1", forwarded="198.51.100.8")) == 5


def test_memory_is_bounded(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MOST_CALLERS", 100)
    some = limits("5/minute")
    (limit,) = some._limits
    windows = limit.counts.storage._windows  # type: ignore[attr-defined]  # ours
    for number in range(1000):
        some.count(caller(f"10.0.{number // 250}.{number % 250}"))
    assert len(windows) == 100
    clock.now += 60
    some.count(caller())
    assert len(windows) == 1, "those that have ended go"


def test_more_at_once_than_the_limit_can_never_be_sent() -> None:
    with pytest.raises(TooManyFiles, match=r"has 6 pictures, and the limit .* Send at most 5 at once\."):
        limits("5/minute; 100/hour").count(caller(), 6)


# ── over HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────


def batch(service: Service, pictures: int) -> httpx.Response:
    return service.post("/embed/batch", files=[("files", JPEG)] * pictures)


def test_pictures_are_counted_in_both_operations(run_service: Run, tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, rate_limit="8/hour")
    assert service.get("/info").json()["limits"]["rate_limit"] == "8/hour"
    assert batch(service, 5).status_code == 200
    assert service.post("/embed", files={"file": JPEG}).status_code == 200
    refused = batch(service, 3)  # 2 are left, of which the refusal takes one
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert service.post("/embed", files={"file": JPEG}).status_code == 200
    with Caller(service) as caller:  # before the body
        caller.send(request("POST /embed", "Content-Type: image/jpeg", "Content-Length: 20000000"))
        answer = caller.answer()
        assert (answer.status, answer.problem()["code"]) == (429, "rate_limited")
    too_many = batch(service, 9)
    assert too_many.json()["code"] == "rate_limited", "known before its pictures are"
    assert service.get("/info").status_code == 200
    assert 'code="rate_limited"' in service.get("/metrics").text


def test_client_sends_what_the_limit_allows(run_service: Run, tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, rate_limit="20/hour")
    with Client(str(service.base_url), retry_seconds=0, requests_at_once=1) as client:
        results = [*client.embed_many([JPEG] * 16)]
        assert all(isinstance(result, Embedding) for result in results)
        with pytest.raises(RateLimited) as caught:
            [*client.embed_many([JPEG] * 16)]
    assert caught.value.retry_after_seconds > 3000
