"""`import_pack`: what a person without internet may bring, and what is refused."""

import io
import logging
import stat
import struct
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from arcface_api.errors import GraphUnfit, PackError, PackNotFound
from arcface_api.packs import PackLocations, Role, import_pack, locate
from packs.small_packs import (
    AGE_GENDER,
    DETECTOR,
    INSIGHTFACE_ROLES,
    LANDMARKS,
    LICENCE,
    RECOGNISER,
    archive,
    contents,
    known,
    model_bytes,
    odd_model,
    sha256,
    tiny_pack,
    write_files,
)

KNOWN = known()
OWN = model_bytes(112, 256, seed=5)


@pytest.fixture
def locations(tmp_path: Path) -> PackLocations:
    return PackLocations(None, tmp_path / "cache", tmp_path / "insightface", KNOWN)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def nothing_installed(locations: PackLocations) -> bool:
    return [path for path in locations.cache_dir.iterdir() if path.suffix != ".lock"] == []


# ── registered files ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["flat zip", "nested zip", "folder", "nested folder", "files", "renamed files"])
def test_registered_files_become_their_pack(locations: PackLocations, tmp_path: Path, kind: str) -> None:
    files = write_files(tmp_path / "brought", RECOGNISER, AGE_GENDER, LANDMARKS, DETECTOR)
    paths = {
        "flat zip": [put(tmp_path / "x.zip", archive())],
        "nested zip": [put(tmp_path / "x.zip", archive(prefix="a/b/", method=zipfile.ZIP_DEFLATED))],
        "folder": [files],
        "nested folder": [write_files(tmp_path / "outer" / "inner").parent],
        "files": [files / RECOGNISER, files / AGE_GENDER, files / LANDMARKS],
        "renamed files": [
            put(tmp_path / "renamed" / str(number), contents()[name])
            for number, name in enumerate((AGE_GENDER, RECOGNISER, LANDMARKS))
        ],
    }[kind]
    pack = import_pack(paths, locations)
    assert pack == locate("tiny", locations)
    assert {path.name for path in pack.folder.iterdir()} == {RECOGNISER, AGE_GENDER, LANDMARKS}
    assert all(check.is_good for check in pack.verify())


