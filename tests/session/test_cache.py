"""Promises of `session/cache.py`: what is read is what was written, or nothing."""

import logging
import threading
from pathlib import Path

import pytest

from arcface_api.session import Cache
from arcface_api.session import cache as cache_module


def test_entries_are_told_apart_by_their_key(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "deep" / "folder")
    cache.write(b"one", "model", 1)
    cache.write(b"two", "model", 2)
    found = cache.read("model", 1)
    assert found is not None
    assert found.tobytes() == b"one"
    assert cache.read("model", 3) is None
    assert sorted(path.name.startswith(".") for path in (tmp_path / "deep" / "folder").iterdir()) == [False, False]


def test_another_cpu_has_other_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.write(b"compiled for this one", "model")
    monkeypatch.setattr(cache_module, "cpu_name", lambda: "another")
    assert cache.read("model") is None
    monkeypatch.undo()
    assert cache.read("model") is not None
    monkeypatch.setattr(cache_module, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    assert cache.read("model") is None


def test_damaged_entry_is_no_entry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path)
    cache.write(b"x" * 1000, "model")
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole[:-1] + b"y", b"y" + whole[1:]):
        entry.write_bytes(damaged)
        assert cache.read("model") is None
    assert "is damaged and is made anew" in caplog.text
    cache.write(b"x" * 1000, "model")
    assert cache.read("model") is not None


def test_nothing_is_kept_where_nothing_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = Cache(None)
    nowhere.write(b"content", "model")
    assert nowhere.read("model") is None
    (tmp_path / "file").write_bytes(b"")
    blocked = Cache(tmp_path / "file" / "below")
    with caplog.at_level(logging.WARNING):
        blocked.write(b"content", "model")
    assert "Nothing is kept for the next start, which will take longer" in caplog.text
    assert blocked.read("model") is None
    blocked.drop("model")


def test_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    entered: list[int] = []
    cache = Cache(tmp_path / "folder")
    with cache.exclusive():
        other = threading.Thread(target=lambda: _enter(Cache(tmp_path / "folder"), entered))
        other.start()
        other.join(0.2)
        assert other.is_alive()
        assert not entered
    other.join(30)
    assert entered
    with Cache(None).exclusive():
        pass
    (tmp_path / "file").write_bytes(b"")
    with Cache(tmp_path / "file" / "below").exclusive():
        pass


def _enter(cache: Cache, entered: list[int]) -> None:
    with cache.exclusive():
        entered.append(1)


def test_dropped_entry_is_gone(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(b"content", "model")
    cache.drop("model")
    cache.drop("model")
    assert cache.read("model") is None
