"""`locate` and `installed_packs`: every place and layout in which a pack can lie, and what is said when it does not."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from arcface_api.arrays import InputSpec
from arcface_api.errors import GraphUnfit, PackError, PackNotFound
from arcface_api.packs import PackLocations, Role, import_pack, installed_packs, locate
from arcface_api.packs.finding import SHIPPED_DIR
from conftest import MODELS
from packs.small_packs import (
    AGE_GENDER,
    DETECTOR,
    INSIGHTFACE_ROLES,
    LANDMARKS,
    RECOGNISER,
    archive,
    contents,
    known,
    model_bytes,
    odd_model,
    tiny_pack,
    write_files,
)

KNOWN = known()


@pytest.fixture
def everywhere(tmp_path: Path) -> PackLocations:
    return PackLocations(tmp_path / "models", tmp_path / "cache", tmp_path / "insightface", KNOWN)


@pytest.fixture
def locations(everywhere: PackLocations) -> PackLocations:
    return replace(everywhere, models_dir=None)


# ── by name ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_places_are_searched_in_order(everywhere: PackLocations) -> None:
    assert everywhere.models_dir is not None
    found = []
    for place in (everywhere.insightface_dir, everywhere.cache_dir, everywhere.models_dir):
        write_files(place / "tiny")
        pack = locate("tiny", everywhere)
        assert pack.folder == place / "tiny"
        found.append(pack.origin)
    assert found == ["insightface", "cache", "models_dir"]


def test_a_nested_folder_is_found(locations: PackLocations) -> None:
    folder = write_files(locations.insightface_dir / "tiny" / "tiny")
    assert locate("tiny", locations).folder == folder


def test_a_pack_without_optional_files_still_works(locations: PackLocations) -> None:
    write_files(locations.insightface_dir / "tiny", RECOGNISER, LANDMARKS)
    pack = locate("tiny", locations)
    assert set(pack.paths) == {Role.RECOGNISER, Role.LANDMARKS_3D}
    with pytest.raises(KeyError):
        pack.read(Role.AGE_GENDER)


def test_immichs_layout_is_found(locations: PackLocations) -> None:
    path = locations.cache_dir / "tiny" / "recognition" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(contents()[RECOGNISER])
    pack = locate("tiny", locations)
    assert pack.paths[Role.RECOGNISER] == path
    assert pack.read(Role.RECOGNISER).content == contents()[RECOGNISER]


def test_a_folder_without_recogniser_is_passed_over(everywhere: PackLocations) -> None:
    assert everywhere.models_dir is not None
    write_files(everywhere.models_dir / "tiny", AGE_GENDER)
    write_files(everywhere.cache_dir / "tiny")
    assert locate("tiny", everywhere).origin == "cache"


def test_a_folder_of_unregistered_files_can_be_named(everywhere: PackLocations) -> None:
    assert everywhere.models_dir is not None
    folder = everywhere.models_dir / "mine"
    folder.mkdir(parents=True)
    (folder / "own.onnx").write_bytes(model_bytes(112, 256, seed=5))
    pack = locate("mine", everywhere)
    assert (pack.origin, pack.manifest.name, pack.manifest.model) == ("models_dir", "mine", "own")


def test_a_missing_pack_is_answered_with_all_places_and_commands(everywhere: PackLocations) -> None:
    with pytest.raises(PackNotFound) as caught:
        locate("tiny", everywhere)
    assert str(caught.value).splitlines() == [
        "The pack 'tiny' is not on this machine.",
        "Looked in:",
        *(
            f"  - {place / nested}"
            for place in (everywhere.models_dir, everywhere.cache_dir, everywhere.insightface_dir)
            if place is not None
            for nested in ("tiny", "tiny/tiny")
        ),
        "Do one of these:",
        "  - download it: arcface-api packs pull tiny --accept-license",
        "  - let the service download it at start: ARCFACE_PULL=true ARCFACE_ACCEPT_LICENSE=tiny",
        "  - without internet, bring its files: arcface-api packs import FILES",
        "  - name a folder or recogniser file that you have: --pack /path",
        "  - use the open pack, which is part of this package and less accurate: --pack open",
    ]


def test_an_unknown_name_is_answered_with_close_ones(locations: PackLocations) -> None:
    with pytest.raises(PackNotFound, match=r"^There is no pack 'antilopev2', .* Did you mean antelopev2\?"):
        locate("antilopev2", replace(locations, known=known(tiny_pack("antelopev2"), tiny_pack("buffalo_l"))))
    with pytest.raises(PackNotFound, match=r"Registered are tiny\."):
        locate("zzz", locations)


def test_a_name_that_is_a_folder_here_is_not_a_path_but_is_mentioned(
    locations: PackLocations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackNotFound, match=r"write \./mine to mean it"):
        locate("mine", locations)
    assert locate("./mine", locations).origin == "path"


@pytest.mark.parametrize("name", ["", "a b", "tiny\n"])
def test_names_that_cannot_be_are_not_looked_for(locations: PackLocations, name: str) -> None:
    with pytest.raises(PackNotFound, match=r"^There is no pack") as caught:
        locate(name, locations)
    assert "Looked in" not in str(caught.value)


def test_the_default_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    places = PackLocations.default(Path("~/models"))
    assert [place for place, _ in places.places()] == [
        tmp_path / "models", tmp_path / "cache/arcface-api/packs", tmp_path / ".insightface/models", SHIPPED_DIR
    ]  # fmt: skip
    assert (places.writable, PackLocations.default(None).writable) == (tmp_path / "models", places.cache_dir)


# ── by path ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_at_a_path(locations: PackLocations, tmp_path: Path) -> None:
    with pytest.raises(PackNotFound, match=r"^There is nothing at .*/gone\.onnx\. Give `--pack` the path of a folder"):
        locate(tmp_path / "gone.onnx", locations)


def test_a_registered_recogniser_keeps_its_model_name_whatever_it_is_called(
    locations: PackLocations, tmp_path: Path
) -> None:
    path = tmp_path / "renamed.onnx"
    path.write_bytes(contents()[RECOGNISER])
    pack = locate(path, locations)
    assert pack.manifest.model == "tiny_random"
    assert [file.name for file in pack.manifest.files] == [RECOGNISER]
    assert pack.paths[Role.RECOGNISER] == path
    assert pack.read(Role.RECOGNISER).content == contents()[RECOGNISER]


def test_an_unregistered_recogniser_is_described_by_its_graph(locations: PackLocations, tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(model_bytes(112, 256))
    pack = locate(path, locations)
    (file,) = pack.manifest.files
    assert file.input == InputSpec("input", 112, 112, 127.5, 127.5)
    assert (file.role, file.output_dim, pack.manifest.model, pack.manifest.is_pinned) == (
        Role.RECOGNISER,
        256,
        "own",
        False,
    )
    assert not pack.manifest.licence.allows_commercial_use
    assert pack.manifest.assumptions == (
        "own.onnx is taken for a recogniser, because it takes 112x112 pixels and returns rows of 256 numbers.",
        "own.onnx is fed (pixel - 127.5) / 127.5, because its first nodes leave the values as they are, and most models"
        " are fed so.",
        "own.onnx is fed its colour planes in the order red, green, blue, because most models are.",
        "The pack reports 'own' as its model, after the name of own.onnx.",
    )


def test_nothing_is_written_beside_a_single_file(locations: PackLocations, tmp_path: Path) -> None:
    path = tmp_path / "models" / "own.onnx"
    path.parent.mkdir()
    path.write_bytes(model_bytes(112, 256))
    locate(path, locations).read(Role.RECOGNISER)
    assert list(path.parent.iterdir()) == [path]
    assert len(list(locations.records_dir.iterdir())) == 1


def test_no_file_can_take_a_registered_models_name(locations: PackLocations, tmp_path: Path) -> None:
    path = tmp_path / "tiny_random.onnx"
    path.write_bytes(model_bytes(112, 128, seed=7))
    assert locate(path, locations).manifest.model == "custom_tiny_random"


def test_a_graph_that_normalises_inside_is_fed_as_it_is(locations: PackLocations, tmp_path: Path) -> None:
    path = tmp_path / "inside.onnx"
    path.write_bytes(model_bytes(112, 64, inside=True))
    (file,) = locate(path, locations).manifest.files
    assert (file.input.mean, file.input.std) == (0, 1)


def test_another_models_file_is_not_a_recogniser(locations: PackLocations, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "files")
    with pytest.raises(PackError) as caught:
        locate(folder / AGE_GENDER, locations)
    assert str(caught.value) == (
        f"{folder / AGE_GENDER} is tiny's {AGE_GENDER}, a model for age and gender, not a recogniser."
        " Name the recogniser file, or the pack: `--pack tiny`."
    )
    unknown = tmp_path / "unknown.onnx"
    unknown.write_bytes(model_bytes(96, 3))
    with pytest.raises(PackError, match=r"unknown\.onnx is a model for age and gender\. Add the recogniser"):
        locate(unknown, locations)


def test_a_folder_of_registered_files_is_that_pack(locations: PackLocations, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "anything", RECOGNISER, AGE_GENDER, LANDMARKS, DETECTOR)
    pack = locate(folder, locations)
    assert pack.manifest == KNOWN["tiny"]
    assert set(pack.paths) == INSIGHTFACE_ROLES


def test_a_nested_folder_given_by_path_is_found(locations: PackLocations, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "tiny" / "tiny")
    pack = locate(folder.parent, locations)
    assert (pack.manifest.name, pack.paths[Role.RECOGNISER]) == ("tiny", folder / RECOGNISER)


def test_registered_and_unknown_files_together_keep_the_model_but_not_the_pack(
    locations: PackLocations, tmp_path: Path
) -> None:
    folder = write_files(tmp_path / "mixed", RECOGNISER)
    (folder / "own_age.onnx").write_bytes(model_bytes(96, 3, seed=8))
    pack = locate(folder, locations)
    assert (pack.manifest.name, pack.manifest.model) == ("mixed", "tiny_random")
    assert pack.manifest.licence.name == "Tiny licence and unknown"
    assert set(pack.paths) == {Role.RECOGNISER, Role.AGE_GENDER}


def test_two_recognisers_are_one_too_many(locations: PackLocations, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "two", RECOGNISER)
    (folder / "own.onnx").write_bytes(model_bytes(112, 128, seed=6))
    with pytest.raises(PackError) as caught:
        locate(folder, locations)
    assert str(caught.value) == (
        f"{folder} has two files of which each is a recogniser: face.onnx and own.onnx."
        " A pack has one: name the recogniser file itself, or take one of them away."
    )


def test_a_folder_without_recogniser_says_what_is_there(locations: PackLocations, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"It has no `\.onnx` file\. Add the recogniser's"):
        locate(tmp_path, locations)
    folder = write_files(tmp_path / "some", AGE_GENDER, DETECTOR)
    with pytest.raises(PackError) as caught:
        locate(folder, locations)
    assert "genderage.onnx is a model for age and gender. det.onnx has 1 input and 2 outputs. A model must" in str(
        caught.value
    )


def test_what_is_no_model_is_distinguished(locations: PackLocations, tmp_path: Path) -> None:
    path = tmp_path / "face.onnx"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4a\nsize 2\n")
    with pytest.raises(PackError, match=r"face\.onnx is a Git LFS pointer, .* Run `git lfs pull`"):
        locate(path, locations)
    path.write_bytes(b"\xef\xbb\xbf\r\n <html>")
    with pytest.raises(PackError, match=r"face\.onnx is a web page, not a model or an archive"):
        locate(path, locations)
    path.write_bytes(contents()[RECOGNISER][:-5])
    with pytest.raises(GraphUnfit, match=r"face\.onnx cannot be read as an ONNX model: it is damaged, cut short"):
        locate(path, locations)
    path.write_bytes(b"")
    with pytest.raises(GraphUnfit, match=r"face\.onnx has 0 inputs and 0 outputs"):
        locate(path, locations)


def test_an_archive_has_to_be_imported_first(locations: PackLocations, tmp_path: Path) -> None:
    path = tmp_path / "tiny.zip"
    path.write_bytes(archive())
    with pytest.raises(GraphUnfit, match=r"is a zip archive, not a model\. Import it with `arcface-api packs import /"):
        locate(path, locations)


def test_a_file_that_cannot_be_read(locations: PackLocations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "face.onnx"
    path.write_bytes(contents()[RECOGNISER])
    real_open = Path.open

    def refuse(self: Path, *args: Any) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return real_open(self, *args)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PackError, match=r"face\.onnx cannot be read: Permission denied\. The user that runs"):
        locate(path, locations)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            odd_model(("n", 1, 112, 112), ("n", 512)),
            "has the input 'in', float (n, 1, 112, 112). A model must have one image input",
        ),
        (
            odd_model(("n", 3, 112, 112), ("n", 512), kind=TensorProto.BOOL),
            "has the input 'in', bool (n, 3, 112, 112).",
        ),
        (odd_model(("n", 3, 112, 112), ("n", 1)), "takes 112x112 pixels and returns rows of 1 numbers. A model must"),
        (odd_model(("n", 3, 112, 112), ("n", 512), ("n", 99)), "has 1 input and 2 outputs. A model must"),
        (odd_model(("n", 3, 112, 112), ("n", 7, 7, 512)), "has the output 'out0', float (n, 7, 7, 512). A model must"),
        (
            odd_model(("n", 3, 192, 192), ("n", 212)),
            "takes 192x192 pixels and returns rows of 212 numbers. A model must",
        ),
    ],
)
def test_an_unexpected_input_or_output_is_named(
    locations: PackLocations, tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphUnfit) as caught:
        locate(path, locations)
    assert str(caught.value).startswith("odd.onnx ")
    assert said in str(caught.value)


# ── pack.toml ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def imported(locations: PackLocations, tmp_path: Path) -> Path:
    path = tmp_path / "own.onnx"
    path.write_bytes(model_bytes(112, 256))
    return import_pack([path], locations, name="own").folder


def test_a_pack_toml_is_used_as_it_stands(locations: PackLocations, imported: Path) -> None:
    text = (imported / "pack.toml").read_text()
    (imported / "pack.toml").write_text(text.replace("std = 127.5", "std = 128"))
    for pack in (locate("own", locations), locate(imported, locations)):
        assert pack.manifest.files[0].input.std == 128


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("std = 127.5", "std = 0", "files.0.input: height, width and std must be above 0"),
        ("std = 127.5", "", "files.0.input.std: Field required"),
        (
            "output_dim",
            "outputdim",
            "files.0.outputdim: is not a key of a manifest. Did you mean output_dim?",
        ),
        ('name = "own.onnx"', 'name = "../own.onnx"', "files.0.name: must be a plain name of letters"),
        ('role = "recogniser"', 'role = "detector"', "files.0.role"),
        ('role = "recogniser"', 'role = "age_gender"', "no file has the role 'recogniser', and a pack needs one"),
        ("mean = 127.5", "mean = 127.5\nstdd = 1", "files.0.input.stdd: is not a key of a manifest"),
        (
            "mean = 127.5",
            "meen = 127.5",
            "meen: is not a key of a manifest. Did you mean mean? Allowed there are name, height,",
        ),
        ("mean = 127.5", "mean = nan", "mean and std must be finite numbers"),
        ('model = "own"', 'model = "tiny_random"', "the model name 'tiny_random' belongs to the registered pack tiny"),
        ('sha256 = "', 'sha256 = "x', "files.0.sha256: must be 64 lowercase hexadecimal digits"),
        ('name = "own"', 'name = "o w n"', "name: must be a plain name of letters"),
        ("aliases = []", 'aliases = ["../own.onnx"]', "files.0.aliases.0: must stay inside the folder"),
        ("output_dim = 256", "output_dim = 0", "files.0.output_dim: Input should be greater than 0"),
        (
            "allows_commercial_use",
            "allows",
            "allows: is not a key of a manifest. Allowed there are name, url, allows_",
        ),
        (
            "title = ",
            "titel = ",
            "titel: is not a key of a manifest. Did you mean title? Allowed there are name, title",
        ),
        ("url = ", "urls = 1\nurl = ", "licence.urls: is not a key of a manifest"),
        ("output_dim", "= [", "cannot be read"),
    ],
)
def test_a_wrong_pack_toml_is_refused_with_its_place(
    locations: PackLocations, imported: Path, old: str, new: str, said: str
) -> None:
    text = (imported / "pack.toml").read_text()
    assert old in text
    (imported / "pack.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(PackError) as caught:
        locate("own", locations)
    assert str(imported / "pack.toml") in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("said", ["[" * 3000, "9" * 5000, "\xff", "1979-13-01"])
def test_a_pack_toml_that_cannot_be_read_is_refused(locations: PackLocations, imported: Path, said: str) -> None:
    (imported / "pack.toml").write_bytes(b"title = " + said.encode("latin-1"))
    with pytest.raises(PackError, match=r"pack\.toml cannot be read: .* Correct it, or import the pack again"):
        locate("own", locations)


def test_a_pack_toml_without_its_recogniser(locations: PackLocations, imported: Path) -> None:
    (imported / "own.onnx").unlink()
    with pytest.raises(PackError, match=r"own lacks the recogniser that its pack\.toml states"):
        locate(imported, locations)


# ── list ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_installed_is_listed_and_broken_packs_are_named(
    everywhere: PackLocations, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_files(everywhere.insightface_dir / "tiny" / "tiny")
    write_files(everywhere.cache_dir / "tiny")
    own = tmp_path / "own.onnx"
    own.write_bytes(model_bytes(112, 256))
    import_pack([own], everywhere)
    (everywhere.cache_dir / "broken").mkdir()
    (everywhere.cache_dir / "broken" / "pack.toml").write_text("name = 1")
    (everywhere.cache_dir / ".downloads").mkdir()
    with caplog.at_level(logging.WARNING, "arcface_api.packs"):
        found = installed_packs(everywhere)
    assert [(pack.manifest.name, pack.origin) for pack in found] == [
        ("own", "models_dir"), ("tiny", "cache"), ("tiny", "insightface")
    ]  # fmt: skip
    assert "broken" in caplog.text


# ── real models ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["w600k_mbf_from_int8", "edgeface_xs"])
def test_real_recognisers_are_described_by_their_graphs(locations: PackLocations, name: str) -> None:
    path = MODELS / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"needs {path}: real weights are not part of this project (set ARCFACE_TEST_MODELS)")
    pack = locate(path, PackLocations(None, locations.cache_dir, locations.insightface_dir))
    (file,) = pack.manifest.files
    assert (pack.manifest.model, file.role, file.output_dim) == (name, Role.RECOGNISER, 512)
    assert (file.input.height, file.input.width, file.input.mean, file.input.std) == (112, 112, 127.5, 127.5)
