"""Promises of the checks of pack, files, sources, cache and memory."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from packs.file_server import FileServer, Request

from arcface_api.doctor import Places, Status, Subject
from arcface_api.packs import PackLocations, download, import_pack, registry
from doctor.conftest import control_group, findings, is_well, notes, problems, subject

CLOSED_PORT = "http://127.0.0.1:9"
PULL: dict[str, Any] = {"pull": True, "accept_license": "antelopev2"}


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A folder in which nobody can write, not even root: it would have to lie in a file."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"


def sparse(folder: Path, size_bytes: int) -> None:
    """A pack whose recogniser seems to have this size, without the room."""
    (folder / "antelopev2").mkdir(parents=True)
    with (folder / "antelopev2" / "glintr100.onnx").open("wb") as file:
        file.truncate(size_bytes)


# ── the pack and its files ─────────────────────────────────────────────────────────────────────────────────────────


def test_open_pack_is_well() -> None:
    for name in ("pack", "files", "sources", "memory"):
        assert is_well(name, subject(pack="open"))


def test_missing_pack_is_found_with_what_can_be_done(models_dir: Path) -> None:
    about = subject(models_dir=models_dir)
    assert problems("pack", about) == ["The pack 'antelopev2' is not on this machine."]
    assert "arcface-api packs pull antelopev2 --accept-license" in findings("pack", about)[0].remedy
    assert is_well("files", about)


def test_pack_that_does_not_exist_is_found() -> None:
    assert "There is no pack 'antelope'" in problems("pack", subject(pack="antelope"))[0]
    unknown = subject(pack="antelope", pull=True, accept_license="antelope")
    assert "There is no pack 'antelope'" in problems("pack", unknown)[0]  # which nothing will download
    assert "There is nothing at" in problems("pack", subject(pack="./nothing.onnx"))[0]


def test_pack_that_will_be_downloaded_is_noted(models_dir: Path) -> None:
    assert "it will be downloaded at the next start" in notes("pack", subject(models_dir=models_dir, **PULL))[0]


def test_folder_that_a_download_cannot_be_written_to_is_found(unwritable: Path) -> None:
    assert "The pack cannot be downloaded: " in problems("pack", subject(models_dir=unwritable, **PULL))[0]


def test_auto_without_antelopev2_is_noted(models_dir: Path) -> None:
    assert "the less accurate open pack is served" in notes("pack", subject(pack="auto", models_dir=models_dir))[0]
    pulled = subject(pack="auto", models_dir=models_dir, **PULL)
    assert notes("pack", pulled) == ["antelopev2 is not on this machine: it will be downloaded at the next start."]


def test_what_is_no_model_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.onnx").write_text("<html>Please log in</html>")
    assert "is a web page, not a model" in problems("pack", subject(pack=str(tmp_path / "page.onnx")))[0]


def test_assumptions_about_a_model_of_one_s_own_are_noted(tiny_recogniser: Path) -> None:
    assert notes("pack", subject(pack=str(tiny_recogniser)))[0].startswith("Assumed: ")


def test_damaged_file_is_found(models_dir: Path, tiny_recogniser: Path) -> None:
    import_pack([tiny_recogniser], PackLocations.default(models_dir), name="mine")
    about: dict[str, Any] = {"pack": "mine", "models_dir": models_dir}
    assert is_well("files", subject(**about))
    file = models_dir / "mine" / tiny_recogniser.name
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert "its SHA-256 is" in problems("files", subject(**about))[0]


def test_file_that_was_cut_short_is_found(models_dir: Path) -> None:
    sparse(models_dir, 1000)
    assert "glintr100.onnx is cut short: it has 1000 bytes" in problems("files", subject(models_dir=models_dir))[0]


def test_missing_file_of_a_pack_is_noted(models_dir: Path) -> None:
    shipped = PackLocations.default(None).places()[-1][0] / "open"
    shutil.copytree(shipped, models_dir / "open")
    age = next(path for path in (models_dir / "open").iterdir() if "age" in path.name)
    age.unlink()
    found = notes("files", subject(pack="open", models_dir=models_dir))
    assert found == [f"{age.name} is not there: no attributes are offered."]


# ── its sources ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def refusing_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sources are behind a proxy that refuses connections."""
    monkeypatch.setenv("HTTPS_PROXY", CLOSED_PORT)


