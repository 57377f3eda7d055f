"""Promises of `ARCFACE_PACK_MIRROR`: nothing but the mirror is asked, and its files are verified as any others."""

from dataclasses import replace

import pytest

from arcface_api.errors import PackError, SettingInvalid
from arcface_api.packs import PackLocations, pull
from arcface_api.packs.manifest import Manifest, Source, mirrored, registry
from arcface_api.settings import read_settings
from packs.file_server import FileServer
from packs.small_packs import AGE_GENDER, LANDMARKS, RECOGNISER, archive, contents, known, sha256, tiny_pack

ORIGINAL = Source("https://nowhere.invalid/releases/v1/tiny.zip?download=1", sha256=sha256(archive()))


def pulled_from(server: FileServer, locations: PackLocations, manifest: Manifest) -> set[str]:
    packs = mirrored(known(manifest), f"{server.url}/packs")
    pack = pull("tiny", replace(locations, known=packs), accepted_licences=frozenset({"tiny"}))
    return {path.name for path in pack.paths.values()}


def test_archive_is_taken_under_its_registered_name(server: FileServer, locations: PackLocations) -> None:
    server.put("/packs/tiny.zip", archive())
    assert pulled_from(server, locations, tiny_pack("tiny", ORIGINAL)) == {RECOGNISER, AGE_GENDER, LANDMARKS}
    assert [path for path, _ in server.asked] == ["/packs/tiny.zip"]


@pytest.mark.parametrize("sources", [(ORIGINAL,), ()], ids=["archive registered", "none registered"])
def test_files_are_taken_under_their_registered_names(
    server: FileServer, locations: PackLocations, sources: tuple[Source, ...]
) -> None:
    for name in (RECOGNISER, AGE_GENDER, LANDMARKS):
        server.put(f"/packs/tiny/{name}", contents()[name])
    assert pulled_from(server, locations, tiny_pack("tiny", *sources)) == {RECOGNISER, AGE_GENDER, LANDMARKS}


def test_other_bytes_are_refused(server: FileServer, locations: PackLocations) -> None:
    wrong = bytes(reversed(contents()[RECOGNISER]))
    server.put(f"/packs/tiny/{RECOGNISER}", wrong)
    with pytest.raises(PackError, match=f"sends another file: its SHA-256 is {sha256(wrong)}"):
        pulled_from(server, locations, tiny_pack("tiny", ORIGINAL))


def test_every_registered_pack_has_a_place_on_a_mirror() -> None:
    mirror = "https://mirror.example/packs"
    for name, manifest in mirrored(registry(), mirror).items():
        urls = [source.url for source in manifest.sources]
        assert len(set(urls)) == len(urls)
        assert all(url.startswith(f"{mirror}/") for url in urls)
        assert {f"{mirror}/{name}/{file.name}" for file in manifest.files} <= set(urls)
    assert f"{mirror}/antelopev2.zip" in {source.url for source in mirrored(registry(), mirror)["antelopev2"].sources}


@pytest.mark.parametrize("mirror", ["http://mirror.example", "mirror.example", "https://", "ftp://x", "https://x?a=b"])
def test_mirror_without_tls_is_refused(mirror: str) -> None:
    with pytest.raises(SettingInvalid, match=r"--pack-mirror=.* it must begin with https://"):
        read_settings(pack_mirror=mirror)


def test_slash_at_the_end_means_nothing() -> None:
    assert read_settings(pack_mirror="https://mirror.example/packs/").pack_mirror == "https://mirror.example/packs"
