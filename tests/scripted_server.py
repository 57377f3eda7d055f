"""An HTTP server that says exactly what a test wants, byte for byte."""

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from arcface_api.bench.connection import Address


class Last(bytes):
    """Bytes after which the connection is closed."""


class Reset(bytes):
    """Bytes after which the connection is reset, as when a process dies."""


class Slowly(bytes):
    """Bytes that are sent one by one, twenty a second."""


Script = Callable[[int], Awaitable[bytes | None]]
"""The number of the request (from 0, over all connections) → the bytes to send; None closes the connection."""


def answer(status: int = 200, **headers: str) -> bytes:
    """A whole answer with a body of two bytes; underscores in header names become dashes."""
    body = b"{}"
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ScriptedServer:
    """Runs in a thread while the block does.

    Attributes:
        bodies: Of the requests, in the order in which they came.
        heads: Their request lines and headers.
        came: When each came, on `time.monotonic`'s clock.
        connections: How many were opened.
        most_at_once: Most requests that waited for their answer at the same time.
    """

    def __init__(self, script: Script, port: int = 0) -> None:
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.came: list[float] = []
        self.connections = 0
        self.most_at_once = 0
        self._at_once = 0
        self._script, self._port = script, port
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_listening.wait(100)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Close all connections, whatever they wait for, and listen no more; the end of the block does it, too."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        talks: set[asyncio.Task[None]] = set()
        writers: list[asyncio.StreamWriter] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            writers.append(writer)
            talks.add(talk := asyncio.create_task(self._talk(reader, writer)))
            talk.add_done_callback(talks.discard)
            talk.add_done_callback(lambda _: writer.close())  # also where a test's own `_talk` raises

        server = await asyncio.start_server(accept, "127.0.0.1", self._port)
        self.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        self._is_listening.set()
        await self._end.wait()
        # Connections that are accepted now must reach `accept` first: a closed server leaks them.
        for listening in server.sockets:
            self._loop.remove_reader(listening.fileno())
        await _let_others_run()
        server.close()
        for talk in [*talks]:
            talk.cancel()
        for writer in writers:  # those that are closed may still wait for a caller to read
            writer.transport.abort()
        await _let_others_run()  # so that no socket is left for the garbage collector to complain of

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                number = len(self.bodies)
                self.bodies.append(body)
                self.heads.append(head)
                self.came.append(time.monotonic())
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                said = await self._script(number)
                self._at_once -= 1
                if said is None:
                    return
                for part in [said[at : at + 1] for at in range(len(said))] if isinstance(said, Slowly) else [said]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.05 * isinstance(said, Slowly))
                if isinstance(said, Reset):
                    raw: socket.socket = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if isinstance(said, Last | Reset):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


async def _let_others_run() -> None:
    """What asyncio does of itself in several steps comes to its end."""
    for _ in range(10):
        await asyncio.sleep(0)
