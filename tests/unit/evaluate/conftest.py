"""Pairs to evaluate: synthetic people whose pictures a tiny recogniser separates, and real ones."""

import csv
import signal
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from arcface_api.cli import cli
from conftest import LFW

PEOPLE = 24


@pytest.fixture(autouse=True)
def same_sigterm() -> Iterator[None]:
    """The command sets a handler for SIGTERM; here it runs in the tests' own process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Labelled:
    """A file of pairs and the folder of their pictures."""

    pairs: Path
    images: Path

    def write_pairs(self, *lines: str) -> None:
        self.pairs.write_text("\n".join(["image_a,image_b,same", *lines]) + "\n")


def write_synthetic_people(images: Path, pairs: Path) -> Labelled:
    """24 people with two pictures each: 24 pairs of one person, 48 of two."""
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        folder = images / f"P{person:02d}"
        folder.mkdir(parents=True)
        face = rng.integers(0, 256, (8, 8, 3)).astype(np.float32)
        for number in (1, 2):
            pixels = np.clip(face + rng.normal(0, 60, face.shape), 0, 255)
            picture = cv2.resize(pixels, (64, 80), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
            (folder / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    made = Labelled(pairs, images)
    same = [f"P{person:02d}/1.png,P{person:02d}/2.png,1" for person in range(PEOPLE)]
    others = [(person, (person + step) % PEOPLE) for step in (1, 5) for person in range(PEOPLE)]
    made.write_pairs(*same, *(f"P{one:02d}/1.png,P{other:02d}/2.png,0" for one, other in others))
    return made


@pytest.fixture
def labelled(tmp_path: Path) -> Labelled:
    return write_synthetic_people(tmp_path / "images", tmp_path / "pairs.csv")


@dataclass(frozen=True)
class Done:
    """What a run of the command came to."""

    status: int
    said: str
    error: BaseException | None


@pytest.fixture
def run_evaluate(tmp_path: Path) -> Callable[..., Done]:
    """Run `arcface-api evaluate` in this process, on the reference provider."""

    def run(*arguments: str | Path) -> Done:
        done = CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])
        return Done(done.exit_code, done.output, done.exception)

    return run


@pytest.fixture(scope="session")
def lfw_pairs(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    """120 pairs of LFW, 60 of each kind, and the whole photos in a .tar."""
    if not (LFW / "images.tar").is_file():
        pytest.skip(f"needs {LFW}: real faces are not part of this project (set ARCFACE_TEST_LFW)")
    with (LFW / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [[row for row in rows if row["same"] == label] for label in ("1", "0")]
    chosen = [row for kind in kinds for row in kind[:: len(kind) // 60][:60]]
    wanted = {row[side] for row in chosen for side in ("image_a", "image_b")}
    folder = tmp_path_factory.mktemp("lfw")
    with tarfile.open(LFW / "images.tar") as all_images, tarfile.open(folder / "images.tar", "w") as some:
        for member in all_images:
            if member.name in wanted:
                some.addfile(member, BytesIO(all_images.extractfile(member).read()))  # type: ignore[union-attr]  # a file
    made = Labelled(folder / "pairs.csv", folder / "images.tar")
    made.write_pairs(*(f"{row['image_a']},{row['image_b']},{row['same']}" for row in chosen))
    return made
