"""Promises of the port with TLS: those of connections, files that are read again, callers that show certificates."""

import json
import logging
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

# Promises of every connection, kept here over TLS: the fixtures below give them a service that has it.
from test_connections import (  # noqa: F401  # pytest runs them
    JPEG,
    LIVEZ,
    test_answer_that_nobody_reads_ends_its_connection,
    test_answer_to_a_picture_is_written_at_once,
    test_caller_that_left_behind_a_pipelined_request_costs_the_model_nothing,
    test_callers_who_still_send_do_not_keep_the_service_from_ending,
    test_connection_that_was_idle_longest_makes_room_for_a_new_one,
    test_endless_head_is_answered_at_once_and_its_caller_reads_why,
    test_expected_body_is_asked_for_or_its_connection_ends,
    test_one_connection_too_many_is_refused_and_room_is_given_back,
    test_pipelined_requests_are_answered_in_order,
    test_what_waits_behind_a_request_is_bounded,
)

from arcface_api.api import certificates
from arcface_api.api.app import DirectApp
from arcface_api.api.certificates import Tls
from arcface_api.bench.connection import Address
from arcface_api.bench.measure import measure
from arcface_api.cli import cli
from arcface_api.client import Client
from arcface_api.client.problems import ServiceUnreachable
from arcface_api.doctor import Places, Status, Subject
from arcface_api.doctor.service import ask_port
from arcface_api.doctor.service import settings as doctor_settings
from arcface_api.errors import ClientCertificateMissing, MeasurementFailed, SettingInvalid
from arcface_api.settings import Settings
from authority import Authority
from raw_http import Caller, HeldModel, connections, picture, request, trusting_everybody, until
from serving import Service, free_port

PROBES = ("/livez", "/readyz", "/health")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    authority.issue()
    return authority


@pytest.fixture
def run_service(run_service: Callable[..., Service], authority: Authority) -> Callable[..., Service]:
    """As that of all tests, with TLS."""
    files = {"tls_certificate_file": authority.folder / "tls.crt", "tls_key_file": authority.folder / "tls.key"}
    return lambda pack, **settings: run_service(pack, **files | settings)