def test_the_detector_of_a_registered_archive_is_not_even_unpacked(
    locations: PackLocations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = zipfile.ZipFile.open

    def noted(self: zipfile.ZipFile, member: zipfile.ZipInfo) -> object:
        opened.append(member.filename)
        return real(self, member)

    path = put(tmp_path / "x.zip", archive())
    monkeypatch.setattr(zipfile.ZipFile, "open", noted)
    import_pack([path], locations)
    assert sorted(opened) == sorted([RECOGNISER, AGE_GENDER, LANDMARKS])


def test_a_part_of_a_registered_pack_is_enough_and_later_parts_add_to_it(
    locations: PackLocations, tmp_path: Path
) -> None:
    files = write_files(tmp_path / "brought")
    first = import_pack([files / RECOGNISER], locations)
    assert set(first.paths) == {Role.RECOGNISER}
    import_pack([files / RECOGNISER, files / AGE_GENDER], locations)
    last = import_pack([files / RECOGNISER, files / LANDMARKS], locations)
    assert set(last.paths) == INSIGHTFACE_ROLES
    assert all(check.is_good for check in last.verify())


def test_a_registered_pack_may_be_given_another_name(locations: PackLocations, tmp_path: Path) -> None:
    pack = import_pack([write_files(tmp_path / "brought")], locations, name="mine")
    assert (pack.manifest.name, pack.manifest.model, pack.manifest.is_pinned) == ("mine", "tiny_random", True)
    assert pack.manifest.licence == KNOWN["tiny"].licence
    assert locate("mine", locations) == pack


def test_packs_that_share_files_are_distinguished(locations: PackLocations, tmp_path: Path) -> None:
    large, small = tiny_pack("large"), replace(tiny_pack("small"), files=tiny_pack().files[:1])
    both = known(large, small)
    files = write_files(tmp_path / "brought")
    assert import_pack([files / RECOGNISER], replace(locations, known=both)).manifest.name == "small"
    assert import_pack([files], replace(locations, known=both)).manifest.name == "large"


def test_unpinned_files_of_a_registered_pack_are_recorded(locations: PackLocations, tmp_path: Path) -> None:
    tiny = tiny_pack()
    part = replace(tiny, files=(tiny.files[0], replace(tiny.files[1], sha256=None, size_bytes=None)))
    pack = import_pack([put(tmp_path / "tiny.zip", archive())], replace(locations, known=known(part)))
    assert pack.manifest == part
    assert [check.message for check in pack.verify()] == ["as its manifest states", "as at its first use"]


def test_files_of_others_that_came_with_a_registered_pack_are_left_out_unless_it_gets_a_name(
    locations: PackLocations, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    free = replace(LICENCE, name="Free", allows_commercial_use=True)
    face = replace(tiny_pack("face"), files=tiny_pack().files[:1], licence=free)
    others = replace(
        tiny_pack("others"), files=(replace(tiny_pack().files[0], sha256="0" * 64), *tiny_pack().files[1:])
    )
    folder = write_files(tmp_path / "face")
    with caplog.at_level(logging.INFO, "arcface_api.packs"):
        pack = import_pack([folder], replace(locations, known=known(face, others)))
    assert (pack.manifest, set(pack.paths)) == (face, {Role.RECOGNISER})
    assert "Left out: genderage.onnx does not belong to face; import with `--name` to have both." in caplog.text
    pack = import_pack([folder], replace(locations, known=known(face, others)), name="both")
    assert (set(pack.paths), pack.manifest.licence.name) == (INSIGHTFACE_ROLES, "Free and Tiny licence")
    assert not pack.manifest.licence.allows_commercial_use


# ── unknown files ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_unknown_files_get_a_pack_toml_with_every_assumption(
    locations: PackLocations, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = {"x/own.onnx": OWN, "x/ages.onnx": model_bytes(96, 3, inside=True), "x/det.onnx": contents()[DETECTOR]}
    with caplog.at_level(logging.INFO, "arcface_api.packs"):
        pack = import_pack([put(tmp_path / "our pack.zip", archive(members))], locations)
    assert {path.name for path in pack.folder.iterdir()} == {"own.onnx", "ages.onnx", "pack.toml"}
    assert "Left out: x/det.onnx has 1 input and 2 outputs." in caplog.text
    document = tomllib.loads((pack.folder / "pack.toml").read_text())
    assert (document["name"], document["model"]) == ("our_pack", "own")
    assert document["files"][0] == {
        "name": "own.onnx", "role": "recogniser", "output_dim": 256, "aliases": [],
        "size_bytes": len(OWN), "sha256": sha256(OWN),
        "input": {"name": "input", "height": 112, "width": 112, "mean": 127.5, "std": 127.5, "channel_order": "rgb"},
    }  # fmt: skip
    assert (document["files"][1]["input"]["mean"], document["files"][1]["input"]["std"]) == (0, 1)
    assert len(document["assumptions"]) == 7
    assert "x/own.onnx is fed (pixel - 127.5) / 127.5" in document["assumptions"][1]
    assert pack.manifest.is_pinned
    assert pack.read(Role.RECOGNISER).content == OWN


def test_files_of_the_same_name_are_kept_apart(locations: PackLocations, tmp_path: Path) -> None:
    put(tmp_path / "p" / "recognition" / "model.onnx", OWN)
    put(tmp_path / "p" / "ages" / "model.onnx", model_bytes(96, 3, seed=5))
    pack = import_pack([tmp_path / "p"], locations)
    assert {path.name for path in pack.folder.iterdir()} == {"model.onnx", "age_gender_model.onnx", "pack.toml"}
    assert all(check.is_good for check in pack.verify())


def test_two_files_of_the_same_name_from_two_folders_are_two_files(locations: PackLocations, tmp_path: Path) -> None:
    paths = [put(tmp_path / "a" / "model.onnx", OWN), put(tmp_path / "b" / "model.onnx", model_bytes(96, 3, seed=5))]
    assert set(import_pack(paths, locations, name="own").paths) == {Role.RECOGNISER, Role.AGE_GENDER}


def test_a_pack_may_be_called_import(locations: PackLocations, tmp_path: Path) -> None:
    path = put(tmp_path / "own.onnx", OWN)
    assert import_pack([path], locations, name="import").manifest.name == "import"


def test_an_imported_pack_can_be_brought_to_another_machine(locations: PackLocations, tmp_path: Path) -> None:
    pack = import_pack([put(tmp_path / "own.onnx", OWN)], locations)
    stated = pack.folder / "pack.toml"
    stated.write_text(stated.read_text().replace("std = 127.5", "std = 128.0"))
    there = PackLocations(tmp_path / "there", tmp_path / "cache2", tmp_path / "insightface", KNOWN)
    brought = import_pack([pack.folder], there)
    assert brought.manifest.files[0].input.std == 128
    assert brought.manifest.files[0].sha256 == sha256(OWN)
    (pack.folder / "own.onnx").write_bytes(model_bytes(112, 256, seed=6))
    with pytest.raises(PackError, match=r"Copy the folder again\."):
        import_pack([pack.folder], there, name="again")
    (pack.folder / "own.onnx").unlink()
    with pytest.raises(PackError, match=r"Copy the whole folder\."):
        import_pack([pack.folder], there, name="again")


def test_importing_the_same_again_changes_nothing(locations: PackLocations, tmp_path: Path) -> None:
    path = put(tmp_path / "own.onnx", OWN)
    assert import_pack([path], locations) == import_pack([path], locations)


# ── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_name_that_is_taken_is_refused(locations: PackLocations, tmp_path: Path) -> None:
    folder = import_pack([put(tmp_path / "own.onnx", OWN)], locations).folder
    with pytest.raises(PackError) as caught:
        import_pack([put(tmp_path / "b" / "own.onnx", model_bytes(112, 256, seed=6))], locations)
    assert str(caught.value) == (
        f"There is already another pack called own, in {folder}. Choose another name with `--name`, or delete that"
        " folder."
    )


def test_a_registered_name_is_refused_for_other_files(locations: PackLocations, tmp_path: Path) -> None:
    path = put(tmp_path / "own.onnx", OWN)
    for name, file in (("tiny", path), (None, put(tmp_path / "tiny.onnx", OWN))):
        with pytest.raises(PackError, match=r"^The name tiny belongs to a registered pack, .* Choose another"):
            import_pack([file], locations, name=name)
    assert nothing_installed(locations)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 65, "own.onnx"])
