"""Embeds the pictures of labelled pairs, compares them, and keeps what the report is made from."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arcface_api import __version__
from arcface_api.cpus import machine
from arcface_api.errors import ArcFaceError, EvaluationFailed, EvaluationIncomplete
from arcface_api.evaluate.backend import REQUESTS_IN_FLIGHT, Backend, ModelFacts, OpenBackend
from arcface_api.evaluate.curve import Figures, Similarities, different_pairs_needed, figures
from arcface_api.evaluate.inputs import Pictures, Preparation, PreparedPicture
from arcface_api.evaluate.pairs import Pairs

OnProgress: TypeAlias = Callable[[str, float], None]
"""Called with what is going on, and the share of the whole that is done, 0 to 1."""
PAIRS_AT_ONCE = 4096
"""Compared together: 17 MB of embeddings on either side."""
DOUBTFUL_PAIRS = 10
"""How many of the least plausible pairs of each kind are listed."""
PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python-headless")


@dataclass(frozen=True)
class ComparedPair:
    """Two pictures and how similar they are."""

    image_a: str
    image_b: str
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was evaluated, how, and the result."""

    facts: ModelFacts
    alignments: Mapping[str, int]
    """Number of pictures by `Alignment`."""
    margin: float | None
    """Of the face boxes; None: the pictures were not cut."""
    pairs: Pairs
    figures: Figures
    left_out: Mapping[str, str]
    """Pictures that could not be embedded, each with the reason."""
    pairs_left_out: int
    """Pairs with one of those pictures; the figures are of the others."""
    doubtful_same: Sequence[ComparedPair]
    """The least similar same-person pairs, where wrong labels show."""
    doubtful_different: Sequence[ComparedPair]
    """The most similar different-person pairs."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        found = self.figures
        versions = {package.name: package.version for package in distributions() if package.name in PACKAGES}
        return {
            "evaluation": "arcface-api evaluate",
            "version": __version__,
            "model": asdict(self.facts),
            "alignments": dict(self.alignments),
            "margin": self.margin,
            "pairs": {
                "file": self.pairs.file,
                "sha256": self.pairs.sha256,
                "pictures": len(self.pairs.pictures),
                "same": found.same,
                "different": found.different,
                "left_out": self.pairs_left_out,
            },
            "accuracy": asdict(found.accuracy) if found.accuracy else None,
            "equal_error_rate": found.equal_error_rate,
            "area_under_roc": found.area_under_roc,
            "operating_points": [
                {
                    "wanted_far": wanted,
                    "different_pairs_needed": different_pairs_needed(wanted),
                    "found": asdict(point) if point else None,
                }
                for wanted, point in found.operating_points.items()
            ],
            "histogram": {
                "edges": [round(edge, 6) for edge in found.histogram.edges.tolist()],
                "same": found.histogram.same.tolist(),
                "different": found.histogram.different.tolist(),
            },
            "doubtful_same": [asdict(pair) for pair in self.doubtful_same],
            "doubtful_different": [asdict(pair) for pair in self.doubtful_different],
            "left_out": dict(self.left_out),
            "machine": {**machine(), "packages": versions},
        }

    def check(self) -> None:
        """Raises EvaluationIncomplete where pictures could not be embedded: the figures are not of all pairs."""
        if self.left_out:
            effect = f"{self.pairs_left_out:,} of {len(self.pairs.same):,} pairs were left out of the figures"
            raise EvaluationIncomplete(f"{_left_out(self.pairs, self.left_out, effect)} --output lists all of them.")


@dataclass
class _Embedded:
    """Of all pictures."""

    rows: NDArray[np.float32]
    """(n, dim), of length 1; NaN for pictures without an embedding."""
    facts: ModelFacts
    left_out: dict[str, str] = field(default_factory=dict)
    alignments: Counter[str] = field(default_factory=Counter)


def evaluate(
    pairs: Pairs, pictures: Pictures, preparation: Preparation, opened: OpenBackend, on_progress: OnProgress
) -> Evaluation:
    """Embed each picture of the pairs once, and compare them.

    Raises:
        EvaluationFailed: The service fails, or too few pictures can be embedded.
        ArcFaceError: The pictures cannot be read, or the model cannot be loaded.
    """
    embedded = asyncio.run(_embed_all(pairs.pictures, pictures, preparation, opened, on_progress))
    compared = similarities(embedded.rows, pairs)
    kept = np.isfinite(compared)
    same = pairs.same[kept]
    left_out = dict(sorted(embedded.left_out.items()))
    if same.all() or not same.any():
        raise EvaluationFailed(_left_out(pairs, left_out, "the remaining pairs are not of both kinds"))
    on_progress("done", 1)
    return Evaluation(
        facts=embedded.facts,
        alignments=embedded.alignments,
        margin=preparation.margin if preparation.boxes else None,
        pairs=pairs,
        figures=figures(compared[kept], same, pairs.folds[kept]),
        left_out=left_out,
        pairs_left_out=int(np.count_nonzero(~kept)),
        doubtful_same=_first_pairs(pairs, compared, kept & pairs.same, 1),
        doubtful_different=_first_pairs(pairs, compared, kept & ~pairs.same, -1),
    )


async def _embed_all(
    names: Sequence[str], pictures: Pictures, preparation: Preparation, opened: OpenBackend, on_progress: OnProgress
) -> _Embedded:
    on_progress("loading the model", 0)
    async with opened as backend:
        done = _Embedded(np.full((len(names), backend.facts.embedding_dim), np.nan, np.float32), backend.facts)
        index = {name: number for number, name in enumerate(names)}
        groups = _groups(pictures.read(names), backend)
        reading = asyncio.Lock()  # a generator runs on one thread at a time
        finished = 0

        def prepare(group: list[tuple[str, bytes]]) -> dict[str, PreparedPicture]:
            prepared = {}
            for name, content in group:
                try:
                    prepared[name] = preparation(name, content)
                except ArcFaceError as error:
                    done.left_out[name] = str(error)
            return prepared

        async def work() -> None:
            nonlocal finished
            while True:
                async with reading:
                    group = await asyncio.to_thread(next, groups, None)
                if group is None:
                    return
                prepared = await asyncio.to_thread(prepare, group)
                results = await backend.embed([*prepared.values()]) if prepared else []
                for name, result in zip(prepared, results, strict=True):
                    if isinstance(result, str):
                        done.left_out[name] = result
                    else:
                        embedding = result.embedding.astype(np.float64)
                        done.rows[index[name]] = embedding / np.linalg.norm(embedding)
                        done.alignments[result.alignment] += 1
                finished += len(group)
                on_progress(f"{finished:,} of {len(names):,} pictures", finished / len(names))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(REQUESTS_IN_FLIGHT):
                    tasks.create_task(work())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return done


def _groups(files: Iterator[tuple[str, bytes]], backend: Backend) -> Iterator[list[tuple[str, bytes]]]:
    """Pictures in groups within the backend's limits; one that is too large by itself is alone."""
    group: list[tuple[str, bytes]] = []
    size = 0
    for name, content in files:
        if group and (len(group) == backend.group_pictures or size + len(content) > backend.group_bytes):
            yield group
            group, size = [], 0
        group.append((name, content))
        size += len(content)
    if group:
        yield group