@pytest.mark.usefixtures("refusing_proxy")
def test_sources_that_cannot_be_reached_are_a_problem_only_where_they_are_needed(models_dir: Path) -> None:
    about = subject(models_dir=models_dir, **PULL)
    sources = {source.url.split("/")[2] for source in registry()["antelopev2"].sources}
    assert len(sources) > 1
    (found,) = problems("sources", about)
    assert all(re.search(rf"{re.escape(source)}.* cannot be reached", found) for source in sources)
    sparse(models_dir, 1000)
    about = subject(models_dir=models_dir, **PULL)
    assert notes("sources", about) == [found]
    (noted,) = (each for each in findings("sources", about) if each.status is Status.NOTE)
    assert "set ARCFACE_PACK_MIRROR" in noted.remedy


def test_mirror_without_the_pack_is_found(server: FileServer, models_dir: Path) -> None:
    about = subject(models_dir=models_dir, pack_mirror=server.url, **PULL)
    assert any("answered 404" in what for what in problems("sources", about))


@pytest.mark.parametrize("path", ["/antelopev2.zip", "/antelopev2/glintr100.onnx"])
def test_mirror_with_the_pack_is_well(server: FileServer, models_dir: Path, path: str) -> None:
    server.put(path, b"x")
    assert is_well("sources", subject(models_dir=models_dir, pack_mirror=server.url, **PULL))


def silent(request: Request) -> None:
    request.server.stopped.wait()
    request.hang_up()


def test_silent_source_is_given_up_soon(server: FileServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "READ_SECONDS", 600.0)  # a download waits longer than this test may take
    server.put("/antelopev2.zip", silent)
    about = subject(models_dir=models_dir, pack_mirror=server.url, **PULL)
    assert any("no answer within 3 s" in what for what in problems("sources", about))


def test_wrong_proxy_variable_is_found(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://name:secret@host:no-number")
    found = problems("sources", subject(models_dir=models_dir, **PULL))
    assert any("HTTPS_PROXY is not the URL of a proxy" in what for what in found)
    assert not any("secret" in what for what in found)


def test_no_source_is_contacted_where_that_is_not_wanted(models_dir: Path, server: FileServer) -> None:
    settings = subject(models_dir=models_dir, pack_mirror=server.url).settings
    assert is_well("sources", Subject(given=settings, uses_network=False))
    assert server.asked == []


# ── cache and memory ───────────────────────────────────────────────────────────────────────────────────────────────


def test_cache_that_can_be_written_is_well_and_is_not_made(tmp_path: Path) -> None:
    assert is_well("cache", subject(pack="open", cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_cache_that_cannot_be_written_is_found(unwritable: Path) -> None:
    assert "Nothing can be kept for the next start" in problems("cache", subject(pack="open", cache_dir=unwritable))[0]


def test_full_disk_is_found(tmp_path: Path, models_dir: Path) -> None:
    """The pack is made to seem larger than what is free."""
    sparse(models_dir, shutil.disk_usage(tmp_path).free)
    about = subject(models_dir=models_dir, cache_dir=tmp_path / "cache")
    assert "compiled models need up to" in problems("cache", about)[0]


def test_too_little_memory_for_the_model_is_found(tmp_path: Path, models_dir: Path) -> None:
    sparse(models_dir, 260_665_334)

    def limited(name: str, megabytes: int, workers: int = 1) -> Subject:
        places = control_group(tmp_path / name, memory_max=str(megabytes * 10**6))
        return subject(places=places, models_dir=models_dir, workers=workers)

    assert problems("memory", limited("small", 512)) == [
        "The memory limit is 0.5 GB, and the models need about 0.9 GB for 1 worker, 2.3 GB at a first start: the kernel"
        " would end the service."
    ]
    assert "The memory limit is 1.0 GB; the models need" in notes("memory", limited("medium", 1000))[0]
    assert is_well("memory", limited("large", 3000))
    assert "for 4 workers" in problems("memory", limited("workers", 3000, workers=4))[0]


def test_memory_that_other_programs_take_is_noted(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 100000 kB\n")
    about = subject(places=Places(proc=tmp_path), pack="open")
    assert notes("memory", about)[0].startswith("0.1 GB of memory is free now")


def test_antelopev2_fits_the_memory_that_is_recommended_for_it(tmp_path: Path, models_dir: Path) -> None:
    """3 GB, in docs/operations.md."""
    places = control_group(tmp_path / "groups", memory_max="3000000000")
    assert is_well("memory", subject(places=places, models_dir=models_dir))


def test_size_of_a_pack_that_is_not_installed_is_known(tmp_path: Path, models_dir: Path) -> None:
    places = control_group(tmp_path / "groups", memory_max="512000000")
    assert problems("memory", subject(places=places, models_dir=models_dir))
