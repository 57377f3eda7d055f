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
    ("options", "sentence"),
    [
        ({"port": "99999"}, r"--port='99999' is not allowed: it must be less than or equal to 65535\."),
        ({"device": "gpu"}, r"--device='gpu' is not allowed: it must be 'auto', 'cpu', 'cuda' or 'tensorrt'"),
        ({"precision": "int8"}, r"--precision='int8' is not allowed: it must be 'auto', 'float32', 'bfloat16' or"),
        ({"max_image_bytes": "10MB"}, r"--max-image-bytes='10MB' is not allowed: it must be a valid integer"),
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
