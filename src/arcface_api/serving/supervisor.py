"""Keeps several workers on one port: starts them, replaces those that die or hang, drains them all at the end.

    run ──▶ one `_keep` for each worker: start ──▶ serves ──▶ died, or was killed for hanging ──▶ pause ──▶ start …
       SIGTERM, SIGINT, or one that cannot start ──▶ drain

The first worker starts alone: an error is reported once, and the others use what it downloads, records or compiles.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from arcface_api.errors import ArcFaceError
from arcface_api.packs import InstalledPack
from arcface_api.serving import metrics_folder, port
from arcface_api.serving.worker import HUNG_SECONDS, Worker
from arcface_api.settings import Settings

STEADY_SECONDS = 60
"""A worker that served this long died of something new; one that died sooner may die again and again."""
LONGEST_PAUSE_SECONDS = 60

_log = logging.getLogger(__name__)


def run(pack: InstalledPack, settings: Settings, listener: socket.socket, on_open: Callable[[], None]) -> None:
    """Serve a pack in `settings.workers` processes until SIGTERM or SIGINT.

    The listener is never opened: it keeps the port while workers come and go. `on_open` is called when the first worker
    lets callers in. Raises why a worker could not start (the others have been drained), or what `port.share` raises.
    """
    address = port.share(listener)
    with ExitStack() as stack:
        folder = metrics_folder.make(stack)
        began_seconds, started = time.time(), set[int]()

        def start(number: int) -> Worker:
            began = time.time() if number in started else began_seconds
            started.add(number)
            return Worker(pack, settings, address, metrics_folder.share(folder, number, began) if folder else None)

        asyncio.run(_Supervisor(start, settings, on_open).supervise())


def pause_seconds(short_lives: int) -> int:
    """The pause before the next worker after this many short lives in a row: 0, 1, 2, 4, … seconds."""
    return min((1 << short_lives) >> 1, LONGEST_PAUSE_SECONDS)


@dataclass
class _Supervisor:
    start: Callable[[int], Worker]
    settings: Settings
    on_open: Callable[[], None]
    first_serves: asyncio.Event = field(default_factory=asyncio.Event)
    running: set[Worker] = field(default_factory=set)
    serving: set[Worker] = field(default_factory=set)

    async def supervise(self) -> None:
        """Return when all is answered after a signal to stop; raise what a worker that cannot start has raised."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self.settings.workers)]
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

    async def _keep(self, number: int) -> None:
        """Run one worker after the other; raise when another one would not help."""
        if number > 0:
            await self.first_serves.wait()
        loop = asyncio.get_running_loop()
        has_served, short_lives = False, 0
        while True:
            worker = self.start(number)
            pid = worker.process.pid
            self.running.add(worker)
            lived_seconds = 0.0
            try:
                await worker.opened()
            except ArcFaceError as error:
                if not has_served or not self.serving:
                    raise
                what_happened = f"Worker {pid} could not start: {error}"
                await worker.ended()
            else:
                has_served, opened = True, loop.time()
                self.serving.add(worker)
                if not self.first_serves.is_set():
                    self.first_serves.set()
                    self.on_open()
                _log.info("Worker %d serves: %d of %d workers serve.", pid, len(self.serving), self.settings.workers)
                what_happened = f"Worker {pid} {await worker.ended()}."
                lived_seconds = loop.time() - opened
            self.running.discard(worker)
            self.serving.discard(worker)
            if worker.metrics is not None:
                worker.metrics.forget_gauges()
            # No pause after a hang: noticing it took long enough.
            short_lives = 0 if lived_seconds >= STEADY_SECONDS or worker.has_hung else short_lives + 1
            pause = pause_seconds(short_lives)
            _log.error("%s A new one starts in %d s; serving meanwhile: %d.", what_happened, pause, len(self.serving))
            await asyncio.sleep(pause)

    async def _drain(self) -> None:
        """Stop all workers, and kill those that do not end."""
        for worker in self.running:
            worker.process.terminate()  # it answers what is in flight; while it loads, it ends at once
        endings = [asyncio.create_task(worker.ended()) for worker in self.running]
        if not endings:
            return
        seconds = self.settings.shutdown_grace_seconds + HUNG_SECONDS
        _, late = await asyncio.wait(endings, timeout=seconds)
        if late:
            _log.error("Workers do not end within %g s and are killed.", seconds)
            for worker in self.running:
                worker.process.kill()
            await asyncio.wait(endings)
