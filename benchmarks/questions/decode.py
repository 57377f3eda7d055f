"""What does a picture cost to become a crop? CPU time and memory of `resize=exact` against `resize=auto`.

    python -m benchmarks.questions.decode [--rounds 15] [--recogniser RECOGNISER.onnx ... --faces LFW [--people 40]]

The pictures are made here: smooth shading, texture at every scale and a camera's noise. With recognisers and a folder
that has LFW's `images.tar` and `labels.csv`, faces enlarged to 12 megapixels also show what `auto` does to embeddings.
Prints the result as JSON; `--output` also writes it to a file. Progress goes to stderr.
"""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from arcface_api.image import OVERSAMPLING, ImageLimits, decode, stretch
from benchmarks.lib import lfw, machine, options

SIDE = 112
"""Of the crop, pixels."""
MODES = {"exact": None, "auto": OVERSAMPLING * SIDE}
"""`least_side` of each mode, where no attribute models are loaded."""
LIMITS = ImageLimits(max_pixels=50_000_000)
QUALITY = 92
"""Of JPEGs: what phones and detectors save."""
MEGAPIXELS_12 = (4000, 3000)
CONTRAST = 20
"""Standard deviation of each scale of texture, in levels: gives a 12-megapixel JPEG the 3 to 5 MB that cameras write.

The bytes count: what DCT scaling cannot leave out is reading the coefficients.
"""


@dataclass(frozen=True)
class Picture:
    """One row of the result."""

    name: str
    size: tuple[int, int]
    """(width, height), pixels."""
    suffix: str
    encoding: tuple[int, ...] = (cv2.IMWRITE_JPEG_QUALITY, QUALITY)


PICTURES = (
    Picture("112x112 JPEG", (SIDE, SIDE), ".jpg"),
    Picture("1 MP JPEG", (1000, 1000), ".jpg"),
    Picture("12 MP JPEG", MEGAPIXELS_12, ".jpg"),
    Picture("12 MP JPEG, quality 95", MEGAPIXELS_12, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, 95)),
    Picture(
        "12 MP JPEG, progressive",
        MEGAPIXELS_12,
        ".jpg",
        (cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    ),
    Picture("12 MP PNG", MEGAPIXELS_12, ".png", ()),
)


def crop_of(content: bytes, least_side: int | None) -> NDArray[np.uint8]:
    """The step that is measured: bytes to a (112, 112, 3) uint8 crop, as a decode thread of the service does it."""
    return stretch(decode(content, LIMITS, least_side).image, SIDE, SIDE)


def measure(picture: Picture, rounds: int) -> dict[str, object]:
    """CPU milliseconds and MiB of both modes, and how far apart their crops are."""
    pixels = with_noise(synthetic(*picture.size), np.random.default_rng(1))
    content = cv2.imencode(picture.suffix, pixels, picture.encoding)[1].tobytes()
    crops = {mode: crop_of(content, least_side) for mode, least_side in MODES.items()}  # also warms up
    took: dict[str, list[float]] = {mode: [] for mode in MODES}
    for round_ in range(rounds):
        for mode in sorted(MODES, reverse=bool(round_ % 2)):
            started = time.process_time()  # of every thread: OpenCV may use several
            crop_of(content, MODES[mode])
            took[mode].append((time.process_time() - started) * 1000)
    return {
        "picture": picture.name,
        "bytes": len(content),
        "cpu_ms": {mode: summary(each) for mode, each in took.items()},
        "peak_mib": {mode: in_fresh_process(content, least_side) for mode, least_side in MODES.items()},
        "mean_absolute_pixel_difference": differences(crops["exact"], crops["auto"], average(content)),
    }


