"""Promises of `--pack auto` and of the pack that the package carries."""

from pathlib import Path

import pytest

from arcface_api.errors import PackNameInvalid
from arcface_api.packs import AUTO, PackLocations, Role, Source, choose, import_pack, installed, locate, pull, verify
from arcface_api.packs.locations import SHIPPED_DIR

NOWHERE = [Source("http://127.0.0.1:9/antelopev2.zip")]
"""The discard port: nobody listens."""


@pytest.fixture
def locations(tmp_path: Path) -> PackLocations:
    return PackLocations(None, tmp_path / "cache", tmp_path / "insightface")


def test_open_pack_is_there_and_whole_on_an_empty_machine(locations: PackLocations) -> None:
    pack = locate("open", locations)
    assert pack.folder == SHIPPED_DIR / "open"
    assert all(check.ok for check in verify(pack))
    assert sum(path.stat().st_size for path in pack.paths.values()) <= 20_000_000
    assert [each.manifest.name for each in installed(locations)] == ["open"]
    assert pull("open", locations, accepted_licences=frozenset(), sources=[]).folder == pack.folder


def test_without_the_preferred_pack_the_open_one_is_chosen_and_the_reason_told(locations: PackLocations) -> None:
    choice = choose(locations, accepted_licences=frozenset())
    assert choice.pack.manifest.name == "open"
    assert "its licence was not accepted" in str(choice.reason)


def test_preferred_pack_that_cannot_be_had_leads_to_the_open_one(locations: PackLocations) -> None:
    choice = choose(locations, accepted_licences=frozenset({"antelopev2"}), sources=NOWHERE)
    assert choice.pack.manifest.name == "open"
    assert "antelopev2 could not be had" in str(choice.reason)
    assert str(choice.reason).endswith(").")
    assert "127.0.0.1:9" in str(choice.error)


def test_installed_preferred_pack_is_chosen_without_a_word(locations: PackLocations) -> None:
    folder = locations.insightface_dir / "antelopev2"
    folder.mkdir(parents=True)
    (folder / "glintr100.onnx").write_bytes(b"looked at when it is read")
    choice = choose(locations, accepted_licences=frozenset())
    assert (choice.pack.folder, choice.reason) == (folder, None)


def test_reason_is_one_line_however_many_sources_were_tried(locations: PackLocations) -> None:
    choice = choose(locations, accepted_licences=frozenset({"antelopev2"}), sources=NOWHERE)
    assert "\n" not in str(choice.reason)
    assert choice.error is not None


def test_importing_a_part_of_the_carried_pack_does_not_hide_the_whole(locations: PackLocations) -> None:
    part = import_pack([SHIPPED_DIR / "open" / "dlib_resnet_v1.onnx"], locations)
    assert part.folder == SHIPPED_DIR / "open"
    assert set(locate("open", locations).paths) == {Role.RECOGNISER, Role.AGE, Role.GENDER}


def test_carried_pack_under_another_name_keeps_its_alignment_and_thresholds(locations: PackLocations) -> None:
    manifest = import_pack([SHIPPED_DIR / "open"], locations, name="mine").manifest
    assert (manifest.align, manifest.thresholds) == ("auto", locate("open", locations).manifest.thresholds)


def test_no_pack_can_be_called_auto(locations: PackLocations, tiny_recogniser: Path) -> None:
    with pytest.raises(PackNameInvalid, match="means something else"):
        import_pack([tiny_recogniser], locations, name=AUTO)
