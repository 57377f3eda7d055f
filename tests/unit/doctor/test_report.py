"""Promises of the report: no secrets, no crash, readable anywhere, keys that stay."""

import getpass
import importlib
import json
import logging
from pathlib import Path

import pytest

from arcface_api.doctor import CHECKS, Check, Finding, Report, Status, Subject, as_text, examine
from arcface_api.doctor.masks import Mask
from doctor.conftest import subject

FAILING = Check("failing", "installation", "", "", "")


def report(*texts: str) -> Report:
    findings = tuple(Finding(Status.PROBLEM, text, "Do this.", "a-check") for text in texts)
    return Report(examine(subject(), checks=[]).about, findings)


# ── secrets ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HTTPS_PROXY=http://alice:pa55word@proxy:3128 fails", "HTTPS_PROXY=http://***@proxy:3128 fails"),
        ("alice:pa55word@proxy:3128 is no URL", "***@proxy:3128 is no URL"),
        ("='ftp://alice:pa/55@w'rd@host/x' is not allowed", "='ftp://***@host/x' is not allowed"),
        ("bob:pa/55@w'rd@host is no URL", "***@host is no URL"),
        ("http://localhost:5555/health answered: no", "http://localhost:5555/health answered: no"),
        (
            "https://mirror.example/a.zip?sig=abc&token=def answered 403",
            "https://mirror.example/a.zip?*** answered 403",
        ),
        ("the token is hf_abcdefgh.", "the token is ***."),
        ("/home/bob/packs/a.onnx cannot be read", "/home/***/packs/a.onnx cannot be read"),
        ("/Users/bob is closed", "/Users/*** is closed"),
        ("/srv/alice/packs, /srv/alice: closed", "/srv/***/packs, /srv/***: closed"),
        ("/opt/alice-tools/a", "/opt/alice-tools/a"),
        ("/data/packs/face.onnx", "/data/packs/face.onnx"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert Mask("", "alice", ("hf_abcdefgh",)).text(text) == shown


def test_home_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data/people/alice")
    mask = Mask.of({})
    assert mask.text("/data/people/alice/.cache/x and '/data/people/alice'") == "~/.cache/x and '~'"
    assert mask.text("/data/people/alices/x") == "/data/people/alices/x"


def test_secrets_are_those_in_variables_with_such_names() -> None:
    variables = {"HF_TOKEN": "abcdefgh", "DB_PASSWORD": "x1y2z3", "USE_TOKEN": "true", "TOKEN_PATH": "/a/b/c/d"}
    mask = Mask.of(variables | {"ARCFACE_API_KEYS_FILE": "secrets/keys"})
    assert set(mask.secrets) == {"abcdefgh", "x1y2z3"}


def test_whole_report_hides_what_is_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings, findings of every check, and the facts at the top."""
    monkeypatch.setenv("HOME", str(tmp_path / "people" / "alice"))
    monkeypatch.setenv("HTTPS_PROXY", "http://alice:pa55word@127.0.0.1:9")
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    about = subject(
        pack="antelopev2",
        models_dir=tmp_path / "people" / "alice" / "models",
        cache_dir="/home/bob/cache",
        pack_mirror="https://alice:pa55word@127.0.0.1:9/packs",
        environment={"HF_TOKEN": "hf_abcdefgh", "ARCFACE_MODEL_DIR": "hf_abcdefgh"},
    )
    found = examine(about)
    for text in (found.to_json(), as_text(found)):
        assert "127.0.0.1:9" in text
        for secret in ("pa55word", "hf_abcdefgh", "alice", "bob"):
            assert secret not in text


# ── no check costs the others ──────────────────────────────────────────────────────────────────────────────────────


def test_every_check_has_its_function() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        module = importlib.import_module(f"arcface_api.doctor.{check.module}")
        assert (getattr(module, check.name).__doc__ or "").strip()


def test_check_that_fails_becomes_a_note_and_the_others_go_on() -> None:
    settings = next(check for check in CHECKS if check.name == "settings")
    failed, went_on = examine(subject(), checks=[FAILING, settings]).findings
    assert (failed.check, failed.status) == ("failing", Status.NOTE)
    assert failed.what.startswith("Could not be checked: AttributeError: ")
    assert (went_on.check, went_on.status) == ("settings", Status.OK)


def test_without_settings_each_check_says_so() -> None:
    findings = examine(Subject(given=None, uses_network=False)).findings
    assert {finding.check for finding in findings} == {check.name for check in CHECKS}
    assert any("the settings cannot be read" in finding.what for finding in findings)


def test_report_is_made_where_a_fact_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system without a limit of memory, or with metadata that cannot be read."""

    def fail(*_: object) -> None:
        raise OSError("not here")

    for name in ("memory_limit_bytes", "available_cpus", "cpu_name", "_packages", "_changed_settings"):
        monkeypatch.setattr(f"arcface_api.doctor.about.{name}", fail)
    found = examine(subject(), checks=[])
    assert found.about["memory_limit_bytes"] is None
    assert "unknown" in as_text(found)


def test_what_is_logged_as_a_warning_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Subject) -> tuple[Finding, ...]:
        logging.getLogger("arcface_api.packs").warning("%s is closed", "x")
        return ()

    module = importlib.import_module("arcface_api.doctor.installation")
    monkeypatch.setattr(module, "failing", failing, raising=False)
    (finding,) = examine(subject(), checks=[FAILING]).findings
    assert (finding.status, finding.what) == (Status.NOTE, "x is closed")


