"""Prepares and embeds the pictures of labelled pairs, compares them, and keeps what the report is made from.

One module, because embedding, comparing and the record of both follow one another once.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from arcface_api import __version__
from arcface_api.arrays import Image
from arcface_api.cpus import machine
from arcface_api.errors import ArcFaceError, EvaluationError
from arcface_api.evaluate.backend import REQUESTS_IN_FLIGHT, Backend, ModelFacts, OpenBackend, PreparedPicture
from arcface_api.evaluate.curve import HISTOGRAM_EDGES, Figures, Similarities, different_pairs_needed, figures
from arcface_api.evaluate.inputs import Pairs, Pictures
from arcface_api.face.geometry import align
from arcface_api.image import ImageLimits, decode
from arcface_api.progress import Progress

THUMBNAIL_SIDE = 96  # pixels
PAIRS_AT_ONCE = 4096
"""Compared together: 17 MB of embeddings on either side."""
DOUBTFUL_PAIRS = 10
"""How many of the least plausible pairs of each kind are listed."""
PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python-headless")


@dataclass(frozen=True)
class Preparation:
    """What is done to each picture before it is embedded."""

    limits: ImageLimits
    boxes: Mapping[str, Sequence[float]] | None = None
    """Left, top, width, height by the picture's name; None: pictures are face crops already."""
    margin: float = 1.0
    """Each box is cut this many times as wide and as high, about its centre."""
    landmarks: Mapping[str, Sequence[float]] | None = None
    """Ten numbers by the picture's name, in pixels of the whole picture, also where a box is cut."""

    def __call__(self, name: str, content: bytes) -> PreparedPicture:
        """Cut the picture's box to whole pixels, without loss and not squared, and move its landmarks along.

        Raises ArcFaceError if the picture cannot be decoded, or its box or a landmark lies outside.
        """
        points = None if self.landmarks is None else np.reshape(self.landmarks[name], (5, 2))
        if self.boxes is not None:
            image = decode(content, self.limits).image
            left, top, right, bottom = _sides(self.boxes[name], self.margin, image)
            if points is not None:
                points = points - (left, top)
                is_inside = (points >= -0.5) & (points <= (right - left - 0.5, bottom - top - 0.5))
                if not is_inside.all():
                    raise EvaluationError(
                        f"Landmark {int(is_inside.all(1).argmin()) + 1} of 5 lies outside the face box that is cut."
                        " Choose a larger --margin, or leave out --boxes: landmarks alone determine the crop, too."
                    )
            content = _encode(".png", image[top:bottom, left:right], cv2.IMWRITE_PNG_COMPRESSION, 1)
        return PreparedPicture(content, None if points is None else points.tolist())

    def thumbnail(self, name: str, content: bytes) -> bytes:
        """The prepared picture as a small JPEG, aligned where it has landmarks. Raises ArcFaceError as a call does."""
        prepared = self(name, content)
        image = decode(prepared.content, self.limits).image
        if prepared.landmarks is not None:
            image = align(image, np.array(prepared.landmarks, np.float32), THUMBNAIL_SIDE)
        scale = THUMBNAIL_SIDE / max(image.shape[:2])
        if scale < 1:
            size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        return _encode(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, 85)


def _encode(ending: str, image: Image, *options: int) -> bytes:
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    return cv2.imencode(ending, bgr, options)[1].tobytes()


