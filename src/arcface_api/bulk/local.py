"""An engine whose model is in this process: the service's own path from bytes to embedding, without HTTP."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from arcface_api.bulk.engine import GROUP_PICTURES, Engine, Facts, Read, next_group, read_some
from arcface_api.bulk.listing import Input
from arcface_api.bulk.rows import OPTIONS, POSE, QUALITY, Row, error_row
from arcface_api.embedder import Embedded, EmbedOptions, Picture
from arcface_api.errors import AttributesUnavailable
from arcface_api.loading import default_options, open_embedder
from arcface_api.packs import InstalledPack, Role
from arcface_api.settings import Settings
from arcface_api.wire import Align, Alignment

MOST_GROUPS = 32
"""Groups in progress at once, at most: this bounds the memory."""
FEWEST_GROUPS = 8
BATCHES_AHEAD = 4
"""Batches of all lanes that are in progress at once: one runs, the others are read, decoded and queued meanwhile."""


@asynccontextmanager
async def open_local(pack: InstalledPack, settings: Settings, chosen: dict[str, Any]) -> AsyncIterator[Engine]:
    """Load the pack's models. `chosen`: fields of `EmbedOptions`; what is left out is as the settings or the pack say.

    Raises PackError, ModelFailed or RuntimeUnfit if they cannot be loaded, AttributesUnavailable if the pack has none.
    """
    roles = pack.paths if chosen.get("include_attributes") else [Role.RECOGNISER]
    capacity = MOST_GROUPS * GROUP_PICTURES
    settings = settings.model_copy(update={"queue_capacity": capacity, "max_batch_files": 1, "workers": 1})
    options = replace(default_options(pack, settings), **chosen)
    embedder = await asyncio.to_thread(open_embedder, pack, {role: pack.read(role) for role in roles}, settings)
    try:
        if options.include_attributes and embedder.models.attributes is None:
            raise AttributesUnavailable(
                f"The pack {pack.manifest.name} has no models for age, gender and head pose. Leave out"
                " --include-attributes, or name a pack that has them, for example --pack antelopev2."
            )
        recogniser = embedder.recogniser
        session = recogniser.session
        outcomes = [Alignment.AUTO, Alignment.UNSURE] if options.align is Align.AUTO else [Alignment(options.align)]
        facts = Facts(
            model=recogniser.name,
            fingerprint=recogniser.fingerprint,
            dim=recogniser.dim,
            recipes=[embedder.recipes.of(options, outcome).digest for outcome in outcomes],
            provider=session.provider,
            precision=session.precision,
            options=_option_values(options),
        )

        common = {"model": facts.model, "fingerprint": facts.fingerprint}

        async def embed(inputs: Sequence[Input]) -> list[Row]:
            rows: list[Row] = []
            waiting = iter(inputs)
            while group := await asyncio.to_thread(read_some, waiting):
                pictures = [Picture(read, each.landmarks) for each, read in group if isinstance(read, bytes)]
                results = iter(await embedder.embed_many(pictures, options) if pictures else [])
                rows += [{"id": each.input.id, **common, **_row(each, results)} for each in group]
            return rows

        ahead = math.ceil(BATCHES_AHEAD * max(session.batch_sizes) * session.lanes / GROUP_PICTURES)
        most = min(MOST_GROUPS, max(FEWEST_GROUPS, ahead))
        yield Engine(
            facts=facts,
            rows=lambda inputs: _in_order(inputs, embed, most),
            max_image_bytes=settings.max_image_bytes,
        )
    finally:
        await embedder.close()


def _option_values(options: EmbedOptions) -> dict[str, Any]:
    """The options of the HTTP API by their names."""
    values = {name: getattr(options, name) for name in OPTIONS}
    return {name: value if isinstance(value, bool) else value.value for name, value in values.items()}


def _row(read: Read, results: Iterator[Embedded | Exception]) -> Row:
    """The row of an input; those that could be read have the next of the results."""
    result = next(results) if isinstance(read.content, bytes) else read.content
    return _embedded_row(result) if isinstance(result, Embedded) else error_row(result)


def _embedded_row(embedded: Embedded) -> Row:
    """Numbers are rounded as in the HTTP API's answers."""
    row: Row = {
        "embedding": embedded.embedding,
        "recipe": embedded.recipe,
        "norm": embedded.norm,
        "alignment": embedded.alignment.value,
        "warnings": [warning.value for warning in embedded.warnings],
    }
    if embedded.attributes is not None:
        person, head = embedded.attributes.age_gender, embedded.attributes.head_pose
        row |= {"age": person.age, "gender": person.gender}
        row |= {f"pose_{name}": round(getattr(head, name), 4) for name in POSE}
    if embedded.quality is not None:
        row |= {name: round(getattr(embedded.quality, name), digits) for name, digits in QUALITY.items()}
    if embedded.landmarks is not None:
        row["landmarks"] = embedded.landmarks.round(2).ravel()
    if embedded.crop_png is not None:
        row["crop"] = embedded.crop_png
    return row


async def _in_order(
    inputs: Iterator[Input], embed: Callable[[Sequence[Input]], Coroutine[Any, Any, list[Row]]], most: int
) -> AsyncGenerator[list[Row]]:
    """Results of groups in order, while up to `most` groups are in progress."""
    pending: deque[asyncio.Task[list[Row]]] = deque()
    try:
        while group := await asyncio.to_thread(next_group, inputs):
            pending.append(asyncio.create_task(embed(group)))
            if len(pending) == most:
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