def test_a_malformed_name_is_refused(locations: PackLocations, tmp_path: Path, name: str) -> None:
    with pytest.raises(PackError, match=r"cannot be the name of a pack\. Use letters, digits"):
        import_pack([put(tmp_path / "own.onnx", OWN)], locations, name=name)


# ── refusals ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_there(locations: PackLocations, tmp_path: Path) -> None:
    with pytest.raises(PackNotFound, match=r"There is nothing at .*/gone\.zip\. Name zip archives, folders or"):
        import_pack([tmp_path / "gone.zip"], locations)


def test_a_named_file_that_fits_no_role_is_refused(locations: PackLocations, tmp_path: Path) -> None:
    files = [put(tmp_path / "own.onnx", OWN), put(tmp_path / "det.onnx", contents()[DETECTOR])]
    with pytest.raises(GraphUnfit, match=r"^det\.onnx has 1 input and 2 outputs\. A model must have one image input"):
        import_pack(files, locations)
    assert nothing_installed(locations)


def test_no_recogniser(locations: PackLocations, tmp_path: Path) -> None:
    members = {name: contents()[name] for name in (AGE_GENDER, DETECTOR)}
    with pytest.raises(PackError) as caught:
        import_pack([put(tmp_path / "some.zip", archive(members))], locations)
    assert str(caught.value).startswith(f"{tmp_path / 'some.zip'} has no recogniser, the model that turns a face into")
    assert "genderage.onnx is a model for age and gender." in str(caught.value)
    assert nothing_installed(locations)


