"""Promises of how a client connects: what cannot work is refused before anything is sent, and secrets are not shown."""

import base64
import logging

import httpx
import pytest

from arcface_api.client import Client, ServiceUnreachable
from client.conftest import Kind
from faulty_service import FaultyService, picture

ADDRESSES = ["localhost:5555", "http://", "ftp://x", "http://a:b:c", "", "http://x/?a=1", "http://x/#a", "http://x?"]


@pytest.mark.parametrize("url", ADDRESSES)
def test_wrong_address_is_said_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ValueError, match="Write it as http://localhost:5555"):
        Client(url)
    for seconds in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="more than 0"):
            Client(timeout_seconds=seconds)


@pytest.mark.parametrize("name", ["api_key", "fingerprint", "recipe"])
@pytest.mark.parametrize("value", ["SECR\0ET", "SECRET\nSECRET", "SECRETü"])
def test_what_no_header_can_carry_is_refused_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has characters") as raised:
        Client(**{name: value})  # type: ignore[arg-type]  # only names of strings
    assert "SECRET" not in str(raised.value)


def test_key_may_be_as_read_from_a_file(kind: Kind) -> None:
    with FaultyService() as service:
        kind.call(service.url, "embed", picture(1), api_key="secret\n")
        assert b"\r\nAuthorization: Bearer secret\r\n" in service.heads[0]


def test_password_in_the_address_is_sent_and_not_shown(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultyService() as service:
        kind.call(service.url.replace("//", "//name:SECR%20ET@"), "embed", picture(1))
        assert b"Authorization: Basic " + base64.b64encode(b"name:SECR ET") in service.heads[0]
    with pytest.raises(ServiceUnreachable, match=r"at http://127\.0\.0\.1:9: ") as raised:
        kind.call("http://name:SECRET@127.0.0.1:9", "embed", picture(1), retry_seconds=0.1)
    with pytest.raises(ValueError, match="no address") as wrong:
        Client("ftp://name:SECRET@host")
    assert "SECR" not in f"{caplog.text} {raised.value} {wrong.value}"


def test_dead_proxy_is_named_without_its_password(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://name:SECRET@127.0.0.1:9")
    with pytest.raises(ServiceUnreachable, match=r"through the proxy http://127\.0\.0\.1:9: .*HTTP_PROXY") as raised:
        kind.call("http://service.invalid", "embed", picture(1), retry_seconds=0)
    assert "SECRET" not in str(raised.value)


def test_failure_without_words_is_named() -> None:
    with Client() as client:
        assert "whole: ReadError." in str(client._unreachable(httpx.ReadError("")))


def test_request_that_cannot_be_written_is_not_repeated() -> None:
    """`_header_value` refuses what would be the cause; h11's sentence would repeat the header."""
    with Client() as client:
        error = client._unreachable(httpx.LocalProtocolError("Illegal header value b'Bearer SECRET'"))
        assert not error.may_pass
        assert "SECRET" not in str(error)
