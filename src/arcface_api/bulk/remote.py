"""An engine whose model is in a running service."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

from arcface_api.bulk.engine import Engine, Facts, Read, next_group, read_some
from arcface_api.bulk.listing import Input
from arcface_api.bulk.rows import OPTIONS, POSE, QUALITY, Row, error_row
from arcface_api.client import AsyncClient, Embedding, Info, Picture
from arcface_api.client.images import Options
from arcface_api.errors import BulkError
from arcface_api.wire import Align, Alignment

FIRST_SECONDS = 60.0
"""How long a start waits for the service: less, as the address may be wrong."""
RETRY_SECONDS = 600.0
"""How long the job then waits for a service that is full, restarts or is unreachable."""
TIMEOUT_SECONDS = 120.0
"""Of one request: longer than the service's own default (`ARCFACE_REQUEST_TIMEOUT_SECONDS`)."""
CHECK_SECONDS = 1.0
"""How long rows wait, at most, to be given with those behind them."""


@asynccontextmanager
async def open_remote(url: str, chosen: dict[str, Any], api_key: str | None = None) -> AsyncIterator[Engine]:
    """Use the service at this URL. `chosen`: its options by their names; what is left out is as the service is set.

    Raises ArcFaceError if nothing answers there, or something other than arcface-api. `Engine.rows` raises BulkError if
    the service begins to embed in another way.
    """
    async with AsyncClient(url, api_key=api_key, timeout_seconds=FIRST_SECONDS, retry_seconds=FIRST_SECONDS) as client:
        info = await client.info()
    async with AsyncClient(
        url, api_key=api_key, timeout_seconds=TIMEOUT_SECONDS, retry_seconds=RETRY_SECONDS
    ) as client:
        facts = _facts(info, chosen)

        async def rows(inputs: Iterator[Input]) -> AsyncGenerator[list[Row]]:
            waiting: deque[Read] = deque()
            images = _images(inputs, waiting, has_landmarks=facts.options["align"] == Align.LANDMARKS)
            common = {"model": facts.model, "fingerprint": facts.fingerprint}
            # All options: one that is left out would change with the service's settings.
            results = client.embed_many(images, **cast("Options", facts.options))
            some: list[Row] = []
            checked = time.monotonic()
            async with aclosing(images), aclosing(cast("AsyncGenerator[Any]", results)):
                async for result in results:
                    for read in _until_sent(waiting):
                        row = error_row(read.content) if isinstance(read.content, Exception) else _row(result)
                        some.append({"id": read.input.id, **common, **row})
                    if isinstance(result, Embedding):
                        _check_same(facts, {"fingerprint": result.fingerprint, "recipes": [result.recipe]})
                    # Answers do not state precision and provider: rows are given when /info still does, as before them.
                    if time.monotonic() - checked >= CHECK_SECONDS:
                        _check_same(facts, vars(_facts(await client.info(), facts.options)))
                        yield some
                        some, checked = [], time.monotonic()
            # Also those behind the last one that was sent.
            some += [{"id": read.input.id, **common, **error_row(cast("Exception", read.content))} for read in waiting]
            _check_same(facts, vars(_facts(await client.info(), facts.options)))
            yield some

        yield Engine(facts=facts, rows=rows, max_image_bytes=info.facts["limits"]["max_image_bytes"])


async def _images(
    inputs: Iterator[Input], waiting: deque[Read], *, has_landmarks: bool
) -> AsyncGenerator[bytes | Picture]:
    """The inputs that can be read; all of them are put into `waiting`."""
    while group := await asyncio.to_thread(next_group, inputs):
        unread = iter(group)
        while some := await asyncio.to_thread(read_some, unread):
            for read in some:
                waiting.append(read)
                if isinstance(read.content, bytes):
                    yield Picture(read.content, read.input.landmarks) if has_landmarks else read.content


def _until_sent(waiting: deque[Read]) -> Iterator[Read]:
    """Those that could not be read, and the one behind them, which was sent."""
    while True:
        yield (read := waiting.popleft())
        if isinstance(read.content, bytes):
            return


def _facts(info: Info, chosen: dict[str, Any]) -> Facts:
    crop = info.facts["crop"]
    default = {"align": crop["align"], "fit": crop["fit"], "resize": "auto"}
    options = {name: chosen.get(name, default.get(name, False)) for name in OPTIONS}
    align = options["align"]
    outcomes = (Alignment.AUTO, Alignment.UNSURE) if align == Align.AUTO else (Alignment(align),)
    return Facts(
        model=info.model,
        fingerprint=info.fingerprint,
        dim=info.embedding_dim,
        recipes=[
            digest
            for outcome in outcomes
            for digest, recipe in info.facts["recipes"].items()
            if recipe["align"] == outcome
            and recipe["fit"] in (None, options["fit"])
            and recipe["resize"] == (options["resize"] if outcome is Alignment.NONE else "exact")
            and recipe["flip"] == options["flip"]
        ],
        provider=info.facts["provider"],
        precision=info.facts["precision"],
        options=options,
    )


def _check_same(facts: Facts, now: dict[str, Any]) -> None:
    """Raises BulkError if what makes the embeddings has changed."""
    for name, value in now.items():
        then = getattr(facts, name)
        if not set(value) <= set(then) if name == "recipes" else value != then:
            was, has = (", ".join(each) if isinstance(each, list) else each for each in (then, value))
            raise BulkError(
                f"The service embeds in another way than when this start of the job began: {name} was {was} and is"
                f" {has} now. One file must not hold both: run the service as it was and start the same command again,"
                " or begin again with --restart."
            )


def _row(result: Embedding | Exception) -> Row:
    if not isinstance(result, Embedding):
        return error_row(result)
    row: Row = {
        "embedding": result.vector,
        "recipe": result.recipe,
        "norm": result.norm,
        "alignment": result.alignment,
        "warnings": list(result.warnings),
    }
    if result.attributes is not None:
        row |= {"age": result.attributes.age, "gender": result.attributes.gender}
        row |= {f"pose_{name}": getattr(result.attributes.pose, name) for name in POSE}
    if result.quality is not None:
        row |= {name: getattr(result.quality, name) for name in QUALITY}
    if result.landmarks is not None:
        row["landmarks"] = result.landmarks.ravel()
    if result.crop is not None:
        row["crop"] = result.crop
    return row
