"""Keeps several workers on one port: starts them, replaces those that die or hang, drains them all at the end.

    run ──▶ one `_keep` for each worker: start ──▶ serves ──▶ died, or was killed for hanging ──▶ pause ──▶ start …
       SIGTERM, SIGINT, or one that cannot start ──▶ drain

The first worker starts alone: an error is reported once, and the others use what it downloads, records or compiles.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

from arcface_api.errors import ArcFaceError
from arcface_api.packs import InstalledPack
from arcface_api.serving import port
from arcface_api.serving.worker import HUNG_SECONDS, Worker
from arcface_api.settings import Settings

STEADY_SECONDS = 60
"""A worker that served this long died of something new; one that died sooner may die again and again."""
LONGEST_PAUSE_SECONDS = 60

_log = logging.getLogger(__name__)


def run(pack: InstalledPack, settings: Settings, listener: socket.socket, on_open: Callable[[], None]) -> None:
    """Serve a pack in `settings.workers` processes until SIGTERM or SIGINT.

    The listener is never opened: it keeps the port while workers come and go. `on_open` is called when the first worker
    lets callers in.

    Raises:
        SettingInvalid: As `port.share`.
        ArcFaceError: Why a worker could not start; the others have been drained.
    """
    address = port.share(listener)
    drain_seconds = settings.shutdown_grace_seconds + HUNG_SECONDS
    supervisor = _Supervisor(lambda: Worker(pack, settings, address), settings.workers, drain_seconds, on_open)
    asyncio.run(supervisor.supervise())


def pause_seconds(short_lives: int) -> int:
    """The pause before the next worker after this many short lives in a row: 0, 1, 2, 4, … seconds."""
    return min((1 << short_lives) >> 1, LONGEST_PAUSE_SECONDS)


class _Supervisor:
    def __init__(
        self, start: Callable[[], Worker], count: int, drain_seconds: float, on_open: Callable[[], None]
    ) -> None:
        self._start = start
        self._count = count
        self._drain_seconds = drain_seconds
        self._on_open = on_open
        self._first_serves = asyncio.Event()
        self._running: set[Worker] = set()
        self._serving: set[Worker] = set()

    async def supervise(self) -> None:
        """Return when all is answered after a signal to stop; raise what a worker that cannot start has raised."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        keepers = [asyncio.create_task(self._keep(is_first=number == 0)) for number in range(self._count)]
        tasks = [asyncio.create_task(stop.wait()), *keepers]
        try:
            finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._drain()
        if not stop.is_set():  # after a signal to stop, no worker's end is a failure
            for keeper in finished:
                keeper.result()

    async def _keep(self, *, is_first: bool) -> None:
        """Run one worker after the other; raise when another one would not help."""
        if not is_first:
            await self._first_serves.wait()
        loop = asyncio.get_running_loop()
        has_served, short_lives = False, 0
        while True:
            worker = self._start()
            self._running.add(worker)
            lived_seconds = 0.0
            try:
                await worker.opened()
            except ArcFaceError as error:
                if not has_served or not self._serving:
                    raise
                what_happened = f"Worker {worker.pid} could not start: {error}"
                await worker.ended()
            else:
                has_served, opened = True, loop.time()
                self._note_serving(worker)
                what_happened = f"Worker {worker.pid} {await worker.ended()}."
                lived_seconds = loop.time() - opened
            self._running.discard(worker)
            self._serving.discard(worker)
            # No pause after a hang: noticing it took long enough.
            short_lives = 0 if lived_seconds >= STEADY_SECONDS or worker.has_hung else short_lives + 1
            pause = pause_seconds(short_lives)
            _log.error("%s A new one starts in %d s; %d serve meanwhile.", what_happened, pause, len(self._serving))
            await asyncio.sleep(pause)

    def _note_serving(self, worker: Worker) -> None:
        self._serving.add(worker)
        if not self._first_serves.is_set():
            self._first_serves.set()
            self._on_open()
        _log.info("Worker %d serves: %d of %d workers serve.", worker.pid, len(self._serving), self._count)

    async def _drain(self) -> None:
        """Stop all workers, and kill those that do not end."""
        for worker in self._running:
            worker.stop()
        endings = [asyncio.create_task(worker.ended()) for worker in self._running]
        if not endings:
            return
        _, late = await asyncio.wait(endings, timeout=self._drain_seconds)
        if late:
            _log.error("Workers do not end within %g s and are killed.", self._drain_seconds)
            for worker in self._running:
                worker.kill()
            await asyncio.wait(endings)
