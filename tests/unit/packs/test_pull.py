"""`pull`: every way a source can fail, and what is on the disk and in the message afterwards."""

import errno
import logging
import os
import shutil
import socket
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from arcface_api.errors import PackError, StorageFull
from arcface_api.packs import InstalledPack, PackLocations, Role, download, pull
from arcface_api.packs.download import Wanted
from arcface_api.packs.install import publish, staging
from arcface_api.packs.manifest import Source
from packs import file_server as answers
from packs.file_server import FileServer
from packs.small_packs import (
    AGE_GENDER,
    DETECTOR,
    LANDMARKS,
    RECOGNISER,
    archive,
    contents,
    known,
    model_bytes,
    sha256,
    tiny_pack,
    with_sources,
    write_files,
)

Pull = Callable[..., InstalledPack]


@pytest.fixture
def pulled(locations: PackLocations, monkeypatch: pytest.MonkeyPatch) -> Pull:
    """Pull the tiny pack from these sources, without pauses between attempts."""
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0)

    def run(*sources: Source, pinned: bool = True, read_seconds: float = download.READ_SECONDS) -> InstalledPack:
        monkeypatch.setattr(download, "READ_SECONDS", read_seconds)
        packs = with_sources(*sources, pinned=pinned)
        return pull("tiny", replace(locations, known=packs), accepted_licences=frozenset({"tiny"}))

    return run


def files_in(pack: InstalledPack) -> set[str]:
    return {path.name for path in pack.folder.iterdir()}


def refused(pulled: Pull, *sources: Source, **options: object) -> str:
    """The message of a pull that no source could serve; nothing may be installed."""
    with pytest.raises(PackError, match=r"^No source gave tiny") as caught:
        pulled(*sources, **options)
    return str(caught.value)


def nothing_installed(locations: PackLocations) -> bool:
    return not (locations.writable / "tiny").exists() and not list(locations.writable.glob(".tiny.*.tmp"))


# ── what works ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["", "tiny/", "some/where/else/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_flat_or_nested_becomes_a_flat_folder_of_what_is_needed(
    server: FileServer, pulled: Pull, prefix: str, method: int
) -> None:
    url = server.put("/tiny.zip", archive(prefix=prefix, method=method))
    pack = pulled(Source(url))
    assert files_in(pack) == {RECOGNISER, AGE_GENDER, LANDMARKS}
    assert pack.origin == "cache"
    assert all(check.is_good for check in pack.verify())
    assert pack.read(Role.RECOGNISER).content == contents()[RECOGNISER]


def test_members_are_chosen_by_hash_whatever_they_are_called(server: FileServer, pulled: Pull) -> None:
    decoy = {RECOGNISER: b"\x08" * len(contents()[RECOGNISER])}
    renamed = {"a.onnx": contents()[LANDMARKS], "b.onnx": contents()[RECOGNISER], "x/c.onnx": contents()[AGE_GENDER]}
    members = decoy | renamed
    pack = pulled(Source(server.put("/tiny.zip", archive(members))))
    assert pack.read(Role.RECOGNISER).content == contents()[RECOGNISER]


def test_single_files_under_other_names_make_the_same_pack(server: FileServer, pulled: Pull) -> None:
    pack = pulled(
        Source(server.put("/recognition/model.onnx", contents()[RECOGNISER]), RECOGNISER),
        Source(server.put("/a", contents()[AGE_GENDER]), AGE_GENDER),
        Source(server.put("/b", contents()[LANDMARKS]), LANDMARKS),
    )
    assert files_in(pack) == {RECOGNISER, AGE_GENDER, LANDMARKS}
    assert not list((pack.folder.parent / ".downloads").iterdir())


def test_sources_complete_each_other_in_order(server: FileServer, pulled: Pull) -> None:
    some = archive({name: contents()[name] for name in (RECOGNISER, DETECTOR)})
    rest = archive({name: contents()[name] for name in (AGE_GENDER, LANDMARKS)})
    pack = pulled(
        Source(server.put("/dead.zip", answers.missing)),
        Source(server.put("/some.zip", some)),
        Source(server.put("/never", contents()[RECOGNISER]), RECOGNISER),
        Source(server.put("/rest.zip", rest)),
    )
    assert files_in(pack) == {RECOGNISER, AGE_GENDER, LANDMARKS}
    assert server.count("/never") == 0