# ── the table and the JSON ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("columns", [24, 40, 59, 60, 80, 200])
def test_table_fits_the_terminal(columns: int) -> None:
    sentence = "This sentence has quite some words, more than a line of a terminal can take."
    text = as_text(report(sentence, "Second."), columns)
    assert [line for line in text.splitlines() if len(line) > columns and len(line.split()) > 1] == []
    assert ("PROBLEM a-check\n" in text) is (columns < 60)  # below, the text has no column of its own
    assert "2 problems, 0 notes." in text


def test_table_is_ascii_and_coloured_only_where_asked_for() -> None:
    found = report("Wrong.")
    assert as_text(found).isascii()
    assert "\x1b" not in as_text(found)
    assert "\x1b[31;1mPROBLEM\x1b[0m" in as_text(found, is_coloured=True)


def test_remedy_with_a_list_stays_a_list() -> None:
    remedy = "Do one of these:\n  - this, which takes more words than a line has\n  - that"
    found = Finding(Status.PROBLEM, "Wrong.", remedy, "a-check")
    lines = as_text(Report(report().about, (found,)), 60).splitlines()
    start = next(number for number, line in enumerate(lines) if "these" in line)
    indent = " " * 17
    assert lines[start : start + 4] == [
        f"{indent}-> Do one of these:",
        f"{indent}     - this, which takes more words than a",
        f"{indent}       line has",
        f"{indent}     - that",
    ]


def test_json_has_the_keys_that_compatibility_promises() -> None:
    found = json.loads(report("Wrong.").to_json())
    assert list(found) == ["version", "problems", "findings", "about"]
    assert found["problems"] == 1
    assert found["findings"] == [{"status": "problem", "what": "Wrong.", "remedy": "Do this.", "check": "a-check"}]
    assert list(found["about"]) == [
        "version", "python", "system", "container", "processor", "processor_flags", "cpus", "cpus_of_the_host",
        "cpu_quota", "memory_limit_bytes", "packages", "settings",
    ]  # fmt: skip


def test_only_problems_change_the_exit_status() -> None:
    about = report().about
    assert Report(about, (Finding(Status.NOTE, "x"), Finding(Status.OK, "y"))).exit_status == 0
    assert Report(about, (Finding(Status.NOTE, "x"), Finding(Status.PROBLEM, "y", "z"))).exit_status == 1
