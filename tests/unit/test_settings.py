"""Promises of `arcface_api.settings`: where values come from, and what a wrong one says."""

from pathlib import Path

import pytest

from arcface_api.errors import SettingInvalid
from arcface_api.settings import Settings, misspelt_variables, read_settings


def test_option_wins_over_variable_wins_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().port == 5555
    monkeypatch.setenv("ARCFACE_PORT", "7000")
    assert read_settings().port == 7000
    assert read_settings(port="8000", pack=None).port == 8000


def test_values_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCFACE_MODELS_DIR", "/models")
    monkeypatch.setenv("ARCFACE_PULL", "true")
    monkeypatch.setenv("ARCFACE_ACCEPT_LICENSE", "antelopev2, buffalo_l,")
    settings = read_settings()
    assert settings.models_dir == Path("/models")
    assert settings.pull is True
    assert settings.accept_license == {"antelopev2", "buffalo_l"}


def test_empty_variable_means_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCFACE_THREADS", "")
    assert read_settings().threads is None


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("PORT", '"7000"', 7000),
        ("PORT", " 7000 ", 7000),
        ("HOST", "0.0.0.0\r", "0.0.0.0"),
        ("DEVICE", "'CPU'", "cpu"),
        ("PULL", '"true"', True),
        ("TRUSTED_PROXIES", '"10.0.0.0/8, 192.0.2.7"', {"10.0.0.0/8", "192.0.2.7"}),
        ("RATE_LIMIT_EXEMPT", "10.0.0.0/8, ::1", {"10.0.0.0/8", "::1"}),
        ("RATE_LIMIT", "20 per second; 600/minute", "20 per second; 600/minute"),
        ("ALLOWED_HOSTS", "localhost, *.Face.example.,*", {"localhost", "*.face.example", "*"}),
        ("API_KEYS_FILE", "'/run/secrets/keys'", Path("/run/secrets/keys")),
        ("MODELS_DIR", '"/models"', Path("/models")),
        ("MODELS_DIR", '""', None),
        ("THREADS", " ", None),
    ],
)
def test_quotes_and_blanks_around_a_value_mean_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: object
) -> None:
    """`docker run --env-file` keeps quotes, and the line ends of files from Windows."""
    monkeypatch.setenv(f"ARCFACE_{name}", value)
    assert getattr(read_settings(), name.lower()) == read


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"port": "99999"}, r"--port='99999' is not allowed: it must be a whole number from 0 to 65535\."),
        ({"device": "gpu"}, r"--device='gpu' is not allowed: it must be 'auto', 'cpu', 'cuda' or 'tensorrt'"),
        ({"precision": "int8"}, r"--precision='int8' is not allowed: it must be 'auto', 'float32', 'bfloat16' or"),
        (
            {"pack_mirror": "http://me:secret@mirror.test"},
            r"'http://\*\*\*@mirror\.test' is not allowed",
        ),
        ({"root_path": "/a/../b"}, r"--root-path='/a/../b' is not allowed: it must be a path such as /face"),
        ({"cors_origins": "https://*.example.com"}, "write https://host or https://host:port, without a path or"),
        ({"cors_origins": "https://app.example:443"}, "has the usual port, which browsers leave out; write it without"),
        (
            {"max_image_bytes": "10MB"},
            r"'10MB' is not allowed: it must be a whole number of at least 1, without a unit",
        ),
        (
            {"hang_seconds": "15s"},
            r"'15s' is not allowed: it must be a number above 0 and at most 86400, without a unit\.",
        ),
        (
            {"hang_seconds": "inf"},
            r"--hang-seconds='inf' is not allowed: it must be a number above 0 and at most 86400",
        ),
        ({"threads": "0"}, r"--threads='0' is not allowed: it must be a whole number from 1 to 1024\."),
        ({"trace_share": "2"}, r"--trace-share='2' is not allowed: it must be a number from 0 to 1\."),
        ({"lanes": "some"}, r"it must be auto, or a whole number from 1 to 1024, without a unit\."),
        (
            {"rate_limit": "600"},
            r"--rate-limit='600' is not allowed: it must be pictures in a time, such as",
        ),
        ({"rate_limit": "0/minute"}, "it must be pictures in a time"),
        ({"rate_limit": "1/fortnight"}, "it must be pictures in a time"),
        ({"rate_limit_exempt": "10.0.0.0/33"}, "is neither an address nor a network such as"),
        ({"rate_limit_exempt": "*"}, r"\* is neither an address nor a network such as"),
        ({"allowed_hosts": "https://face.example"}, "is no name of a host; write face.example.com or"),
        ({"allowed_hosts": "face.example:80"}, "is no name of a host"),
        ({"allowed_hosts": "face.*"}, "is no name of a host"),
        ({"colour": "red"}, "There is no setting called colour"),
    ],
)
def test_wrong_option_names_itself_and_what_is_allowed(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingInvalid, match=sentence):
        read_settings(**options)


def test_wrong_variable_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCFACE_THREADS", "0")
    with pytest.raises(SettingInvalid, match="ARCFACE_THREADS='0' is not allowed"):
        read_settings()


def test_wrong_switch_says_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCFACE_PULL", "maybe")
    with pytest.raises(SettingInvalid, match="ARCFACE_PULL='maybe' is not allowed: it must be true or false"):
        read_settings()


def test_port_set_by_kubernetes_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCFACE_PORT", "tcp://10.0.0.7:5555")
    with pytest.raises(SettingInvalid, match="enableServiceLinks"):
        read_settings()


def test_misspelt_variables_are_found_and_strangers_are_not() -> None:
    environment = {"ARCFACE_MODEL_DIR": "x", "ARCFACE_API_SERVICE_HOST": "x", "ARCFACE_PACK": "x", "HOME": "x"}
    assert misspelt_variables(environment) == {"ARCFACE_MODEL_DIR": "ARCFACE_MODELS_DIR"}


def test_defaults_keep_data_at_home() -> None:
    settings = read_settings()
    assert (settings.host, settings.access_log, settings.pull) == ("127.0.0.1", False, False)
    assert not settings.accept_license


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