def _sides(box: Sequence[float], margin: float, image: Image) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the box grown to `margin` times its size, within the picture."""
    width, height = box[2] * margin, box[3] * margin
    x, y = box[0] - (width - box[2]) / 2, box[1] - (height - box[3]) / 2
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(image.shape[1], round(x + width)), min(image.shape[0], round(y + height))
    if left >= right or top >= bottom:
        raise EvaluationError(
            f"Its box {x:g}, {y:g}, {width:g}, {height:g} (x, y, width, height) lies outside its"
            f" {image.shape[1]}x{image.shape[0]} pixels."
        )
    return left, top, right, bottom


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
                "same": found.curve.same,
                "different": found.curve.different,
                "left_out": self.pairs_left_out,
            },
            "accuracy": asdict(found.accuracy) if found.accuracy else None,
            "equal_error_rate": found.curve.equal_error_rate,
            "area_under_roc": found.curve.area_under,
            "operating_points": [
                {
                    "wanted_far": wanted,
                    "different_pairs_needed": different_pairs_needed(wanted),
                    "found": asdict(point) if point else None,
                }
                for wanted, point in found.operating_points.items()
            ],
            "histogram": {
                "edges": [round(edge, 6) for edge in HISTOGRAM_EDGES.tolist()],
                "same": found.histogram_same.tolist(),
                "different": found.histogram_different.tolist(),
            },
            "doubtful_same": [asdict(pair) for pair in self.doubtful_same],
            "doubtful_different": [asdict(pair) for pair in self.doubtful_different],
            "left_out": dict(self.left_out),
            "machine": {**machine(), "packages": versions},
        }

    def check(self) -> None:
        """Raises EvaluationError if pictures could not be embedded: the figures are not of all pairs."""
        if self.left_out:
            effect = f"{self.pairs_left_out:,} of {len(self.pairs.same):,} pairs were left out of the figures"
            raise EvaluationError(f"{why_left_out(self.pairs, self.left_out, effect)} --output lists all of them.")


def evaluate(
    pairs: Pairs, pictures: Pictures, preparation: Preparation, opened: OpenBackend, progress: Progress
) -> Evaluation:
    """Embed each picture of the pairs once, and compare them.

    Raises ArcFaceError if the pictures cannot be read or too few embedded, the model cannot be loaded, or the service
    fails.
    """
    embedding = embed_all(pairs.pictures, pictures, preparation, opened, progress)
    rows, facts, alignments, reasons = asyncio.run(embedding)
    compared = similarities(rows, pairs)
    kept = np.isfinite(compared)
    same = pairs.same[kept]
    left_out = dict(sorted(reasons.items()))
    if same.all() or not same.any():
        raise EvaluationError(why_left_out(pairs, left_out, "the remaining pairs are not of both kinds"))
    progress("done", 1.0, 1.0)
    return Evaluation(
        facts=facts,
        alignments=alignments,
        margin=preparation.margin if preparation.boxes else None,
        pairs=pairs,
        figures=figures(compared[kept], same, pairs.folds[kept]),
        left_out=left_out,
        pairs_left_out=int(np.count_nonzero(~kept)),
        doubtful_same=_first_pairs(pairs, compared, kept & pairs.same, 1),
        doubtful_different=_first_pairs(pairs, compared, kept & ~pairs.same, -1),
    )


async def embed_all(
    names: Sequence[str], pictures: Pictures, preparation: Preparation, opened: OpenBackend, progress: Progress
) -> tuple[NDArray[np.float32], ModelFacts, Counter[str], dict[str, str]]:
    """Rows (n, dim) of length 1, NaN without an embedding; the model; numbers by alignment; why some are left out."""
    alignments: Counter[str] = Counter()
    left_out: dict[str, str] = {}
    progress("loading the model", 0.0, 1.0)
    async with opened as backend:
        rows = np.full((len(names), backend.facts.embedding_dim), np.nan, np.float32)
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
                    left_out[name] = str(error)
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
                        left_out[name] = result
                    else:
                        embedding = result.embedding.astype(np.float64)
                        rows[index[name]] = embedding / np.linalg.norm(embedding)
                        alignments[result.alignment] += 1
                finished += len(group)
                progress(f"{finished:,} of {len(names):,} pictures", finished / len(names), 1.0)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(REQUESTS_IN_FLIGHT):
                    tasks.create_task(work())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
    return rows, backend.facts, alignments, left_out


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


def why_left_out(pairs: Pairs, left_out: Mapping[str, str], effect: str) -> str:
    """A sentence about pictures that could not be embedded, with the first reason."""
    name, reason = next(iter(left_out.items()))
    pictures = f"{len(left_out):,} of {len(pairs.pictures):,} pictures could not be embedded"
    return f"{pictures}, and {effect}. The first: {name}: {reason}"