@pytest.fixture
def service(run_service: Callable[..., Service], tiny_recogniser: Path) -> Service:
    return run_service(tiny_recogniser)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are looked at all the time."""
    monkeypatch.setattr(certificates, "CHECK_SECONDS", 0.02)


def tls_of(service: Service) -> Tls:
    tls = service.app.connections.tls
    assert tls is not None
    return tls


def issuer_serial(service: Service) -> bytes:
    """The certificate that a new connection gets."""
    with Caller(service) as caller:
        assert isinstance(caller.socket, ssl.SSLSocket)
        return caller.socket.getpeercert(binary_form=True) or b""


# ── one connection ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_picture_is_embedded_over_every_allowed_version(
    service: Service, authority: Authority, version: ssl.TLSVersion
) -> None:
    trusting = authority.trusting()
    trusting.minimum_version = trusting.maximum_version = version
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with Client(str(service.base_url), ssl_context=trusting) as client:
        assert client.embed(JPEG).vector.shape == (512,)
    with (
        socket.create_connection(("127.0.0.1", service.base_url.port or 0), timeout=100) as raw,
        trusting.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        assert (connection.version(), connection.selected_alpn_protocol()) == (
            version.name.replace("_", "."),
            "http/1.1",
        )


def test_older_versions_are_not_spoken(authority: Authority) -> None:
    tls = Tls.of(Settings(tls_certificate_file=authority.folder / "tls.crt", tls_key_file=authority.folder / "tls.key"))
    assert tls is not None
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.context.options & ssl.OP_NO_RENEGOTIATION
    assert {each["protocol"] for each in tls.context.get_ciphers()} == {"TLSv1.2", "TLSv1.3"}


def test_request_without_tls_reads_what_to_do(service: Service) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{service.base_url.port}", timeout=100) as plain:
        answer = plain.post("/embed", content=JPEG * 100)
    assert (answer.status_code, answer.json()["code"]) == (400, "request_malformed")
    assert "Use https:// in place of http://" in answer.json()["detail"]
    assert tls_of(service).handshakes_failed == 0
    assert service.get("/livez").status_code == 200


def test_tls_on_a_port_without_it_reads_what_to_do(make_app: Callable[..., DirectApp], tiny_recogniser: Path) -> None:
    with Service(make_app(tiny_recogniser)) as plain:
        with Caller(plain) as caller:
            caller.send(b"\x16\x03\x01\x02\x00\x01\x00\x01")
            assert "A port without TLS takes http://" in caller.answer().problem()["detail"]
        port = plain.base_url.port
        with (
            Client(f"https://127.0.0.1:{port}", retry_seconds=60) as client,
            pytest.raises(ServiceUnreachable, match=r"has no TLS\. Write its address with http://"),
        ):
            client.info()
        plain.stop()


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_handshake_that_is_never_finished_ends(service: Service, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr("arcface_api.api.tls.HANDSHAKE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", service.base_url.port or 0), timeout=100) as silent:
        silent.sendall(sent)
        with suppress(ConnectionError):
            assert silent.recv(100) == b""
    until(lambda: connections(service) == 0)


def test_unfinished_handshakes_count_as_connections(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, max_connections=2)
    with ExitStack() as open_ones:
        for _ in range(2):
            silent = socket.create_connection(("127.0.0.1", service.base_url.port or 0), timeout=100)
            open_ones.enter_context(silent).sendall(b"\x16\x03\x01")
        until(lambda: connections(service) == 2)
        with Caller(service) as one_more:
            one_more.send(LIVEZ)
            assert one_more.answer().problem()["code"] == "too_many_connections"
            assert one_more.rest() == b""


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x00\x05hello", b"\x16" + b"\xff" * 40_000])
def test_what_is_no_handshake_ends_its_connection_and_is_counted(service: Service, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.base_url.port or 0), timeout=100) as caller:
        caller.sendall(sent)
        assert caller.makefile("rb").read()[:1] in (b"\x15", b"")  # an alert, or nothing
    until(lambda: connections(service) == 0)
    assert tls_of(service).handshakes_failed == 1
    assert "arcface_tls_handshakes_failed_total 1.0" in service.get("/metrics").text


@pytest.mark.parametrize("has_access_log", [False, True])
def test_handshake_that_fails_names_its_caller_only_with_the_access_log(
    authority: Authority, caplog: pytest.LogCaptureFixture, has_access_log: bool
) -> None:
    """Without it, the log has no personal data (docs/privacy.md)."""
    caplog.set_level(logging.INFO)
    tls = Tls.of(Settings(tls_certificate_file=authority.pair(), access_log=has_access_log))
    assert tls is not None
    error = ssl.SSLError()
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"  # as OpenSSL sets it
    tls.failed(("192.0.2.7", 5555), error)
    assert ("192.0.2.7" in caplog.text) == has_access_log
    assert "UNKNOWN_CA" in caplog.text


def test_garbage_behind_a_handshake_ends_its_connection_alone(service: Service) -> None:
    with Caller(service) as other, Caller(service) as caller:
        caller.send(LIVEZ)
        assert caller.answer().status == 200
        assert isinstance(caller.socket, ssl.SSLSocket)
        with socket.socket(fileno=os.dup(caller.socket.fileno())) as raw:
            raw.sendall(b"GET /livez HTTP/1.1\r\n\r\n" * 10)
        with pytest.raises(ssl.SSLError, match="ALERT"):
            caller.rest()
        other.send(LIVEZ)
        assert other.answer().status == 200


def expanded(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446 section 7.1, without a context."""
    about = size.to_bytes(2, "big") + bytes([len(label) + 6]) + b"tls13 " + label + b"\0"
    return HKDFExpand(hashes.SHA384(), size, about).derive(secret)


