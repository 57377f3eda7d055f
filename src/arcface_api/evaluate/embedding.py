"""All pictures through a source: read in groups, several on their way at once, each embedded once."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arcface_api.errors import ArcFaceError
from arcface_api.evaluate.pictures import Pictures
from arcface_api.evaluate.source import (
    REQUESTS_IN_FLIGHT,
    EmbeddedPicture,
    GroupLimits,
    ModelFacts,
    OpenSource,
    Source,
)

OnProgress = Callable[[str, float], None]
"""Told what is going on, and how much of the whole is done, 0 to 1."""
Prepare = Callable[[str, bytes], bytes]
"""What is sent of a picture: by its name, from its bytes to other bytes. May raise an ArcFaceError."""
Group = list[tuple[str, bytes]]


@dataclass(frozen=True)
class EmbeddedPictures:
    """The embeddings of all pictures."""

    rows: NDArray[np.float32]
    """(n, dim), of length 1; NaN for pictures without an embedding."""
    left_out: dict[str, str]
    """Names of those, each with the reason."""
    alignments: Counter[str]
    """How many of the others were aligned, and how, by the name of an `Alignment`."""
    facts: ModelFacts


async def embed_pictures(
    names: tuple[str, ...], pictures: Pictures, prepare: Prepare | None, opened: OpenSource, on_progress: OnProgress
) -> EmbeddedPictures:
    """Embed each picture once.

    Args:
        names: Of n pictures, in the order of the rows that are returned.
        pictures: Where they are.
        prepare: What is done to each before it is sent.
        opened: What embeds them.
        on_progress: Told how far it is.

    Raises:
        ArcFaceError: The pictures cannot be read, or the source gives out.
    """
    on_progress("loading the model", 0)
    async with opened as source:
        run = _Run(names, _groups(pictures.read(names), source.limits), prepare, source, on_progress)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(REQUESTS_IN_FLIGHT):
                    tasks.create_task(run.work())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return EmbeddedPictures(run.rows, run.left_out, run.alignments, source.facts)


class _Run:
    """What the tasks share."""

    def __init__(
        self,
        names: tuple[str, ...],
        groups: Iterator[Group],
        prepare: Prepare | None,
        source: Source,
        on_progress: OnProgress,
    ) -> None:
        self.rows = np.full((len(names), source.facts.embedding_dim), np.nan, np.float32)
        self.left_out: dict[str, str] = {}
        self.alignments: Counter[str] = Counter()
        self._index = {name: number for number, name in enumerate(names)}
        self._groups = groups
        self._reading = asyncio.Lock()
        self._prepare = prepare
        self._source = source
        self._on_progress = on_progress
        self._done = 0

    async def work(self) -> None:
        """Take one group after the other."""
        while group := await self._next_group():
            sent = await asyncio.to_thread(self._prepared, group)
            if sent:
                results = await self._source.embed([content for _, content in sent])
                for (name, _), result in zip(sent, results, strict=True):
                    self._keep(name, result)
            self._done += len(group)
            self._on_progress(f"{self._done:,} of {len(self._index):,} pictures", self._done / len(self._index))

    async def _next_group(self) -> Group:
        async with self._reading:  # a generator runs on one thread at a time
            return await asyncio.to_thread(next, self._groups, [])

    def _prepared(self, group: Group) -> Group:
        if self._prepare is None:
            return group
        sent: Group = []
        for name, content in group:
            try:
                sent.append((name, self._prepare(name, content)))
            except ArcFaceError as error:
                self.left_out[name] = str(error)
        return sent

    def _keep(self, name: str, result: EmbeddedPicture | str) -> None:
        if isinstance(result, str):
            self.left_out[name] = result
        else:
            embedding = result.embedding.astype(np.float64)
            self.rows[self._index[name]] = embedding / np.linalg.norm(embedding)
            self.alignments[result.alignment] += 1


def _groups(files: Iterator[tuple[str, bytes]], limits: GroupLimits) -> Iterator[Group]:
    """Pictures in groups that keep the limits; one that is too large by itself is alone."""
    group: Group = []
    size = 0
    for name, content in files:
        if group and (len(group) == limits.pictures or size + len(content) > limits.bytes):
            yield group
            group, size = [], 0
        group.append((name, content))
        size += len(content)
    if group:
        yield group
