"""Face crops to send: of a folder, of LFW's archive with detector boxes, or made here where no faces are at hand."""

import argparse
from pathlib import Path

import cv2
import numpy as np

from benchmarks.lib import lfw

COUNT = 64
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a script the option `--faces`."""
    parser.add_argument(
        "--faces",
        type=Path,
        help="a folder of face crops, or one with LFW's images.tar and labels.csv; by default pictures are made",
    )


def load(folder: Path | None, count: int = COUNT, grow: float = 1.0) -> list[bytes]:
    """Face crops as JPEG (or whatever the folder's files are); the same call gives the same crops.

    Args:
        folder: Of crops, or of LFW's `images.tar` and `labels.csv`; None: smooth pictures with noise are made,
            about as many bytes as a face of that size.
        count: How many at most.
        grow: LFW's boxes are cut so much larger about their centres, within the image.
    """
    if folder is None:
        return [_made(seed) for seed in range(count)]
    if lfw.is_lfw(folder):
        return _lfw(folder, count, grow)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:count]
    if not files:
        raise SystemExit(f"{folder} has neither pictures ({', '.join(SUFFIXES)}) nor LFW's images.tar.")
    return [path.read_bytes() for path in files]


def describe(folder: Path | None) -> str:
    """Which faces they are, for a report: no path."""
    if folder is None:
        return "made"
    return "LFW" if lfw.is_lfw(folder) else "a folder's"


def decoded(content: bytes) -> np.ndarray:
    """A crop as the recogniser takes it: (112, 112, 3) uint8 RGB."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(cv2.resize(picture, (112, 112)), cv2.COLOR_BGR2RGB)


def _lfw(folder: Path, count: int, grow: float) -> list[bytes]:
    """Detector boxes cut from the images as they are, one of each of `count` people."""
    labels = lfw.read_labels(folder)
    pictures = lfw.read_pictures(folder, lfw.one_of_each_person(labels, count))
    return [
        _jpeg(lfw.cut_grown(lfw.decoded(content), labels[name].box, grow)[0][..., ::-1])
        for name, content in pictures.items()
    ]


def _made(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    coarse = random.uniform(30, 220, (6, 5, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (100, 130), interpolation=cv2.INTER_CUBIC)
    return _jpeg(np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))


def _jpeg(picture: np.ndarray) -> bytes:
    written, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert written
    return content.tobytes()
