"""`packs.toml`: what every edit of it must keep."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from arcface_api.errors import PackError
from arcface_api.packs import Licence, Role, registry
from arcface_api.packs.finding import SHIPPED_DIR
from arcface_api.packs.manifest import Manifest, read_pack_toml, write_pack_toml

PACKS = list(registry().values())


def test_the_packs_that_are_promised_are_there_the_default_first() -> None:
    assert [pack.name for pack in PACKS] == [
        "antelopev2",
        "buffalo_l",
        "buffalo_m",
        "buffalo_s",
        "buffalo_sc",
        "auraface",
        "open",
    ]


def test_antelopev2_is_pinned_to_the_known_files() -> None:
    pack = registry()["antelopev2"]
    assert pack.model == "antelopev2_glint360k"
    assert [(file.name, file.role, file.size_bytes, file.sha256) for file in pack.files] == [
        (
            "glintr100.onnx",
            Role.RECOGNISER,
            260665334,
            "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
        ),
        (
            "genderage.onnx",
            Role.AGE_GENDER,
            1322532,
            "4fde69b1c810857b88c64a335084f1c3fe8f01246c9a191b48c7bb756d6652fb",
        ),
        (
            "1k3d68.onnx",
            Role.LANDMARKS_3D,
            143607619,
            "df5c06b8a0c12e422b2ed8947b8869faa4105387f199c477af038aa01f9a45cc",
        ),
    ]
    assert [(f.input.height, f.input.mean, f.input.std, f.output_dim) for f in pack.files] == [
        (112, 127.5, 127.5, 512), (96, 0, 1, 3), (192, 0, 1, 3309)
    ]  # fmt: skip
    assert pack.sources[0].sha256 == "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5"


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_every_threshold_says_on_what_and_by_whom_it_was_measured(pack: Manifest) -> None:
    assert list(pack.thresholds) == sorted(pack.thresholds, key=lambda threshold: threshold.similarity)
    assert [threshold.far for threshold in pack.thresholds] == sorted(
        (threshold.far for threshold in pack.thresholds), reverse=True
    )
    for threshold in pack.thresholds:
        assert threshold.data_set
        assert (threshold.basis == "published") == (pack.name != "open")
        assert threshold.basis == "measured" or str(threshold.source).startswith("https://")


def test_packs_with_the_same_recogniser_have_the_same_thresholds() -> None:
    """And those of which nobody published any have none."""
    of = {pack.name: pack.thresholds for pack in PACKS}
    assert of["buffalo_l"] == of["buffalo_m"] != ()
    assert of["auraface"] not in ((), of["buffalo_l"])
    assert of["antelopev2"] == of["buffalo_s"] == of["buffalo_sc"] == ()


@pytest.mark.parametrize("missing", ["data_set", "source"])
def test_a_published_threshold_without_its_source_is_refused(missing: str, tmp_path: Path) -> None:
    published = {"far": 0.001, "similarity": 0.2, "basis": "published", "data_set": "LFW", "source": "https://host"}
    del published[missing]
    write_pack_toml(replace(registry()["antelopev2"], sources=()), tmp_path / "pack.toml")
    given = tomllib.loads((tmp_path / "pack.toml").read_text()) | {"thresholds": [published]}
    (tmp_path / "pack.toml").write_text(tomli_w.dumps(given))
    with pytest.raises(PackError, match=r"thresholds.*: a published threshold needs a data_set and a source"):
        read_pack_toml(tmp_path / "pack.toml")


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_every_pack_can_be_pulled_or_is_part_of_the_package(pack: Manifest) -> None:
    assert all(source.url.startswith("https://") for source in pack.sources)
    is_shipped = (SHIPPED_DIR / pack.name).is_dir()
    from_archive = any(source.file is None for source in pack.sources)
    assert is_shipped or from_archive or {file.name for file in pack.files} <= {source.file for source in pack.sources}
    assert pack.licence.notice
    assert all(file.provenance for file in pack.files)
    assert pack.licence.url.startswith("https://")


def test_the_same_bytes_are_described_in_the_same_way_everywhere() -> None:
    described: dict[str, set[object]] = {}
    for pack in PACKS:
        for file in pack.files:
            if file.sha256 is not None:
                licence: Licence = pack.licence
                described.setdefault(file.sha256, set()).add(
                    (file.role, file.input, file.size_bytes, file.output_dim, licence)
                )
    assert all(len(descriptions) == 1 for descriptions in described.values())


def test_a_model_name_belongs_to_one_recogniser() -> None:
    recognisers: dict[str, set[str | None]] = {}
    for pack in PACKS:
        recogniser = pack.file(Role.RECOGNISER)
        assert recogniser is not None
        recognisers.setdefault(pack.model, set()).add(recogniser.sha256)
    assert all(len(hashes) == 1 for hashes in recognisers.values())


def test_packs_for_commercial_use_have_no_file_of_insightface() -> None:
    assert [pack.name for pack in PACKS if pack.licence.allows_commercial_use] == ["auraface", "open"]
    assert {file.role for file in registry()["auraface"].files} == {Role.RECOGNISER}
    assert {file.role for file in registry()["open"].files} == {Role.RECOGNISER, Role.AGE, Role.GENDER}


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_a_manifest_survives_being_written(pack: Manifest, tmp_path: Path) -> None:
    write_pack_toml(pack, tmp_path / "pack.toml")
    assert read_pack_toml(tmp_path / "pack.toml") == pack
