"""Promises of the fuzzer: it finds each kind of fault, and the libraries that decode are ones that have passed it."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import cv2
import pytest

from fuzz.mutate import Mutator
from fuzz.seeds import all_seeds
from fuzz.targets import decode_picture

pytestmark = pytest.mark.once  # decoders decide

PROJECT = Path(__file__).parents[3]
PASSED = PROJECT / "benchmarks" / "results" / "fuzz-decode.json"
DECODERS = ("opencv-python-headless", "simplejpeg")


def fuzz(target: str, folder: Path, *arguments: str) -> tuple[int, dict[str, object], str]:
    """Exit status, result and what was written to stderr."""
    command = [sys.executable, "-m", "fuzz", "--target", target, "--findings", str(folder), *arguments]
    places = ":".join(str(PROJECT / folder) for folder in ("src", "tests", ""))
    child = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env={"PYTHONPATH": places, "PATH": ""}
    )
    return child.returncode, json.loads(child.stdout), child.stderr


def test_every_kind_of_fault_is_found_and_saved(tmp_path: Path) -> None:
    status, _, said = fuzz("faulty", tmp_path, "--processes", "1", "--executions", "100")
    assert status == 1
    found = re.findall(r"^FOUND in input (\d+): (.*)", said, re.MULTILINE)
    kinds = ("Traceback", "the process ended with -6", "takes more than 1 s", "memory grew by")
    assert [kind for kind in kinds for _, what in found if what.startswith(kind)] == list(kinds), said
    assert {file.name for file in tmp_path.iterdir()} == {f"faulty-1-{number}" for number, _ in found}


@pytest.mark.skipif(cv2.__version__ != "5.0.0", reason="the fault is known of OpenCV 5.0.0")
def test_opencvs_old_fault_is_found(tmp_path: Path) -> None:
    """Pointed at a decoder that gets files as they come, the fuzzer fails within a minute."""
    status, result, said = fuzz("opencv", tmp_path, "--seconds", "60")
    assert status == 1
    assert result["findings"]
    assert "the process ended with -" in said


def test_decoding_survives_the_seeds_and_some_damage() -> None:
    seeds = all_seeds()
    mutator = Mutator(seeds, seed=0)
    outcomes = [decode_picture(mutator.input(number)) for number in range(len(seeds) + 2000)]
    assert set(outcomes[: len(seeds)]) == {"decoded"}
    assert {"decoded", "ImageDamaged", "ImageFormatUnsupported", "ImageTooManyPixels"} <= set(outcomes)


def test_the_same_seed_makes_the_same_inputs() -> None:
    seeds = all_seeds()
    one, same, other = Mutator(seeds, 1), Mutator(all_seeds(), 1), Mutator(seeds, 2)
    numbers = range(len(seeds), len(seeds) + 50)
    assert [one.input(number) for number in numbers] == [same.input(number) for number in numbers]
    assert [one.input(number) for number in numbers] != [other.input(number) for number in numbers]


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_are_ones_that_the_fuzzer_has_passed(decoder: str) -> None:
    passed = json.loads(PASSED.read_text())
    assert passed["target"] == "decode"
    assert passed["executions"] >= 2_000_000
    assert not passed["findings"]
    fuzzed = passed["machine"]["packages"][decoder]
    remedy = (
        f"The fuzzer has passed {decoder} {fuzzed}. Another version is fuzzed first: run make fuzz ARGS='--executions"
        f" 2000000 --output {PASSED.relative_to(PROJECT)}' with it; where nothing is found, commit that file, the"
        " version in pyproject.toml and the locks (make lock) together."
    )
    server = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["server"]
    assert f"{decoder}=={fuzzed}" in server, remedy
    assert version(decoder) == fuzzed, remedy
    locks = [lock.read_text() for lock in (PROJECT / "requirements").glob("*.txt")]
    locked = {found for lock in locks for found in re.findall(rf"^{decoder}==(\S+)", lock, re.MULTILINE)}
    assert locked == {fuzzed}, remedy
