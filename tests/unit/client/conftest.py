"""Both clients, used alike."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from tenacity import wait_random_exponential

from arcface_api.client import ArcFaceError, AsyncClient, Client, Embedding, core


@dataclass
class Given:
    """What `embed_many` gave, until it ended or raised."""

    results: list[Embedding | ArcFaceError]
    raised: ArcFaceError | OSError | None = None

    @property
    def numbers(self) -> list[int]:
        """Those of the pictures that the results are of, negative for problems."""
        return [
            int(each.vector[0]) if isinstance(each, Embedding) else -int(str(each).split()[1]) for each in self.results
        ]


class Sync:
    """The synchronous client."""

    @staticmethod
    def call(url: str, method: str, *arguments: Any, **settings: Any) -> Any:
        with Client(url, **settings) as client:
            return getattr(client, method)(*arguments)

    @staticmethod
    def embed_many(url: str, images: Iterable[Any], **settings: Any) -> Given:
        given = Given([])
        with Client(url, **settings) as client:
            try:
                for result in client.embed_many(images):
                    given.results.append(result)
            except (ArcFaceError, OSError) as error:
                given.raised = error
        return given


class Async:
    """The asynchronous one."""

    @staticmethod
    def call(url: str, method: str, *arguments: Any, **settings: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient(url, **settings) as client:
                return await getattr(client, method)(*arguments)

        return asyncio.run(run())

    @staticmethod
    def embed_many(url: str, images: Iterable[Any], **settings: Any) -> Given:
        async def run() -> Given:
            given = Given([])
            async with AsyncClient(url, **settings) as client:
                try:
                    async for result in client.embed_many(images):
                        given.results.append(result)
                except (ArcFaceError, OSError) as error:
                    given.raised = error
            return given

        return asyncio.run(run())


Kind = type[Sync] | type[Async]


@pytest.fixture(params=[Sync, Async])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every promise holds for both."""
    return request.param  # type: ignore[no-any-return]  # pytest has no type for it


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no Retry-After says how long to wait."""
    monkeypatch.setattr(core, "_backoff", wait_random_exponential(multiplier=0.002, max=0.05))