def test_an_unexpected_archive_with_the_right_files_is_fine(server: FileServer, pulled: Pull) -> None:
    url = server.put("/tiny.zip", archive(prefix="repacked/"))
    pack = pulled(Source(url, sha256=sha256(b"the official one"), size_bytes=5))
    assert all(check.is_good for check in pack.verify())


def test_redirects_are_followed(server: FileServer, pulled: Pull) -> None:
    server.put("/real.zip", archive())
    pulled(Source(server.put("/tiny.zip", answers.redirect("/real.zip"))))
    assert server.count("/real.zip") == 1


def test_progress_ends_at_the_total(server: FileServer, locations: PackLocations) -> None:
    content = archive()
    reported: list[tuple[str, float, float | None]] = []
    packs = with_sources(Source(server.put("/tiny.zip", content)))
    pull(
        "tiny", replace(locations, known=packs), accepted_licences=frozenset({"tiny"}),
        progress=lambda what, done, total: reported.append((what, done, total)),
    )  # fmt: skip
    downloading = [(done, total) for what, done, total in reported if what == "Downloading tiny.zip from 127.0.0.1"]
    assert [done for done, _ in downloading] == sorted(done for done, _ in downloading)
    assert {total for _, total in downloading} == {downloading[-1][0]} == {len(content)}
    assert f"Unpacking {RECOGNISER}" in {what for what, _, _ in reported}


def test_a_whole_pack_is_not_downloaded_again(server: FileServer, pulled: Pull) -> None:
    url = server.put("/tiny.zip", archive())
    first, second = pulled(Source(url)), pulled(Source(url))
    assert first == second
    assert server.count("/tiny.zip") == 1


def test_a_damaged_file_is_replaced_and_the_good_ones_are_kept(server: FileServer, pulled: Pull) -> None:
    pack = pulled(Source(server.put("/tiny.zip", archive())))
    (pack.folder / AGE_GENDER).write_bytes(b"\x08" * len(contents()[AGE_GENDER]))
    again = pulled(Source(server.put("/a", contents()[AGE_GENDER]), AGE_GENDER))
    assert all(check.is_good for check in again.verify())
    assert files_in(again) == {RECOGNISER, AGE_GENDER, LANDMARKS}


def test_what_insightface_has_is_used_and_completed(server: FileServer, pulled: Pull, locations: PackLocations) -> None:
    write_files(locations.insightface_dir / "tiny" / "tiny", RECOGNISER, LANDMARKS)
    pack = pulled(Source(server.put("/a", contents()[AGE_GENDER]), AGE_GENDER))
    assert pack.origin == "cache"
    assert all(check.is_good for check in pack.verify())
    write_files(locations.insightface_dir / "tiny" / "tiny")
    shutil.rmtree(locations.cache_dir)
    assert pulled().origin == "insightface"


def test_models_dir_is_where_it_goes(server: FileServer, tmp_path: Path) -> None:
    packs = with_sources(Source(server.put("/tiny.zip", archive())))
    places = PackLocations(tmp_path / "models", tmp_path / "cache", tmp_path / "insightface", packs)
    pack = pull("tiny", places, accepted_licences=frozenset({"tiny"}))
    assert (pack.folder, pack.origin) == (tmp_path / "models" / "tiny", "models_dir")


# ── resuming ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: FileServer, pulled: Pull) -> None:
    content = archive()
    url = server.put("/tiny.zip", answers.breaks(content, at=600_000))
    pulled(Source(url, sha256=sha256(content)))
    start = server.asked[1][1]
    assert start is not None
    assert 0 < start <= 600_000


