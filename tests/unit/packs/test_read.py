"""`read` and `verify`: the bytes that are used are the bytes that were checked."""

import logging
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arcface_api.errors import PackError
from arcface_api.packs import InstalledPack, PackLocations, Role, locate
from arcface_api.packs.manifest import Source
from packs.small_packs import AGE_GENDER, RECOGNISER, contents, known, model_bytes, sha256, tiny_pack, write_files

PULLABLE = known(tiny_pack("tiny", Source("https://example.org/tiny.zip")))
UNPINNED = known(tiny_pack(pinned=False))


@pytest.fixture
def pack(locations: PackLocations) -> InstalledPack:
    write_files(locations.cache_dir / "tiny")
    return locate("tiny", replace(locations, known=PULLABLE))


def test_read_gives_the_verified_bytes(pack: InstalledPack) -> None:
    model = pack.read(Role.RECOGNISER)
    assert (model.content, model.sha256) == (contents()[RECOGNISER], sha256(contents()[RECOGNISER]))
    assert model.file == pack.manifest.files[0]
    assert "content" not in repr(model)


def test_a_file_is_opened_once(pack: InstalledPack, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real_open = Path.open

    def counted(self: Path, *args: Any) -> object:
        opened.append(self)
        return real_open(self, *args)

    monkeypatch.setattr(Path, "open", counted)
    pack.read(Role.RECOGNISER)
    assert opened == [pack.paths[Role.RECOGNISER]]


WHOLE = contents()[RECOGNISER]
PULL_AGAIN = "Run `arcface-api packs pull tiny --accept-license`, which replaces what is damaged."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WHOLE[:-1], f"is cut short: it has {len(WHOLE) - 1} bytes, it must have {len(WHOLE)}. {PULL_AGAIN}"),
        (b"", f"is cut short: it has 0 bytes, it must have {len(WHOLE)}. {PULL_AGAIN}"),
        (WHOLE + b"\x00\x00", f"is another file: it has {len(WHOLE) + 2} bytes, it must have {len(WHOLE)}."),
        (WHOLE[:-1] + b"\x01", f"it must be {sha256(WHOLE)}. {PULL_AGAIN}"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"<!doctype html>", "is a web page"),
    ],
)
def test_damaged_bytes_are_refused_with_the_remedy(pack: InstalledPack, content: bytes, said: str) -> None:
    path = pack.paths[Role.RECOGNISER]
    path.write_bytes(content)
    with pytest.raises(PackError) as caught:
        pack.read(Role.RECOGNISER)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert [(check.file.name, check.is_good) for check in pack.verify()] == [
        (RECOGNISER, False), (AGE_GENDER, True), ("1k3d68.onnx", True)
    ]  # fmt: skip
    assert said in pack.verify()[0].message


def test_a_pipe_in_the_place_of_a_model_does_not_block(pack: InstalledPack) -> None:
    path = pack.paths[Role.RECOGNISER]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PackError, match="is not a regular file"):
        pack.read(Role.RECOGNISER)


def test_a_file_that_vanished(pack: InstalledPack) -> None:
    pack.paths[Role.AGE_GENDER].unlink()
    with pytest.raises(PackError, match=r"genderage\.onnx cannot be read: No such file"):
        pack.read(Role.AGE_GENDER)


def test_verify_lists_every_file_of_the_manifest(locations: PackLocations) -> None:
    write_files(locations.cache_dir / "tiny", RECOGNISER)
    first, second, _ = locate("tiny", replace(locations, known=PULLABLE)).verify()
    assert (first.file.role, first.is_good, first.message) == (Role.RECOGNISER, True, "as its manifest states")
    assert (second.is_good, second.message) == (True, "not there: this role stays empty")


# ── trust on first use ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def unpinned(locations: PackLocations) -> InstalledPack:
    write_files(locations.cache_dir / "tiny")
    return locate("tiny", replace(locations, known=UNPINNED))


