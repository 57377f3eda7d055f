"""Does the service give deepface's vectors, if it serves deepface's model? deepface's `represent` beside `/embed`.

    python -m benchmarks.questions.deepface_feed RECOGNISER.onnx --lfw FOLDER --output FILE.json

Needs deepface beside this project's packages (`pip install --no-deps deepface gdown pandas werkzeug …`; of its backends
ONNX Runtime is enough). Its weights are on a hub, so a recogniser takes their place: as it is for `Buffalo_L`; for
`ArcFace` behind nodes that make of it a graph like deepface's own, which takes (n, 112, 112, 3) and numbers from 0 to
1. So all is compared but the weights: how a crop is resized, scaled and ordered.
"""

import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import httpx
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper

from arcface_api.arrays import Image
from arcface_api.bench.connection import Address, raw_request
from benchmarks.lib import lfw, machine, options, recogniser
from benchmarks.lib.service import free_port, own_command, running_service, write_report
from benchmarks.questions.migrating import png

PACK_TOML = """
name = "deepface_arcface"
title = "deepface's ArcFace"
model = "deepface_arcface"
fit = "letterbox"
[licence]
name = "unknown"
url = "unknown"
allows_commercial_use = false
notice = ""
[[files]]
name = "arcface_weights.onnx"
role = "recogniser"
output_dim = 512
input = {{ height = 112, width = 112, mean = 0, std = 255, channel_order = "{channel_order}" }}
"""
CROPS = {"face box": 1, "face box, four times as large": 4}
"""How many times larger than in LFW's picture the crops are; the first are about as large as the input."""


def write_like_deepface(recogniser_path: Path, path: Path) -> None:
    """The recogniser as a graph like deepface's: planes last, from 0 to 1."""
    inner = onnx.load(recogniser_path)
    name = inner.graph.input[0].name
    opset = next(each.version for each in inner.opset_import if each.domain in ("", "ai.onnx"))
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Add", ["planes", "planes"], ["doubled"]),
        helper.make_node("Sub", ["doubled", "one"], ["fed"]),
    ]
    one = helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1.0])
    outer = helper.make_graph(
        nodes,
        "feed",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["n", 112, 112, 3])],
        [helper.make_tensor_value_info("fed", onnx.TensorProto.FLOAT, ["n", 3, 112, 112])],
        [one],
    )
    feed = helper.make_model(outer, opset_imports=[helper.make_opsetid("", opset)], ir_version=inner.ir_version)
    onnx.save(compose.merge_models(feed, inner, io_map=[("fed", name)], prefix1="feed_"), path)


def crops(folder: Path, count: int) -> Iterator[tuple[str, Image]]:
    """Face boxes of different people, (h, w, 3) uint8 BGR, in each size."""
    labels = lfw.read_labels(folder)
    for name, content in lfw.read_pictures(folder, lfw.one_of_each_person(sorted(labels), count)).items():
        box, _ = lfw.cut_grown(lfw.decoded(content), labels[name].box, 1.2)
        for size, scale in CROPS.items():
            yield size, cv2.resize(box[..., ::-1], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def measure(model: Path, folder: Path, count: int, home: Path) -> dict[str, Any]:
    """The cosines of one recogniser, in a home folder of its own, from which deepface takes weights."""
    weights = home / ".deepface" / "weights"
    (weights / "buffalo_l").mkdir(parents=True)
    write_like_deepface(model, weights / "arcface_weights.onnx")
    shutil.copy(model, weights / "buffalo_l" / "webface_r50.onnx")
    found: dict[str, list[float]] = defaultdict(list)
    served = {
        "ArcFace": as_pack(weights / "arcface_weights.onnx", home / "right", "bgr"),
        "ArcFace, served as RGB": as_pack(weights / "arcface_weights.onnx", home / "wrong", "rgb"),
        "Buffalo_L": model,
    }
    for name, pack in served.items():
        for row, found_cosine in compared(name, pack, folder, count):
            found[row].append(found_cosine)
    return {**recogniser.describe(model), "cosine": summary(found)}


def as_pack(model: Path, folder: Path, channel_order: str) -> Path:
    """A pack of deepface's graph, as docs/migrating.md says."""
    folder.mkdir()
    shutil.copy(model, folder)
    (folder / "pack.toml").write_text(PACK_TOML.format(channel_order=channel_order))
    return folder


def compared(name: str, pack: Path, folder: Path, count: int) -> Iterator[tuple[str, float]]:
    """Each crop's cosine between deepface's vector and the service's, by what the service gets."""
    from deepface import DeepFace  # noqa: PLC0415  # reads DEEPFACE_HOME when it is imported

    port = free_port()
    first = raw_request(Address("127.0.0.1", port), "POST", "/embed", png(np.full((112, 112, 3), 99, np.uint8)))
    with (
        running_service(own_command(pack, port, "--device", "cpu", "--precision", "float32"), port, first),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as service,
    ):
        asked_of_deepface = name.partition(",")[0]
        for size, crop in crops(folder, count):
            (wanted,) = DeepFace.represent(crop, model_name=asked_of_deepface, detector_backend="skip")
            for what, content, query in (
                ("resized as deepface does", png(resized(crop)), {}),
                ("with `fit=letterbox`", png(crop), {"fit": "letterbox"}),
            ):
                yield f"{name}; {size}; {what}", cosine(np.array(wanted["embedding"]), embed(service, content, query))


def resized(face: Image) -> Image:
    """A face, (h, w, 3) uint8, as docs/migrating.md has it resized to (112, 112, 3)."""
    scale = 112 / max(face.shape[:2])
    height, width = (int(side * scale) for side in face.shape[:2])
    top, left = (112 - height) // 2, (112 - width) // 2
    crop = np.zeros((112, 112, 3), np.uint8)
    crop[top : top + height, left : left + width] = cv2.resize(face, (width, height))
    return crop


def embed(service: httpx.Client, content: bytes, query: Mapping[str, str]) -> NDArray[np.float64]:
    """The service's embedding; the program ends where it refuses."""
    answer = service.post("/embed", params=query, headers={"Accept": "application/x-npy"}, files={"file": content})
    if not answer.is_success:
        sys.exit(f"The service answered {answer.status_code}: {answer.text}")
    return np.load(BytesIO(answer.content), allow_pickle=False).astype(np.float64)


def cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Of two vectors of any length."""
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def summary(found: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and minimum of each row."""
    return {name: {"p50": round(float(np.median(each)), 7), "min": round(min(each), 7)} for name, each in found.items()}


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("recogniser", type=Path)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with images.tar and labels.csv")
    parser.add_argument("--people", type=int, default=100)
    arguments = parser.parse_args()
    with TemporaryDirectory() as home:
        os.environ["DEEPFACE_HOME"] = home
        report = {
            "benchmark": "deepface_feed",
            "people": arguments.people,
            "deepface": version("deepface"),
            "machine": machine.describe(),
            **measure(arguments.recogniser.resolve(), arguments.lfw, arguments.people, Path(home)),
        }
    write_report(report, arguments.output)


if __name__ == "__main__":
    main()