def test_a_later_run_goes_on_with_what_an_earlier_one_left(server: FileServer, pulled: Pull) -> None:
    content = archive()
    url = server.put("/tiny.zip", answers.stalls(content, at=700_000))
    source = Source(url, sha256=sha256(content))
    assert "silent" in refused(pulled, source, read_seconds=2)
    server.put("/tiny.zip", content)
    pulled(source)
    assert server.asked[-1] == ("/tiny.zip", 700_000)


def test_another_mirror_goes_on_with_a_file_whose_hash_is_known(server: FileServer, pulled: Pull) -> None:
    content = contents()[RECOGNISER]
    pulled(
        Source(server.put("/one", answers.breaks(content, at=500_000, then=answers.missing)), RECOGNISER),
        Source(server.put("/two", answers.good(content, etag='"two"')), RECOGNISER),
        Source(server.put("/rest.zip", archive())),
    )
    assert ("/two", 500_000) in server.asked
    assert ("/two", 206) in server.answered


def test_without_ranges_it_begins_again(server: FileServer, pulled: Pull) -> None:
    content = archive()
    url = server.put("/tiny.zip", answers.breaks(content, at=600_000, then=answers.without_ranges(content)))
    pack = pulled(Source(url, sha256=sha256(content)))
    assert all(check.is_good for check in pack.verify())


def test_a_server_that_sends_another_range_is_not_believed(server: FileServer, pulled: Pull) -> None:
    content = contents()[RECOGNISER]
    url = server.put("/face", answers.breaks(content, at=600_000, then=answers.wrong_range(content)))
    rest = archive({name: contents()[name] for name in (AGE_GENDER, LANDMARKS)})
    pack = pulled(Source(url, RECOGNISER), Source(server.put("/rest.zip", rest)), pinned=False)
    assert server.asked[1][1] is not None
    assert pack.read(Role.RECOGNISER).content == content


def test_a_file_that_changed_in_between_is_not_joined_with_the_old_one(server: FileServer, pulled: Pull) -> None:
    old, new = archive(prefix="old/"), archive(prefix="new/")
    url = server.put("/tiny.zip", answers.breaks(old, at=600_000, then=answers.good(new, etag='"two"')))
    pack = pulled(Source(url))
    assert server.asked[1][1] is not None
    assert all(check.is_good for check in pack.verify())


def test_killed_while_beginning_again_the_old_part_is_not_taken_for_the_new_file(
    server: FileServer, pulled: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = model_bytes(112, 128, seed=2, ballast=900_000), contents()[RECOGNISER]
    rest = archive({name: contents()[name] for name in (AGE_GENDER, LANDMARKS)})
    url = server.put("/face", answers.stalls(old, at=500_000))
    sources = Source(url, RECOGNISER), Source(server.put("/rest.zip", rest))
    refused(pulled, *sources, pinned=False, read_seconds=2)
    server.put("/face", answers.good(new, etag='"two"'))

    note = download._note

    def killed(wanted: Wanted, headers: Mapping[str, str]) -> None:
        note(wanted, headers)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_note", killed)
        with pytest.raises(KeyboardInterrupt):
            pulled(*sources, pinned=False)
    assert pulled(*sources, pinned=False).read(Role.RECOGNISER).content == new


def test_a_part_that_does_not_add_up_is_thrown_away(server: FileServer, pulled: Pull, locations: PackLocations) -> None:
    content = contents()[RECOGNISER]
    part = locations.cache_dir / ".downloads" / f"tiny-{sha256(content)[:32]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\x08" * 1000)
    pulled(Source(server.put("/face", content), RECOGNISER), Source(server.put("/rest.zip", archive())))
    assert server.asked[:2] == [("/face", 1000), ("/face", None)]


def test_an_archive_that_was_whole_when_the_process_died_is_not_downloaded_again(
    server: FileServer, pulled: Pull, locations: PackLocations
) -> None:
    content = archive()
    part = locations.cache_dir / ".downloads" / f"tiny-{sha256(content)[:32]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    pulled(Source(server.put("/tiny.zip", answers.missing), sha256=sha256(content)))
    assert server.asked == []