def average(content: bytes) -> NDArray[np.uint8]:
    """The crop without aliasing: each pixel the mean of all that it stands for, where stretching takes four of them."""
    return cv2.resize(decode(content, LIMITS).image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def differences(exact: NDArray[np.uint8], auto: NDArray[np.uint8], mean: NDArray[np.uint8]) -> dict[str, float]:
    """How far apart the crops are, in levels."""
    pairs = {"auto_to_exact": (auto, exact), "auto_to_average": (auto, mean), "exact_to_average": (exact, mean)}
    return {name: round(float(cv2.absdiff(one, other).mean()), 3) for name, (one, other) in pairs.items()}


def summary(took_ms: list[float]) -> dict[str, float]:
    """Median, minimum and maximum in milliseconds."""
    return {"p50": round(float(np.median(took_ms)), 3), "min": round(min(took_ms), 3), "max": round(max(took_ms), 3)}


def in_fresh_process(content: bytes, least_side: int | None) -> float | None:
    """`peak_mib` where no memory of earlier decodes lies ready for use."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(peak_mib, content, least_side).result()


def peak_mib(content: bytes, least_side: int | None) -> float | None:
    """The most memory that is resident at once during one decode beyond what was before; None where Linux is not."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    crop_of(cv2.imencode(".jpg", np.zeros((SIDE, SIDE, 3), np.uint8))[1].tobytes(), None)  # OpenCV sets itself up
    reset.write_text("5")  # sets the high-water mark to what is resident now; source: proc(5)
    before = resident_kib("VmHWM")
    crop_of(content, least_side)
    return round((resident_kib("VmHWM") - before) / 1024, 1)


def resident_kib(field: str) -> int:
    """A line of this process's status that counts kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def synthetic(width: int, height: int) -> NDArray[np.float32]:
    """Shading, and texture of the same contrast at every scale, as in photographs: (height, width, 3), 0 to 255."""
    random = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 1, width, dtype=np.float32), np.linspace(0, 1, height, dtype=np.float32))
    picture = np.stack([x, y**2, (1 - x) * y], axis=-1) * 140 + 60
    cells = 8
    while cells <= max(width, height) // 2:
        texture = random.normal(0, CONTRAST, (cells, cells, 1)).astype(np.float32)
        picture += cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC)[..., np.newaxis]
        cells *= 2
    return picture


def with_noise(picture: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.uint8]:
    """A camera's read and shot noise: at mid grey a standard deviation of three levels."""
    level = np.clip(picture, 0, 255)
    noise = random.standard_normal(picture.shape, np.float32) * np.sqrt(2 + level * 0.05)
    return np.clip(level + noise, 0, 255).round().astype(np.uint8)


# ── what it does to embeddings ─────────────────────────────────────────────────────────────────────────────────────


def embeddings(recognisers: list[Path], faces: Path, people: int) -> dict[str, object]:
    """For each recogniser, cosines of the two modes with each other and with the crop that was not enlarged."""
    sessions = [ort.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in recognisers]
    cosines: list[dict[str, list[float]]] = [{} for _ in recognisers]
    apart: list[dict[str, float]] = []
    random = np.random.default_rng(2)
    for number, crop in enumerate(face_crops(faces, people), 1):
        scale = (MEGAPIXELS_12[0] * MEGAPIXELS_12[1] / (crop.shape[0] * crop.shape[1])) ** 0.5
        large = cv2.resize(crop.astype(np.float32), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        content = cv2.imencode(".jpg", with_noise(large, random), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        seen = {mode: crop_of(content, least_side) for mode, least_side in MODES.items()}
        seen["source"] = stretch(np.ascontiguousarray(crop[..., ::-1]), SIDE, SIDE)
        apart.append(differences(seen["exact"], seen["auto"], average(content)))
        for session, found in zip(sessions, cosines, strict=True):
            rows = {name: embed(session, each) for name, each in seen.items()}
            for one, other in (("auto", "exact"), ("auto", "source"), ("exact", "source")):
                found.setdefault(f"{one}_to_{other}", []).append(float(rows[one] @ rows[other]))
        print(f"\rfaces: {number} of {people}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "faces": len(apart),
        "mean_absolute_pixel_difference": {
            pair: round(float(np.mean([each[pair] for each in apart])), 3) for pair in apart[0]
        },
        "cosine": {
            path.name: {
                pair: {"min": round(min(each), 5), "p50": round(float(np.median(each)), 5)}
                for pair, each in found.items()
            }
            for path, found in zip(recognisers, cosines, strict=True)
        },
    }


def face_crops(faces: Path, people: int) -> Iterator[NDArray[np.uint8]]:
    """Detector boxes of different people: (h, w, 3) uint8, BGR."""
    labels = lfw.read_labels(faces)
    for name, content in lfw.read_pictures(faces, lfw.one_of_each_person(sorted(labels), people)).items():
        x, y, w, h = (round(value) for value in labels[name].box)
        yield lfw.decoded(content)[max(y, 0) : y + h, max(x, 0) : x + w, ::-1]


def embed(session: ort.InferenceSession, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A normalised embedding; both stand-ins want RGB and (pixel - 127.5) / 127.5."""
    tensor = cv2.dnn.blobFromImage(crop, 1 / 127.5, (SIDE, SIDE), (127.5, 127.5, 127.5))
    row = session.run(None, {session.get_inputs()[0].name: tensor})[0][0]
    return row / np.linalg.norm(row)


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--recogniser", type=Path, action="append", default=[])
    parser.add_argument("--faces", type=Path, help="folder with images.tar and labels.csv")
    parser.add_argument("--people", type=int, default=40)
    arguments = parser.parse_args()
    if bool(arguments.recogniser) != bool(arguments.faces):
        parser.error("--recogniser and --faces belong together: give both, or neither.")
    report: dict[str, object] = {"benchmark": "decode", "rounds": arguments.rounds, "pictures": []}
    rows = []
    for picture in PICTURES:
        print(f"{picture.name} …", file=sys.stderr, flush=True)
        rows.append(measure(picture, arguments.rounds))
    report["pictures"] = rows
    if arguments.faces:
        report["embeddings"] = embeddings(arguments.recogniser, arguments.faces, arguments.people)
    report["machine"] = machine.describe()
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
