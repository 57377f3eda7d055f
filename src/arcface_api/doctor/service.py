"""Checks of the settings, of the port, and of the service that already runs there."""

import http.client
import importlib.util
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from arcface_api import __version__
from arcface_api.api.certificates import Tls
from arcface_api.doctor.finding import Finding, Unknown, note, ok, problem
from arcface_api.doctor.subject import Subject
from arcface_api.errors import ArcFaceError, SettingInvalid
from arcface_api.packs import registry
from arcface_api.settings import Settings, misspelt_variables

ANSWER_SECONDS = 15.0
"""Longer than `/health` takes to embed a picture, or to give up."""
_HEALTH = {"model", "provider", "precision", "self_test_cosine", "reason"}
"""Members of `/health` by which the service is recognised."""
_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # what to connect to, where all are listened on


def settings(subject: Subject) -> Iterator[Finding]:
    """Wrong values, misspelt variables, licences of no pack."""
    is_well = True
    for sentence in subject.wrong_settings:
        is_well = False
        what, _, remedy = sentence.partition(" is not allowed: ")
        yield problem(f"{what} is not allowed.", remedy[:1].upper() + remedy[1:])
    for variable, meant in misspelt_variables(subject.environment).items():
        is_well = False
        yield problem(f"{variable} is not a setting and has no effect.", f"Did you mean {meant}?")
    for name in sorted(subject.settings.accept_license - registry().keys()):
        is_well = False
        yield problem(
            f"ARCFACE_ACCEPT_LICENSE names {name}, which is not a pack.", f"The packs are {', '.join(registry())}."
        )
    if subject.settings.trace_share and importlib.util.find_spec("opentelemetry") is None:
        is_well = False
        yield problem(
            "ARCFACE_TRACE_SHARE is set, and the extra otel is not installed: the service will not start.",
            "Install it (docs/operations.md, Trace requests), or leave ARCFACE_TRACE_SHARE out.",
        )
    if (file := subject.settings.api_keys_file) is not None:
        from arcface_api.api.auth import Keys  # noqa: PLC0415  # brings the web framework's packages

        try:
            Keys(file)
        except SettingInvalid as error:
            is_well = False
            what, _, remedy = str(error).partition(": ")
            yield problem(f"{what}.", f"{remedy[:1].upper()}{remedy[1:]}")
    try:
        tls = Tls.of(subject.settings)
    except SettingInvalid as error:
        what, _, remedy = str(error).partition(". ")
        is_well = False
        yield problem(f"{what}.", remedy)
    else:
        if tls is not None and tls.doubt:
            what, _, remedy = tls.doubt.rpartition(". ")
            is_well = False
            yield problem(f"{what}.", remedy)
    if is_well:
        changed = ", ".join(sorted(subject.settings.model_dump(exclude_defaults=True)))
        yield ok(f"All values are allowed{f'; other than the default: {changed}' if changed else ''}.")


@dataclass(frozen=True)
class Answer:
    """What listens on the port."""

    is_ours: bool
    can_embed: bool = False
    health: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


def ask_port(subject: Subject) -> Answer | None:
    """Ask what listens on the service's port on this machine; None: nothing does."""
    settings = subject.settings
    if settings.port == 0:
        return None
    host = _LOCAL.get(settings.host, settings.host)
    try:
        status, health = _get(host, settings, "/health")
    except ConnectionRefusedError:
        return None
    except (http.client.HTTPException, ValueError, TimeoutError, ConnectionError, ssl.SSLError):
        return Answer(is_ours=False)
    except OSError:  # no such address here: binding it says so
        return None
    if not isinstance(health, dict) or not health.keys() >= _HEALTH:
        return Answer(is_ours=False)
    info: Any = {}
    with suppress(OSError, http.client.HTTPException, ValueError):
        info_status, info = _get(host, settings, "/info")
        if info_status != http.HTTPStatus.OK:  # it asks for a key or a certificate, which probes need not have
            info = health if status == http.HTTPStatus.OK else {}
    return Answer(True, status == http.HTTPStatus.OK, health, info if isinstance(info, dict) else {})


def _get(host: str, settings: Settings, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(host, settings.port, timeout=ANSWER_SECONDS)
    if settings.tls_certificate_file is not None:
        # What answers here is asked, not trusted: its certificate has another name, and nothing secret is sent.
        trusting = ssl._create_unverified_context()  # noqa: S323, SLF001  # as said above
        connection = http.client.HTTPSConnection(host, settings.port, timeout=ANSWER_SECONDS, context=trusting)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read(1 << 20))
    finally:
        connection.close()


def port(subject: Subject) -> Iterator[Finding]:
    """Bind the port, unless a service of ours has it."""
    settings, answer = subject.settings, subject.once(ask_port)
    where = f"{settings.host} port {settings.port}"
    if answer is not None and answer.is_ours:
        yield ok(f"arcface-api runs on {where}.")
        return
    if subject.bind is None:
        raise Unknown("nothing can be bound here")
    try:
        subject.bind((settings.host, settings.port)).close()
    except ArcFaceError as error:
        what, _, remedy = str(error).partition(". ")
        yield problem(f"{what}.", remedy)
        return
    if answer is not None:  # it listens on another address, and would get some of the callers
        yield problem(
            f"Another program answers on {where}, and does not speak arcface-api's HTTP.",
            "End it, or choose another port with ARCFACE_PORT.",
        )
        return
    yield ok(f"{where} is free." if settings.port else "A free port is taken at the start.")


def service(subject: Subject) -> Iterator[Finding]:
    """Repeat what a service that runs says about itself."""
    answer = subject.once(ask_port)
    if answer is None or not answer.is_ours:
        yield ok("None runs on this port.")
        return
    health, info, settings = answer.health, answer.info, subject.settings
    if not answer.can_embed:
        yield problem(f"The service cannot embed: {health['reason']}.", "Look into its log, then start it again.")
    if (version := info.get("version", __version__)) != __version__:
        yield note(f"It is version {version}, and {__version__} is installed.", "Start it again to use the new one.")
    if info.get("pack") and info["pack"] != settings.pack and "/" not in settings.pack and settings.pack != "auto":
        yield note(
            f"It serves the pack {info['pack']}, and the settings name {settings.pack}.",
            "Examine it with its own settings, or start it again with these.",
        )
    if answer.can_embed:
        yield ok(f"It can embed; its self-test's cosine to float32 is {health['self_test_cosine']:.5f}.")