# ── sources that fail ──────────────────────────────────────────────────────────────────────────────────────────────


def test_every_reason_is_in_the_message_with_the_way_out(
    server: FileServer, pulled: Pull, locations: PackLocations
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/tiny.zip"
        message = refused(
            pulled,
            Source(server.put("/gone/tiny.zip", answers.missing)),
            Source(nobody),
            Source(server.put("/page.zip", answers.page)),
        )
    assert message.splitlines()[0] == f"No source gave tiny (still missing: {RECOGNISER}, {AGE_GENDER}, {LANDMARKS}):"
    assert f"{server.url}/gone/tiny.zip answered 404 Not Found." in message
    assert f"{nobody} cannot be reached" in message
    assert f"{server.url}/page.zip is a web page" in message
    assert message.endswith("run `arcface-api packs import tiny.zip`; or try again later.")
    assert nothing_installed(locations)


def test_credentials_and_signatures_stay_out_of_messages(server: FileServer, pulled: Pull) -> None:
    server.put("/tiny.zip?sig=secret", answers.missing)
    url = server.url.replace("://", "://me:word@") + "/tiny.zip?sig=secret"
    message = refused(pulled, Source(url))
    assert f"{server.url}/tiny.zip answered 404" in message
    assert "secret" not in message
    assert "word" not in message


def test_corrupt_bytes_are_refused(server: FileServer, pulled: Pull, locations: PackLocations) -> None:
    corrupt = contents()[RECOGNISER][:-1] + b"\x00"
    message = refused(pulled, Source(server.put("/face", corrupt), RECOGNISER))
    assert (
        f"/face sends another file: its SHA-256 is {sha256(corrupt)}, it must be {sha256(contents()[RECOGNISER])}"
        in message
    )
    assert nothing_installed(locations)
    assert not list((locations.cache_dir / ".downloads").iterdir())


def test_a_corrupt_archive_is_refused_and_forgotten(server: FileServer, pulled: Pull, locations: PackLocations) -> None:
    content = bytearray(archive())
    content[100_000:100_010] = b"0123456789"
    source = Source(server.put("/tiny.zip", bytes(content)), sha256=sha256(archive()))
    assert "cannot be unpacked (Bad CRC-32" in refused(pulled, source)
    assert not list((locations.cache_dir / ".downloads").glob("*.part"))
    server.put("/tiny.zip", archive())
    assert all(check.is_good for check in pulled(source).verify())


def test_a_file_of_the_wrong_size_is_refused_before_it_is_downloaded(server: FileServer, pulled: Pull) -> None:
    content = contents()[RECOGNISER]
    message = refused(
        pulled,
        Source(server.put("/short", content[:-100]), RECOGNISER),
        Source(server.put("/long", content + b"\x00"), RECOGNISER),
    )
    assert f"/short is cut short: it has {len(content) - 100} bytes, it must have {len(content)}." in message
    assert f"/long is another file: it has {len(content) + 1} bytes, it must have {len(content)}." in message


def test_more_bytes_than_announced_are_not_taken(server: FileServer, pulled: Pull, locations: PackLocations) -> None:
    message = refused(pulled, Source(server.put("/face", answers.endless), RECOGNISER))
    assert f"/face sends more than the {len(contents()[RECOGNISER])} bytes it should." in message
    parts = (locations.cache_dir / ".downloads").glob("*.part")
    assert all(part.stat().st_size <= len(contents()[RECOGNISER]) for part in parts)


def test_a_server_that_ends_early_is_named(server: FileServer, pulled: Pull) -> None:
    content = contents()[RECOGNISER]
    message = refused(pulled, Source(server.put("/face", answers.breaks(content, at=0, times=99)), RECOGNISER))
    assert "/face broke off: the connection broke" in message


def test_a_silent_server_is_left(server: FileServer, pulled: Pull) -> None:
    message = refused(pulled, Source(server.put("/tiny.zip", answers.stalls(archive(), at=10))), read_seconds=2)
    assert "/tiny.zip broke off: it was silent for too long." in message


def test_an_lfs_pointer_is_named(server: FileServer, pulled: Pull) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4ab1\nsize 260665334\n"
    message = refused(pulled, Source(server.put("/face", pointer), RECOGNISER))
    assert "/face is a Git LFS pointer" in message


def test_an_archive_without_the_files_is_named(server: FileServer, pulled: Pull) -> None:
    message = refused(pulled, Source(server.put("/tiny.zip", archive({DETECTOR: contents()[DETECTOR]}))))
    assert f"/tiny.zip does not have {RECOGNISER}, {AGE_GENDER}, {LANDMARKS}" in message


def test_what_is_no_archive_is_named(server: FileServer, pulled: Pull) -> None:
    assert "/tiny.zip is not a complete zip archive" in refused(
        pulled, Source(server.put("/tiny.zip", archive()[:-50]))
    )


def test_redirects_in_a_circle_end(server: FileServer, pulled: Pull) -> None:
    message = refused(pulled, Source(server.put("/tiny.zip", answers.redirect("/tiny.zip"))))
    assert "/tiny.zip redirects more than 10 times." in message


def test_a_redirect_from_https_to_http_is_refused(pulled: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://mirror.example/tiny.zip"})

    client = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **options: client(**options | {"transport": httpx.MockTransport(answer)})
    )
    message = refused(pulled, Source("https://example.org/tiny.zip"))
    assert "https://example.org/tiny.zip redirects from https to http" in message
    assert asked == ["https://example.org/tiny.zip"]


# ── files that nobody pins ─────────────────────────────────────────────────────────────────────────────────────────


def test_unpinned_files_are_trusted_once_and_said_aloud(
    server: FileServer, pulled: Pull, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "arcface_api.packs"):
        pack = pulled(Source(server.put("/tiny.zip", archive(prefix="tiny/"))), pinned=False)
    assert files_in(pack) == {RECOGNISER, AGE_GENDER, LANDMARKS, "pack.lock.toml"}
    assert (
        f"{RECOGNISER} of tiny is not pinned and is trusted as it came: SHA-256 {sha256(contents()[RECOGNISER])}"
        in caplog.text
    )
    assert [check.message for check in pack.verify()] == ["as at its first use"] * 3


def test_unpinned_files_must_be_what_their_manifest_says(server: FileServer, pulled: Pull) -> None:
    members = {**contents(), AGE_GENDER: model_bytes(112, 64)}
    message = refused(pulled, Source(server.put("/tiny.zip", archive(members))), pinned=False)
    assert f"{AGE_GENDER} must take 96x96 and return 3" in message


def test_an_unpinned_file_may_not_change_when_its_pack_is_repaired(server: FileServer, pulled: Pull) -> None:
    source = Source(server.put("/tiny.zip", archive()))
    pack = pulled(source, pinned=False)
    (pack.folder / AGE_GENDER).unlink()
    server.put("/tiny.zip", archive({**contents(), RECOGNISER: model_bytes(112, 128, seed=9)}))
    message = refused(pulled, source, pinned=False)
    assert f"is not the {RECOGNISER} that was used before" in message
    assert "delete the installed pack first" in message


# ── what the person has to do ──────────────────────────────────────────────────────────────────────────────────────


def test_the_licence_has_to_be_accepted_first(server: FileServer, locations: PackLocations) -> None:
    packs = with_sources(Source(server.put("/tiny.zip", archive())))
    with pytest.raises(PackError) as caught:
        pull("tiny", replace(locations, known=packs), accepted_licences=frozenset({"another"}))
    assert str(caught.value) == (
        "The weights of tiny have their own licence, “Tiny licence” (https://example.org/licence). For tests only."
        " To accept it, run `arcface-api packs pull tiny --accept-license`, or set ARCFACE_ACCEPT_LICENSE=tiny."
    )
    assert server.asked == []
    assert not locations.cache_dir.exists()


def test_an_unknown_name_is_answered_with_the_known_ones(locations: PackLocations) -> None:
    packs = known(tiny_pack("antelopev2"), tiny_pack("buffalo_l"))
    with pytest.raises(PackError) as caught:
        pull("antelope2", replace(locations, known=packs), accepted_licences=frozenset())
    assert str(caught.value) == (
        "No registered pack is called 'antelope2'. Did you mean antelopev2? Registered are antelopev2, buffalo_l."
    )


def test_too_little_room_is_said_before_anything_is_downloaded(
    server: FileServer, pulled: Pull, locations: PackLocations, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(locations.cache_dir.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageFull, match=r"^The download needs \d MB in .*, and 0 MB are free\. Free some, or choose"):
        pulled(Source(server.put("/tiny.zip", archive())))
    assert nothing_installed(locations)


def test_too_little_room_for_the_files_that_are_kept_is_no_damage(
    server: FileServer, pulled: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(server.put("/tiny.zip", archive()))
    pack = pulled(source)
    (pack.folder / AGE_GENDER).unlink()
    usage = shutil.disk_usage(pack.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageFull, match=rf"^A copy of .*{RECOGNISER} needs 1 MB"):
        pulled(source)
    assert files_in(pack) == {RECOGNISER, LANDMARKS}
    assert server.count("/tiny.zip") == 1


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        (errno.ENOSPC, StorageFull, "There is no room left in"),
        (errno.EDQUOT, StorageFull, "There is no room left in"),
        (errno.EACCES, PackError, "cannot be written: Permission denied. Give the user that runs arcface-api"),
        (errno.EROFS, PackError, "cannot be written: Read-only file system. Give the user that runs arcface-api"),
    ],
)
def test_a_disk_that_refuses_is_explained(
    server: FileServer, pulled: Pull, monkeypatch: pytest.MonkeyPatch, number: int, error: type[PackError], said: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("arcface_api.packs.install.os.fsync", fail)
    with pytest.raises(error) as caught:
        pulled(Source(server.put("/tiny.zip", archive())))
    assert said in str(caught.value)
    assert "ARCFACE_MODELS_DIR" in str(caught.value)


def test_a_place_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = PackLocations(tmp_path / "file" / "models", tmp_path / "cache", tmp_path / "insightface", known())
    with pytest.raises(PackError, match=r"/file/models is a file, or lies in one"):
        pull("tiny", places, accepted_licences=frozenset({"tiny"}))


def test_what_dead_runs_left_behind_is_swept_and_nothing_else(
    server: FileServer, pulled: Pull, locations: PackLocations
) -> None:
    others = {".tiny.big.0123abcd.tmp", ".not.tiny.0123abcd.tmp", ".other.0123abcd.tmp"}
    for name in (".tiny.0123abcd.tmp", ".tiny.0123abcd.old", *others):
        (locations.cache_dir / name).mkdir(parents=True)
    pulled(Source(server.put("/tiny.zip", archive())))
    assert {path.name for path in locations.cache_dir.glob(".*.0123abcd.*")} == others


def test_a_pack_appears_by_one_rename(tmp_path: Path) -> None:
    staged = write_files(tmp_path / "staged")
    inode = staged.stat().st_ino
    publish(staged, tmp_path / "tiny")
    assert (tmp_path / "tiny").stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_pack_that_was_being_replaced_is_there_again(tmp_path: Path) -> None:
    """Killed between the two renames of `publish`, what was put aside is the only whole pack on this machine."""
    (tmp_path / ".tiny.01234567.old").mkdir()
    (tmp_path / ".tiny.01234567.old" / "model.onnx").write_bytes(b"whole")
    (tmp_path / ".tiny.76543210.old").mkdir()
    with staging(tmp_path, "tiny"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", ".tiny.lock"}


def test_pack_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, staged = tmp_path / "tiny", tmp_path / "staged"
    target.mkdir()
    (target / "model.onnx").write_bytes(b"whole")
    staged.mkdir()
    rename = Path.rename

    def refusing(path: Path, to: Path) -> Path:
        if path == staged:
            raise OSError("No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OSError, match="No space left"):
        publish(staged, target)
    assert (target / "model.onnx").read_bytes() == b"whole"
