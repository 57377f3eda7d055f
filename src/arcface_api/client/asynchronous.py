"""`AsyncClient`: does what the core's generators yield, with httpx and asyncio, and decides nothing itself."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from arcface_api.client.answers import Answer, Embedding, Health, Info
from arcface_api.client.connection import Connection
from arcface_api.client.core import Core
from arcface_api.client.effects import Call, Effect, End, Enter, Give, IsDone, Join, Pull, Read, Send, Sleep, Start, T
from arcface_api.client.gate import Ticket
from arcface_api.client.images import Encoded, ImageLike, Options, Picture, encoded, several
from arcface_api.client.problems import ImageUnreadable, ServiceUnreachable
from arcface_api.errors import ArcFaceError


class AsyncClient(Connection[httpx.AsyncClient]):
    """`Client` for asyncio: the same methods with the same promises, to be awaited.

    One event loop uses it at a time. In another one, after the first has ended, it opens new connections.

    >>> import asyncio
    >>> from arcface_api.client import AsyncClient
    >>> async def main():
    ...     async with AsyncClient("http://localhost:5555") as client:
    ...         embedding = await client.embed("face.jpg")
    ...         async for result in client.embed_many(["face.jpg", "face.jpg"]):
    ...             print(await client.similarity(embedding, result) > 0.999)
    >>> asyncio.run(main())
    True
    True
    """

    def _open(self, **settings: Any) -> httpx.AsyncClient:
        self._loop: asyncio.AbstractEventLoop | None = None
        return httpx.AsyncClient(**settings)

    def _entered(self) -> Core:
        """What decides in this event loop; in another one than before, with new connections."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop and self._loop.is_running():
                raise RuntimeError("Another event loop uses this AsyncClient now. Make one for each loop.")
            if self._loop:
                self._begin_again()
            self._loop = loop
        return self._core

    async def embed(self, image: ImageLike | Picture, **options: Unpack[Options]) -> Embedding:
        """As `Client.embed`. A file is read in another thread."""
        return await self._run(self._entered().embed(image, options))

    async def embed_many(
        self,
        images: Iterable[ImageLike | Picture] | AsyncIterable[ImageLike | Picture],
        **options: Unpack[Options],
    ) -> AsyncIterator[Embedding | ArcFaceError]:
        """As `Client.embed_many`; `images` may also be asynchronous. A loop that is left early ends its requests."""
        call, source = self._entered().embed_many(options), _each(several(images))
        flights: set[asyncio.Task[Any]] = set()
        turns = asyncio.Semaphore(self._requests_at_once)
        value: Any = None

        async def in_turn(started: Call[Any]) -> Any:
            async with turns:
                return await self._run(started)

        try:
            while True:
                try:
                    effect = call.send(value)
                except StopIteration:
                    return
                value = None
                match effect:
                    case Pull():
                        value = await _pulled(source)
                    case Start(started):
                        flights.add(value := asyncio.create_task(in_turn(started)))
                    case IsDone(flight):
                        value = flight.done()
                    case Join(flight):
                        flights.discard(flight)
                        value = await flight
                    case Give(results):
                        for result in results:
                            yield result
                    case _:
                        value = await self._do(effect)
        finally:
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)
            call.close()

    async def similarity(
        self,
        one: Embedding | ImageLike | Picture,
        other: Embedding | ImageLike | Picture,
        **options: Unpack[Options],
    ) -> float:
        """As `Client.similarity`."""
        return await self._run(self._entered().similarity(one, other, options))

    async def threshold(self, far: float) -> float:
        """As `Client.threshold`."""
        return await self._run(self._entered().threshold(far))

    async def info(self) -> Info:
        """As `Client.info`."""
        return await self._run(self._entered().info())

    async def health(self) -> Health:
        """As `Client.health`."""
        return await self._run(self._entered().health())

    async def close(self) -> None:
        """As `Client.close`."""
        self._entered()
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        value = None
        try:
            while True:
                try:
                    effect = call.send(value)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # a Call[T] returns T
                value = await self._do(effect)
        finally:
            call.close()

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return await self._send(effect)
            case Read(picture):
                return await _read_aside(picture)
            case Enter(pictures):
                return await self._enter(pictures)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
        return None

    async def _send(self, send: Send) -> Answer | ServiceUnreachable:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._http.request(**self._request(send))
                return Answer(answer.status_code, answer.headers, answer.content)
        except (httpx.TransportError, httpx.DecodingError, TimeoutError) as error:
            return self._unreachable(error)

    async def _enter(self, pictures: int) -> Ticket:
        opened = asyncio.Event()
        ticket = self._core.gate.ask(pictures, opened.set)
        try:
            await opened.wait()
        except BaseException:
            self._core.gate.leave(ticket)
            raise
        return ticket


async def _read_aside(picture: ImageLike | Picture) -> Encoded | ImageUnreadable:
    """As `encoded`, without stopping the event loop."""
    return encoded(picture) if isinstance(picture, bytes) else await asyncio.to_thread(encoded, picture)


async def _pulled(source: AsyncIterator[ImageLike | Picture]) -> Encoded | ImageUnreadable | End:
    try:
        return await _read_aside(await anext(source))
    except StopAsyncIteration:
        return End()
    except Exception as error:  # noqa: BLE001  # the core raises it, after the results that are due
        return End(error)


async def _each(
    images: Iterable[ImageLike | Picture] | AsyncIterable[ImageLike | Picture],
) -> AsyncIterator[ImageLike | Picture]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