def test_two_recognisers(locations: PackLocations, tmp_path: Path) -> None:
    paths = [put(tmp_path / "a.onnx", OWN), put(tmp_path / "b.onnx", model_bytes(112, 256, seed=6))]
    with pytest.raises(PackError, match=r"two files of which each is a recogniser: a\.onnx and b\.onnx"):
        import_pack(paths, locations)


@pytest.mark.parametrize("name", ["tiny.zip", "face.onnx"])
def test_a_web_page_and_a_pointer_are_named(locations: PackLocations, tmp_path: Path, name: str) -> None:
    with pytest.raises(PackError, match=r"is a web page, not a model or an archive; a login or error page was"):
        import_pack([put(tmp_path / name, b"<html><title>Sign in</title>")], locations)
    with pytest.raises(PackError, match=r"is a Git LFS pointer"):
        import_pack([put(tmp_path / name, b"version https://git-lfs.github.com/spec/v1\n")], locations)


def test_a_pointer_inside_an_archive_is_named(locations: PackLocations, tmp_path: Path) -> None:
    members = {"face.onnx": b"version https://git-lfs.github.com/spec/v1\noid sha256:4a\n"}
    with pytest.raises(PackError, match=r"face\.onnx in .*tiny\.zip is a Git LFS pointer"):
        import_pack([put(tmp_path / "tiny.zip", archive(members))], locations)


@pytest.mark.parametrize("cut", [10, 1000, -1, -30])
def test_a_part_of_an_archive_is_named(locations: PackLocations, tmp_path: Path, cut: int) -> None:
    with pytest.raises(PackError, match=r"is not a complete zip archive .* Only zip is supported"):
        import_pack([put(tmp_path / "tiny.zip", archive()[:cut])], locations)


def test_a_damaged_member_is_named(locations: PackLocations, tmp_path: Path) -> None:
    content = bytearray(archive())
    content[100_000:100_010] = b"0123456789"
    with pytest.raises(PackError, match=r"face\.onnx in .*tiny\.zip cannot be unpacked \(Bad CRC-32"):
        import_pack([put(tmp_path / "tiny.zip", bytes(content))], locations)
    assert nothing_installed(locations)


