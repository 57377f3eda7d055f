"""Promises of the fuzzer, and that what it found stays fixed."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from fuzz import corpus
from fuzz.__main__ import MALLOC_CHECKS
from fuzz.decoding import decode_picture
from fuzz.mutate import Mutator
from fuzz.seeds import all_seeds
from fuzz.target import run
from fuzz.targets import CHECKS, NAMES, target

pytestmark = pytest.mark.once  # decoders decide

PROJECT = Path(__file__).parents[2]
RESULTS = PROJECT / "benchmarks" / "results"
PASSED = RESULTS / "fuzz.json"
PASSED_BEFORE = RESULTS / "fuzz-decode.json"
"""Of an earlier fuzzer, whose executions count as long as the decoders are the same."""
DECODERS = ("opencv-python-headless", "simplejpeg")

needs_atheris = pytest.mark.skipif(find_spec("atheris") is None, reason="there is no atheris for this system")


def fuzz(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status, and what was written to stderr."""
    command = [sys.executable, "-m", "fuzz", "--folder", str(folder), "--jobs", "1", *arguments]
    places = ":".join(str(PROJECT / folder) for folder in ("src", "tests", "tests/unit", ""))
    child = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=PROJECT, env={"PYTHONPATH": places, "PATH": "/bin"}
    )
    return child.returncode, child.stderr


# what only a broken regressor returns becomes infinite, which the service takes for unsure
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in CHECKS])
def test_what_was_found_and_what_reaches_most_ends_as_declared(name: str) -> None:
    kept = corpus.kept(name)
    assert kept
    for content in kept.values():
        run(target(name), content)


def test_seeds_of_faces_reach_a_crop_by_either_way() -> None:
    faces = target("faces")
    by_way = [{run(faces, seed) for seed in faces.seeds() if seed[5] == is_json} for is_json in (0, 1)]
    assert all("placed" in outcomes for outcomes in by_way)


@needs_atheris
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a", "SIGABRT|deadly signal"),
        (b"r", "struct.error"),
        (b"m", "memory grew by"),
        (b"h", r"it took 3\.\d s"),
    ],
)
def test_every_kind_of_fault_is_found_and_saved(tmp_path: Path, content: bytes, said: str) -> None:
    seeds = tmp_path / "reached" / "faulty"
    seeds.mkdir(parents=True)
    (seeds / "seed").write_bytes(content)
    status, stderr = fuzz(tmp_path, "--target", "faulty", "--seconds", "60")
    assert status == 1, stderr
    assert re.search(said, stderr), stderr
    (saved,) = tmp_path.glob("faulty-*")
    assert saved.read_bytes() == content


@needs_atheris
def test_damage_to_the_heap_is_found_and_its_input_saved(tmp_path: Path) -> None:
    """By OpenCV's decoder of PNG, whose fault the service goes around."""
    loaded = subprocess.run(["true"], env={"LD_PRELOAD": MALLOC_CHECKS}, check=True, capture_output=True)
    if loaded.stderr:
        pytest.skip("this system lacks glibc's checks of each block")
    status, stderr = fuzz(tmp_path, "--target", "opencv", "--seconds", "120")
    assert status == 1, stderr
    (saved,) = tmp_path.glob("opencv-crash-*")
    status, stderr = fuzz(tmp_path, "--replay", str(saved))
    assert status == 1, stderr


def test_decoding_survives_the_seeds_and_some_damage() -> None:
    seeds = list(all_seeds().values())
    mutator = Mutator(seeds)
    assert {decode_picture(content) for content in seeds} == {"decoded"}
    outcomes = {decode_picture(mutator.damaged(seeds[number % len(seeds)], 64_000, number)) for number in range(2000)}
    assert {"decoded", "ImageDamaged", "ImageFormatUnsupported", "ImageTooManyPixels"} <= outcomes


def test_the_same_seed_makes_the_same_damage() -> None:
    seeds = list(all_seeds().values())
    mutator, again = Mutator(seeds), Mutator(seeds)
    damaged = [mutator.damaged(content, 64_000, 1) for content in seeds]
    assert damaged == [again.damaged(content, 64_000, 1) for content in seeds]
    assert damaged != [mutator.damaged(content, 64_000, 2) for content in seeds]


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_are_ones_that_the_fuzzer_has_passed(decoder: str) -> None:
    passed, before = json.loads(PASSED.read_text()), json.loads(PASSED_BEFORE.read_text())
    assert not any(result["findings"] for result in passed["targets"].values())
    fuzzed, executions = passed["machine"]["packages"][decoder], passed["targets"]["decode"]["executions"]
    if before["machine"]["packages"][decoder] == fuzzed:
        assert not before["findings"]
        executions += before["executions"]
    assert executions >= 2_000_000
    remedy = (
        f"The fuzzer has passed {decoder} {fuzzed}. Another version is fuzzed first: run make fuzz ARGS='--target"
        f" decode --seconds 7200 --output {PASSED.relative_to(PROJECT)}' with it; where nothing is found, commit"
        " that file, the version in pyproject.toml and the locks (make lock) together."
    )
    server = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["server"]
    assert f"{decoder}=={fuzzed}" in server, remedy
    assert version(decoder) == fuzzed, remedy
    locks = [lock.read_text() for lock in (PROJECT / "requirements").glob("*.txt")]
    locked = {found for lock in locks for found in re.findall(rf"^{decoder}==(\S+)", lock, re.MULTILINE)}
    assert locked == {fuzzed}, remedy
