"""Does `arcface-api packs check` name the right way to feed a recogniser, and from how many pairs on?

Also how similar a recogniser's synthetic faces are in each way: what `packs import` and a start can find out.

    python -m benchmarks.questions.feeds RECOGNISER.onnx [RECOGNISER.onnx …] --lfw FOLDER --output FILE.json

Each recogniser is checked as it is, and in three variants whose graph does not show what they need: planes in the order
blue, green, red; numbers from 0 to 1; numbers from 0 to 255. What a variant computes from a feed, the recogniser itself
computes from another one, so that each picture is embedded once for all variants. The samples of one size have no pair
in common. The recognisers must be those that are fed (pixel - 127.5) / 127.5, RGB; `lfw.py` says what the folder holds.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import ChannelOrder, InputSpec
from arcface_api.evaluate import feeds, run
from arcface_api.evaluate.backend import open_local
from arcface_api.evaluate.curve import Labels, figures
from arcface_api.evaluate.inputs import Pairs, Pictures, read_pairs
from arcface_api.image import ImageLimits
from arcface_api.loading import similarities
from arcface_api.packs import PackLocations, Role, locate, usual_feeds
from arcface_api.progress import BarProgress, Progress
from arcface_api.settings import Settings
from arcface_api.wire import Align
from benchmarks.lib import lfw, machine, options

LIMITS = ImageLimits(250 * 250)
"""LFW's pictures."""
SIZES = {30: 10, 60: 10, 120: 5, 200: 3, 400: 1}
"""Pairs in a sample, half of each kind, and how many samples."""
STATED = InputSpec(None, 112, 112, 127.5, 127.5)


def _flipped(spec: InputSpec) -> InputSpec:
    return replace(spec, channel_order=next(order for order in ChannelOrder if order is not spec.channel_order))


def _then(factor: float, spec: InputSpec) -> InputSpec:
    """The feed after which a recogniser computes what it does after this one, followed by `factor * x - 1`."""
    return replace(spec, mean=spec.mean + spec.std / factor, std=spec.std / factor)


VARIANTS: dict[str, tuple[Callable[[InputSpec], InputSpec], InputSpec]] = {
    "as it is": (lambda spec: spec, STATED),
    "blue, green, red": (_flipped, _flipped(STATED)),
    "0 to 1": (lambda spec: _then(2, spec), replace(STATED, mean=0.0, std=255.0)),
    "0 to 255": (lambda spec: _then(1 / 127.5, spec), replace(STATED, mean=0.0, std=1.0)),
}
"""For a feed of the variant the recogniser's own, and the feed that is right for the variant."""


