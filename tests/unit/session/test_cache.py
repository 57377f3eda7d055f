"""Promises of `session/cache.py`: what is read is what was written, or nothing."""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from arcface_api.session import Cache
from arcface_api.session import cache as cache_module
from serving import until


def test_another_key_is_another_entry(tmp_path: Path) -> None:
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
    assert "is damaged and is made again" in caplog.text
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
        blocked.write(b"more", "another model")
    (warning,) = caplog.messages
    assert warning.startswith("Nothing can be kept for the next start, which will take as long as this one: ")
    assert warning.endswith("(ARCFACE_CACHE_DIR).")
    assert blocked.read("model") is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a system with users")
def test_folder_without_access_is_logged_and_does_not_end_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    cache = Cache(folder)
    cache.write(b"content", "model")
    script = """
import mmap, os, sys  # mmap: the user that root becomes may not be able to import more
from pathlib import Path
from arcface_api.session import Cache
cache = Cache(Path(sys.argv[1]))
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(54321); os.setuid(54321)  # root could read any folder
assert not cache.has("model")
assert cache.read("model") is None
assert not cache.write(b"content", "model")
"""
    folder.chmod(0)
    try:
        done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
    finally:
        folder.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert "Nothing can be kept for the next start" in done.stderr


def test_what_was_not_used_for_a_month_goes_when_something_new_comes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for name in ("unused", "read"):
        cache.write(b"content", name)
    engines = {name: cache.subfolder(f"tensorrt-1-{name * 32}") for name in "ab"}
    for name, folder in engines.items():
        assert folder is not None
        (folder / f"{name}.engine").write_bytes(b"engine")
    unfinished = tmp_path / f".{'0' * 32}.x7y8"
    users_own = [tmp_path / "notes.txt", tmp_path / "holiday-pictures", tmp_path / ".lock"]
    for path in (unfinished, *users_own):
        path.write_bytes(b"")
    for path in tmp_path.iterdir():
        _age(path, 31)
    cache.read("read")
    cache.subfolder("tensorrt-1-" + "a" * 32)
    cache.write(b"content", "new")
    assert [cache.has(name) for name in ("unused", "read", "new")] == [False, True, True]
    assert [folder is not None and folder.exists() for folder in engines.values()] == [True, False]
    assert not unfinished.exists()
    assert all(path.exists() for path in users_own)


def _age(path: Path, days: int) -> None:
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))


def test_what_was_used_within_the_month_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(b"content", "used")
    (entry,) = tmp_path.iterdir()
    _age(entry, 29)
    cache.write(b"content", "new")
    assert cache.has("used")


def test_folder_is_held_by_one_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    entered: list[int] = []
    cache = Cache(tmp_path / "folder")
    with cache.exclusive():
        other = threading.Thread(target=lambda: _enter(Cache(tmp_path / "folder"), entered))
        other.start()
        other.join(0.2)
        assert other.is_alive()
        until(lambda: "Another start is preparing models" in caplog.text)
        assert not entered
    other.join(100)
    assert "Another start is preparing models in the same cache folder; waiting for it." in caplog.text
    assert entered
    with Cache(None).exclusive():
        pass
    (tmp_path / "file").write_bytes(b"")
    with Cache(tmp_path / "file" / "below").exclusive():
        pass


def test_start_does_not_wait_forever_for_a_holder_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_module, "LOCK_SECONDS", 0.1)
    with Cache(tmp_path).exclusive(), Cache(tmp_path).exclusive():
        assert "this one goes on without it" in caplog.text


def _enter(cache: Cache, entered: list[int]) -> None:
    with cache.exclusive():
        entered.append(1)