def test_the_first_use_is_recorded_and_said_aloud(unpinned: InstalledPack, caplog: pytest.LogCaptureFixture) -> None:
    assert unpinned.verify()[0].message == "not pinned, and not used yet: trusted at its first use"
    with caplog.at_level(logging.WARNING, "arcface_api.packs"):
        unpinned.read(Role.RECOGNISER)
    lock = unpinned.folder / "pack.lock.toml"
    assert caplog.messages == [
        f"{unpinned.folder / RECOGNISER} is not pinned and is trusted at its first use: SHA-256 {sha256(WHOLE)},"
        f" recorded in {lock}."
    ]
    recorded = tomllib.loads(lock.read_text())["files"]
    assert recorded[RECOGNISER]["sha256"] == sha256(WHOLE)
    assert recorded[RECOGNISER]["size_bytes"] == len(WHOLE)
    unpinned.read(Role.RECOGNISER)
    unpinned.read(Role.AGE_GENDER)
    assert len(caplog.messages) == 2
    assert set(tomllib.loads(lock.read_text())["files"]) == {RECOGNISER, AGE_GENDER}


def test_a_later_change_is_refused(unpinned: InstalledPack) -> None:
    unpinned.read(Role.RECOGNISER)
    other = model_bytes(112, 128, seed=4)
    (unpinned.folder / RECOGNISER).write_bytes(other)
    with pytest.raises(PackError) as caught:
        unpinned.read(Role.RECOGNISER)
    assert str(caught.value) == (
        f"{unpinned.folder / RECOGNISER} has changed since its first use: its SHA-256 is {sha256(other)}, recorded was"
        f" {sha256(WHOLE)}. If you replaced it on purpose, delete {unpinned.folder / 'pack.lock.toml'}; if not, delete"
        " the pack and install it again."
    )
    assert not unpinned.verify()[0].is_good
    (unpinned.folder / "pack.lock.toml").unlink()
    unpinned.read(Role.RECOGNISER)


@pytest.fixture
def read_only(unpinned: InstalledPack, monkeypatch: pytest.MonkeyPatch) -> InstalledPack:
    """Root may write anywhere, so the refusal is made."""
    real = Path.write_text

    def refuse(self: Path, *args: str, **options: str) -> int:
        if self.parent == unpinned.folder:
            raise PermissionError(30, "Read-only file system")
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    return unpinned


def test_a_read_only_folder_is_recorded_in_the_cache(read_only: InstalledPack, locations: PackLocations) -> None:
    read_only.read(Role.RECOGNISER)
    assert not (read_only.folder / "pack.lock.toml").exists()
    (record,) = locations.records_dir.iterdir()
    (read_only.folder / RECOGNISER).write_bytes(model_bytes(112, 128, seed=4))
    with pytest.raises(PackError, match=record.name):
        read_only.read(Role.RECOGNISER)


@pytest.mark.parametrize("is_file", [True, False])
def test_when_nothing_can_be_recorded_it_is_said(
    read_only: InstalledPack, locations: PackLocations, caplog: pytest.LogCaptureFixture, *, is_file: bool
) -> None:
    if is_file:
        locations.records_dir.touch()
    else:
        locations.records_dir.symlink_to("/proc/self/nowhere")
    with caplog.at_level(logging.WARNING, "arcface_api.packs"):
        read_only.read(Role.RECOGNISER)
    assert "which could not be recorded, neither in" in caplog.text
    assert "a change will go unnoticed" in caplog.text


@pytest.mark.parametrize("text", ["not toml", "[files]\nx = 1", 'files = "x"', ""])
def test_a_record_that_cannot_be_understood_is_refused(unpinned: InstalledPack, text: str) -> None:
    lock = unpinned.folder / "pack.lock.toml"
    lock.write_text(text)
    with pytest.raises(PackError) as caught:
        unpinned.read(Role.RECOGNISER)
    assert str(caught.value).startswith(f"{lock} cannot be understood")
    assert "delete it" in str(caught.value)


def test_a_file_replaced_between_inspection_and_reading_is_refused(locations: PackLocations, tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(model_bytes(112, 256))
    pack = locate(path, replace(locations, known=PULLABLE))
    path.write_bytes(model_bytes(112, 256, seed=3))
    with pytest.raises(PackError, match=r"own\.onnx was replaced while it was being opened"):
        pack.read(Role.RECOGNISER)