def samples(pairs: Pairs, size: int, count: int) -> list[NDArray[np.int64]]:
    """Indices of pairs, half of each kind, spread over all."""
    kinds = [np.flatnonzero(pairs.same), np.flatnonzero(~pairs.same)]
    chosen = [kind[:: len(kind) // (size // 2 * count)][: size // 2 * count] for kind in kinds]
    return [np.concatenate([kind[number::count] for kind in chosen]) for number in range(count)]


def embedded(recogniser: Path, specs: Sequence[InputSpec], pairs: Pairs, folder: Path, progress: Progress) -> Any:
    """The similarity of each pair for each feed: (feeds, pairs)."""
    boxes = {name: label.box.tolist() for name, label in lfw.read_labels(folder).items()}
    settings = Settings(pack=str(recogniser), device="cpu", precision="float32", lanes=1)
    opened = open_local(locate(str(recogniser), PackLocations.default(None)), settings, align=Align.AUTO, feeds=specs)
    preparation = run.Preparation(LIMITS, boxes)
    pictures = Pictures(folder / "images.tar", pairs.pictures)
    rows, _, _, _ = asyncio.run(run.embed_all(pairs.pictures, pictures, preparation, opened, progress))
    parts = np.split(rows, len(specs), axis=1)
    return np.stack([run.similarities(part / np.linalg.norm(part, axis=1, keepdims=True), pairs) for part in parts])


def some(pairs: Pairs, numbers: NDArray[np.int64]) -> Pairs:
    """These pairs alone, and their pictures."""
    both = np.concatenate([pairs.left[numbers], pairs.right[numbers]])
    names, places = np.unique(both, return_inverse=True)
    left, right = np.split(places, 2)
    pictures = tuple(pairs.pictures[name] for name in names)
    return replace(
        pairs, pictures=pictures, left=left, right=right, same=pairs.same[numbers], folds=pairs.folds[numbers]
    )


def probes(recogniser: Path) -> dict[str, float]:
    """The median cosine of different synthetic faces, by feed."""
    pack = locate(str(recogniser), PackLocations.default(None))
    found = pack.read(Role.RECOGNISER)
    return {spec.feed: round(similarity, 3) for spec, similarity in similarities(found.file, found.content).items()}


def verdict(compared: Any, same: Labels, right: InputSpec) -> dict[str, Any]:
    """What `packs check` would say of the similarities (feeds, pairs)."""
    results = [
        feeds.FeedResult(spec, spec == STATED, figures(found, same, np.arange(len(same)) % 10), found, same)
        for spec, found in zip(usual_feeds(STATED), compared, strict=True)
    ]
    decision = feeds.decide(results)
    of = {result.input: round(result.figures.separation, 3) for result in results}
    return {
        "said": decision.best.input.feed,
        "is_right": decision.best.input == right,
        "is_certain": decision.is_certain,
        "certainty": round(decision.certainty, 3),
        "separation_right": of[right],
        "separation_next": max(found for spec, found in of.items() if spec != right),
    }


def main() -> None:
    """Run the benchmark."""
    parser = options.parser(__doc__)
    parser.add_argument("recognisers", type=Path, nargs="+", metavar="RECOGNISER.onnx")
    parser.add_argument("--lfw", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    every = read_pairs(arguments.lfw / "pairs.csv")
    chosen = {size: samples(every, size, count) for size, count in SIZES.items()}
    needed = np.unique(np.concatenate([indices for several in chosen.values() for indices in several]))
    pairs = some(every, needed)
    fed = [(kind, spec) for kind in VARIANTS for spec in usual_feeds(STATED)]
    own = {(kind, spec): VARIANTS[kind][0](spec) for kind, spec in fed}
    specs = list(dict.fromkeys(own.values()))
    found = []
    for recogniser in arguments.recognisers:
        with BarProgress(recogniser.stem) as bar:
            compared = embedded(recogniser, specs, pairs, arguments.lfw, bar)
        for kind, (_, right) in VARIANTS.items():
            of_kind = compared[[specs.index(own[kind, spec]) for spec in usual_feeds(STATED)]]
            for size, several in chosen.items():
                for number, indices in enumerate(several):
                    places = np.searchsorted(needed, indices)
                    what = {"recogniser": recogniser.stem, "variant": kind, "pairs": size, "sample": number}
                    found.append(what | verdict(of_kind[:, places], pairs.same[places], right))
    summary = [
        {
            "pairs": size,
            "checks": len(of_size),
            "right_and_certain": sum(each["is_right"] and each["is_certain"] for each in of_size),
            "right_and_uncertain": sum(each["is_right"] and not each["is_certain"] for each in of_size),
            "wrong_and_uncertain": sum(not each["is_right"] and not each["is_certain"] for each in of_size),
            "wrong_and_certain": sum(not each["is_right"] and each["is_certain"] for each in of_size),
        }
        for size in SIZES
        for of_size in [[each for each in found if each["pairs"] == size]]
    ]
    for row in summary:
        print(row)
    result = {
        "benchmark": "feeds",
        "summary": summary,
        "probes": {recogniser.stem: probes(recogniser) for recogniser in arguments.recognisers},
        "results": found,
        "machine": machine.describe(),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
