"""Does a vector of InsightFace's package come back from the service? Cosines, by what the caller still has of a face.

    python -m benchmarks.questions.migrating RECOGNISER.onnx [RECOGNISER.onnx …] --lfw FOLDER --output FILE.json

The vectors to get back are those of `FaceAnalysis.get`: the package's `norm_crop` by five landmarks, then its
`get_feat`. LFW's labels are the landmarks. The service runs in float32 and is asked over HTTP.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from insightface.app.common import Face
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray

from arcface_api.arrays import Image
from arcface_api.bench.connection import Address, raw_request
from benchmarks.lib import lfw, machine, options, recogniser
from benchmarks.lib.service import free_port, own_command, running_service, write_report
from benchmarks.questions.decode import with_noise

ENLARGED = 4
"""How many times as large the photos of `LARGE` are: the eyes are about 160 pixels apart, as in a portrait."""
LARGE = "a photo four times as large, and the landmarks"


@dataclass(frozen=True)
class Photo:
    """One face of LFW: the file, its pixels (h, w, 3) uint8 BGR as the package wants them, and the label."""

    content: bytes
    pixels: Image
    landmarks: NDArray[np.float32]
    box: NDArray[np.float64]

    def enlarged(self, random: np.random.Generator) -> "Photo":
        """As a camera nearer by would take it: larger, with noise in every pixel."""
        large = cv2.resize(self.pixels, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
        pixels = with_noise(large.astype(np.float32), random)
        landmarks = ((self.landmarks + 0.5) * ENLARGED - 0.5).astype(np.float32)
        return Photo(png(pixels), pixels, landmarks, self.box * ENLARGED)


@dataclass(frozen=True)
class Sent:
    """What the service gets of a face."""

    content: bytes
    align: str = "none"
    landmarks: NDArray[np.float32] | None = None


def png(pixels: Image) -> bytes:
    """A file of BGR pixels that loses nothing."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def aligned(photo: Photo) -> Image:
    """The package's own crop."""
    return norm_crop(photo.pixels, photo.landmarks)


def box_of(photo: Photo, grow: float) -> bytes:
    """A detector's box, as a file."""
    return png(np.ascontiguousarray(lfw.cut_grown(photo.pixels, photo.box, grow)[0]))


ROADS: dict[str, Callable[[Photo], Sent]] = {
    "its 112x112 crop, as a PNG": lambda photo: Sent(png(aligned(photo))),
    "its 112x112 crop, as a JPEG of quality 95": lambda photo: Sent(
        cv2.imencode(".jpg", aligned(photo), (cv2.IMWRITE_JPEG_QUALITY, 95))[1].tobytes()
    ),
    "the photo and the landmarks": lambda photo: Sent(photo.content, "landmarks", photo.landmarks),
    "the photo and the landmarks, cut to whole pixels": lambda photo: Sent(
        photo.content, "landmarks", np.trunc(photo.landmarks)
    ),
    LARGE: lambda photo: Sent(photo.content, "landmarks", photo.landmarks),
    "the face box, made a fifth larger, with `align=auto`": lambda photo: Sent(box_of(photo, 1.2), "auto"),
    "the face box, with `align=none`": lambda photo: Sent(box_of(photo, 1)),
    "its 112x112 crop, red and blue exchanged": lambda photo: Sent(png(aligned(photo)[..., ::-1])),
}
"""What is still there, and how it is sent."""


def photos(folder: Path, count: int) -> Iterator[Photo]:
    """One photo of each of `count` people."""
    labels = lfw.read_labels(folder)
    for name, content in lfw.read_pictures(folder, lfw.one_of_each_person(sorted(labels), count)).items():
        pixels = np.ascontiguousarray(lfw.decoded(content)[..., ::-1])
        yield Photo(content, pixels, labels[name].landmarks.astype(np.float32), labels[name].box)


def measure(model: Path, folder: Path, count: int) -> dict[str, Any]:
    """The cosines of one recogniser."""
    reference = ArcFaceONNX(str(model))
    random = np.random.default_rng(3)
    found: dict[str, list[float]] = defaultdict(list)
    port = free_port()
    first = raw_request(Address("127.0.0.1", port), "POST", "/embed", png(np.full((112, 112, 3), 99, np.uint8)))
    command = own_command(model, port, "--device", "cpu", "--precision", "float32")
    with (
        running_service(command, port, first),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as service,
    ):
        recogniser.say(f"{model.stem} ...")
        for photo in photos(folder, count):
            large = photo.enlarged(random)
            for name, road in ROADS.items():
                had = large if name == LARGE else photo
                found[name].append(float(wanted_of(reference, had) @ asked(service, road(had))))
        info = service.get("/info").json()
    return {
        **recogniser.describe(model),
        "regressor_sha256": info["crop"]["regressor_sha256"],
        "cosine": {
            name: {"p50": round(float(np.median(each)), 7), "min": round(min(each), 7)} for name, each in found.items()
        },
    }


def wanted_of(reference: ArcFaceONNX, photo: Photo) -> NDArray[np.float64]:
    """`normed_embedding` of the package."""
    face = Face(kps=photo.landmarks)
    reference.get(photo.pixels, face)
    return np.asarray(face.normed_embedding, np.float64)


def asked(service: httpx.Client, sent: Sent) -> NDArray[np.float64]:
    """The service's normalised embedding; the program ends where it refuses."""
    form = {} if sent.landmarks is None else {"landmarks": json.dumps(sent.landmarks.tolist())}
    answer = service.post(
        "/embed",
        params={"align": sent.align, "normalize": True},
        headers={"Accept": "application/x-npy"},
        files={"file": sent.content},
        data=form,
    )
    if not answer.is_success:
        sys.exit(f"The service answered {answer.status_code}: {answer.text}")
    return np.load(BytesIO(answer.content), allow_pickle=False).astype(np.float64)


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("recognisers", nargs="+", type=Path)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with images.tar and labels.csv")
    parser.add_argument("--people", type=int, default=200)
    arguments = parser.parse_args()
    report = {
        "benchmark": "migrating",
        "people": arguments.people,
        "insightface": version("insightface"),
        "machine": machine.describe(),
        "recognisers": [measure(model.resolve(), arguments.lfw, arguments.people) for model in arguments.recognisers],
    }
    write_report(report, arguments.output)


if __name__ == "__main__":
    main()