def test_an_encrypted_archive_is_named(locations: PackLocations, tmp_path: Path) -> None:
    content = bytearray(archive({"own.onnx": OWN}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    with pytest.raises(PackError, match=r"own\.onnx in .* cannot be unpacked .*encrypted"):
        import_pack([put(tmp_path / "own.zip", bytes(content))], locations)


@pytest.mark.parametrize("name", ["../own.onnx", "/etc/own.onnx", "a/../../own.onnx", "..\\own.onnx", "C:\\own.onnx"])
def test_names_that_escape_are_refused(locations: PackLocations, tmp_path: Path, name: str) -> None:
    with pytest.raises(PackError) as caught:
        import_pack([put(tmp_path / "own.zip", archive({"ok.onnx": OWN, name: OWN}))], locations)
    assert f"its member {name!r} would land outside the pack's folder" in str(caught.value)
    assert nothing_installed(locations)


def test_a_zip_bomb_is_refused_and_leaves_nothing(locations: PackLocations, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("own.onnx", "w") as member:
        for _ in range(80):
            member.write(bytes(1 << 20))
    with pytest.raises(PackError) as caught:
        import_pack([put(tmp_path / "own.zip", buffer.getvalue())], locations)
    assert "own.onnx in" in str(caught.value)
    assert "was not unpacked, it looks like a zip bomb" in str(caught.value)
    assert "Get the archive from its original source" in str(caught.value)
    assert nothing_installed(locations)


def test_many_small_bombs_are_refused_together_and_unread(locations: PackLocations, tmp_path: Path) -> None:
    """Members can share the same packed bytes: each may be allowed, and all of them fill a disk."""
    content = bytearray(archive({f"{number}.onnx": OWN for number in range(5)}))
    at = 0
    while (at := content.find(b"PK\x01\x02", at + 1)) > 0:
        struct.pack_into("<L", content, at + 24, 60 << 20)
    with pytest.raises(PackError, match=r"own\.zip was not unpacked, .* announce 5 models of 314572800 bytes together"):
        import_pack([put(tmp_path / "own.zip", bytes(content))], locations)
    assert nothing_installed(locations)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bounds_are_refused(locations: PackLocations, tmp_path: Path, method: int) -> None:
    """A kilobyte of them becomes a gigabyte in one piece, or an error of their own."""
    with pytest.raises(PackError, match=rf"own\.onnx in .* is packed by zip's method {method}\. .* pack it again"):
        import_pack([put(tmp_path / "own.zip", archive({"own.onnx": OWN}, method=method))], locations)
    assert nothing_installed(locations)


def test_a_member_whose_second_name_is_no_text_is_refused(locations: PackLocations, tmp_path: Path) -> None:
    content = archive({"ö.onnx": OWN}).replace("ö".encode(), b"\xff\xff", 1)  # the first of its two names
    with pytest.raises(PackError, match=r"ö\.onnx in .* cannot be unpacked \('utf-8' codec can't decode"):
        import_pack([put(tmp_path / "own.zip", content)], locations)


def test_an_archive_whose_directory_points_before_it_is_refused(locations: PackLocations, tmp_path: Path) -> None:
    content = bytearray(archive({"own.onnx": OWN}))
    struct.pack_into("<L", content, len(content) - 6, content.index(b"PK\x01\x02") + 10)  # the directory's place
    with pytest.raises(PackError, match=r"is not a complete zip archive \(its member 'own.onnx' would begin before"):
        import_pack([put(tmp_path / "own.zip", bytes(content))], locations)


def test_a_member_that_announces_too_much_is_refused_unread(locations: PackLocations, tmp_path: Path) -> None:
    content = bytearray(archive({"own.onnx": OWN}))
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, 0xFFFFFFF0)
    with pytest.raises(PackError, match=r"it announces 4294967280 bytes, 2147483648 are allowed"):
        import_pack([put(tmp_path / "own.zip", bytes(content))], locations)


def test_a_link_in_an_archive_is_not_followed(locations: PackLocations, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        link = zipfile.ZipInfo("own.onnx")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(PackError, match=r"has no recogniser, .* own\.onnx cannot be read as an ONNX model"):
        import_pack([put(tmp_path / "own.zip", buffer.getvalue())], locations)


def test_weights_in_a_second_file_are_refused(locations: PackLocations, tmp_path: Path) -> None:
    import onnx  # noqa: PLC0415 - only here

    model = onnx.load_from_string(OWN)
    for tensor in model.graph.initializer:
        tensor.data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(
        GraphUnfit, match=r"own\.onnx keeps its weights in a second file\. Save it with its weights inside"
    ):
        import_pack([put(tmp_path / "own.onnx", model.SerializeToString())], locations)


def test_a_graph_with_too_few_numbers_is_named(locations: PackLocations, tmp_path: Path) -> None:
    path = put(tmp_path / "own.onnx", odd_model(("n", 3, 160, 160), ("n", 5)))
    with pytest.raises(
        GraphUnfit, match=r"^own\.onnx takes 160x160 pixels and returns rows of 5 numbers\. A model must"
    ):
        import_pack([path], locations)
