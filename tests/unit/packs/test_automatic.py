"""Promises of `--pack auto`, of what a command may download, and of the pack that the package carries."""

import logging
from pathlib import Path

import httpx
import pytest

from arcface_api.errors import PackError, PackNotFound
from arcface_api.packs import (
    AUTO,
    PackLocations,
    Role,
    import_pack,
    installed_packs,
    locate,
    obtain,
    pull,
)
from arcface_api.packs.finding import SHIPPED_DIR
from arcface_api.progress import no_progress
from arcface_api.settings import Settings, read_settings


@pytest.fixture
def locations(tmp_path: Path) -> PackLocations:
    return PackLocations(None, tmp_path / "cache", tmp_path / "insightface")


def test_open_pack_is_there_and_whole_on_an_empty_machine(locations: PackLocations) -> None:
    pack = locate("open", locations)
    assert pack.folder == SHIPPED_DIR / "open"
    assert all(check.is_good for check in pack.verify())
    assert sum(path.stat().st_size for path in pack.paths.values()) <= 20_000_000
    assert [each.manifest.name for each in installed_packs(locations)] == ["open"]
    assert pull("open", locations, accepted_licences=frozenset()).folder == pack.folder


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that were asked for, on a machine without packs; no server has them."""
    for variable, folder in (("HOME", "home"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    urls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        return httpx.Response(404)

    client = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **options: client(**options | {"transport": httpx.MockTransport(answer)})
    )
    return urls


def settings(pack: str, *, is_accepted: bool, pull: bool) -> Settings:
    return read_settings(pack=pack, pull=pull, accept_license="antelopev2" if is_accepted else "")


def test_accepting_a_licence_asks_for_no_download(asked: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """One rule for a named pack and for `auto`."""
    with pytest.raises(PackNotFound, match=r"The licence of antelopev2 is accepted; .* set ARCFACE_PULL=true\.$"):
        obtain(settings("antelopev2", is_accepted=True, pull=False), no_progress)
    with caplog.at_level(logging.WARNING):
        assert obtain(settings(AUTO, is_accepted=True, pull=False), no_progress).manifest.name == "open"
    assert "To download antelopev2 (non-commercial research only), set ARCFACE_PULL=true;" in caplog.text
    assert asked == []


def test_asking_for_a_pull_accepts_no_licence(asked: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PackError, match="set ARCFACE_ACCEPT_LICENSE=antelopev2"):
        obtain(settings("antelopev2", is_accepted=False, pull=True), no_progress)
    with caplog.at_level(logging.WARNING):
        assert obtain(settings(AUTO, is_accepted=False, pull=True), no_progress).manifest.name == "open"
    assert "(non-commercial research only), set ARCFACE_ACCEPT_LICENSE=antelopev2;" in caplog.text
    assert asked == []


def test_neither_pull_nor_licence_names_both_settings(asked: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert obtain(settings(AUTO, is_accepted=False, pull=False), no_progress).manifest.name == "open"
    assert "set ARCFACE_PULL=true and ARCFACE_ACCEPT_LICENSE=antelopev2;" in caplog.text
    assert asked == []


def test_a_pull_with_an_accepted_licence_downloads(asked: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PackError, match=r"^No source gave antelopev2"), caplog.at_level(logging.INFO):
        obtain(settings("antelopev2", is_accepted=True, pull=True), no_progress)
    named, asked[:] = list(asked), []
    assert "antelopev2.zip answered 404" in caplog.text
    assert "InsightFace gives its pretrained models for non-commercial research only" in caplog.text
    with caplog.at_level(logging.WARNING):
        assert obtain(settings(AUTO, is_accepted=True, pull=True), no_progress).manifest.name == "open"
    assert asked == named != []
    *_, reason, remedy = caplog.messages
    assert "antelopev2 could not be installed: No source gave antelopev2" in reason
    assert "\n" not in reason
    assert reason.endswith(").")
    assert "`arcface-api packs pull antelopev2` tries again and shows every reason; for any other pack, set" in remedy


def test_without_the_preferred_pack_auto_is_the_open_one(locations: PackLocations) -> None:
    assert locate(AUTO, locations).manifest.name == "open"


def test_installed_preferred_pack_is_chosen_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "antelopev2"
    folder.mkdir(parents=True)
    (folder / "glintr100.onnx").write_bytes(b"looked at when it is read")
    assert locate(AUTO, PackLocations.default(tmp_path)).folder == folder
    chosen = obtain(read_settings(pack=AUTO, models_dir=tmp_path, pull=False, accept_license=""), no_progress)
    assert chosen.folder == folder
    assert caplog.messages == []


def test_importing_a_part_of_the_carried_pack_does_not_hide_the_whole(locations: PackLocations) -> None:
    part = import_pack([SHIPPED_DIR / "open" / "dlib_resnet_v1.onnx"], locations)
    assert part.folder == SHIPPED_DIR / "open"
    assert set(locate("open", locations).paths) == {Role.RECOGNISER, Role.AGE, Role.GENDER}


def test_carried_pack_under_another_name_keeps_its_alignment_and_thresholds(locations: PackLocations) -> None:
    manifest = import_pack([SHIPPED_DIR / "open"], locations, name="mine").manifest
    assert (manifest.align, manifest.thresholds) == ("auto", locate("open", locations).manifest.thresholds)


def test_no_pack_can_be_called_auto(locations: PackLocations, tiny_recogniser: Path) -> None:
    with pytest.raises(PackError, match="means something else"):
        import_pack([tiny_recogniser], locations, name=AUTO)