def test_caller_that_stops_within_a_message_of_tls_is_cut_off_in_silence(
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """OpenSSL sends nothing before such a message is whole. Each answer would be a traceback in the log."""
    service = run_service(tiny_recogniser, keep_alive_seconds=1)
    trusting = trusting_everybody()
    trusting.minimum_version = ssl.TLSVersion.TLSv1_3
    trusting.keylog_filename = str(tmp_path / "secrets")
    model = HeldModel(monkeypatch)
    with (
        socket.create_connection(("127.0.0.1", service.base_url.port or 0), timeout=100) as plain,
        trusting.wrap_socket(plain) as caller,
    ):
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert caller.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
        caller.sendall(picture(JPEG))  # record 0
        assert model.entered.wait(100)
        secret = re.search(r"CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)", (tmp_path / "secrets").read_text())
        assert secret
        key, start = (expanded(bytes.fromhex(secret[1]), label, size) for label, size in ((b"key", 32), (b"iv", 12)))
        head, content = b"\x17\x03\x03\x00\x15", b"\x18\0\0\x01" + b"\x16"  # a KeyUpdate without its last byte
        number_1 = start[:-1] + bytes([start[-1] ^ 1])
        with socket.socket(fileno=os.dup(caller.fileno())) as raw:
            raw.sendall(head + AESGCM(key).encrypt(number_1, content, head))
        assert service.get("/livez").status_code == 200  # by now it is read
        model.go_on.set()
        with suppress(ConnectionError):
            assert caller.recv(100) == b""
    until(lambda: connections(service) == 0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_caller_that_says_goodbye_is_let_go(service: Service) -> None:
    caller = Caller(service)
    caller.send(LIVEZ)
    assert caller.answer().status == 200
    assert isinstance(caller.socket, ssl.SSLSocket)
    caller.socket.unwrap().close()  # raises if the service does not say it as well
    until(lambda: connections(service) == 0)


def test_scheme_of_the_docs_is_that_of_the_port(service: Service) -> None:
    assert service.get("/docs").status_code == 200
    with Caller(service) as caller:
        caller.send(request("GET /livez", "Origin: https://elsewhere.example"))
        assert caller.answer().status == 200


# ── files that change ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def renewed(run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path, often: None) -> Service:
    """A service whose files are those of `tmp_path / 'live'`, a link as Kubernetes and certbot make it."""
    Authority(tmp_path / "first").issue()
    (tmp_path / "live").symlink_to("first")
    live = tmp_path / "live"
    return run_service(
        tiny_recogniser,
        tls_certificate_file=live / "tls.crt",
        tls_key_file=live / "tls.key",
        tls_client_ca_file=live / "ca.crt",
    )


def lead_to(folder: Path) -> None:
    """Let the link lead there, at once."""
    new = folder.with_name("new")
    new.symlink_to(folder.name)
    new.replace(folder.with_name("live"))


def test_changed_files_are_used_for_new_connections_and_open_ones_go_on(renewed: Service, tmp_path: Path) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    first.issue()  # its authority, too: files that are written in place
    showing, later = first.pair(), second.pair()
    second.issue()
    tls = tls_of(renewed)
    before = tls.context
    until(lambda: tls.context is not before)
    with httpx.Client(verify=first.trusting(showing=showing), base_url=renewed.base_url, timeout=100) as caller:
        assert caller.post("/embed", content=JPEG, headers={"Content-Type": "image/jpeg"}).status_code == 200
        before = tls.context
        lead_to(second.folder)
        until(lambda: tls.context is not before)
        # on the connection that was open
        assert caller.post("/embed", content=JPEG, headers={"Content-Type": "image/jpeg"}).status_code == 200
    with (
        httpx.Client(verify=first.trusting(showing=showing), base_url=renewed.base_url) as old,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        old.get("/livez")
    with httpx.Client(verify=second.trusting(showing=later), base_url=renewed.base_url, timeout=100) as new:
        assert new.get("/info").status_code == 200


def test_damaged_part_behind_the_certificate_does_not_end_the_watch(
    renewed: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a file in which the key stands too, while it is written."""
    first, before = Authority(tmp_path / "first"), issuer_serial(renewed)
    certificate, _ = first.issue()
    whole = certificate.read_text()
    certificate.write_text(f"{whole}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    until(lambda: "a part of it cannot be read" in caplog.text)
    assert issuer_serial(renewed) == before
    certificate.write_text(whole)
    until(lambda: issuer_serial(renewed) != before)


@pytest.mark.parametrize("name", ["tls_certificate_file", "tls_key_file", "tls_client_ca_file"])
def test_named_pipe_is_refused_instead_of_waited_for(authority: Authority, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    files: dict[str, Any] = {
        "tls_certificate_file": authority.folder / "tls.crt",
        "tls_key_file": authority.folder / "tls.key",
        name: tmp_path / "pipe",
    }
    with pytest.raises(SettingInvalid, match="it is a named pipe, and has to be a file"):
        Tls.of(Settings(**files))


def test_wrong_file_is_logged_once_and_the_last_good_one_is_used(
    renewed: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls, before = tls_of(renewed), issuer_serial(renewed)

    def errors() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]

    Authority(tmp_path / "third").issue()
    (tmp_path / "first" / "tls.key").write_bytes((tmp_path / "third" / "tls.key").read_bytes())
    until(lambda: bool(errors()))
    time.sleep(0.2)  # ten more looks
    assert len(errors()) == 1
    assert "does not belong to the certificate" in errors()[0]
    assert issuer_serial(renewed) == before
    (tmp_path / "first" / "tls.key").unlink()
    until(lambda: len(errors()) == 2)
    assert "No such file" in errors()[1]
    context = tls.context
    lead_to(tmp_path / "third")
    until(lambda: tls.context is not context)
    assert issuer_serial(renewed) != before


# ── callers with certificates ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def guarded(run_service: Callable[..., Service], tiny_recogniser: Path, authority: Authority) -> Service:
    """A service for callers with a certificate."""
    return run_service(tiny_recogniser, tls_client_ca_file=authority.ca)


def test_caller_without_a_certificate_reads_what_is_missing_and_probes_get_in(guarded: Service) -> None:
    for path in PROBES:
        assert guarded.get(path).status_code == 200
    for answer in (
        guarded.post("/embed", content=JPEG * 1000, headers={"Content-Type": "image/jpeg"}),
        guarded.get("/info"),
        guarded.get("/livez/../info"),
        guarded.get("//livez"),
        guarded.get("/"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "client_certificate_missing")
    with (
        Client(str(guarded.base_url), ssl_context=trusting_everybody()) as client,
        pytest.raises(ClientCertificateMissing, match="callers with a certificate alone"),
    ):
        client.embed(JPEG)
    with Caller(guarded) as caller:  # each request on its own
        caller.send(LIVEZ + request("GET /metrics") + LIVEZ + picture(JPEG))
        assert [caller.answer().status for _ in range(4)] == [200, 403, 200, 403]


def test_caller_with_a_certificate_is_served(guarded: Service, authority: Authority) -> None:
    trusting = authority.trusting(showing=authority.pair())
    with Client(str(guarded.base_url), ssl_context=trusting) as client:
        assert client.embed(JPEG).vector.shape == (512,)
    with httpx.Client(base_url=guarded.base_url, verify=trusting, timeout=100) as resumed:
        for _ in range(2):
            assert resumed.get("/info", headers={"Connection": "close"}).status_code == 200


def test_certificate_of_another_authority_ends_the_handshake(
    guarded: Service, authority: Authority, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path / "foreign").pair()
    with (
        Client(str(guarded.base_url), ssl_context=authority.trusting(showing=foreign)) as client,
        pytest.raises(ServiceUnreachable, match="refuses this client's certificate") as refused,
    ):
        client.info()
    assert not refused.value.may_pass
    assert tls_of(guarded).handshakes_failed == 1


def test_variables_name_what_a_client_trusts_and_shows(
    guarded: Service, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(guarded.base_url)
    with Client(url) as client, pytest.raises(ServiceUnreachable, match="is not trusted"):
        client.info()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    monkeypatch.setenv("SSL_CLIENT_CERT", str(tmp_path / "missing.pem"))
    with pytest.raises(SettingInvalid, match=r"SSL_CLIENT_CERT=.*missing\.pem cannot be used: No such file"):
        Client(url)
    monkeypatch.setenv("SSL_CLIENT_CERT", str(authority.ca))
    with pytest.raises(SettingInvalid, match="it does not hold both"):
        Client(url)
    monkeypatch.setenv("SSL_CLIENT_CERT", str(authority.pair()))
    with Client(url) as client:
        assert client.embed(JPEG).vector.shape == (512,)


def test_commands_call_a_guarded_service(
    guarded: Service, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(guarded.base_url)
    with pytest.raises(MeasurementFailed, match=r"TLS with .* failed: .* Name its authority in SSL_CERT_FILE"):
        measure(Address.of(url), [1], 0.3, lambda *_: None)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    monkeypatch.setenv("SSL_CLIENT_CERT", str(authority.pair()))
    measured = measure(Address.of(url), [1], 0.3, lambda *_: None)
    assert measured.steps[0].served
    assert not measured.steps[0].failed
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "face.jpg").write_bytes(JPEG)
    output = tmp_path / "faces.jsonl"
    CliRunner().invoke(cli, ["embed", str(tmp_path / "crops"), "--url", url, "--out", str(output)])
    assert len(json.loads(output.read_text())["embedding"]) == 512


def test_doctor_finds_the_service_and_what_is_wrong_with_its_files(guarded: Service, authority: Authority) -> None:
    files = {"tls_certificate_file": authority.folder / "tls.crt", "tls_key_file": authority.folder / "tls.key"}

    def examined(**settings: Any) -> Subject:
        given = Settings(port=guarded.base_url.port or 0, **settings)
        return Subject(given=given, environment={}, is_quick=True, bind=None, places=Places(), flags=frozenset())

    answer = ask_port(examined(**files))
    assert answer is not None
    assert answer.is_ours
    assert answer.can_embed
    (found,) = doctor_settings(examined(tls_certificate_file=authority.ca))
    assert (found.status, found.what) == (
        Status.PROBLEM,
        f"ARCFACE_TLS_CERTIFICATE_FILE={authority.ca} holds no private key.",
    )
    assert found.remedy == "Name the file that holds it in ARCFACE_TLS_KEY_FILE."
    certificate, key = authority.issue("ended", days=-1)
    (found,) = doctor_settings(examined(tls_certificate_file=certificate, tls_key_file=key))
    assert (found.status, found.remedy) == (Status.PROBLEM, "Renew it.")


# ── wrong files at the start ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"key": "tls.key"},
            "ARCFACE_TLS_KEY_FILE is set, and no certificate: name it in ARCFACE_TLS_CERTIFICATE_FILE",
        ),
        ({"client_ca": "ca.crt"}, "ARCFACE_TLS_CLIENT_CA_FILE is set, and no certificate"),
        (
            {"certificate": "none.crt", "key": "tls.key"},
            "none.crt cannot be used: No such file or directory. It must hold",
        ),
        ({"certificate": "tls.crt", "key": "none.key"}, "ARCFACE_TLS_KEY_FILE=.*none.key cannot be used: No such file"),
        ({"certificate": ".", "key": "tls.key"}, "cannot be used: Is a directory"),
        (
            {"certificate": "tls.key", "key": "tls.key"},
            "CERTIFICATE_FILE=.*tls.key cannot be used: it holds no certificate",
        ),
        ({"certificate": "tls.crt", "key": "tls.crt"}, "KEY_FILE=.*tls.crt cannot be used: it holds no private key"),
        (
            {"certificate": "tls.crt"},
            "tls.crt holds no private key. Name the file that holds it in ARCFACE_TLS_KEY_FILE",
        ),
        (
            {"certificate": "tls.crt", "key": "other.key"},
            "other.key cannot be used: the key does not belong to the cert",
        ),
        ({"certificate": "tls.crt", "key": "locked.key"}, "the key is encrypted, .*openssl pkey"),
        (
            {"certificate": "tls.crt", "key": "tls.key", "client_ca": "tls.key"},
            "CLIENT_CA_FILE=.*: it holds no certificate",
        ),
        ({"certificate": "empty", "key": "tls.key"}, "empty cannot be used: it holds no certificate"),
        ({"certificate": "tls.crt", "key": "empty"}, "empty cannot be used: it holds no private key"),
    ],
)
def test_file_that_cannot_be_used_is_named_with_the_remedy(
    authority: Authority, given: dict[str, str], says: str
) -> None:
    folder = authority.folder
    authority.issue("other")
    (folder / "empty").touch()
    locked = ["openssl", "pkey", "-in", str(folder / "tls.key"), "-aes256", "-passout", "pass:secret", "-out"]
    subprocess.run([*locked, str(folder / "locked.key")], check=True, capture_output=True)
    with pytest.raises(SettingInvalid, match=says):
        Tls.of(Settings(**{f"tls_{name}_file": folder / file for name, file in given.items()}))  # type: ignore[arg-type]


def test_one_file_may_hold_both(authority: Authority) -> None:
    assert Tls.of(Settings(tls_certificate_file=authority.pair())) is not None


@pytest.mark.parametrize(("days", "says"), [(-1, "ended on"), (400, "is valid only from")])
def test_certificate_outside_its_time_is_served_with_a_warning(tmp_path: Path, days: int, says: str) -> None:
    certificate, key = Authority(tmp_path).issue(days=days)
    tls = Tls.of(Settings(tls_certificate_file=certificate, tls_key_file=key))
    assert tls is not None
    assert says in tls.doubt
    assert abs(tls.expires_seconds - (time.time() + days * 86_400)) < 3600


def test_end_of_the_certificate_is_a_metric(service: Service) -> None:
    (value,) = re.findall("^arcface_tls_certificate_expiry_seconds (.*)$", service.get("/metrics").text, re.MULTILINE)
    assert float(value) == tls_of(service).expires_seconds


# ── what docs/tls.md shows ─────────────────────────────────────────────────────────────────────────────────────────

PAGE = (Path(__file__).parents[2] / "docs" / "tls.md").read_text()


def block(language: str, number: int = 0) -> str:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return found[number]


@pytest.fixture
def beside(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that the page names."""
    authority.pair()
    for name in ("tls.crt", "tls.key", "ca.crt", "client.pem"):
        (tmp_path / name).write_bytes((authority.folder / name).read_bytes())
    (tmp_path / "face.jpg").write_bytes(JPEG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_documented_calls_are_answered(
    run_service: Callable[..., Service],
    guarded: Service,
    tiny_recogniser: Path,
    beside: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number, service in ((0, run_service(tiny_recogniser)), (1, guarded)):
        (curl,) = [line for line in block("sh", number).splitlines() if line.startswith("curl")]
        command = curl.replace(":5555", f":{service.base_url.port}").split()
        done = subprocess.run([*command, "--silent", "--noproxy", "*"], capture_output=True, text=True, check=True)
        assert len(json.loads(done.stdout)["embedding"]) == 512
    program = block("python").replace(":5555", f":{guarded.base_url.port}")
    shown: list[object] = []
    exec(program, {"print": shown.append})
    assert shown == [(512,)]


def through_proxy(command: list[str | Path], port: int, authority: Authority) -> None:
    """A picture, and more of them than proxies allow by themselves, sent to a proxy that runs meanwhile."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as proxy:
        try:

            def answers() -> bool:
                assert proxy.poll() is None, proxy.stderr and proxy.stderr.read()
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            until(answers)
            with Client(f"https://localhost:{port}", ssl_context=authority.trusting()) as client:
                assert client.embed(JPEG).vector.shape == (512,)
                assert client.health().is_ok
                assert all(hasattr(each, "vector") for each in client.embed_many([JPEG + bytes(5_000_000)] * 3))
        finally:
            proxy.terminate()


@pytest.fixture
def plain(make_app: Callable[..., DirectApp], tiny_recogniser: Path) -> Iterator[Service]:
    """A service without TLS."""
    with Service(make_app(tiny_recogniser)) as service:
        yield service
        service.stop()


def test_documented_nginx_takes_tls_off(plain: Service, authority: Authority, beside: Path) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    port = free_port()
    text = block("nginx").replace("127.0.0.1:5555", f"127.0.0.1:{plain.base_url.port}")
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    temporary = " ".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi"))
    user = "user root;" if os.getuid() == 0 else ""  # who else may not search this folder
    (beside / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid nginx.pid; error_log stderr error; {user}\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{text}}}\n"
    )
    through_proxy([nginx, "-e", "stderr", "-p", beside, "-c", "nginx.conf"], port, authority)


def test_documented_caddy_takes_tls_off(plain: Service, authority: Authority, beside: Path) -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("needs Caddy (Debian: apt-get install caddy)")
    port = free_port()
    text = block("caddy").replace("127.0.0.1:5555", f"127.0.0.1:{plain.base_url.port}")
    text = text.replace("https://localhost {", f"https://localhost:{port} {{")
    options = "{\n admin off\n auto_https disable_redirects\n skip_install_trust\n}\n"
    (beside / "Caddyfile").write_text(options + text)
    through_proxy([caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile"], port, authority)