def similarities(rows: NDArray[np.float32], pairs: Pairs) -> Similarities:
    """Of each pair, from embeddings (pictures, dim) of length 1: (n,) float64; NaN where one is."""
    compared = np.empty(len(pairs.same))
    for start in range(0, len(compared), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        left, right = (rows[side[part]].astype(np.float64) for side in (pairs.left, pairs.right))
        compared[part] = np.einsum("ij,ij->i", left, right)
    return np.clip(compared, -1, 1)  # rounding may lead past the ends


def _first_pairs(pairs: Pairs, compared: Similarities, is_kind: NDArray[np.bool_], sign: int) -> list[ComparedPair]:
    """The pairs of a kind in ascending (`sign` 1) or descending (-1) order of similarity, as many as are listed."""
    numbers = np.flatnonzero(is_kind)
    order = np.argsort(sign * compared[numbers], kind="stable")[:DOUBTFUL_PAIRS]
    return [
        ComparedPair(pairs.pictures[pairs.left[number]], pairs.pictures[pairs.right[number]], float(compared[number]))
        for number in numbers[order].tolist()
    ]


def _left_out(pairs: Pairs, left_out: Mapping[str, str], effect: str) -> str:
    name, reason = next(iter(left_out.items()))
    pictures = f"{len(left_out):,} of {len(pairs.pictures):,} pictures could not be embedded"
    return f"{pictures}, and {effect}. The first: {name}: {reason}"
