"""What is alignment worth? Verification accuracy over HTTP, for faces cut in every way and sent in every way.

    python -m benchmarks.questions.alignment RECOGNISER.onnx [RECOGNISER.onnx …] --lfw FOLDER --output FILE.json
    python -m benchmarks.lib.alignment_plot FILE.json PLOT.png

The service is started with each recogniser. LFW's faces are cut as detectors, cameras and networks may cut them
(`training/landmarks/conditions.py`), and each crop is sent to `/embed/batch` stretched, letterboxed, with
`align=auto`, and with `align=landmarks` and its labels. Where a label lies outside the crop, the latter gets the crop
in a black frame just wide enough, which gives the same aligned crop. Faces that are covered, badly lit or cut off
(`HARD`) are not letterboxed; those that are covered are also compared with themselves uncovered, at the threshold
that uncovered faces have.

Pairs are of people on whom the landmark regressor was not trained (`unseen`). A run that was cut off goes on where it
was: each condition is kept under `build/alignment/` until the result is whole.
"""

import argparse
import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api.bench.connection import Address, raw_request
from arcface_api.progress import BarProgress
from benchmarks.lib import machine, options, recogniser
from benchmarks.lib.alignment_client import WAYS, Client
from benchmarks.lib.alignment_crops import ALIGNED, NAMES, sent
from benchmarks.lib.alignment_pairs import UNCOVERED, Pairs, table_row, unseen_pairs
from benchmarks.lib.environments import ROOT
from benchmarks.lib.recogniser import say
from benchmarks.lib.service import Service, ask, free_port, own_command, running_service, write_report
from training.landmarks.conditions import EVERY, HARD
from training.landmarks.faces import Face, each_face

KEPT = ROOT / "build" / "alignment"
CODE = (ROOT / "src" / "arcface_api", ROOT / "training" / "landmarks")
"""What the figures depend on, beside the models."""
CHUNK = 64
"""Faces that are cut, sent and forgotten together; no more fit into a batch request."""
CHUNKS_AT_ONCE = 2
"""So that one is cut while another is embedded."""


@dataclass(frozen=True)
class Answered:
    """Some pictures, and what the service made of them."""

    pictures: list[str]
    answers: dict[str, tuple[NDArray[np.float32], list[str]]]
    """By the way of sending: embeddings, and what became of the alignment."""
    framed: int


def main() -> None:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    cv2.setNumThreads(1)
    models: list[Path] = arguments.recognisers
    about_machine = machine.describe()  # with the revision that is about to be measured
    pairs = unseen_pairs(arguments.lfw, arguments.people)
    found = {
        model.stem: measure(model, arguments.lfw, pairs, arguments.conditions, is_fresh=arguments.fresh)
        for model in models
    }
    write_report({"benchmark": "alignment", "recognisers": found, "machine": about_machine}, arguments.output)
    for model in models:
        _kept_file(model).unlink()


def measure(model: Path, folder: Path, pairs: Pairs, names: Sequence[str], *, is_fresh: bool) -> dict[str, Any]:
    """Some conditions, through a service of its own."""
    port = free_port()
    health = raw_request(Address("127.0.0.1", port), "GET", "/health")
    command = own_command(model, port, "--request-timeout-seconds", "300")  # the machine may be a busy one
    kept_file = _kept_file(model)
    kept_file.parent.mkdir(parents=True, exist_ok=True)
    with running_service(command, port, health, log=kept_file.with_suffix(".log")) as service:
        about = describe(model, service, pairs)
        conditions = {} if is_fresh else read_kept(kept_file, about)
        todo = [name for name in names if name not in conditions]
        say(f"{model.stem}: {len(todo)} of {len(names)} conditions to measure")
        with Client(service.address) as client, BarProgress(model.stem) as bar:
            for number, name in enumerate(todo):

                def show(share: float, name: str = name, number: int = number) -> None:
                    bar(name, (number + share) / len(todo))

                conditions[name] = measure_condition(client, folder, name, pairs, show)
                part = kept_file.with_suffix(".part")
                part.write_text(json.dumps({"about": about, "conditions": conditions}), encoding="utf-8")
                part.replace(kept_file)
                say(f"\n{name}: {conditions[name]}")
    return {**about, "conditions": {name: conditions[name] for name in NAMES if name in names}}


