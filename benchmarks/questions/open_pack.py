"""How good is the pack that this package carries? Verification, age, gender and head pose, all through HTTP.

    python -m benchmarks.questions.open_pack LFW_FOLDER --output benchmarks/results/open_pack.json

LFW_FOLDER holds images.tar, labels.csv and pairs.csv. Verification is `arcface-api evaluate` on LFW's pairs, whose face
boxes are cut and sent; age and gender are predicted for the people in `people.csv`, whose years of birth and gender are
public, on pictures taken about 2003; head poses are held against pictures turned by known angles and mirrored.
"""

import csv
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from arcface_api.arrays import Image
from arcface_api.bench.connection import Address
from arcface_api.evaluate.backend import open_remote
from arcface_api.evaluate.inputs import Pictures, read_annotations, read_pairs
from arcface_api.evaluate.run import Preparation, evaluate
from arcface_api.image import ImageLimits
from arcface_api.progress import BarProgress
from arcface_api.wire import Align
from benchmarks.lib import machine, options
from benchmarks.lib.load import embed_request
from benchmarks.lib.service import ROOT, free_port, own_command, running_service, write_report

PEOPLE = ROOT / "benchmarks" / "lib" / "people.csv"
TAKEN = 2003
"""The year about which LFW's pictures were taken."""
PER_PERSON = 8
MARGINS = (1.0, 1.2, 1.5)
ANGLES = (-45, -30, -15, 15, 30, 45)
LIMITS = ImageLimits(10_000_000)


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    first = embed_request(Address("127.0.0.1", port), _png(np.zeros((8, 8, 3), np.uint8)))
    with tempfile.TemporaryDirectory() as cache:
        command = own_command(Path("open"), port, "--cache-dir", cache)
        with running_service(command, port, first), httpx.Client(base_url=url) as client:
            facts = client.get("/info").json()
            report: dict[str, Any] = {
                "benchmark": "open_pack",
                "provider": facts["provider"],
                "precision": facts["precision"],
                "fingerprint": facts["fingerprint"],
                "regressor_sha256": facts["crop"]["regressor_sha256"],
                "verification": list(verification(url, arguments.folder)),
                "attributes": attributes(client, arguments.folder),
                "head_pose": head_pose(client, arguments.folder),
                "machine": machine.describe(),
            }
    write_report(report, arguments.output)


def verification(url: str, folder: Path) -> Iterable[dict[str, Any]]:
    """LFW's pairs in each way to cut and to embed."""
    pairs = read_pairs(folder / "pairs.csv")
    pictures = Pictures(folder / "images.tar", pairs.pictures)
    boxes = read_annotations(folder / "labels.csv", "box", pairs.pictures)
    ways = [(Align.AUTO, margin, flip) for margin in MARGINS for flip in (False, True)] + [(Align.NONE, 1.0, False)]
    for align, margin, flip in ways:
        backend = open_remote(url, align=align, flip=flip)
        with BarProgress(f"x{margin} {align}{' flip' if flip else ''}") as bar:
            found = evaluate(pairs, pictures, Preparation(LIMITS, boxes, margin), backend, bar)
        result = found.to_json()
        names = ("alignments", "accuracy", "equal_error_rate", "operating_points")
        yield {"align": align, "margin": margin, "flip": flip, **{name: result[name] for name in names}}


def attributes(client: httpx.Client, folder: Path) -> dict[str, Any]:
    """Gender and age of well-known people, and of them by gender."""
    with PEOPLE.open(encoding="utf-8") as file:
        people = {row["name"]: row for row in csv.DictReader(file)}
    result: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for name, content in _crops(folder, lambda name: name.split("/")[0] in people, PER_PERSON, 1.0):
        person = people[name.split("/")[0]]
        found = _attributes(client, content)
        result[person["gender"]].append(
            (found["gender"] == person["gender"], found["age"] - TAKEN + int(person["born"]))
        )
    every = [each for group in result.values() for each in group]
    return {
        "people": len(people),
        "labels": f"gender and year of birth as publicly known; age is {TAKEN} minus that year",
        **{name: _gender_and_age(group) for name, group in {**result, "all": every}.items()},
    }


def _gender_and_age(group: list[tuple[bool, float]]) -> dict[str, float]:
    right, off = np.array([each for each, _ in group]), np.array([each for _, each in group])
    return {
        "pictures": len(group),
        "gender_right_percent": round(100 * float(right.mean()), 1),
        "age_mean_absolute_error_years": round(float(np.abs(off).mean()), 1),
        "age_bias_years": round(float(off.mean()), 1),
    }


def head_pose(client: httpx.Client, folder: Path) -> dict[str, Any]:
    """What turning a picture in its plane and mirroring it does to the pose: both are known exactly."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        chosen = {row["image"] for row in list(csv.DictReader(file))[::47]}
    rolls, others, mirrored, poses = [], [], [], []
    for _, content in _crops(folder, chosen.__contains__, 1, 1.5):
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        plain = _attributes(client, content)["pose"]
        poses.append(plain)
        mirror = _attributes(client, _png(image[:, ::-1]))["pose"]
        yaw, pitch, roll = plain["yaw"], plain["pitch"], plain["roll"]
        mirrored.append([mirror["yaw"] + yaw, mirror["pitch"] - pitch, mirror["roll"] + roll])
        for angle in ANGLES:
            found = _attributes(client, _png(_turned(image, angle)))["pose"]
            rolls.append(found["roll"] - roll - angle)
            others.append([found["yaw"] - yaw, found["pitch"] - pitch])
    return {
        "pictures": len(poses),
        "roll_error_degrees_of_known_turns": _spread(rolls),
        "yaw_and_pitch_change_degrees_by_turns": _spread(others),
        "mirror_error_degrees": dict(zip(("yaw", "pitch", "roll"), map(_spread, np.transpose(mirrored)), strict=True)),
        "mean_degrees": {key: round(float(np.mean([pose[key] for pose in poses])), 2) for key in poses[0]},
        "deviation_degrees": {key: round(float(np.std([pose[key] for pose in poses])), 2) for key in poses[0]},
    }


def _spread(errors: Any) -> dict[str, float]:
    off = np.abs(np.asarray(errors))
    return {"median": round(float(np.median(off)), 2), "p95": round(float(np.quantile(off, 0.95)), 2)}


def _turned(image: Image, degrees: float) -> Image:
    """Turned clockwise about the middle; what comes in from outside repeats the edge."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def _attributes(client: httpx.Client, content: bytes) -> dict[str, Any]:
    answer = client.post("/embed", files={"file": content}, params={"include_attributes": True}, timeout=60)
    found: dict[str, Any] = answer.raise_for_status().json()["attributes"]
    return found


def _crops(
    folder: Path, is_wanted: Callable[[str], bool], per_person: int, margin: float
) -> Iterable[tuple[str, bytes]]:
    """Face boxes of the wanted pictures, so many of each person."""
    boxes = read_annotations(folder / "labels.csv", "box", [])
    counts: dict[str, int] = defaultdict(int)
    names = []
    for name in sorted(boxes):
        person = name.split("/")[0]
        if is_wanted(name) and counts[person] < per_person:
            counts[person] += 1
            names.append(name)
    preparation = Preparation(LIMITS, boxes, margin)
    for name, content in Pictures(folder / "images.tar", names).read(names):
        yield name, preparation(name, content).content


def _png(image: Image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


if __name__ == "__main__":
    main()