def measure_condition(
    client: Client, folder: Path, name: str, pairs: Pairs, show: Callable[[float], None]
) -> dict[str, Any]:
    """Embed each picture once in each way, and compare the pairs."""
    wanted = pairs.pictures
    left_out = {ALIGNED: ("letterboxed", "landmarks"), **dict.fromkeys(HARD, ("letterboxed",))}.get(name, ())
    ways = [way for way in WAYS if way not in left_out]

    def embed(faces: list[Face]) -> Answered:
        batch = [sent(face, name) for face in faces]
        answers = {way: client.embed(batch, way) for way in ways}
        if name in EVERY and EVERY[name].cover:
            answers[UNCOVERED] = client.embed([sent(face, "tight") for face in faces], "auto")
        return Answered([face.name for face in batch], answers, sum(face.is_framed for face in batch))

    embeddings: dict[str, dict[str, Any]] = defaultdict(dict)
    unsure: set[str] = set()
    framed = 0
    for part in in_parallel(embed, chunks(each_face(folder, wanted.__contains__))):
        for way, (rows, alignments) in part.answers.items():
            embeddings[way].update(zip(part.pictures, rows, strict=True))
            if way != UNCOVERED:
                unsure.update(each for each, found in zip(part.pictures, alignments, strict=True) if found == "unsure")
        framed += part.framed
        show(len(embeddings["auto"]) / len(wanted))
    return {"pictures": len(wanted), "framed": framed, "unseen": table_row(pairs, embeddings, unsure)}


def chunks(faces: Iterator[Face]) -> Iterator[list[Face]]:
    """So many faces at a time."""
    while chunk := list(islice(faces, CHUNK)):
        yield chunk


def in_parallel(embed: Callable[[list[Face]], Answered], parts: Iterable[list[Face]]) -> Iterator[Answered]:
    """The answers for each part, in order; a part is cut no earlier than it is needed."""
    waiting: deque[Future[Answered]] = deque()
    with ThreadPoolExecutor(CHUNKS_AT_ONCE) as pool:
        for part in parts:
            waiting.append(pool.submit(embed, part))
            if len(waiting) > CHUNKS_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def describe(model: Path, service: Service, pairs: Pairs) -> dict[str, Any]:
    """What is measured: figures of two runs belong together only where all of it is equal."""
    health = json.loads(service.first_answer)
    info = json.loads(ask(service.address, raw_request(service.address, "GET", "/info"))[1])
    return {
        **recogniser.describe(model),
        "code_sha256": hash_of(CODE),
        "regressor_sha256": info["crop"]["regressor_sha256"],
        "provider": health["provider"],
        "precision": health["precision"],
        "pairs": {"unseen": pairs.describe()},
    }


def hash_of(folders: Sequence[Path]) -> str:
    """SHA-256 of all Python files in some folders, with their names."""
    total = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            content = file.read_bytes()
            total.update(f"{file.relative_to(folder)} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _kept_file(model: Path) -> Path:
    return KEPT / f"{model.stem}.json"


def read_kept(file: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions of a run of the same that was cut off."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    conditions: dict[str, Any] = kept["conditions"] if kept.get("about") == about else {}
    return conditions


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("recognisers", type=Path, nargs="+", metavar="RECOGNISER.onnx")
    parser.add_argument("--lfw", type=Path, required=True, metavar="FOLDER", help="images.tar, labels.csv")
    parser.add_argument("--people", type=int, metavar="N", help="only so many of the people never seen")
    parser.add_argument("--conditions", nargs="+", default=NAMES, choices=NAMES, metavar="NAME")
    parser.add_argument("--fresh", action="store_true", help="measure again what a run that was cut off has kept")
    return parser


if __name__ == "__main__":
    main()
